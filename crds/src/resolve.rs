mod budgets;
mod by_label;
mod grants;
mod left_out;
mod link;
mod probes;
mod room;

use std::{
    collections::{HashMap, hash_map},
    net::SocketAddr,
};

pub use self::grants::one_address;
use self::{budgets::Why, by_label::oldest_first, grants::Granted, link::link_servers};
use crate::{
    BudgetRule, Extent, Kind, ObjectKey, Objects, Rejection, Resolved, ServiceId, Source, Stored,
    check::CheckedService, condition::reason,
};

/// The services and servers that a director already serves.
pub trait Standing {
    /// Whether the director made the service and serves it.
    fn service(&self, service: ServiceId) -> bool;

    /// Whether the director made this server of the service and serves it.
    fn server(&self, service: ServiceId, server: SocketAddr) -> bool;

    /// Whether the director has this server of the service in the kernel or in
    /// its wanted state. A failed health check may keep a wanted server out of
    /// the kernel.
    fn has_place(&self, service: ServiceId, server: SocketAddr) -> bool {
        self.server(service, server)
    }
}

/// A director that serves nothing.
struct Nothing;

impl Standing for Nothing {
    fn service(&self, _: ServiceId) -> bool {
        false
    }

    fn server(&self, _: ServiceId, _: SocketAddr) -> bool {
        false
    }
}

/// Resolves all objects into the services that directors must serve.
///
/// The function is pure: the same objects give the same result, in whatever
/// order they arrived. A faulty object affects another object in only two
/// cases: the objects conflict, or the faulty object uses up a budget. A
/// [`Rejection`] names the conflict.
///
/// Call this function only after all objects are listed
/// ([`Objects::is_listed`]). Otherwise, a group that has not arrived yet looks
/// like a group that does not exist.
pub fn resolve(objects: &Objects) -> Resolved {
    resolve_for(objects, &Nothing)
}

/// Works like [`resolve`], and also returns some refused services and servers:
/// those that the director still serves according to `standing`. These objects
/// lack a grant or are beyond a budget. The services are in
/// [`Resolved::ungranted`], and the servers are in
/// [`crate::Service::ungranted`]. [`Resolved::refused`] says why the servers
/// are refused. The objects that the director still serves may use up a budget.
/// Then accepted objects that the director does not serve yet must wait
/// ([`Resolved::waiting`]). All directors accept the same objects, but
/// different objects may wait on each director.
///
/// [`crate::Service::ungranted`] has only the left-out servers that the
/// director still serves, because budgets can leave out a million pairs of a
/// service and a server.
pub fn resolve_for(objects: &Objects, standing: &dyn Standing) -> Resolved {
    let mut resolved = Resolved::default();
    let defaults = BudgetRule::default();
    reject_bad_objects(objects, &mut resolved);
    let candidates = accept_services(objects, &defaults, standing, &mut resolved);
    link_servers(objects, &candidates, standing, &mut resolved);
    say_what_stays_in_force(objects, &mut resolved);
    resolved
}

/// Rejects objects that are invalid by themselves.
fn reject_bad_objects(objects: &Objects, resolved: &mut Resolved) {
    fn reject<'a, C: 'a>(
        kind: Kind,
        all: impl Iterator<Item = (&'a ObjectKey, &'a Stored<C>)>,
        resolved: &mut Resolved,
    ) {
        resolved.rejected.extend(all.filter_map(|(key, stored)| {
            let rejection = stored.current.as_ref().err()?;
            Some(((kind, key.clone()), rejection.clone()))
        }));
    }
    reject(
        Kind::VirtualService,
        objects.virtual_services.iter(),
        resolved,
    );
    reject(Kind::RealServer, objects.real_servers.iter(), resolved);
    reject(
        Kind::DirectorGroup,
        objects.director_groups.iter(),
        resolved,
    );
}

/// A service whose group exists or existed.
struct Candidate<'a> {
    key: &'a ObjectKey,
    service: &'a CheckedService,
    created: i64,
    source: Source,
    granted: Granted<'a>,
    /// The budgets of the group.
    budgets: &'a BudgetRule,
    /// How the group grants the VIP or mark. None means that the service is
    /// rejected, and that a director still serves it.
    extent: Option<Extent>,
}

impl Candidate<'_> {
    /// Whether the service counts toward the budgets of its group. Services
    /// from files do not count, and rejected services that a director still
    /// serves do not count either.
    fn takes_part(&self) -> bool {
        self.source == Source::Api && self.extent.is_some()
    }
}

