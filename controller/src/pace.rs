//! Decides how long events are gathered before the next pass, which computes
//! the statuses that may have changed. This module reads no clock: callers pass
//! the time as `now`.

use std::time::Duration;

use crate::liveness::Time;

/// The shortest time for which events are gathered.
pub const GATHER: Duration = Duration::from_millis(75);

/// Passes may use a fifth of one processor.
const SHARE: u32 = 5;

/// What passes did not use of their share in this time is saved for later. So
/// the first passes after a quiet time follow each other closely, and a change
/// is reported soon.
const SAVED: Duration = Duration::from_secs(4);

/// The processor time that passes have used.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the share of the past passes will have made up for their use.
    even_at: Time,
}

impl Pace {
    /// Notes a pass that ended at `now` and used a processor for `used`.
    pub fn passed(&mut self, used: Duration, now: Time) {
        let saved_since = now.saturating_sub(SAVED);
        self.even_at = self.even_at.max(saved_since) + used * SHARE;
    }

    /// How long to gather events from `now` on.
    pub fn gather(&self, now: Time) -> Duration {
        GATHER.max(self.even_at.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Time {
        Duration::from_millis(milliseconds)
    }

    /// Makes passes of the given length for a minute. Returns their number.
    fn passes(pace: &mut Pace, used: Duration, from: Time) -> u32 {
        let (mut now, mut passes) = (from, 0);
        while now < from + ms(60_000) {
            now += pace.gather(now) + used;
            pace.passed(used, now);
            passes += 1;
        }
        passes
    }

    #[test]
    fn after_a_quiet_time_a_long_pass_delays_the_next_one_no_more_than_a_short_one() {
        let mut pace = Pace::default();
        let now = ms(60_000);
        assert_eq!(pace.gather(now), GATHER);
        pace.passed(ms(800), now);
        assert_eq!(pace.gather(now), GATHER);
        pace.passed(ms(800), now + ms(1000));
        assert_eq!(pace.gather(now + ms(1000)), ms(3000));
        assert_eq!(pace.gather(now + ms(5000)), GATHER, "it is made up for");
    }

    #[test]
    fn passes_use_a_fifth_of_a_processor_and_what_was_saved() {
        for used in [10, 100, 1000].map(ms) {
            let mut pace = Pace::default();
            let used_in_a_minute = passes(&mut pace, used, ms(60_000)) * used;
            // The last pass may end after the minute, and is then paid for later.
            let most = (ms(60_000) + SAVED) / SHARE + 2 * used;
            assert!(used_in_a_minute <= most, "{used:?}: {used_in_a_minute:?}");
        }
    }
}
