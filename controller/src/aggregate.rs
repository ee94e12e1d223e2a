//! Computes every object's status from the objects, and from what the
//! controller knows about the directors. This module is pure: it reads no clock
//! and sends no requests.
//!
//! This module does not know the time, so it sets the transition time of each
//! condition to 1970. The publisher sets the real time
//! ([`crds::condition::set`]).

mod alive;
mod drains;
mod health_reports;
mod holders;
mod programmed;
mod real_server;
mod virtual_service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crds::{
    AddressRule, Kind, ObjectKey, Objects, Resolved,
    api::{
        DirectorGroupStatus, DirectorStatus, RealServerStatus, VipHolder, VirtualServiceStatus,
        int32,
    },
    condition::{self, kind},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    history::{Places, Positions},
    liveness::Life,
    need::Need,
    scope::Scope,
    status::{Id, Status, Subject},
};

use drains::Drains;
use health_reports::HealthReports;
use holders::Holders;

/// What the controller knows about one director.
#[derive(Clone, Debug)]
pub struct DirectorView<'a> {
    /// The director's name.
    pub name: &'a str,
    /// Whether the director is alive. The controller uses a director's report
    /// only while the director is alive.
    pub life: Life,
    /// Since when and why the API server refuses the director's report, in the
    /// agent's words. `None` if it accepts the report.
    pub refused: Option<&'a str>,
    /// For each kind of object, the state that the director's last completed
    /// round used. The state is given as a place in the controller's history of
    /// states.
    pub places: &'a Places,
    /// The status that the director's agent reported.
    pub status: &'a DirectorStatus,
    /// The fields of the director's status that this controller cannot read.
    pub unreadable: &'a [String],
}

/// Everything that decides the statuses of objects.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The objects, as the watches have shown them.
    pub objects: &'a Objects,
    /// What the objects resolve to.
    pub resolved: &'a Resolved,
    /// The states that directors must have used, by VirtualService.
    pub needs: &'a BTreeMap<ObjectKey, Need>,
    /// The number of accepted services of each group.
    pub accepted: &'a BTreeMap<String, i32>,
    /// The directors of every group, dead ones included.
    pub directors: &'a [DirectorView<'a>],
}

/// The status that every object should have, or every object of a [`Scope`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The statuses of VirtualServices, by namespace and name.
    pub virtual_services: BTreeMap<ObjectKey, VirtualServiceStatus>,
    /// The statuses of RealServers, by namespace and name.
    pub real_servers: BTreeMap<ObjectKey, RealServerStatus>,
    /// The statuses of existing DirectorGroups, by name.
    pub director_groups: BTreeMap<ObjectKey, DirectorGroupStatus>,
    /// The conditions Alive, Reporting and Ready of each Director, by name. A
    /// Director is missing from the map while the controller does not know
    /// whether the Director is alive.
    pub directors: BTreeMap<String, Vec<Condition>>,
}

impl Wanted {
    /// Returns all statuses, each with the id of its object.
    pub fn into_statuses(self) -> impl Iterator<Item = (Id, Status)> {
        let id = |subject| move |key| Id { subject, key };
        let directors = self.directors.into_iter().map(move |(name, conditions)| {
            let key = ObjectKey::cluster(name);
            (id(Subject::Director)(key), Status::Director(conditions))
        });
        let groups = self.director_groups.into_iter().map(move |(key, status)| {
            (
                id(Subject::DirectorGroup)(key),
                Status::DirectorGroup(status),
            )
        });
        let services = self.virtual_services.into_iter().map(move |(key, status)| {
            (
                id(Subject::VirtualService)(key),
                Status::VirtualService(status),
            )
        });
        let servers = self
            .real_servers
            .into_iter()
            .map(move |(key, status)| (id(Subject::RealServer)(key), Status::RealServer(status)));
        directors.chain(groups).chain(services).chain(servers)
    }
}

/// What the controller knows about the directors of one group.
#[derive(Debug, Default)]
struct Group<'a> {
    live: Vec<&'a DirectorView<'a>>,
    dead: Vec<&'a DirectorView<'a>>,
    /// The live directors that cannot program any service, each with the
    /// condition that says why.
    broken: Vec<(&'a DirectorView<'a>, &'a Condition)>,
    /// All other live directors.
    working: Vec<&'a DirectorView<'a>>,
    /// The working directors that leave out exceptions.
    leaving_out: Vec<&'a DirectorView<'a>>,
    holders: Holders<'a>,
    /// Whether the directors put VIPs on a dummy device, so that several
    /// directors hold each VIP, and none is named.
    is_dummy: bool,
    /// The exceptions that working directors report, by VirtualService. The
    /// exceptions of one director follow one another.
    exceptions:
        HashMap<&'a ObjectKey, Vec<(&'a DirectorView<'a>, &'a crds::api::DirectorException)>>,
    health: HealthReports<'a>,
    drains: Drains<'a>,
    /// For each kind of object, a position in the controller's history of
    /// states: the latest one that all live directors of the group have
    /// reached. `None` if the group has no live director, or if the position of
    /// a live director is unknown.
    least: Option<Positions>,
}

impl Group<'_> {
    /// Whether every live director of the group has used states at least as new
    /// as the positions in `needed`. False if the group has no live director.
    fn has_reached(&self, needed: &Positions) -> bool {
        self.least.is_some_and(|least| least.has_reached(needed))
    }

    /// Returns the holders of an address as a status shows them.
    fn named(&self, holders: VipHolder) -> VipHolder {
        match self.is_dummy {
            true => VipHolder::new(None, holders.directors),
            false => holders,
        }
    }
}

