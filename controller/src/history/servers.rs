//! The states of the RealServers, as the directors of each group see them. A
//! director reports the digest over the RealServers of those namespaces that
//! have a VirtualService of its group, so that other namespaces' changes do not
//! change its report.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::{Digest, ObjectKey};

use super::{Novelty, Step};
use crate::ring::{Place, Position, Ring};

/// The RealServers of all namespaces, and the history of each group.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    namespaces: HashMap<String, Namespace>,
    groups: BTreeMap<String, Group>,
}

/// The RealServers of one namespace.
#[derive(Clone, Debug, Default)]
struct Namespace {
    digest: Digest,
    /// The objects that got a new uid or generation after the last listing of
    /// RealServers, each with the position of this change. Deleted objects are
    /// not included.
    new: HashMap<ObjectKey, Position>,
    /// The positions in `new`, in order.
    positions: BTreeSet<Position>,
}

/// The RealServers that the directors of one group see.
#[derive(Clone, Debug, Default)]
struct Group {
    /// The number of the group's VirtualServices in each namespace that has any.
    services: HashMap<String, usize>,
    /// The states of the RealServers in these namespaces. A change of the
    /// namespaces is a gap: the states of a namespace that was not among them
    /// are not in the ring.
    ring: Ring,
    /// The position of the last change of the namespaces.
    changed: Position,
}

/// What a director has seen of the RealServers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    /// The place of the state that the director used.
    pub(super) place: Place,
    /// Whether the director's VirtualServices had the same namespaces as the
    /// controller's when the director used this state. Only then has the
    /// director seen all changes in these namespaces.
    is_sure: bool,
}

impl Servers {
    /// Adds a change of one RealServer.
    pub(super) fn server_changed(&mut self, step: Step<'_>, clock: &mut Position) {
        let name = &*step.object.namespace;
        let namespace = self.namespaces.entry(name.to_owned()).or_default();
        namespace.digest ^= step.difference;
        *clock += 1;
        let before = match step.novelty {
            Novelty::New => {
                namespace.positions.insert(*clock);
                namespace.new.insert(step.object.clone(), *clock)
            }
            Novelty::Known => None,
            Novelty::Gone => namespace.new.remove(step.object),
        };
        if let Some(before) = before {
            namespace.positions.remove(&before);
        }
        for group in self.groups.values_mut() {
            if group.services.contains_key(name) {
                group.become_state(&self.namespaces, clock);
            }
        }
    }

    /// Adds a change of the number of VirtualServices that a group has in a
    /// namespace.
    pub(super) fn services_changed(
        &mut self,
        group: &str,
        namespace: &str,
        difference: isize,
        clock: &mut Position,
    ) {
        let group = self.groups.entry(group.to_owned()).or_default();
        let count = group.services.entry(namespace.to_owned()).or_default();
        let before = *count;
        *count = count.saturating_add_signed(difference);
        let after = *count;
        if after == 0 {
            group.services.remove(namespace);
        }
        if (before == 0) != (after == 0) {
            group.namespaces_changed(&self.namespaces, clock);
        }
    }

    /// Adds a new listing of RealServers. States before the listing may have
    /// been missed.
    pub(super) fn servers_listed<'a>(
        &mut self,
        servers: impl Iterator<Item = (&'a ObjectKey, Digest)>,
        clock: &mut Position,
    ) {
        self.namespaces.clear();
        for (key, digest) in servers {
            let namespace = self.namespaces.entry(key.namespace.to_string());
            namespace.or_default().digest ^= digest;
        }
        for group in self.groups.values_mut() {
            *clock += 1;
            group.ring.missed(*clock);
            group.become_state(&self.namespaces, clock);
        }
    }

    /// Adds a new listing of VirtualServices: the group and the namespace of
    /// each. States before the listing may have been missed.
    pub(super) fn services_listed<'a>(
        &mut self,
        services: impl Iterator<Item = (&'a str, &'a str)>,
        clock: &mut Position,
    ) {
        for group in self.groups.values_mut() {
            group.services.clear();
        }
        for (group, namespace) in services {
            let group = self.groups.entry(group.to_owned()).or_default();
            *group.services.entry(namespace.to_owned()).or_default() += 1;
        }
        for group in self.groups.values_mut() {
            group.namespaces_changed(&self.namespaces, clock);
        }
    }

    /// Remembers the current state of a group, even if the group has no
    /// VirtualService yet.
    pub(super) fn know_group(&mut self, group: &str, clock: &mut Position) {
        let group = self.groups.entry(group.to_owned()).or_default();
        if group.ring.latest() == 0 {
            group.become_state(&self.namespaces, clock);
        }
    }

    /// Returns the position of the current state that a group's directors see.
    pub(super) fn latest(&self, group: &str) -> Position {
        self.groups
            .get(group)
            .map_or(0, |group| group.ring.latest())
    }

    /// Returns what a director of a group has seen, after a report with the
    /// digest `said`. `services` is the place of the VirtualServices in the same
    /// report, if the controller knows their state. `before` is what the
    /// director had seen before.
    ///
    /// An unknown digest keeps what was seen before only if the namespaces of
    /// the director's VirtualServices are still the same. In another namespace,
    /// the director may not have seen the latest changes.
    pub(super) fn follow(
        &self,
        group: &str,
        said: &str,
        services: Option<Place>,
        before: Option<Seen>,
    ) -> Option<Seen> {
        let group = self.groups.get(group)?;
        let digest = said.parse().ok()?;
        let has_all = |services: Place| services.latest > group.changed;
        if let Some(place) = group.ring.find(&digest) {
            let is_sure = services.is_some_and(has_all);
            return Some(Seen { place, is_sure });
        }
        let before = before.filter(|seen| seen.is_sure && services.is_none_or(has_all))?;
        let place = group.ring.follow(&digest, Some(before.place))?;
        Some(Seen { place, ..before })
    }
}

impl Group {
    fn namespaces_changed(
        &mut self,
        namespaces: &HashMap<String, Namespace>,
        clock: &mut Position,
    ) {
        *clock += 1;
        self.changed = *clock;
        self.ring.missed(*clock);
        self.become_state(namespaces, clock);
    }

    fn become_state(&mut self, namespaces: &HashMap<String, Namespace>, clock: &mut Position) {
        let seen = || {
            let names = self.services.keys();
            names.filter_map(|name| namespaces.get(name))
        };
        let digest = seen().fold(Digest::default(), |digest, found| digest ^ found.digest);
        let gap = self.ring.gap();
        let is_unique = seen().any(|found| found.positions.last().is_some_and(|at| *at > gap));
        *clock += 1;
        self.ring.push(digest, *clock, is_unique);
    }
}
