//! Limits how fast probes begin.

use std::time::Duration;

/// The longest time between the first probes of two new targets of a namespace.
const LONGEST_GAP: Duration = Duration::from_millis(20);
/// The number of probes that may always begin at once, even at a low rate.
const BURST: u32 = 16;
/// In addition to [`BURST`] probes, as many probes may begin at once as the
/// rate allows in this time.
const BURST_TIME: Duration = Duration::from_millis(40);

/// Delays probes to keep them within a given rate, with the generic cell rate
/// algorithm (ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct Pace {
    gap: Duration,
    theoretical: Duration,
}

impl Pace {
    /// Sets how many probes may begin per second. A rate below 50 counts as 50.
    /// A change of the rate never makes the next probe wait longer.
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

    /// Returns the time from `now` until the rate has allowed all probes that
    /// have begun.
    pub(super) fn ahead(&self, now: Duration) -> Duration {
        self.theoretical.saturating_sub(now)
    }

    /// Records that a probe began.
    pub(super) fn went(&mut self, now: Duration) {
        self.theoretical = self.theoretical.max(now) + self.gap;
    }
}
