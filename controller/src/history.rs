//! Remembers the states of the API's objects that the controller has seen, and
//! finds out which of these states each director has used.
//!
//! The controller and every director have a separate watch for each kind of
//! object. The watches are not in step, so a director has a separate place in
//! the history of each kind. To use an object, a director must reach a certain
//! position in the history of every kind.

mod real_servers;
mod tracked;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crds::{Digest, ObjectKey, api::WorldDigests};

use crate::ring::{Position, Progress};
use real_servers::{Namespaces, RealServers, identify};
use tracked::Tracked;

/// For each kind of object, one position in the order of the kind's states.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Positions {
    /// The position among the states of the group's VirtualServices.
    pub virtual_services: Position,
    /// The position among the states of the RealServers of the namespaces that
    /// have a VirtualService of the group.
    pub real_servers: Position,
    /// The position among the states of the group's own DirectorGroup.
    pub director_groups: Position,
}

impl Positions {
    /// For each kind, returns the earlier of the positions in `self` and
    /// `other`.
    pub fn least(self, other: Self) -> Self {
        Self {
            virtual_services: self.virtual_services.min(other.virtual_services),
            real_servers: self.real_servers.min(other.real_servers),
            director_groups: self.director_groups.min(other.director_groups),
        }
    }

    /// Whether the position of every kind is at least the position in `needed`.
    pub fn has_reached(&self, needed: &Self) -> bool {
        self.virtual_services >= needed.virtual_services
            && self.real_servers >= needed.real_servers
            && self.director_groups >= needed.director_groups
    }
}

/// For each kind of object, how far a director has come: its last completed
/// round used that state. Unknown progress is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Places {
    group: String,
    virtual_services: Option<Progress>,
    real_servers: Option<Progress>,
    director_groups: Option<Progress>,
}

impl Places {
    /// Whether the director has reached the position in `needed` for every
    /// kind. Returns false if the director's progress is unknown for a kind.
    pub fn has_reached(&self, needed: &Positions) -> bool {
        self.position().is_some_and(|at| at.has_reached(needed))
    }

    /// The director's positions, or `None` if the position of any kind is
    /// unknown.
    pub fn position(&self) -> Option<Positions> {
        Some(Positions {
            virtual_services: self.virtual_services?.at,
            real_servers: self.real_servers?.at,
            director_groups: self.director_groups?.at,
        })
    }
}

/// The states of the API's objects that the controller remembers, by kind.
#[derive(Clone, Debug, Default)]
pub struct History {
    clock: Position,
    virtual_services: BTreeMap<String, Services>,
    real_servers: RealServers,
    director_groups: BTreeMap<String, Tracked>,
}

/// The VirtualServices of one group.
#[derive(Clone, Debug, Default)]
struct Services {
    tracked: Tracked,
    keys: BTreeSet<ObjectKey>,
    namespaces: Namespaces,
    /// Identifies `namespaces`.
    id: Digest,
}

impl Services {
    /// Notes that a VirtualService exists, or that it was deleted.
    fn note(&mut self, key: &ObjectKey, is_there: bool) {
        match is_there {
            true => self.keys.insert(key.clone()),
            false => self.keys.remove(key),
        };
        let mut of_namespace = self.keys.range(ObjectKey::new(key.namespace.clone(), "")..);
        let has_any = of_namespace
            .next()
            .is_some_and(|next| next.namespace == key.namespace);
        let changed = match has_any {
            true => self.namespaces.insert(key.namespace.clone()),
            false => self.namespaces.remove(&key.namespace),
        };
        if changed {
            self.id ^= identify([&*key.namespace]);
        }
    }
}

/// A change of one object.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The object that changed.
    pub object: &'a ObjectKey,
    /// The XOR of the object's digests before and after the change. An object
    /// that does not exist has the default digest.
    pub difference: Digest,
    /// Whether an earlier state may have contained the object in its new form.
    pub novelty: Novelty,
}

/// Whether an earlier state may have contained a changed object in its new
/// form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Novelty {
    /// The object has a new uid or generation, so no earlier state contained
    /// the object in its new form.
    New,
    /// The uid and the generation are not new. A label can be changed back, so
    /// an earlier state may have contained the object in its new form.
    Known,
    /// The object was deleted.
    Gone,
}

impl History {
    /// Adds a change of one VirtualService of a group.
    pub fn virtual_service_changed(&mut self, group: &str, step: Step<'_>) {
        let services = entry(&mut self.virtual_services, group);
        let before = services.id;
        services.note(step.object, step.novelty != Novelty::Gone);
        let id = services.id;
        services.tracked.step(step, id, &mut self.clock);
        if id != before {
            self.adopt(group);
        }
    }

    /// Adds a change of one RealServer.
    pub fn real_server_changed(&mut self, step: Step<'_>) {
        self.real_servers.step(step, &mut self.clock);
    }

    /// Adds a change of one DirectorGroup.
    pub fn director_group_changed(&mut self, step: Step<'_>) {
        let group = entry(&mut self.director_groups, &step.object.name);
        group.step(step, Digest::default(), &mut self.clock);
    }

