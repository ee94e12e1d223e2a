//! The removal guard limits how many entries are removed at once. A valid but
//! empty answer of the API server must not empty a director's table. Such an
//! answer has three possible causes: etcd was lost, a definition was deleted,
//! or the kubeconfig is for another cluster. The guard is pure: time is an
//! argument.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use ipvs::{Op, Owned};

/// The length of the window in which the removal guard adds up removals.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Regardless of the table's size, this many services and this many
/// destinations may be removed within [`WINDOW`].
pub const ALWAYS: usize = 10;
/// Within [`WINDOW`], one in four of our services may be removed if this is
/// more than [`ALWAYS`]. The same rule applies to our destinations.
pub const ONE_IN: usize = 4;

/// Holds all removals once their number exceeds the budget. The hold ends when
/// the removals are released or no longer due. After a restart, the guard
/// judges all remaining removals as one batch, because it may have forgotten
/// earlier removals.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    recent: VecDeque<(Duration, Count)>,
    holds: bool,
}

/// Counts services and destinations separately.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// The number of services.
    pub services: usize,
    /// The number of destinations, in all services.
    pub destinations: usize,
}

impl Count {
    /// Counts the entries that are ours.
    pub fn owned(owned: &Owned) -> Self {
        Self {
            services: owned.services.len(),
            destinations: owned.services.values().map(BTreeSet::len).sum(),
        }
    }

    /// Counts the entries that the operations remove. The removal of a service
    /// counts as one service, without its destinations.
    pub fn of<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Self {
        let mut count = Self::default();
        for op in ops {
            match op {
                Op::DeleteService(_) => count.services += 1,
                Op::DeleteDestination(..) => count.destinations += 1,
                _ => {}
            }
        }
        count
    }
}

impl Guard {
    /// Decides whether `removals` must wait. `removals` must contain every
    /// removal that is due at `now` and not allowed yet. `going` counts the
    /// entries that are in their grace, because their removal was allowed. The
    /// guard counts these entries as recently removed. `left` is the number of
    /// our entries, without the entries whose removal was allowed.
    pub fn holds<'a>(
        &mut self,
        removals: impl IntoIterator<Item = &'a Op>,
        going: Count,
        left: Count,
        is_released: bool,
        now: Duration,
    ) -> bool {
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| *at + WINDOW <= now)
        {
            self.recent.pop_front();
        }
        let wanted = Count::of(removals);
        let is_any = wanted.services + wanted.destinations > 0;
        self.holds = is_any && !is_released && (self.holds || self.is_over(wanted, going, left));
        self.holds
    }

    /// Holds `removals`, if there are any, for a reason other than their
    /// number.
    pub fn hold<'a>(&mut self, removals: impl IntoIterator<Item = &'a Op>) {
        self.holds = removals.into_iter().next().is_some();
    }

    /// Counts a removal whose grace ends at `now`. What counts is the earlier
    /// time `since` at which the removal was allowed.
    pub fn count(&mut self, op: &Op, since: Duration, now: Duration) {
        if since + WINDOW > now {
            let place = self.recent.partition_point(|(at, _)| *at <= since);
            self.recent.insert(place, (since, Count::of([op])));
        }
    }

    fn is_over(&self, wanted: Count, going: Count, left: Count) -> bool {
        let sum = |of: fn(&Count) -> usize| {
            let made: usize = self.recent.iter().map(|(_, count)| of(count)).sum();
            made + of(&going)
        };
        let gone_services = sum(|count| count.services);
        let gone_destinations = sum(|count| count.destinations);
        exceeds(gone_services, wanted.services, left.services)
            || exceeds(gone_destinations, wanted.destinations, left.destinations)
    }
}

/// Whether `removals` would leave less than half of the services or less than
/// half of the destinations. `all` counts our entries before the removals. The
/// removal of a service counts as one service, without its destinations.
pub fn is_most<'a>(removals: impl IntoIterator<Item = &'a Op>, all: Count) -> bool {
    let wanted = Count::of(removals);
    wanted.services * 2 > all.services && wanted.services > 0
        || wanted.destinations * 2 > all.destinations && wanted.destinations > 0
}