/// Computes the status of every object in `scope`.
pub fn wanted(facts: Facts<'_>, scope: &Scope) -> Wanted {
    let Facts {
        objects,
        resolved,
        needs,
        accepted,
        directors,
    } = facts;
    let mut of_directors: BTreeMap<String, Vec<Condition>> = directors
        .iter()
        .filter_map(|director| Some((director.name.to_owned(), alive::conditions(director)?)))
        .collect();
    let mut groups = group_directors(directors);
    for (name, group) in &mut groups {
        group.is_dummy = is_dummy(objects, name);
    }
    let (mut director_groups, mut virtual_services) = (BTreeMap::new(), BTreeMap::new());
    let no_directors = Group::default();
    for (key, stored) in scope.of(Subject::VirtualService, &objects.virtual_services) {
        let service = resolved.services.get(key);
        let group = service
            .map(|service| service.group.as_str())
            .or(stored.group.as_deref())
            .and_then(|name| groups.get(name))
            .unwrap_or(&no_directors);
        let status = virtual_service::status(objects, resolved, key, needs.get(key), group);
        virtual_services.insert(key.clone(), status);
    }
    let real_servers = real_server::statuses(facts, &groups, &no_directors, scope);
    if scope.has_any(Subject::DirectorGroup) {
        let not_ready = not_ready(directors, &of_directors);
        for (key, stored) in scope.of(Subject::DirectorGroup, &objects.director_groups) {
            let condition = match resolved.rejection(Kind::DirectorGroup, key) {
                Some(rejection) => condition::not_accepted(rejection, stored.generation),
                None => condition::accepted(stored.generation),
            };
            let name = &*key.name;
            let status = director_group(
                groups.get(name).unwrap_or(&no_directors),
                key,
                condition,
                not_ready.get(name).map_or(&[], Vec::as_slice),
                accepted.get(name).copied().unwrap_or_default(),
            );
            director_groups.insert(key.clone(), status);
        }
    }
    of_directors.retain(|name, _| {
        let key = ObjectKey::cluster(name.as_str());
        scope.has(Subject::Director, &key)
    });
    Wanted {
        virtual_services,
        real_servers,
        director_groups,
        directors: of_directors,
    }
}

/// The directors that are not ready, by group, each with its condition Ready.
/// `new` are the conditions that the directors should have.
fn not_ready<'a>(
    directors: &'a [DirectorView<'_>],
    new: &'a BTreeMap<String, Vec<Condition>>,
) -> HashMap<&'a str, Vec<(&'a str, &'a Condition)>> {
    let mut not_ready: HashMap<&str, Vec<_>> = HashMap::new();
    for director in directors {
        let published = &director.status.conditions;
        let conditions = new.get(director.name).unwrap_or(published);
        let group = director.status.director_group_name.as_str();
        match condition::find(conditions, kind::READY) {
            Some(ready) if ready.status != "True" && !group.is_empty() => {
                let of_group = not_ready.entry(group).or_default();
                of_group.push((director.name, ready));
            }
            _ => {}
        }
    }
    not_ready
}

fn is_dummy(objects: &Objects, group: &str) -> bool {
    let group = objects.group(group);
    let rule = group.and_then(|stored| stored.in_force());
    rule.is_some_and(|rule| rule.addresses == AddressRule::Dummy)
}

fn group_directors<'a>(directors: &'a [DirectorView<'a>]) -> HashMap<&'a str, Group<'a>> {
    let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
    for director in directors {
        let status = director.status;
        // Before its first report, a director belongs to no group.
        if status.director_group_name.is_empty() {
            continue;
        }
        let group = groups
            .entry(status.director_group_name.as_str())
            .or_default();
        group.drains.hear(director);
        if !director.life.is_live() {
            group.dead.push(director);
            continue;
        }
        group.live.push(director);
        if let Some(health) = &status.health {
            group.health.hear(director, health);
        }
        group.holders.hear(director);
        if let Some(why) = programmed::broken(director) {
            group.broken.push((director, why));
            continue;
        }
        group.working.push(director);
        if status.exceptions_omitted > 0 {
            group.leaving_out.push(director);
        }
        for exception in &status.exceptions {
            group
                .exceptions
                .entry(&exception.virtual_service)
                .or_default()
                .push((director, exception));
        }
    }
    for group in groups.values_mut() {
        group.least = group
            .live
            .iter()
            .map(|director| director.places.position())
            .reduce(|one, other| Some(one?.least(other?)))
            .flatten();
    }
    groups
}

fn director_group(
    group: &Group<'_>,
    key: &ObjectKey,
    accepted: Condition,
    not_ready: &[(&str, &Condition)],
    services: i32,
) -> DirectorGroupStatus {
    let directors = group.live.len() + group.dead.len();
    let generation = accepted.observed_generation.unwrap_or_default();
    let ready = condition::group_ready(&accepted, not_ready, directors, &key.name, generation);
    let of_live = |kind| {
        let live = group.live.iter();
        let holds =
            |director: &&&DirectorView<'_>| condition::is_true(&director.status.conditions, kind);
        int32(live.filter(holds).count())
    };
    let vips = group.holders.of_any();
    DirectorGroupStatus {
        conditions: vec![accepted, ready],
        directors: int32(directors),
        live_directors: int32(group.live.len()),
        programmed_directors: of_live(kind::PROGRAMMED),
        holding_removals: of_live(kind::REMOVALS_HELD),
        vips: (services > 0).then(|| group.named(vips)),
        virtual_services: services,
    }
}
