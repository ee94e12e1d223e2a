//! The states of one kind of object, in the order in which the controller saw
//! the states.

use std::collections::{HashMap, VecDeque};

use crds::Digest;

/// The number of states that a ring remembers. The ring forgets older states,
/// so [`Ring::follow`] treats their digests as unknown.
pub const REMEMBERED: usize = 1024;

/// A position in the order of states. Later positions are greater, and two
/// rings of one [`crate::history::History`] never share a position.
pub type Position = u64;

/// The place of a state in a ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The earliest remembered position of the state.
    pub first: Position,
    /// The position where the state was last seen. The same state can occur
    /// again. A director that used the state once need not use it again,
    /// because the content is the same.
    pub latest: Position,
    /// Whether the state contains an object that got a new uid or generation
    /// after the last gap in the watch. Such a state cannot have existed before
    /// the gap.
    pub unique: bool,
}

/// A bounded list of the latest states of one kind of objects.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    order: VecDeque<(Digest, Position)>,
    places: HashMap<Digest, Place>,
    /// The position of the last gap in the watch. States before the gap may
    /// have been missed.
    gap: Position,
}

impl Ring {
    /// Adds the state `digest` at position `at`, which must be greater than all
    /// earlier positions. Does nothing if the state is already the current one.
    /// [`Place::unique`] explains `unique`.
    pub fn push(&mut self, digest: Digest, at: Position, unique: bool) {
        if self.order.back().is_some_and(|(last, _)| *last == digest) {
            return;
        }
        self.order.push_back((digest, at));
        self.places
            .entry(digest)
            .and_modify(|place| place.latest = at)
            .or_insert(Place {
                first: at,
                latest: at,
                unique,
            });
        if self.order.len() > REMEMBERED {
            self.forget_oldest();
        }
    }

    /// Records a gap: states before `at` may have been missed, because a watch
    /// was restarted. [`Ring::follow`] explains the consequences of a gap.
    pub fn missed(&mut self, at: Position) {
        self.gap = at;
    }

    /// The position of the current state, or 0 before the first state.
    pub fn latest(&self) -> Position {
        self.order.back().map_or(0, |(_, at)| *at)
    }

    /// Returns the new place of a director that reports `digest` and whose last
    /// known place is `before`.
    ///
    /// An unknown digest may belong to a state that the controller has not seen
    /// yet. In this case, the new place is `before`, because directors only
    /// move forward. But the digest may also belong to an older state that the
    /// controller missed in a gap. This is impossible if the state at `before`
    /// is `unique` and was first seen after the last gap. Otherwise, the new
    /// place is unknown.
    pub fn follow(&self, digest: &Digest, before: Option<Place>) -> Option<Place> {
        match self.places.get(digest) {
            Some(place) => Some(*place),
            None => before.filter(|place| place.unique && place.first > self.gap),
        }
    }

    fn forget_oldest(&mut self) {
        let Some((digest, at)) = self.order.pop_front() else {
            return;
        };
        if self
            .places
            .get(&digest)
            .is_some_and(|place| place.latest == at)
        {
            self.places.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn digest(state: i64) -> Digest {
        Digest::of("", state, &BTreeMap::new())
    }

    fn ring(states: &[i64]) -> Ring {
        let mut ring = Ring::default();
        for (index, state) in states.iter().enumerate() {
            ring.push(digest(*state), index as u64 + 1, true);
        }
        ring
    }

    #[test]
    fn a_state_that_comes_again_stands_at_its_latest_place() {
        let ring = ring(&[7, 8, 7]);
        assert_eq!(
            ring.follow(&digest(7), None),
            Some(Place {
                first: 1,
                latest: 3,
                unique: true,
            })
        );
        assert_eq!(ring.latest(), 3);
    }

    #[test]
    fn the_present_state_is_not_pushed_twice() {
        let mut ring = ring(&[7]);
        ring.push(digest(7), 9, true);
        assert_eq!(ring.latest(), 1);
    }

    #[test]
    fn an_unknown_digest_keeps_the_place_that_was_known() {
        let ring = ring(&[7, 8]);
        let before = ring.follow(&digest(8), None);
        assert_eq!(ring.follow(&digest(99), before), before);
        assert_eq!(ring.follow(&digest(99), None), None);
    }

    #[test]
    fn after_a_gap_an_unknown_digest_proves_nothing() {
        let mut ring = ring(&[7, 8]);
        let before = ring.follow(&digest(8), None);
        ring.missed(3);
        assert_eq!(ring.follow(&digest(8), before), before);
        assert_eq!(ring.follow(&digest(99), before), None);
        ring.push(digest(9), 4, true);
        let after = ring.follow(&digest(9), before);
        assert_eq!(ring.follow(&digest(99), after), after);
    }

    #[test]
    fn a_state_that_may_have_been_there_before_proves_nothing_of_what_follows() {
        let mut ring = ring(&[7]);
        ring.push(digest(8), 2, false);
        let place = ring.follow(&digest(8), None);
        assert!(place.is_some(), "a reported state counts as used");
        assert_eq!(ring.follow(&digest(99), place), None);
    }

    #[test]
    fn a_ring_remembers_so_many_states_and_no_more() {
        let states: Vec<i64> = (0..REMEMBERED as i64 + 10).collect();
        let ring = ring(&states);
        assert_eq!(ring.order.len(), REMEMBERED);
        assert_eq!(ring.places.len(), REMEMBERED);
        assert_eq!(ring.follow(&digest(9), None), None);
        assert!(ring.follow(&digest(10), None).is_some());
    }

    #[test]
    fn forgetting_an_old_visit_does_not_forget_a_newer_one() {
        let mut states = vec![-1, -2, -1];
        states.extend(0..REMEMBERED as i64 - 1);
        let ring = ring(&states);
        assert_eq!(
            ring.follow(&digest(-1), None).map(|place| place.latest),
            Some(3)
        );
        assert_eq!(ring.follow(&digest(-2), None), None);
    }
}
