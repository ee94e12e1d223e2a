//! Which states of the world the controller has seen, and where directors
//! stand among them.
//!
//! Each kind arrives on a watch of its own, here and at every director, and
//! the watches are not in step. So a director stands at one place per kind,
//! and an object is needed from one position per kind on.

use std::collections::{BTreeMap, HashMap, HashSet};

use crds::{Digest, ObjectKey, api::WorldDigests};

use crate::ring::{Place, Position, Ring};

/// A position in each kind's order of states.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Positions {
    /// Among the states of the group's VirtualServices.
    pub virtual_services: Position,
    /// Among the states of all RealServers.
    pub real_servers: Position,
    /// Among the states of the group's own DirectorGroup.
    pub director_groups: Position,
}

impl Positions {
    /// In each kind, the earlier one.
    pub fn least(self, other: Self) -> Self {
        Self {
            virtual_services: self.virtual_services.min(other.virtual_services),
            real_servers: self.real_servers.min(other.real_servers),
            director_groups: self.director_groups.min(other.director_groups),
        }
    }

    /// Whether this is as far on as `needed`, in every kind.
    pub fn has_reached(&self, needed: &Self) -> bool {
        self.virtual_services >= needed.virtual_services
            && self.real_servers >= needed.real_servers
            && self.director_groups >= needed.director_groups
    }
}

/// Where one director stands: nowhere in a kind means that nothing is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Places {
    group: String,
    virtual_services: Option<Place>,
    real_servers: Option<Place>,
    director_groups: Option<Place>,
}

impl Places {
    /// Whether the last completed round used a state as new as `needed`, in
    /// every kind.
    pub fn has_reached(&self, needed: &Positions) -> bool {
        self.position().is_some_and(|at| at.has_reached(needed))
    }

    /// The position in every kind; none if nothing is known in one.
    pub fn position(&self) -> Option<Positions> {
        Some(Positions {
            virtual_services: self.virtual_services?.latest,
            real_servers: self.real_servers?.latest,
            director_groups: self.director_groups?.latest,
        })
    }
}

/// All states that are remembered.
#[derive(Clone, Debug, Default)]
pub struct History {
    clock: Position,
    virtual_services: BTreeMap<String, Tracked>,
    real_servers: Tracked,
    director_groups: BTreeMap<String, Tracked>,
}

/// One object is different now.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Which.
    pub object: &'a ObjectKey,
    /// Its digest before XOR its digest after (nothing is the default digest).
    pub difference: Digest,
    /// Whether that is new to the world.
    pub novelty: Novelty,
}

/// How an object differs from before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Novelty {
    /// Its uid or generation is new: no state of the world had this before.
    New,
    /// It may have been like this before: labels come and go.
    Known,
    /// It is not there any more.
    Gone,
}

/// The present digest of a set of objects, and the earlier ones.
#[derive(Clone, Debug, Default)]
struct Tracked {
    digest: Digest,
    ring: Ring,
    /// Objects that are there and whose generation is newer than the last gap:
    /// a state with one of them cannot have been there before.
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

    /// The state that a listing found, after others that were not seen.
    fn listed(&mut self, digest: Digest, clock: &mut Position) {
        *clock += 1;
        self.ring.missed(*clock);
        self.new.clear();
        self.become_state(digest, clock);
    }
}

impl History {
    /// One VirtualService of a group is different now.
    pub fn virtual_service_changed(&mut self, group: &str, step: Step<'_>) {
        tracked(&mut self.virtual_services, group).step(step, &mut self.clock);
    }

    /// One RealServer is different now.
    pub fn real_server_changed(&mut self, step: Step<'_>) {
        self.real_servers.step(step, &mut self.clock);
    }

    /// One DirectorGroup is different now.
    pub fn director_group_changed(&mut self, step: Step<'_>) {
        tracked(&mut self.director_groups, &step.object.name).step(step, &mut self.clock);
    }

    /// VirtualServices were listed anew, and may have been through states that
    /// were not seen.
    pub fn virtual_services_listed<'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a str, Digest)>,
    ) {
        listed(&mut self.virtual_services, objects, &mut self.clock);
    }

    /// RealServers were listed anew.
    pub fn real_servers_listed(&mut self, digest: Digest) {
        self.real_servers.listed(digest, &mut self.clock);
    }

    /// DirectorGroups were listed anew.
    pub fn director_groups_listed<'a>(&mut self, objects: impl Iterator<Item = (&'a str, Digest)>) {
        listed(&mut self.director_groups, objects, &mut self.clock);
    }

    /// Makes sure that the present state of a group is remembered, also where
    /// nothing has happened in it yet.
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

    /// Where the world stands, as seen by a group.
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

    /// Moves a director to where its last report puts it. Before its first
    /// completed round it stands nowhere.
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
    kind.get_mut(group).expect("it was inserted above")
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

/// A digest that cannot be read is one that is not known.
fn place(kind: Option<&Tracked>, said: &str, before: Option<Place>) -> Option<Place> {
    kind?.ring.follow(&said.parse().ok()?, before)
}
