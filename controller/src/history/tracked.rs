//! The states of a set of objects, one change after the other.

use std::collections::{BTreeSet, HashMap};

use crds::{Digest, ObjectKey};

use super::{Novelty, Step};
use crate::ring::{Position, Ring, State};

/// The positions at which objects got a new uid or generation. Objects that
/// were listed, and not changed since, are not included.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    objects: HashMap<ObjectKey, Position>,
    positions: BTreeSet<Position>,
}

impl Newest {
    /// Applies the change of one object at position `at`.
    pub(super) fn step(&mut self, step: Step<'_>, at: Position) {
        let before = match step.novelty {
            Novelty::New => {
                self.positions.insert(at);
                self.objects.insert(step.object.clone(), at)
            }
            Novelty::Known => None,
            Novelty::Gone => self.objects.remove(step.object),
        };
        if let Some(before) = before {
            self.positions.remove(&before);
        }
    }

    /// The latest of the positions, or 0 if there is none.
    pub(super) fn latest(&self) -> Position {
        self.positions.last().copied().unwrap_or_default()
    }
}

/// The current digest of a set of objects, and the digests of the set's earlier
/// states.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracked {
    digest: Digest,
    pub(super) ring: Ring,
    newest: Newest,
}

impl Tracked {
    /// Applies the change of one object. `namespaces` identifies the namespaces
    /// of the objects after the change.
    pub(super) fn step(&mut self, step: Step<'_>, namespaces: Digest, clock: &mut Position) {
        *clock += 1;
        self.newest.step(step, *clock);
        self.digest ^= step.difference;
        self.push(namespaces, *clock);
    }

    /// Adds the state without any object.
    pub(super) fn begin(&mut self, clock: &mut Position) {
        *clock += 1;
        self.push(Digest::default(), *clock);
    }

    /// Adds a state from a new listing. The controller may have missed states
    /// before the listing.
    pub(super) fn listed(&mut self, digest: Digest, namespaces: Digest, clock: &mut Position) {
        *clock += 1;
        self.ring.missed(*clock);
        self.newest = Newest::default();
        self.digest = digest;
        self.push(namespaces, *clock);
    }

    fn push(&mut self, namespaces: Digest, at: Position) {
        let state = State {
            digest: self.digest,
            newest: self.newest.latest(),
            namespaces,
        };
        self.ring.push(state, at);
    }
}
