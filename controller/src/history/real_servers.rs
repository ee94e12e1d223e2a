//! The states of the RealServers of some namespaces.
//!
//! A director uses the RealServers of all namespaces that have a VirtualService
//! of its group, and reports a digest over them. So a RealServer that no service
//! of the group can select changes no director's report. A director watches all
//! RealServers, in the same order as the controller: a position says how far
//! that watch has come, whatever namespaces the digest covers.
//!
//! When the namespaces of a group change, the digests of the same states of the
//! watch become other ones. The controller therefore keeps a ring for each set
//! of namespaces. A new ring is filled from a log of the latest changes of all
//! RealServers, as if it had been there all the time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crds::Digest;

use super::{Step, tracked::Newest};
use crate::ring::{Position, Progress, REMEMBERED, Ring, State};

/// The number of rings that are kept although no group has their namespaces any
/// more: some director may still report them.
const FORMER: usize = 16;

/// The names of the namespaces that have a VirtualService of a group.
pub(super) type Namespaces = BTreeSet<Arc<str>>;

/// Returns a digest that identifies a set of namespaces.
pub(super) fn identify<'a>(namespaces: impl IntoIterator<Item = &'a str>) -> Digest {
    let names = namespaces.into_iter();
    names.fold(Digest::default(), |digest, name| {
        digest ^ Digest::of(name, 0, &BTreeMap::new())
    })
}

/// The RealServers of one namespace, at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    digest: Digest,
    /// See [`State::newest`].
    newest: Position,
}

/// The current RealServers of one namespace.
#[derive(Clone, Debug, Default)]
struct Namespace {
    digest: Digest,
    newest: Newest,
}

impl Namespace {
    fn content(&self) -> Content {
        Content {
            digest: self.digest,
            newest: self.newest.latest(),
        }
    }
}

/// The states of the RealServers of one set of namespaces.
#[derive(Clone, Debug)]
struct SetRing {
    namespaces: Namespaces,
    ring: Ring,
    /// The position at which a group last got these namespaces.
    adopted: Position,
}

/// All RealServers, and the states of each set of namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct RealServers {
    now: HashMap<Arc<str>, Namespace>,
    /// The latest changes, each with the content of its namespace afterwards.
    log: VecDeque<(Position, Arc<str>, Content)>,
    /// The contents before the first change in `log`, since position `base_at`.
    base: HashMap<Arc<str>, Content>,
    base_at: Position,
    gap: Position,
    /// The rings, by the digests that identify their namespaces.
    rings: HashMap<Digest, SetRing>,
}

impl RealServers {
    /// Adds a change of one RealServer.
    pub(super) fn step(&mut self, step: Step<'_>, clock: &mut Position) {
        *clock += 1;
        let at = *clock;
        let name = &step.object.namespace;
        let namespace = self.now.entry(name.clone()).or_default();
        namespace.digest ^= step.difference;
        namespace.newest.step(step, at);
        self.log.push_back((at, name.clone(), namespace.content()));
        if namespace.digest == Digest::default() {
            self.now.remove(name);
        }
        if self.log.len() > REMEMBERED {
            self.forget_oldest();
        }
        for SetRing {
            namespaces, ring, ..
        } in self.rings.values_mut()
        {
            if namespaces.contains(name) {
                ring.push(now(&self.now, namespaces), at);
            }
        }
    }

