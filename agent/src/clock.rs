//! One clock for everything: the time of day at the start plus the monotonic
//! time since then, so that a step of the wall clock moves nothing.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A clock that is anchored at the agent's start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    /// Returns a clock that starts now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            wall: Timestamp::now(),
        }
    }

    /// Returns the time since the start; all deadlines count in it.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns what [`Clock::now`] returned at an instant; zero before the
    /// start.
    pub fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }

    /// Returns what [`Clock::now`] returns at a time of day; zero before the
    /// start.
    pub fn since_start(&self, wall: Timestamp) -> Duration {
        let since = wall.duration_since(self.wall);
        Duration::try_from(since).unwrap_or(Duration::ZERO)
    }

    /// Returns the time of day, for people, at a moment that [`Clock::now`]
    /// returned.
    pub fn wall(&self, now: Duration) -> Timestamp {
        self.wall
            .checked_add(now)
            .expect("a process does not run until the year 9999")
    }
}
