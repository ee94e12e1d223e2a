//! Limits how fast probes begin.

use std::time::Duration;

/// The longest time between the first probes of two targets of a namespace
/// that are new at once.
const LONGEST_GAP: Duration = Duration::from_millis(20);
/// How many probes may always begin at once, even if few are due on average.
const BURST: u32 = 16;
/// Additional probes may begin at once: as many as the pace allows in this
/// time.
const BURST_TIME: Duration = Duration::from_millis(40);

/// Delays probes that would begin at more than a given rate, with the generic
/// cell rate algorithm (ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Pace {
    gap: Duration,
    theoretical: Duration,
}

impl Pace {
    /// Sets how many probes may begin per second. A rate below 50 counts as 50.
    /// The next probe does not begin later because of a new rate.
    pub(super) fn set_rate(&mut self, per_second: f64) {
        let next = self.next();
        let gap = Duration::try_from_secs_f64(1.0 / per_second);
        self.gap = gap.unwrap_or(LONGEST_GAP).min(LONGEST_GAP);
        self.theoretical = self.theoretical.min(next + self.tolerance());
    }

    /// Returns the time from which the next probe may begin.
    pub(super) fn next(&self) -> Duration {
        self.theoretical.saturating_sub(self.tolerance())
    }

    fn tolerance(&self) -> Duration {
        self.gap * BURST + BURST_TIME
    }

    /// Returns how far the probes that began are ahead of the rate.
    pub(super) fn ahead(&self, now: Duration) -> Duration {
        self.theoretical.saturating_sub(now)
    }

    /// Records that a probe began.
    pub(super) fn went(&mut self, now: Duration) {
        self.theoretical = self.theoretical.max(now) + self.gap;
    }
}
