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

/// One state of a kind of objects.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// The digest over the objects in the state.
    pub digest: Digest,
    /// The latest position at which an object in the state got a new uid or
    /// generation, or 0 if that position is not known. Whoever has used the
    /// state has seen everything up to this position.
    pub newest: Position,
    /// Identifies the namespaces of the objects, for kinds where it matters.
    pub namespaces: Digest,
}

/// The place of a state in a ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    /// The earliest remembered position of the state.
    first: Position,
    /// The position where the state was last seen. The same state can occur
    /// again. A director that used the state once need not use it again,
    /// because the content is the same.
    latest: Position,
    newest: Position,
    namespaces: Digest,
}

/// How far a director has come in the order of states.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The director has the content of the state at this position, or of a
    /// later one.
    pub at: Position,
    /// The director's watch has shown it everything up to this position. `at`
    /// can be later: a state can occur again, and its content is then the same,
    /// although the director has not seen what happened in between.
    pub seen: Position,
}

/// A bounded list of the latest states of one kind of objects.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    order: VecDeque<(Digest, Position)>,
    places: HashMap<Digest, Place>,
    /// The position of the first state after the last gap in the watch. States
    /// before the gap may have been missed.
    gap: Position,
    /// The ring has every state from this position on.
    complete_from: Position,
}

impl Ring {
    /// Returns an empty ring. States before position `at` are not known, but
    /// nothing was missed in the watch since position `gap`.
    pub fn starting_at(at: Position, gap: Position) -> Self {
        Self {
            gap,
            complete_from: at,
            ..Self::default()
        }
    }

    /// Adds a state at position `at`, which must be greater than all earlier
    /// positions. Does nothing if the state is already the current one.
    pub fn push(&mut self, state: State, at: Position) {
        let State {
            digest,
            newest,
            namespaces,
        } = state;
        if self.order.back().is_some_and(|(last, _)| *last == digest) {
            return;
        }
        self.order.push_back((digest, at));
        self.places
            .entry(digest)
            .and_modify(|place| {
                place.latest = at;
                place.newest = place.newest.max(newest);
            })
            .or_insert(Place {
                first: at,
                latest: at,
                newest,
                namespaces,
            });
        if self.order.len() > REMEMBERED {
            self.forget_oldest();
        }
    }

    /// Moves the current state to position `at`: it still is the current one
    /// there.
    pub fn stay(&mut self, at: Position) {
        if let Some((digest, latest)) = self.order.back_mut()
            && let Some(place) = self.places.get_mut(digest)
        {
            *latest = at;
            place.latest = at;
        }
    }

    /// Records a gap: states before `at` may have been missed, because a watch
    /// was restarted. [`Ring::follow`] explains the consequences of a gap.
    pub fn missed(&mut self, at: Position) {
        self.gap = at;
        self.complete_from = at;
    }

    /// The position of the current state, or 0 before the first state.
    pub fn latest(&self) -> Position {
        self.order.back().map_or(0, |(_, at)| *at)
    }

    /// Identifies the namespaces of the objects in the state with this digest,
    /// or returns `None` if the ring does not know the state.
    pub fn namespaces(&self, digest: &Digest) -> Option<Digest> {
        self.places.get(digest).map(|place| place.namespaces)
    }

    /// Returns the progress of a director that reports `digest`, and whose
    /// progress was `before`. Directors only move forward. Returns `None` if
    /// nothing is known about the director's progress.
    ///
    /// An unknown digest may belong to a state that the controller has not seen
    /// yet. It may also belong to an older state that the ring lacks: because
    /// of a gap, or because the ring has forgotten it. If the director has seen
    /// everything up to a position from which the ring is complete, only the
    /// first is possible, and the progress stays as it was.
    pub fn follow(&self, digest: &Digest, before: Option<Progress>) -> Option<Progress> {
        let seen = before.map_or(0, |before| before.seen);
        match self.places.get(digest) {
            Some(place) => {
                let seen = seen.max(place.newest);
                // The state occurred first at `first`, or before the ring was
                // complete. In the second case the director has seen too much
                // to be there.
                let seen = match seen >= self.complete_from {
                    true => seen.max(place.first),
                    false => seen,
                };
                Some(Progress {
                    at: place.latest,
                    seen,
                })
            }
            None if seen >= self.complete_from => before,
            None => self.seen_only(before),
        }
    }

    /// Returns the progress of a director that reports `digest`, if the ring
    /// may not be the one to which the digest belongs: the digest may cover
    /// other objects. So if the ring knows the digest, the director keeps the
    /// content that it had, but does not advance to a state that occurred
    /// again.
    pub fn recognise(&self, digest: &Digest, before: Option<Progress>) -> Option<Progress> {
        let Some(place) = self.places.get(digest) else {
            return self.seen_only(before);
        };
        let (at, seen) = before.map_or((0, 0), |before| (before.at, before.seen));
        let seen = seen.max(place.newest);
        Some(Progress {
            at: at.min(place.latest).max(seen),
            seen,
        })
    }

