//! Follows the drains that objects declare. The code is pure: time is an
//! argument.
//!
//! ```text
//! wanted: which servers are drained, how ─┐             ┌─▶ ended: servers that leave
//! the journal: since when                 ├─▶ Drains ───┼─▶ for the journal: since when
//! time since the host's start             ┘             └─▶ since when, until when
//! ```
//!
//! A drain begins in the round that gives the server weight 0. Its time runs on
//! the clock of the host since its start (CLOCK_BOOTTIME), so neither a restart
//! of the agent nor a change of the time of day moves the end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crds::{DrainRule, ObjectKey, api::AtEnd};
use ipvs::{DestinationKey, ServiceKey};

use super::{
    departures::{Begun, Place},
    desired::Desired,
};

/// What is known of the objects that declare drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// All objects are listed.
    All,
    /// The objects of the previous run were restored, and the listings may still
    /// show that a drain is over. No server leaves.
    Restored,
    /// The objects of the previous run were restored, and no listing came for a
    /// while. Drains end as they were declared.
    Unlisted,
}

/// The drains that objects declare.
#[derive(Debug, Default)]
pub struct Drains {
    /// The wanted state whose drains are followed.
    wanted: Arc<Desired>,
    begun: Begun,
    /// Whether the journal lacks a change of `begun`.
    is_unsaved: bool,
    ended: BTreeSet<Place>,
}

impl Drains {
    /// Takes what the journal knows. Of two times at which a drain began, the
    /// earlier one counts.
    pub fn restore(&mut self, begun: &Begun) {
        for (place, since) in begun {
            let known = self.begun.entry(*place).or_insert(*since);
            *known = (*known).min(*since);
        }
    }

    /// Begins and ends the drains of the `wanted` state at `now`. `is_there` says
    /// whether the kernel has a server. Returns the services whose servers leave
    /// or come back because of a drain's end.
    pub fn follow(
        &mut self,
        wanted: &Arc<Desired>,
        known: Known,
        is_there: impl Fn(&Place) -> bool,
        now: Duration,
    ) -> BTreeSet<ServiceKey> {
        if !Arc::ptr_eq(wanted, &self.wanted) {
            self.wanted = wanted.clone();
        }
        let drains = &self.wanted.drains;
        let before = self.begun.len();
        if known == Known::All {
            self.begun.retain(|place, _| drains.contains_key(place));
        }
        let mut is_other = self.begun.len() != before;
        for place in drains.keys() {
            self.begun.entry(*place).or_insert_with(|| {
                is_other = true;
                now
            });
        }
        self.is_unsaved |= is_other;
        let ended = drains.iter().filter(|(place, rule)| {
            let end = self.end(place, rule);
            let is_over = end.is_some_and(|end| end <= now);
            is_over && (known != Known::Restored || !is_there(place))
        });
        let ended: BTreeSet<_> = ended.map(|(place, _)| *place).collect();
        let changed = ended.symmetric_difference(&self.ended);
        let changed = changed.map(|(service, _)| *service).collect();
        self.ended = ended;
        changed
    }

    /// Returns when the drain of a server ends its connections, or none if it
    /// does not.
    fn end(&self, place: &Place, rule: &DrainRule) -> Option<Duration> {
        let since = self.begun.get(place)?;
        (rule.at_end == AtEnd::Disconnect).then(|| *since + rule.timeout)
    }

    /// Whether a drain has ended the connections of a server. The server leaves
    /// the kernel's table.
    pub fn has_ended(&self, place: &Place) -> bool {
        self.ended.contains(place)
    }

    /// Returns the servers of a service whose drains have ended their
    /// connections.
    pub fn ended_in(&self, service: &ServiceKey) -> impl Iterator<Item = DestinationKey> {
        let ended = self.ended.iter().filter(move |(of, _)| of == service);
        ended.map(|(_, server)| *server)
    }

    /// Returns the servers that the journal knows as drained, although the
    /// wanted state does not say so. Before all objects are known, such a
    /// server stays drained: the wanted state may be older than the drain.
    pub fn as_recorded(&self) -> impl Iterator<Item = &Place> {
        let drains = &self.wanted.drains;
        self.begun
            .keys()
            .filter(|place| !drains.contains_key(place))
    }

