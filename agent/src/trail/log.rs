//! Logs the records of the trail: one line each, up to a rate. The code does not
//! read the clock.

use jiff::Timestamp;

use super::record::Record;

/// The number of records that may be logged at once.
const BURST: f64 = 60.0;
/// The number of records that may be logged per second on average.
const PER_SECOND: f64 = 1.0;
/// The pause between two lines that sum up what was not logged, in seconds.
const SUM_PAUSE: f64 = 10.0;

/// Limits the log lines.
#[derive(Debug)]
pub(super) struct Log {
    room: f64,
    at: Option<Timestamp>,
    left_out: usize,
    summed_up: Option<Timestamp>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            room: BURST,
            at: None,
            left_out: 0,
            summed_up: None,
        }
    }
}

impl Log {
    /// Returns the records of `records` that may be logged at the time `now`,
    /// and the number of other records to sum up in one line, if such a line is
    /// due.
    pub(super) fn take<'a>(
        &mut self,
        records: &'a [Record],
        now: Timestamp,
    ) -> (&'a [Record], Option<usize>) {
        let seconds = |since: Timestamp| now.duration_since(since).as_secs_f64().max(0.0);
        let passed = self.at.map_or(0.0, seconds);
        self.at = Some(now);
        self.room = (self.room + passed * PER_SECOND).min(BURST);
        let count = (self.room as usize).min(records.len());
        self.room -= count as f64;
        self.left_out += records.len() - count;
        let is_due = self.summed_up.is_none_or(|last| seconds(last) >= SUM_PAUSE);
        let sum = (self.left_out > 0 && is_due).then(|| std::mem::take(&mut self.left_out));
        if sum.is_some() {
            self.summed_up = Some(now);
        }
        (&records[..count], sum)
    }
}