/// Whether `wanted` more removals would exceed the budget. `gone` is the number
/// of recent removals, and `left` is the number of remaining entries.
fn exceeds(gone: usize, wanted: usize, left: usize) -> bool {
    let budget = ALWAYS.max((left + gone) / ONE_IN);
    wanted > 0 && gone + wanted > budget
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{server, tcp};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn service(number: usize) -> ipvs::ServiceKey {
        tcp("192.0.2.10", u16::try_from(number).expect("a port"))
    }

    /// Returns the number of services in the range, and the same number of
    /// destinations: each service has one server.
    fn owned(services: std::ops::Range<usize>) -> Count {
        let mut owned = Owned::default();
        for number in services {
            owned.add(service(number), Some(server(1)));
        }
        Count::owned(&owned)
    }

    const NONE: Count = Count {
        services: 0,
        destinations: 0,
    };

    fn deletions(services: std::ops::Range<usize>) -> Vec<Op> {
        services
            .map(|number| Op::DeleteService(service(number)))
            .collect()
    }

    #[test]
    fn ten_may_go_at_once_and_a_quarter_of_many() {
        for (all, wanted, holds) in [
            (10, 10, false),
            (40, 10, false),
            (40, 11, true),
            (100, 25, false),
            (100, 26, true),
        ] {
            let mut guard = Guard::default();
            let held = guard.holds(&deletions(0..wanted), NONE, owned(0..all), false, s(1));
            assert_eq!(held, holds, "{wanted} of {all}");
        }
    }

    #[test]
    fn more_than_half_of_the_services_or_of_the_servers_is_most() {
        for (all, wanted, is) in [
            (1, 1, true),
            (2, 1, false),
            (3, 1, false),
            (3, 2, true),
            (10, 5, false),
            (10, 6, true),
            (10, 0, false),
        ] {
            let found = is_most(&deletions(0..wanted), owned(0..all));
            assert_eq!(found, is, "{wanted} of {all} services");
            let servers: Vec<_> = (0..wanted)
                .map(|number| Op::DeleteDestination(service(number), server(1)))
                .collect();
            let found = is_most(&servers, owned(0..all));
            assert_eq!(found, is, "{wanted} of {all} servers");
        }
        assert!(!is_most(&[], owned(0..0)), "nothing of nothing");
    }

    #[test]
    fn destinations_have_a_budget_of_their_own() {
        let mut guard = Guard::default();
        let servers: Vec<_> = (0..11)
            .map(|number| Op::DeleteDestination(service(number), server(1)))
            .collect();
        assert!(guard.holds(&servers, NONE, owned(0..40), false, s(1)));
        let mut guard = Guard::default();
        let both: Vec<_> = servers[..10]
            .iter()
            .cloned()
            .chain(deletions(20..30))
            .collect();
        assert!(!guard.holds(&both, NONE, owned(0..40), false, s(1)));
    }

    #[test]
    fn what_went_within_a_minute_counts_and_what_went_before_does_not() {
        let mut guard = Guard::default();
        for op in &deletions(0..8) {
            guard.count(op, s(1), s(1));
        }
        assert!(!guard.holds(&deletions(8..10), NONE, owned(8..40), false, s(60)));
        assert!(guard.holds(&deletions(8..11), NONE, owned(8..40), false, s(60)));
        let mut guard = Guard::default();
        for op in &deletions(0..8) {
            guard.count(op, s(1), s(1));
        }
        assert!(!guard.holds(&deletions(8..18), NONE, owned(8..40), false, s(61)));
    }

    #[test]
    fn removals_that_may_still_be_taken_back_count_as_made() {
        let going = Count {
            services: 8,
            destinations: 0,
        };
        let mut guard = Guard::default();
        assert!(!guard.holds(&deletions(8..10), going, owned(8..40), false, s(1)));
        assert!(guard.holds(&deletions(8..11), going, owned(8..40), false, s(1)));
        let mut guard = Guard::default();
        let back = owned(0..40);
        assert!(!guard.holds(&deletions(8..18), NONE, back, false, s(2)));
    }

    #[test]
    fn what_is_held_stays_held_until_it_is_released_or_no_longer_due() {
        let mut guard = Guard::default();
        let (many, few, none) = (deletions(0..20), deletions(0..1), deletions(0..0));
        assert!(guard.holds(&many, NONE, owned(0..40), false, s(1)));
        assert!(
            guard.holds(&few, NONE, owned(0..40), false, s(500)),
            "and further removals too"
        );
        assert!(
            !guard.holds(&many, NONE, owned(0..40), true, s(501)),
            "released"
        );
        assert!(guard.holds(&many, NONE, owned(0..40), false, s(502)));
        assert!(
            !guard.holds(&none, NONE, owned(0..40), false, s(503)),
            "everything is wanted again"
        );
        assert!(
            !guard.holds(&few, NONE, owned(0..40), false, s(504)),
            "the hold is forgotten"
        );
    }

    proptest! {
        #[test]
        fn in_no_minute_more_goes_than_the_budget(
            steps in proptest::collection::vec((0_u64..40, 0_usize..15), 1..60),
        ) {
            let all = 60;
            let (mut guard, mut left, mut now) = (Guard::default(), all, 0);
            let mut gone = Vec::new();
            for (pause, wanted) in steps {
                now += pause;
                let wanted = wanted.min(left);
                let ops = deletions(0..wanted);
                if guard.holds(&ops, NONE, owned(0..left), false, s(now)) {
                    // The objects want the held entries again.
                    guard.holds(&[], NONE, owned(0..left), false, s(now));
                    continue;
                }
                ops.iter().for_each(|op| guard.count(op, s(now), s(now)));
                gone.push((now, wanted));
                left -= wanted;
                let recent = gone.iter().filter(|(at, _)| at + 60 > now);
                let recent: usize = recent.map(|(_, count)| count).sum();
                prop_assert!(recent <= ALWAYS.max((left + recent) / ONE_IN));
            }
        }
    }
}
