//! Computes the statuses that may have changed since the last pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::{
    ObjectKey, Resolved,
    api::{DirectorDrains, DirectorHealth, DirectorStatus, DrainingServer},
    condition::{self, kind},
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::{KnownDirector, World};
use crate::{
    aggregate::{self, DirectorView, Facts, Wanted},
    difference::Difference,
    history::Positions,
    liveness,
    need::Need,
    outbox::{Letter, Pass},
    scope::Scope,
    status::{Id, Status, Subject},
    waits::{self, Limits, Moment, Waits},
};

/// What may have changed since the last pass.
#[derive(Debug)]
pub(super) struct Stale {
    scope: Scope,
    /// The groups with directors that have used newer objects. For each kind of
    /// object, the position is the earliest that one of these directors had
    /// reached before.
    advanced: BTreeMap<String, Positions>,
    /// The services that a director may not have used yet as they are now.
    /// `None` stands for all services.
    awaited: Option<BTreeSet<ObjectKey>>,
}

impl Default for Stale {
    fn default() -> Self {
        Self {
            scope: Scope::All,
            advanced: BTreeMap::new(),
            awaited: None,
        }
    }
}

impl Stale {
    pub(super) fn add(&mut self, id: Id) {
        self.scope.add(id);
    }

    pub(super) fn add_all(&mut self) {
        self.scope = Scope::All;
    }

    /// Notes that a director may be behind the others of its group, and may
    /// have used no service as it is now.
    pub(super) fn joined(&mut self) {
        self.awaited = None;
        self.add_all();
    }

    /// Notes that directors must use a service as it is now.
    pub(super) fn awaits(&mut self, service: &ObjectKey) {
        if let Some(awaited) = &mut self.awaited {
            awaited.insert(service.clone());
        }
    }

    /// Notes a report of a director that was known before.
    pub(super) fn reported(&mut self, id: Id, before: &KnownDirector, after: &KnownDirector) {
        let is_same = before.unreadable == after.unreadable
            && what_objects_depend_on(&before.status) == what_objects_depend_on(&after.status);
        if before.status.director_group_name != after.status.director_group_name {
            self.joined();
        } else if !is_same {
            self.add_all();
        } else {
            for server in changed_drains(&before.status, &after.status) {
                self.add(self::id(Subject::RealServer, server));
            }
        }
        let group = ObjectKey::cluster(after.status.director_group_name.as_str());
        self.add(id);
        self.add(Id {
            subject: Subject::DirectorGroup,
            key: group,
        });
    }

    /// Notes that a director may have used newer objects than `before`.
    pub(super) fn advanced(&mut self, director: &KnownDirector, before: Option<Positions>) {
        let group = &director.status.director_group_name;
        match (before, director.places.position()) {
            (before, after) if before == after => {}
            (Some(before), Some(after)) if after.has_reached(&before) => {
                let least = self.advanced.entry(group.clone()).or_insert(before);
                *least = least.least(before);
            }
            _ => self.joined(),
        }
    }

    /// Returns the objects that the next pass must look at, and forgets them.
    fn take(
        &mut self,
        resolved: &Resolved,
        needs: &BTreeMap<ObjectKey, Need>,
        directors: &BTreeMap<String, KnownDirector>,
    ) -> Scope {
        let mut scope = std::mem::replace(&mut self.scope, Scope::nothing());
        let advanced = std::mem::take(&mut self.advanced);
        if scope == Scope::All || advanced.is_empty() {
            return scope;
        }
        let slowest = slowest(directors);
        let all = || needs.keys().cloned().collect();
        let mut awaited = self.awaited.take().unwrap_or_else(all);
        awaited.retain(|key| {
            // A service that resolves again later is awaited again.
            let (Some(need), Some(service)) = (needs.get(key), resolved.services.get(key)) else {
                return false;
            };
            let is_reached = |position: &Positions| {
                let mut all = need.servers.values().chain([&need.since]);
                all.all(|since| position.has_reached(since))
            };
            let before = advanced.get(&service.group);
            if before.is_some_and(|before| !is_reached(before)) {
                scope.add(id(Subject::VirtualService, key));
                let is_checked = service.health_check.is_some();
                for server in &service.servers {
                    if is_checked || server.drain.is_some() {
                        scope.add(id(Subject::RealServer, &server.object));
                    }
                }
            }
            let slowest = slowest.get(service.group.as_str()).copied().flatten();
            !slowest.is_some_and(|slowest| is_reached(&slowest))
        });
        self.awaited = Some(awaited);
        scope
    }
}

/// Returns the earliest position of the directors of each group, dead ones
/// included: they may come back. It is `None` if the position of a director is
/// not known.
fn slowest(directors: &BTreeMap<String, KnownDirector>) -> HashMap<&str, Option<Positions>> {
    let mut slowest: HashMap<&str, Option<Positions>> = HashMap::new();
    for director in directors.values() {
        let position = director.places.position();
        slowest
            .entry(director.status.director_group_name.as_str())
            .and_modify(|least| *least = least.zip(position).map(|(one, other)| one.least(other)))
            .or_insert(position);
    }
    slowest
}

/// Returns the servers about whose drain two reports of a director differ.
fn changed_drains<'a>(
    before: &'a DirectorStatus,
    after: &'a DirectorStatus,
) -> BTreeSet<&'a ObjectKey> {
    fn entries(status: &DirectorStatus) -> &[DrainingServer] {
        let drains = status.drains.as_ref();
        drains.map_or(&[], |drains| &drains.servers)
    }
    fn missing<'a>(from: &'a [DrainingServer], all: &[DrainingServer]) -> Vec<&'a ObjectKey> {
        let known: HashMap<_, _> = all
            .iter()
            .map(|entry| (&entry.real_server, entry))
            .collect();
        let is_other = |entry: &&DrainingServer| known.get(&entry.real_server) != Some(entry);
        let other = from.iter().filter(is_other);
        other.map(|entry| &entry.real_server).collect()
    }
    let (before, after) = (entries(before), entries(after));
    if before == after {
        return BTreeSet::new();
    }
    let mut changed = BTreeSet::from_iter(missing(before, after));
    changed.extend(missing(after, before));
    changed
}

