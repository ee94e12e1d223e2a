//! One namespace's part of the schedule.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::pace::Pace;
use crate::event::probed::ProbeId;

/// The reason why a namespace's probes begin late: in what way the namespace
/// wants more than its share.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::probe) enum Excess {
    /// The namespace wants more probes per second than its share.
    Rate,
    /// The namespace wants more probes in flight at once than its share.
    Places,
}

/// The targets of one namespace.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The targets without a probe in flight, each with the due time of its
    /// next probe.
    pub(super) waiting: BTreeSet<(Duration, ProbeId)>,
    /// The number of targets with each period.
    periods: BTreeMap<Duration, u32>,
    /// The number of the namespace's targets.
    targets: usize,
    /// The number of the namespace's probes in flight.
    pub(super) in_flight: usize,
    /// The number of probes in flight whose targets were removed.
    pub(super) orphans: usize,
    pub(super) pace: Pace,
    /// The time at which the next probe may begin, or `None` if no target waits
    /// or no place is free.
    pub(super) ready_at: Option<Duration>,
    /// Whether the namespace wants more probes per second than its share.
    is_over_rate: bool,
    /// The latest time at which the namespace had all its places in use.
    was_full: Option<Duration>,
    /// The number of late targets by reason.
    late: BTreeMap<Excess, usize>,
}

impl Share {
    pub(super) fn add(&mut self, period: Duration) {
        self.targets += 1;
        *self.periods.entry(period).or_default() += 1;
    }

    pub(super) fn remove(&mut self, period: Duration) {
        self.targets -= 1;
        let count = self.periods.get_mut(&period).expect("it was added");
        *count -= 1;
        if *count == 0 {
            self.periods.remove(&period);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets == 0 && self.in_flight == 0
    }

    /// Returns the maximum number of probes in flight at once: the number of
    /// probes in flight if no server answers.
    pub(super) fn most_in_flight(&self) -> usize {
        self.targets + self.orphans
    }

    /// Returns the rate that results from the targets' periods, in probes per
    /// second.
    pub(super) fn rate(&self) -> f64 {
        let periods = self.periods.iter();
        periods
            .map(|(period, count)| f64::from(*count) / period.as_secs_f64())
            .sum()
    }

    /// Sets how many probes per second the namespace may make on average.
    /// Returns the resulting average rate. If the targets need no more than
    /// `limit`, late probes may catch up at twice the targets' rate.
    pub(super) fn limit_rate(&mut self, limit: f64) -> f64 {
        let rate = self.rate();
        self.is_over_rate = rate > limit;
        let (made, most) = match self.is_over_rate {
            true => (limit, limit),
            false => (rate, 2.0 * rate),
        };
        self.pace.set_rate(most);
        made
    }

    /// Updates the namespace's entry in `ready`. The entries of `ready` are
    /// sorted by the time of the namespace's next probe. `most_in_flight` is
    /// the number of places that the namespace may use.
    pub(super) fn put_in_order(
        &mut self,
        namespace: &Arc<str>,
        most_in_flight: usize,
        ready: &mut BTreeSet<(Duration, Arc<str>)>,
    ) {
        let first = self.waiting.first();
        let has_place = self.in_flight < most_in_flight;
        let ready_at = first
            .filter(|_| has_place)
            .map(|(due, _)| (*due).max(self.pace.next()));
        if ready_at == self.ready_at {
            return;
        }
        if let Some(before) = self.ready_at {
            ready.remove(&(before, namespace.clone()));
        }
        if let Some(ready_at) = ready_at {
            ready.insert((ready_at, namespace.clone()));
        }
        self.ready_at = ready_at;
    }

    /// Records that the namespace had all its places in use until now.
    pub(super) fn is_full(&mut self, now: Duration) {
        self.was_full = Some(now);
    }

    /// Returns the reason why a probe that was due at `due` began late. Returns
    /// `None` if the namespace itself did not cause the delay.
    pub(super) fn excess_since(&self, due: Duration) -> Option<Excess> {
        if self.was_full.is_some_and(|was_full| was_full > due) {
            return Some(Excess::Places);
        }
        self.is_over_rate.then_some(Excess::Rate)
    }

    /// Records that the reason for a target's lateness changed from `before` to
    /// `after`. Returns whether `before` and `after` differ.
    pub(super) fn count_late(&mut self, before: Option<Excess>, after: Option<Excess>) -> bool {
        if before == after {
            return false;
        }
        if let Some(before) = before {
            let count = self.late.get_mut(&before).expect("it was counted");
            *count -= 1;
        }
        if let Some(after) = after {
            *self.late.entry(after).or_default() += 1;
        }
        true
    }

    /// Returns the number of late targets by reason.
    pub(super) fn late(&self) -> impl Iterator<Item = (Excess, usize)> {
        let late = self.late.iter().map(|(excess, count)| (*excess, *count));
        late.filter(|(_, count)| *count > 0)
    }
}