/// Accepts a service on three conditions: its group exists or existed, the
/// group grants the service's addresses and mark, and the budget has room. If
/// several services of a group have the same VIP or mark, the oldest service
/// wins. Returns the accepted services first, and then the rejected services
/// that a director still serves. These rejected services lack only a grant or
/// room in a budget.
fn accept_services<'a>(
    objects: &'a Objects,
    defaults: &'a BudgetRule,
    standing: &dyn Standing,
    resolved: &mut Resolved,
) -> Vec<Candidate<'a>> {
    let mut accepted = Vec::new();
    let mut still_served = Vec::new();
    let mut owners: HashMap<(&str, ServiceId), &ObjectKey> = HashMap::new();
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    for (key, stored) in oldest_first(objects.virtual_services.iter()) {
        let Some(service) = stored.in_force() else {
            continue;
        };
        let mut reject = |rejection| {
            // If the object's current version was already rejected, that
            // rejection stays.
            resolved
                .rejected
                .entry((Kind::VirtualService, key.clone()))
                .or_insert(rejection);
        };
        let Some(group) = objects.group(&service.group) else {
            reject(group_not_found(&service.group));
            continue;
        };
        let in_force = group.in_force();
        let mut candidate = Candidate {
            key,
            service,
            created: stored.created,
            source: stored.source,
            granted: Granted {
                group: &service.group,
                grants: in_force.map(|group| &group.grants),
            },
            budgets: in_force.map_or(defaults, |group| &group.budgets),
            extent: None,
        };
        match candidate.granted.judge(key, service, stored.source) {
            Ok(extent) => candidate.extent = Some(extent),
            Err(rejection) => {
                reject(rejection);
                still_served.push(candidate);
                continue;
            }
        }
        if let Some(owner) = owners.get(&(service.group.as_str(), service.id)) {
            reject(conflict(service, owner));
            continue;
        }
        if candidate.takes_part() {
            let count = counts.entry((&service.group, &key.namespace));
            let count = count.or_default();
            if *count >= candidate.budgets.of(&key.namespace).services {
                reject(budgets::too_many_services(&candidate, Why::Newest));
                candidate.extent = None;
                still_served.push(candidate);
                continue;
            }
            *count += 1;
        }
        owners.insert((&service.group, service.id), key);
        if objects.is_group_gone(&service.group) {
            resolved.gone_groups.push(service.group.clone());
        }
        accepted.push(candidate);
    }
    resolved.gone_groups.sort();
    resolved.gone_groups.dedup();
    for candidate in still_served {
        let service = candidate.service;
        if standing.service(service.id)
            && let hash_map::Entry::Vacant(free) = owners.entry((&service.group, service.id))
        {
            free.insert(candidate.key);
            accepted.push(candidate);
        }
    }
    accepted
}

fn group_not_found(group: &str) -> Rejection {
    Rejection {
        reason: reason::DIRECTOR_GROUP_NOT_FOUND,
        message: format!(
            "spec.directorGroupName: there is no DirectorGroup {group}; create it, or make a new \
             VirtualService with the name of one that exists"
        ),
    }
}

fn conflict(service: &CheckedService, owner: &ObjectKey) -> Rejection {
    let (path, other) = match service.id {
        ServiceId::Vip { .. } => ("spec.vip", "address, port or protocol"),
        ServiceId::FirewallMark { .. } => ("spec.firewallMark", "mark"),
    };
    Rejection {
        reason: reason::CONFLICT,
        message: format!(
            "{path}: {} is served by VirtualService {owner} in DirectorGroup {}, which is older; \
             make a new VirtualService with another {other}, or delete one of the two",
            service.id, service.group
        ),
    }
}

/// Completes the messages of rejections. If a rejected object has an earlier
/// accepted version, the message says that the earlier version stays in force.
fn say_what_stays_in_force(objects: &Objects, resolved: &mut Resolved) {
    for ((kind, key), rejection) in &mut resolved.rejected {
        let in_force = match kind {
            Kind::VirtualService => resolved.services.contains_key(key),
            Kind::RealServer => has_last_good(objects.real_servers.get(key)),
            Kind::DirectorGroup => has_last_good(objects.director_groups.get(key)),
        };
        if in_force {
            rejection
                .message
                .push_str(". Its last accepted version stays in force");
        }
    }
}

fn has_last_good<C>(stored: Option<&Stored<C>>) -> bool {
    stored.is_some_and(|stored| stored.last_good.is_some())
}

#[cfg(test)]
mod tests;
