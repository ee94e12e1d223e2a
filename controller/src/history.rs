//! Remembers the states of the API's objects that the controller has seen, and
//! finds out which of these states each director has used.
//!
//! The controller and every director have a separate watch for each kind of
//! object. The watches are not in step, so a director has a separate place in
//! the history of each kind. To use an object, a director must reach a certain
//! position in the history of every kind.

use std::collections::{BTreeMap, HashMap, HashSet};

use crds::{Digest, ObjectKey, api::WorldDigests};

use crate::ring::{Place, Position, Ring};

/// For each kind of object, one position in the order of the kind's states.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Positions {
    /// The position among the states of the group's VirtualServices.
    pub virtual_services: Position,
    /// The position among the states of all RealServers.
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

/// For each kind of object, the place of the state that a director used in its
/// last completed round. An unknown place is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Places {
    group: String,
    virtual_services: Option<Place>,
    real_servers: Option<Place>,
    director_groups: Option<Place>,
}

impl Places {
    /// Whether the director has reached the position in `needed` for every
    /// kind. Returns false if a place of the director is unknown.
    pub fn has_reached(&self, needed: &Positions) -> bool {
        self.position().is_some_and(|at| at.has_reached(needed))
    }

    /// The director's positions, or `None` if the position of any kind is
    /// unknown.
    pub fn position(&self) -> Option<Positions> {
        Some(Positions {
            virtual_services: self.virtual_services?.latest,
            real_servers: self.real_servers?.latest,
            director_groups: self.director_groups?.latest,
        })
    }
}

/// The states of the API's objects that the controller remembers, by kind.
#[derive(Clone, Debug, Default)]
pub struct History {
    clock: Position,
    virtual_services: BTreeMap<String, Tracked>,
    real_servers: Tracked,
    director_groups: BTreeMap<String, Tracked>,
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

/// The current digest of a set of objects, and the digests of the set's earlier
/// states.
#[derive(Clone, Debug, Default)]
struct Tracked {
    digest: Digest,
    ring: Ring,
    /// The objects that got a new uid or generation after the last gap in the
    /// watch. Deleted objects are not included. A state that contains one of
    /// these objects cannot have existed before the gap.
    new: HashSet<ObjectKey>,
}

impl Tracked {
    fn step(&mut self, step: Step<'_>, clock: &mut Position) {
        match step.novelty {
            Novelty::New => {
                self.new.insert(step.object.clone());
            }
            Novelty::Known => {}
            Novelty::Gone => {
                self.new.remove(step.object);
            }
        }
        self.become_state(self.digest ^ step.difference, clock);
    }

    fn become_state(&mut self, digest: Digest, clock: &mut Position) {
        *clock += 1;
        self.digest = digest;
        self.ring.push(digest, *clock, !self.new.is_empty());
    }

    /// Adds a state from a new listing. The controller may have missed states
    /// before the listing.
    fn listed(&mut self, digest: Digest, clock: &mut Position) {
        *clock += 1;
        self.ring.missed(*clock);
        self.new.clear();
        self.become_state(digest, clock);
    }
}

impl History {
    /// Adds a change of one VirtualService of a group.
    pub fn virtual_service_changed(&mut self, group: &str, step: Step<'_>) {
        tracked(&mut self.virtual_services, group).step(step, &mut self.clock);
    }

    /// Adds a change of one RealServer.
    pub fn real_server_changed(&mut self, step: Step<'_>) {
        self.real_servers.step(step, &mut self.clock);
    }

    /// Adds a change of one DirectorGroup.
    pub fn director_group_changed(&mut self, step: Step<'_>) {
        tracked(&mut self.director_groups, &step.object.name).step(step, &mut self.clock);
    }

    /// Adds a new listing of VirtualServices. The controller may have missed
    /// states before the listing.
    pub fn virtual_services_listed<'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a str, Digest)>,
    ) {
        listed(&mut self.virtual_services, objects, &mut self.clock);
    }

    /// Adds a new listing of RealServers. The controller may have missed states
    /// before the listing.
    pub fn real_servers_listed(&mut self, digest: Digest) {
        self.real_servers.listed(digest, &mut self.clock);
    }

    /// Adds a new listing of DirectorGroups. The controller may have missed
    /// states before the listing.
    pub fn director_groups_listed<'a>(&mut self, objects: impl Iterator<Item = (&'a str, Digest)>) {
        listed(&mut self.director_groups, objects, &mut self.clock);
    }

    /// Remembers the current state of a group, even if no object of the group
    /// has changed yet.
    pub fn know_group(&mut self, group: &str) {
        for kind in [&mut self.virtual_services, &mut self.director_groups] {
            if !kind.contains_key(group) {
                tracked(kind, group).become_state(Digest::default(), &mut self.clock);
            }
        }
        if self.real_servers.ring.latest() == 0 {
            self.real_servers
                .become_state(Digest::default(), &mut self.clock);
        }
    }

    /// Returns the current position of each kind of object, for one group.
    pub fn now(&self, group: &str) -> Positions {
        let latest = |kind: &BTreeMap<String, Tracked>| {
            kind.get(group).map_or(0, |tracked| tracked.ring.latest())
        };
        Positions {
            virtual_services: latest(&self.virtual_services),
            real_servers: self.real_servers.ring.latest(),
            director_groups: latest(&self.director_groups),
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
        places.virtual_services = place(
            self.virtual_services.get(group),
            &used.virtual_services,
            places.virtual_services,
        );
        places.real_servers = place(
            Some(&self.real_servers),
            &used.real_servers,
            places.real_servers,
        );
        places.director_groups = place(
            self.director_groups.get(group),
            &used.director_groups,
            places.director_groups,
        );
    }
}

fn tracked<'a>(kind: &'a mut BTreeMap<String, Tracked>, group: &str) -> &'a mut Tracked {
    if !kind.contains_key(group) {
        kind.insert(group.to_owned(), Tracked::default());
    }
    kind.get_mut(group).expect("the group was inserted above")
}

fn listed<'a>(
    kind: &mut BTreeMap<String, Tracked>,
    objects: impl Iterator<Item = (&'a str, Digest)>,
    clock: &mut Position,
) {
    let mut digests: HashMap<&str, Digest> = HashMap::new();
    for (group, digest) in objects {
        *digests.entry(group).or_default() ^= digest;
    }
    for group in digests.keys() {
        tracked(kind, group);
    }
    for (group, tracked) in kind {
        let digest = digests.get(group.as_str()).copied().unwrap_or_default();
        tracked.listed(digest, clock);
    }
}

/// Returns a director's new place among the states of one kind. If the reported
/// digest does not parse, the place is unknown.
fn place(kind: Option<&Tracked>, said: &str, before: Option<Place>) -> Option<Place> {
    kind?.ring.follow(&said.parse().ok()?, before)
}
