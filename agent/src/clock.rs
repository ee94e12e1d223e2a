//! The agent's clock. A deadline counts from the agent's start, so a jump of
//! the time of day does not move the deadline. The agent reads the time of day
//! only when needed, because the time of day may be wrong at the start and
//! corrected later.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::decide::permission::{ApiServerTime, Daytime};

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
    /// an instant before the agent's start.
    pub fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }

    /// Converts a timestamp from [`Clock::steady_wall`] back into the time
    /// since the agent's start. Returns zero for a timestamp before the agent's
    /// start.
    pub fn since_start(&self, wall: Timestamp) -> Duration {
        let since = wall.duration_since(self.wall);
        Duration::try_from(since).unwrap_or(Duration::ZERO)
    }

    /// Converts a time of [`Clock::now`] to a timestamp: the time of day at the
    /// agent's start plus the time since the start. State machines compare
    /// these timestamps with each other. The timestamps never jump, but may
    /// differ from the time of day. To compare with a time that a person set,
    /// use [`Daytime`].
    pub fn steady_wall(&self, now: Duration) -> Timestamp {
        self.wall
            .checked_add(now)
            .expect("a process does not run until the year 9999")
    }
}

/// Reads the time since the host started, including the time during which the
/// host was suspended (CLOCK_BOOTTIME).
pub fn uptime() -> Duration {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME);
    uptime
        .expect("Linux has had this clock since 2.6.39")
        .into()
}

/// Reads the time of day from the host's clock. An agent that uses no API
/// server has no other clock.
pub fn local_daytime() -> Daytime {
    Daytime {
        here: Timestamp::now(),
        api_server: ApiServerTime::NoApiServer,
    }
}
