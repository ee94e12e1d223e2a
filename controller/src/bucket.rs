//! A limit on how often something happens.

use std::time::Duration;

use crate::liveness::Time;

/// Lets a number of things happen at once, and from then on one per pause. The
/// number, the pause and the time are arguments.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    taken: u32,
    since: Time,
}

impl Bucket {
    /// Whether one more may happen now. If so, it is counted.
    pub(crate) fn take(&mut self, burst: u32, pause: Duration, now: Time) -> bool {
        while self.taken > 0 && self.since + pause <= now {
            self.taken -= 1;
            self.since += pause;
        }
        if self.taken == 0 {
            self.since = now;
        }
        let is_free = self.taken < burst;
        if is_free {
            self.taken += 1;
        }
        is_free
    }

    /// The time at which the next one may happen.
    pub(crate) fn ready_at(&self, burst: u32, pause: Duration, now: Time) -> Time {
        if self.taken < burst {
            now
        } else {
            self.since + pause
        }
    }
}
