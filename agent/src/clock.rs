//! The agent's only clock: the time of day at the start plus the monotonic time
//! since then. A step of the wall clock moves no deadline of the agent.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A clock that counts from the agent's start.
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

    /// Returns the time since the agent's start, from which all deadlines are
    /// measured.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Converts an instant to a time since the agent's start. Returns zero for
    /// an instant before the start.
    pub fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }

    /// Converts a time of day to a time since the agent's start. Returns zero
    /// for a time before the start.
    pub fn since_start(&self, wall: Timestamp) -> Duration {
        let since = wall.duration_since(self.wall);
        Duration::try_from(since).unwrap_or(Duration::ZERO)
    }

    /// Converts a time that [`Clock::now`] returned to a time of day, for
    /// people.
    pub fn wall(&self, now: Duration) -> Timestamp {
        self.wall
            .checked_add(now)
            .expect("a process does not run until the year 9999")
    }
}