    /// Adds a new listing of VirtualServices, each with its group. The
    /// controller may have missed states before the listing.
    pub fn virtual_services_listed<'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a str, &'a ObjectKey, Digest)>,
    ) {
        let mut listed: HashMap<&str, (BTreeSet<ObjectKey>, Digest)> = HashMap::new();
        for (group, key, digest) in objects {
            let (keys, all) = listed.entry(group).or_default();
            keys.insert(key.clone());
            *all ^= digest;
        }
        for group in listed.keys() {
            entry(&mut self.virtual_services, group);
        }
        for (group, services) in &mut self.virtual_services {
            let (keys, digest) = listed.remove(group.as_str()).unwrap_or_default();
            let namespaces = keys.iter().map(|key| &key.namespace);
            services.namespaces = namespaces.cloned().collect();
            services.id = identify(services.namespaces.iter().map(|name| &**name));
            services.keys = keys;
            let id = services.id;
            services.tracked.listed(digest, id, &mut self.clock);
        }
        let groups: Vec<String> = self.virtual_services.keys().cloned().collect();
        for group in groups {
            self.adopt(&group);
        }
    }

    /// Adds a new listing of RealServers, each with its namespace. The
    /// controller may have missed states before the listing.
    pub fn real_servers_listed<'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a Arc<str>, Digest)>,
    ) {
        self.real_servers.listed(objects, &mut self.clock);
    }

    /// Adds a new listing of DirectorGroups. The controller may have missed
    /// states before the listing.
    pub fn director_groups_listed<'a>(&mut self, objects: impl Iterator<Item = (&'a str, Digest)>) {
        let mut listed: HashMap<&str, Digest> = objects.collect();
        for group in listed.keys() {
            entry(&mut self.director_groups, group);
        }
        for (group, tracked) in &mut self.director_groups {
            let digest = listed.remove(group.as_str()).unwrap_or_default();
            tracked.listed(digest, Digest::default(), &mut self.clock);
        }
    }

    /// Remembers the current state of a group, even if no object of the group
    /// has changed yet.
    pub fn know_group(&mut self, group: &str) {
        if !self.virtual_services.contains_key(group) {
            let services = entry(&mut self.virtual_services, group);
            services.tracked.begin(&mut self.clock);
            self.adopt(group);
        }
        if !self.director_groups.contains_key(group) {
            entry(&mut self.director_groups, group).begin(&mut self.clock);
        }
    }

    /// Returns the current position of each kind of object, for one group.
    pub fn now(&self, group: &str) -> Positions {
        let services = self.virtual_services.get(group);
        let director_group = self.director_groups.get(group);
        Positions {
            virtual_services: services.map_or(0, |services| services.tracked.ring.latest()),
            real_servers: services.map_or(0, |services| self.real_servers.latest(&services.id)),
            director_groups: director_group.map_or(0, |tracked| tracked.ring.latest()),
        }
    }

    /// Tells the history of RealServers which namespaces a group has now.
    fn adopt(&mut self, group: &str) {
        let current = self.virtual_services.values();
        let current = current.map(|services| services.id).collect();
        if let Some(services) = self.virtual_services.get(group) {
            self.real_servers
                .adopt(services.id, &services.namespaces, &current, &mut self.clock);
        }
    }

    /// Updates a director's places after a report. `used` contains the digests
    /// of the states that the director's last completed round used. Before the
    /// first completed round, `used` is `None`, and no place of the director is
    /// known.
    pub fn follow(&self, places: &mut Places, group: &str, used: Option<&WorldDigests>) {
        if places.group != group {
            *places = Places {
                group: group.to_owned(),
                ..Places::default()
            };
        }
        let Some(used) = used else {
            *places = Places {
                group: group.to_owned(),
                ..Places::default()
            };
            return;
        };
        let parsed = |said: &str| said.parse::<Digest>().ok();
        let services = self.virtual_services.get(group);
        let told = parsed(&used.virtual_services);
        let ring = services.map(|services| &services.tracked.ring);
        let namespaces = ring
            .zip(told)
            .and_then(|(ring, told)| ring.namespaces(&told));
        places.virtual_services = ring
            .zip(told)
            .and_then(|(ring, told)| ring.follow(&told, places.virtual_services));
        let told = parsed(&used.real_servers);
        places.real_servers = services.zip(told).and_then(|(services, told)| {
            let before = places.real_servers;
            let servers = &self.real_servers;
            servers.follow(&told, namespaces, &services.id, before)
        });
        let told = parsed(&used.director_groups);
        let ring = self.director_groups.get(group).map(|group| &group.ring);
        places.director_groups = ring
            .zip(told)
            .and_then(|(ring, told)| ring.follow(&told, places.director_groups));
    }
}

fn entry<'a, T: Default>(kind: &'a mut BTreeMap<String, T>, group: &str) -> &'a mut T {
    if !kind.contains_key(group) {
        kind.insert(group.to_owned(), T::default());
    }
    kind.get_mut(group).expect("the group was inserted above")
}
