//! One clock for everything: the wall's time at start plus the monotonic time
//! since, so that a step of the wall clock moves nothing.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The anchored clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            wall: Timestamp::now(),
        }
    }

    /// Time since the start; what machines with deadlines are told.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What [`Clock::now`] gave at an instant; nothing before the start.
    pub fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }

    /// What [`Clock::now`] gives at a time of day; nothing before the start.
    pub fn since_start(&self, wall: Timestamp) -> Duration {
        let since = wall.duration_since(self.wall);
        Duration::try_from(since).unwrap_or(Duration::ZERO)
    }

    /// The time of day for people, at a moment that [`Clock::now`] gave.
    pub fn wall(&self, now: Duration) -> Timestamp {
        self.wall
            .checked_add(now)
            .expect("a process does not run until the year 9999")
    }
}