    /// Returns the time from `now` until the next drain ends connections.
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        let drains = self.wanted.drains.iter();
        let running = drains.filter(|(place, _)| !self.ended.contains(place));
        let ends = running.filter_map(|(place, rule)| self.end(place, rule));
        ends.min().map(|end| end.saturating_sub(now))
    }

    /// Returns each drained server with its rule and the time since the host's
    /// start at which the drain began.
    pub fn running(&self) -> impl Iterator<Item = (&Place, &DrainRule, Duration)> {
        self.wanted.drains.iter().filter_map(|(place, rule)| {
            let since = self.begun.get(place)?;
            Some((place, rule, *since))
        })
    }

    /// Returns the RealServer of a drained server.
    pub fn server(&self, place: &Place) -> Option<&ObjectKey> {
        self.wanted.servers.get(place)
    }

    /// Returns when drains began.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Whether the journal lacks a change of [`Self::begun`].
    pub fn is_unsaved(&self) -> bool {
        self.is_unsaved
    }

    /// Notes that the journal has stored what [`Self::begun`] returned.
    pub fn saved(&mut self) {
        self.is_unsaved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{server, tcp};

    const WEB: &str = "192.0.2.10";

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn place(last: u8) -> Place {
        (tcp(WEB, 80), server(last))
    }

    fn wanted(drained: &[(u8, AtEnd)]) -> Arc<Desired> {
        let rule = |at_end| DrainRule {
            timeout: at(30),
            at_end,
        };
        let drained = drained.iter();
        Arc::new(Desired {
            drains: drained
                .map(|(last, at_end)| (place(*last), rule(*at_end)))
                .collect(),
            ..Desired::default()
        })
    }

    #[test]
    fn a_drain_that_disconnects_ends_after_its_time_and_another_one_never() {
        let mut drains = Drains::default();
        let wanted = wanted(&[(1, AtEnd::Disconnect), (2, AtEnd::Keep)]);
        assert!(
            drains
                .follow(&wanted, Known::All, |_| true, at(100))
                .is_empty()
        );
        assert_eq!(drains.next_end(at(110)), Some(at(20)));
        assert!(
            drains
                .follow(&wanted, Known::All, |_| true, at(129))
                .is_empty()
        );
        let changed = drains.follow(&wanted, Known::All, |_| true, at(130));
        assert_eq!(changed, [tcp(WEB, 80)].into());
        let ended = [1, 2].map(|last| drains.has_ended(&place(last)));
        assert_eq!(ended, [true, false]);
        assert_eq!(drains.next_end(at(131)), None);
    }

    #[test]
    fn a_drain_that_is_declared_again_begins_again() {
        let mut drains = Drains::default();
        let drained = wanted(&[(1, AtEnd::Disconnect)]);
        drains.follow(&drained, Known::All, |_| true, at(100));
        drains.follow(&drained, Known::All, |_| true, at(130));
        let changed = drains.follow(&wanted(&[]), Known::All, |_| true, at(131));
        assert_eq!(changed, [tcp(WEB, 80)].into(), "the server comes back");
        drains.follow(&drained, Known::All, |_| true, at(140));
        assert!(!drains.has_ended(&place(1)), "it has its whole time");
        assert_eq!(drains.next_end(at(140)), Some(at(30)));
    }

    #[test]
    fn a_restart_moves_no_end_and_saves_nothing() {
        let mut drains = Drains::default();
        let wanted = wanted(&[(1, AtEnd::Disconnect)]);
        drains.follow(&wanted, Known::All, |_| true, at(100));
        assert!(drains.is_unsaved(), "a drain began");
        let saved = drains.begun().clone();
        drains.saved();

        let mut again = Drains::default();
        again.restore(&saved);
        again.follow(&wanted, Known::Restored, |_| true, at(125));
        assert_eq!(again.next_end(at(125)), Some(at(5)));
        assert!(!again.is_unsaved());
    }

    #[test]
    fn a_drain_that_only_the_journal_knows_goes_on_until_all_objects_are_known() {
        let mut drains = Drains::default();
        drains.restore(&Begun::from([(place(1), at(100))]));
        drains.follow(&wanted(&[]), Known::Restored, |_| true, at(110));
        assert!(drains.as_recorded().eq([&place(1)]));
        drains.follow(&wanted(&[]), Known::All, |_| true, at(110));
        assert_eq!(drains.as_recorded().next(), None);
        assert!(drains.is_unsaved());
        assert_eq!(drains.begun(), &Begun::new());
    }

    #[test]
    fn before_the_listing_a_server_stays_and_one_that_has_left_is_not_made_again() {
        let wanted = wanted(&[(1, AtEnd::Disconnect), (2, AtEnd::Disconnect)]);
        let mut drains = Drains::default();
        drains.restore(&Begun::from([(place(1), at(100)), (place(2), at(100))]));
        let is_there = |found: &Place| *found == place(2);
        let ended = |drains: &Drains| [1, 2].map(|last| drains.has_ended(&place(last)));
        drains.follow(&wanted, Known::Restored, is_there, at(200));
        assert_eq!(ended(&drains), [true, false]);
        drains.follow(&wanted, Known::Unlisted, is_there, at(230));
        assert_eq!(ended(&drains), [true, true]);
    }
}