/// Returns the part of a director's report on which the statuses of other
/// objects than the Director and its group depend, except for the states that
/// the director has used.
fn what_objects_depend_on(report: &DirectorStatus) -> DirectorStatus {
    let programmed = condition::find(&report.conditions, kind::PROGRAMMED);
    // While it is True, its message has only numbers.
    let not_true = programmed.filter(|programmed| programmed.status != "True");
    let not_true = not_true.map(|programmed| Condition {
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        ..programmed.clone()
    });
    DirectorStatus {
        agent_version: String::new(),
        kernel_version: String::new(),
        boot_id: String::new(),
        used: None,
        services: 0,
        real_servers: 0,
        removals_held: 0,
        sysctls: Vec::new(),
        sysctls_omitted: 0,
        repairs: crds::api::Repairs::default(),
        notices: Vec::new(),
        notices_omitted: 0,
        conditions: not_true.into_iter().collect(),
        health: report.health.clone().map(|health| DirectorHealth {
            checked: 0,
            healthy: 0,
            ..health
        }),
        // The servers of the list are compared one by one.
        drains: report
            .drains
            .as_ref()
            .filter(|drains| drains.omitted > 0)
            .map(|drains| DirectorDrains {
                servers: Vec::new(),
                ..drains.clone()
            }),
        ..report.clone()
    }
}

pub(super) fn id(subject: Subject, key: &ObjectKey) -> Id {
    Id {
        subject,
        key: key.clone(),
    }
}

impl World {
    /// Makes a pass: computes the statuses that may have changed since the last
    /// pass, and returns those that differ from the published ones. The caller
    /// must call [`World::resolve`] first. The pass looks at nothing until
    /// every watch has completed a listing.
    pub fn pass(&mut self, moment: Moment) -> Pass {
        if !self.is_listed() {
            return Pass {
                scope: Scope::nothing(),
                letters: Vec::new(),
            };
        }
        // A director may have died since the caller last asked.
        self.time_passed(moment.now);
        self.follow();
        let scope = self
            .stale
            .take(&self.resolved, &self.needs, &self.directors);
        let mut waits = std::mem::take(&mut self.waits);
        let pass = self.pass_over(scope, moment, &mut waits);
        self.waits = waits;
        pass
    }

    /// Returns what a pass over all objects would find.
    pub fn pass_over_all(&self, moment: Moment) -> Pass {
        self.pass_over(Scope::All, moment, &mut self.waits.clone())
    }

    fn pass_over(&self, scope: Scope, moment: Moment, waits: &mut Waits) -> Pass {
        let before = waits.take(&scope);
        let mut limits = Limits::new(moment, &self.resolved, &self.needs);
        let letters = self
            .compute(moment.now, &scope)
            .into_statuses()
            .filter_map(|(id, status)| {
                let (uid, mut status) = self.addressed(&id, status)?;
                let published = self.published.get(&id);
                let object = waits::Object {
                    id: &id,
                    uid: &uid,
                    published,
                };
                waits.note(object, &mut status, &before, &mut limits);
                let difference = status.difference(published);
                (difference != Difference::None).then(|| Letter {
                    published: published.cloned(),
                    uid,
                    id,
                    status,
                    difference,
                })
            })
            .collect();
        Pass { scope, letters }
    }

    /// Computes the status that every object should have now. The caller must
    /// call [`World::resolve`] first.
    pub fn wanted(&mut self, now: liveness::Time) -> Wanted {
        self.follow();
        self.compute(now, &Scope::All)
    }

    /// Updates the places of all directors: a director may have used a state
    /// before the controller saw that state.
    fn follow(&mut self) {
        if !std::mem::take(&mut self.has_new_states) {
            return;
        }
        for director in self.directors.values_mut() {
            let before = director.places.position();
            director.follow(&self.history);
            self.stale.advanced(director, before);
        }
    }

    fn compute(&self, now: liveness::Time, scope: &Scope) -> Wanted {
        let directors: Vec<DirectorView<'_>> = self
            .directors
            .iter()
            .map(|(name, director)| DirectorView {
                name,
                life: self.liveness.life(name, now),
                refused: self.liveness.refused(name),
                places: &director.places,
                status: &director.status,
                unreadable: &director.unreadable,
            })
            .collect();
        let facts = Facts {
            objects: &self.objects,
            resolved: &self.resolved,
            needs: &self.needs,
            accepted: &self.accepted,
            directors: &directors,
        };
        aggregate::wanted(facts, scope)
    }

    fn addressed(&self, id: &Id, mut status: Status) -> Option<(String, Status)> {
        let uid = match id.subject {
            Subject::VirtualService => &self.objects.virtual_services.get(&id.key)?.uid,
            Subject::RealServer => &self.objects.real_servers.get(&id.key)?.uid,
            Subject::DirectorGroup => &self.objects.director_groups.get(&id.key)?.uid,
            Subject::Director => {
                let director = self.directors.get(&*id.key.name)?;
                if let Status::Director(conditions) = &mut status {
                    for condition in conditions {
                        condition.observed_generation = Some(director.generation);
                    }
                }
                &director.uid
            }
        };
        Some((uid.clone(), status))
    }
}