    /// Returns what a director's watch has shown it, and no more. What was
    /// seen before a gap proves nothing: an object can have changed, and
    /// changed back, in the gap.
    fn seen_only(&self, before: Option<Progress>) -> Option<Progress> {
        let seen = before?.seen;
        (seen > 0 && seen >= self.gap).then_some(Progress { at: seen, seen })
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
        let oldest = self.order.front().map_or(at, |(_, at)| *at);
        self.complete_from = self.complete_from.max(oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn digest(state: i64) -> Digest {
        Digest::of("", state, &BTreeMap::new())
    }

    /// A state that contains an object which is new at position `newest`.
    fn state(number: i64, newest: Position) -> State {
        State {
            digest: digest(number),
            newest,
            namespaces: Digest::default(),
        }
    }

    fn ring(states: &[i64]) -> Ring {
        let mut ring = Ring::default();
        for (index, number) in states.iter().enumerate() {
            let at = index as u64 + 1;
            ring.push(state(*number, at), at);
        }
        ring
    }

    fn progress(at: Position, seen: Position) -> Option<Progress> {
        Some(Progress { at, seen })
    }

    #[test]
    fn a_state_that_comes_again_has_its_latest_content_and_proves_its_first_place() {
        let mut ring = Ring::default();
        for (at, number) in [(1, 7), (2, 8), (3, 7)] {
            ring.push(state(number, 1), at);
        }
        assert_eq!(ring.follow(&digest(7), None), progress(3, 1));
        assert_eq!(ring.latest(), 3);
    }

    #[test]
    fn the_present_state_is_not_pushed_twice() {
        let mut ring = ring(&[7]);
        ring.push(state(7, 9), 9);
        assert_eq!(ring.latest(), 1);
    }

    #[test]
    fn an_unknown_digest_keeps_the_progress_that_was_known() {
        let ring = ring(&[7, 8]);
        let before = ring.follow(&digest(8), None);
        assert_eq!(before, progress(2, 2));
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
        ring.push(state(9, 4), 4);
        let after = ring.follow(&digest(9), before);
        assert_eq!(ring.follow(&digest(99), after), after);
    }

    #[test]
    fn a_state_that_may_have_been_there_before_proves_nothing_of_what_follows() {
        let mut ring = ring(&[7]);
        ring.missed(2);
        ring.push(state(8, 0), 2);
        let reported = ring.follow(&digest(8), None);
        assert_eq!(reported, progress(2, 0), "a reported state counts as used");
        assert_eq!(ring.follow(&digest(99), reported), None);
    }

    /// A watch that has come far enough is not at an earlier visit of a state.
    #[test]
    fn what_was_seen_before_still_counts_in_a_state_without_any_new_object() {
        let mut ring = ring(&[7, 8]);
        let before = ring.follow(&digest(8), None);
        ring.push(state(9, 0), 3);
        let after = ring.follow(&digest(9), before);
        assert_eq!(after, progress(3, 3));
        assert_eq!(ring.follow(&digest(99), after), after);
    }

    #[test]
    fn a_digest_that_may_be_of_another_ring_keeps_the_content_and_advances_nobody() {
        let mut ring = ring(&[7, 8]);
        let before = ring.follow(&digest(7), None);
        assert_eq!(
            ring.recognise(&digest(8), None),
            progress(2, 2),
            "by newest"
        );
        assert_eq!(ring.recognise(&digest(99), before), progress(1, 1));
        ring.push(state(7, 1), 3);
        let again = ring.follow(&digest(7), before);
        assert_eq!(again, progress(3, 1), "the content is that of position 3");
        ring.push(state(8, 2), 4);
        ring.push(state(7, 1), 5);
        let later = ring.recognise(&digest(7), again);
        assert_eq!(later, progress(3, 1), "it need not be that of position 5");
        assert_eq!(ring.recognise(&digest(99), later), progress(1, 1));
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

    /// The unknown digest may be that of a forgotten state.
    #[test]
    fn who_was_seen_last_in_a_forgotten_state_is_not_taken_for_newer() {
        let mut ring = ring(&[7, 8]);
        let before = ring.follow(&digest(7), None);
        for at in 3..REMEMBERED as u64 + 10 {
            ring.push(state(at as i64 + 100, at), at);
        }
        assert_eq!(ring.follow(&digest(99), before), progress(1, 1));
    }

    #[test]
    fn forgetting_an_old_visit_does_not_forget_a_newer_one() {
        let mut states = vec![-1, -2, -1];
        states.extend(0..REMEMBERED as i64 - 1);
        let ring = ring(&states);
        let at = |number| ring.follow(&digest(number), None).map(|found| found.at);
        assert_eq!(at(-1), Some(3));
        assert_eq!(at(-2), None);
    }
}