    /// Adds a new listing: the namespace and the digest of each RealServer. The
    /// controller may have missed states before the listing.
    pub(super) fn listed<'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a Arc<str>, Digest)>,
        clock: &mut Position,
    ) {
        *clock += 1;
        self.now.clear();
        for (namespace, digest) in objects {
            self.now.entry(namespace.clone()).or_default().digest ^= digest;
        }
        let contents = self.now.iter();
        let contents = contents.map(|(name, namespace)| (name.clone(), namespace.content()));
        self.base = contents.collect();
        self.log.clear();
        self.base_at = *clock;
        self.gap = *clock;
        for SetRing {
            namespaces, ring, ..
        } in self.rings.values_mut()
        {
            ring.missed(*clock);
            ring.push(now(&self.now, namespaces), *clock);
        }
    }

    /// Notes that `namespaces`, which `id` identifies, are those of a group from
    /// now on. `current` has those of all groups.
    pub(super) fn adopt(
        &mut self,
        id: Digest,
        namespaces: &Namespaces,
        current: &BTreeSet<Digest>,
        clock: &mut Position,
    ) {
        *clock += 1;
        if self.base_at == 0 {
            self.base_at = *clock;
        }
        let known = self.rings.remove(&id).map(|set| set.ring);
        let mut ring = known.unwrap_or_else(|| self.ring_of(namespaces));
        // The group's services may need a position of the group's former ring.
        ring.stay(*clock);
        let set = SetRing {
            namespaces: namespaces.clone(),
            ring,
            adopted: *clock,
        };
        self.rings.insert(id, set);
        let former = self.rings.iter();
        let former = former.filter(|(id, _)| !current.contains(id));
        let former: Vec<_> = former.map(|(id, ring)| (ring.adopted, *id)).collect();
        if former.len() > FORMER
            && let Some((_, oldest)) = former.into_iter().min()
        {
            self.rings.remove(&oldest);
        }
    }

    /// The position of the current state of the namespaces that `id`
    /// identifies.
    pub(super) fn latest(&self, id: &Digest) -> Position {
        self.rings.get(id).map_or(0, |set| set.ring.latest())
    }

    /// Returns the progress of a director that reports `digest`, and whose
    /// progress was `before`. `reported` identifies the namespaces that the
    /// director's VirtualServices have, if the controller knows the reported
    /// state of the VirtualServices. `current` identifies those of the group
    /// now.
    pub(super) fn follow(
        &self,
        digest: &Digest,
        reported: Option<Digest>,
        current: &Digest,
        before: Option<Progress>,
    ) -> Option<Progress> {
        match reported.and_then(|id| self.rings.get(&id)) {
            Some(set) => set.ring.follow(digest, before),
            None => self.rings.get(current)?.ring.recognise(digest, before),
        }
    }

    /// Makes the ring of some namespaces from the log.
    fn ring_of(&self, namespaces: &Namespaces) -> Ring {
        let mut ring = Ring::starting_at(self.base_at, self.gap);
        let mut contents: HashMap<&str, Content> = HashMap::new();
        let mut digest = Digest::default();
        let mut newest: BTreeSet<Position> = BTreeSet::new();
        for (name, content) in namespaces
            .iter()
            .filter_map(|name| Some((name, self.base.get(name)?)))
        {
            contents.insert(name, *content);
            digest ^= content.digest;
            newest.insert(content.newest);
        }
        let state = |digest, newest: &BTreeSet<Position>| State {
            digest,
            newest: newest.last().copied().unwrap_or_default(),
            namespaces: Digest::default(),
        };
        ring.push(state(digest, &newest), self.base_at);
        let changes = self.log.iter();
        for (at, name, content) in changes.filter(|(_, name, _)| namespaces.contains(name)) {
            let before = contents.insert(name, *content).unwrap_or_default();
            digest ^= before.digest ^ content.digest;
            // No two namespaces have the same position, except 0.
            newest.remove(&before.newest);
            newest.insert(content.newest);
            ring.push(state(digest, &newest), *at);
        }
        ring
    }

    fn forget_oldest(&mut self) {
        let Some((at, name, content)) = self.log.pop_front() else {
            return;
        };
        self.base_at = at;
        match content.digest == Digest::default() {
            true => self.base.remove(&name),
            false => self.base.insert(name, content),
        };
    }
}

/// Returns the current state of the RealServers of some namespaces.
fn now(contents: &HashMap<Arc<str>, Namespace>, namespaces: &Namespaces) -> State {
    let mut state = State::default();
    for namespace in namespaces.iter().filter_map(|name| contents.get(name)) {
        let Content { digest, newest } = namespace.content();
        state.digest ^= digest;
        state.newest = state.newest.max(newest);
    }
    state
}
