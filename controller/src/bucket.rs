//! A limit on how often an action may happen.

use std::time::Duration;

use crate::liveness::Time;

/// A token bucket: lets a burst of actions happen at once, then one action per
/// pause. Callers pass the size of the burst, the pause and the current time.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    taken: u32,
    since: Time,
}

impl Bucket {
    /// Whether one more action may happen now. The bucket counts each permitted
    /// action.
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

    /// Whether a whole burst of actions may happen now.
    pub(crate) fn is_full(&self, pause: Duration, now: Time) -> bool {
        self.since + pause * self.taken <= now
    }

    /// The time at which the next action may happen.
    pub(crate) fn ready_at(&self, burst: u32, pause: Duration, now: Time) -> Time {
        if self.taken < burst {
            now
        } else {
            self.since + pause
        }
    }
}
