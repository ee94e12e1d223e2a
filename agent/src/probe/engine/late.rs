//! Reports which namespaces want more than their share of the prober.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::probe::schedule::{Excess, Schedule};

/// The shortest time between two reports. Reports are limited because the
/// number of late targets changes all the time.
const BETWEEN_WORDS: Duration = Duration::from_secs(10);

/// The last report of targets that are probed late because their namespace
/// wants more than its share.
#[derive(Debug, Default)]
pub(super) struct Late {
    told: BTreeMap<Arc<str>, usize>,
    next: Duration,
}

impl Late {
    pub(super) fn next_deadline(&self, schedule: &Schedule) -> Option<Duration> {
        schedule.is_late_new().then_some(self.next)
    }

    /// Returns the number of late targets by reason, if the numbers must be
    /// reported now.
    pub(super) fn news(
        &mut self,
        schedule: &mut Schedule,
        now: Duration,
    ) -> Option<BTreeMap<Arc<str>, usize>> {
        if self.next_deadline(schedule)? > now {
            return None;
        }
        schedule.take_is_late_new();
        let late = schedule.late();
        let late: BTreeMap<Arc<str>, usize> = late
            .map(|(namespace, excess, count)| (words(namespace, excess).into(), count))
            .collect();
        if late == self.told {
            return None;
        }
        self.next = now + BETWEEN_WORDS;
        self.told.clone_from(&late);
        Some(late)
    }
}

fn words(namespace: &str, excess: Excess) -> String {
    match excess {
        Excess::Rate => format!(
            "namespace {namespace} wants more probes a second than its share: lengthen \
             periodSeconds, or check fewer servers"
        ),
        Excess::Places => format!(
            "namespace {namespace} waits for more answers at once than its share: shorten \
             timeoutSeconds, or remove servers that do not answer"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::probed::ProbeId, probe::budget::Budget};

    #[test]
    fn late_targets_are_reported_by_namespace_and_again_after_a_while() {
        let second = Duration::from_secs(1);
        let budget = Budget {
            places: 1,
            ..Budget::with_places(1)
        };
        let mut schedule = Schedule::new(budget, fastrand::Rng::with_seed(1));
        let mut late = Late::default();
        for id in 0..2 {
            schedule.insert(ProbeId(id), &"shop".into(), second, Duration::ZERO);
        }
        assert_eq!(late.news(&mut schedule, second), None);
        let first = schedule.take(second / 10).unwrap();
        schedule.ended(first, second * 2);
        let second_one = schedule.take(second * 2).unwrap();
        assert_eq!(late.next_deadline(&schedule), Some(Duration::ZERO));
        let news = late.news(&mut schedule, second * 2).unwrap();
        let (why, count) = news.first_key_value().unwrap();
        assert_eq!(*count, 1);
        assert!(why.starts_with("namespace shop waits for"), "{why}");
        schedule.remove(second_one.id);
        assert_eq!(late.news(&mut schedule, second * 3), None, "not yet");
        assert_eq!(late.next_deadline(&schedule), Some(second * 12));
        let news = late.news(&mut schedule, second * 12);
        assert_eq!(news, Some(BTreeMap::new()), "it is over");
    }
}
