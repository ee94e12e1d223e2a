mod grants;

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry, hash_map},
    net::SocketAddr,
};

use self::grants::Granted;
use crate::{
    Extent, ForwardingRule, Kind, ObjectKey, Objects, Rejection, Resolved, Server, Service,
    ServiceId, Stored,
    check::{CheckedServer, CheckedService, Selector},
    condition::reason,
    service::family,
};

/// Works out what all objects mean together.
///
/// The function is pure: the same objects give the same result, in whatever
/// order they arrived. A bad object affects another object only through a
/// conflict, which a [`Rejection`] names.
///
/// Call this function once all objects are listed ([`Objects::is_listed`]):
/// before that, a group that has not arrived yet looks like a group that does
/// not exist.
pub fn resolve(objects: &Objects) -> Resolved {
    let mut resolved = Resolved::default();
    reject_bad_objects(objects, &mut resolved);
    let candidates = accept_services(objects, &mut resolved);
    link_servers(objects, &candidates, &mut resolved);
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
    granted: Granted<'a>,
    /// How the group grants the VIP or mark; none if it does not.
    extent: Option<Extent>,
}

/// Accepts the services whose group exists or existed and grants what they use.
/// If several of these services have the same VIP or mark in a group, the
/// oldest wins. Returns the accepted services and those that only lack a grant.
fn accept_services<'a>(objects: &'a Objects, resolved: &mut Resolved) -> Vec<Candidate<'a>> {
    let mut accepted = Vec::new();
    let mut ungranted = Vec::new();
    let mut owners: HashMap<(&str, ServiceId), &ObjectKey> = HashMap::new();
    for (key, stored) in oldest_first(objects.virtual_services.iter()) {
        let Some(service) = stored.in_force() else {
            continue;
        };
        let mut reject = |rejection| {
            // If the newest version is already rejected, keep that reason.
            resolved
                .rejected
                .entry((Kind::VirtualService, key.clone()))
                .or_insert(rejection);
        };
        let Some(group) = objects.group(&service.group) else {
            reject(group_not_found(&service.group));
            continue;
        };
        let mut candidate = Candidate {
            key,
            service,
            granted: Granted {
                group: &service.group,
                grants: group.in_force().map(|group| &group.grants),
            },
            extent: None,
        };
        match candidate.granted.judge(key, service, stored.source) {
            Ok(extent) => candidate.extent = Some(extent),
            Err(rejection) => {
                reject(rejection);
                ungranted.push(candidate);
                continue;
            }
        }
        if let Some(owner) = owners.get(&(service.group.as_str(), service.id)) {
            reject(conflict(service, owner));
            continue;
        }
        owners.insert((&service.group, service.id), key);
        if objects.is_group_gone(&service.group) {
            resolved.gone_groups.push(service.group.clone());
        }
        accepted.push(candidate);
    }
    resolved.gone_groups.sort();
    resolved.gone_groups.dedup();
    for candidate in ungranted {
        let service = candidate.service;
        if let hash_map::Entry::Vacant(free) = owners.entry((&service.group, service.id)) {
            free.insert(candidate.key);
            accepted.push(candidate);
        }
    }
    accepted
}

fn oldest_first<'a, C: 'a>(
    all: impl Iterator<Item = (&'a ObjectKey, &'a Stored<C>)>,
) -> Vec<(&'a ObjectKey, &'a Stored<C>)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(key, stored)| (stored.created, *key));
    all
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

/// Links each selected server to its service, or refuses the server.
fn link_servers(objects: &Objects, candidates: &[Candidate<'_>], resolved: &mut Resolved) {
    let by_label = ServersByLabel::new(
        oldest_first(objects.real_servers.iter()),
        candidates
            .iter()
            .map(|candidate| (&*candidate.key.namespace, &candidate.service.selector)),
    );
    for candidate in candidates {
        let (key, service) = (candidate.key, candidate.service);
        let (mut servers, mut ungranted) = (Vec::new(), Vec::new());
        let mut taken: BTreeMap<SocketAddr, &ObjectKey> = BTreeMap::new();
        for &(server_key, stored) in by_label.of(&key.namespace, &service.selector) {
            if !service.selector.matches(&stored.labels) {
                continue;
            }
            let linked = fit(key, service, server_key, stored).and_then(|mut server| {
                let granted = &candidate.granted;
                match granted.judge_server(server_key, &server, stored.source) {
                    Ok(is_listed) => server.is_listed = is_listed,
                    Err(rejection) => {
                        ungranted.push((servers.len(), server));
                        return Err(rejection);
                    }
                }
                match taken.entry(SocketAddr::new(server.address, server.port)) {
                    Entry::Occupied(older) => Err(duplicate(*older.key(), older.get())),
                    Entry::Vacant(free) => {
                        free.insert(server_key);
                        Ok(server)
                    }
                }
            });
            match linked {
                Ok(server) => servers.push(server),
                Err(rejection) => {
                    resolved
                        .refused
                        .insert((key.clone(), server_key.clone()), rejection);
                }
            }
        }
        let into = match candidate.extent {
            Some(_) => &mut resolved.services,
            None => &mut resolved.ungranted,
        };
        into.insert(
            key.clone(),
            Service {
                group: service.group.clone(),
                id: service.id,
                scheduler: service.scheduler,
                fallback: service.fallback,
                hash_port: service.hash_port,
                one_packet: service.one_packet,
                persistence: service.persistence.clone(),
                health_check: service.health_check.clone(),
                availability: service.availability.clone(),
                servers,
                ungranted,
                is_meant: candidate.extent == Some(Extent::Address),
            },
        );
    }
}

/// Returns a server as one service uses it, or the reason why the server does
/// not fit.
fn fit(
    service_key: &ObjectKey,
    service: &CheckedService,
    key: &ObjectKey,
    stored: &Stored<CheckedServer>,
) -> Result<Server, Rejection> {
    let server = match (stored.in_force(), &stored.current) {
        (Some(server), _) | (None, Ok(server)) => server,
        (None, Err(why)) => {
            return Err(Rejection {
                reason: reason::REAL_SERVER_NOT_ACCEPTED,
                message: format!("the RealServer is not accepted: {}", why.message),
            });
        }
    };
    let forwarding = server
        .forwarding
        .or(service.forwarding)
        .ok_or_else(|| no_forwarding(service_key, key))?;
    if family(server.address) != service.id.family() && !forwarding.is_tunnel() {
        return Err(Rejection {
            reason: reason::FAMILY_MISMATCH,
            message: format!(
                "spec.address: {} is not an {:?} address as the service's are, and only a tunnel \
                 joins the two families; select servers of the service's family, or set \
                 spec.forwarding.method to TUN",
                server.address,
                service.id.family()
            ),
        });
    }
    Ok(Server {
        object: key.clone(),
        address: server.address,
        port: port(service.id, server.port, forwarding)?,
        weight: server.weight,
        forwarding,
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
        is_listed: false,
    })
}

/// Returns the port by which the kernel knows the server. If the service has no
/// single port, port 0 keeps the port that the client used.
fn port(
    service: ServiceId,
    server: Option<u16>,
    forwarding: ForwardingRule,
) -> Result<u16, Rejection> {
    let own = match service {
        ServiceId::Vip { port, .. } => port,
        ServiceId::FirewallMark { .. } => 0,
    };
    let method = match forwarding {
        ForwardingRule::Nat => return Ok(server.unwrap_or(own)),
        ForwardingRule::Dr => "DR",
        ForwardingRule::Ipip | ForwardingRule::Gue { .. } | ForwardingRule::Gre { .. } => "TUN",
    };
    match server {
        Some(port) if port != own => Err(Rejection {
            reason: reason::PORT_MISMATCH,
            message: if own == 0 {
                format!(
                    "spec.port: {method} cannot change the port, and the service has more than \
                     one; leave spec.port out, or set spec.forwarding.method to NAT"
                )
            } else {
                format!(
                    "spec.port: {method} cannot change the port, and {port} is not the service's, \
                     {own}; leave spec.port out, or set spec.forwarding.method to NAT"
                )
            },
        }),
        _ => Ok(own),
    }
}

fn no_forwarding(service: &ObjectKey, server: &ObjectKey) -> Rejection {
    Rejection {
        reason: reason::NO_FORWARDING,
        message: format!(
            "spec.forwarding: neither VirtualService {service} nor RealServer {server} says how \
             packets reach the server; set spec.forwarding.method of one of them to NAT, DR or TUN"
        ),
    }
}

fn duplicate(address: SocketAddr, older: &ObjectKey) -> Rejection {
    Rejection {
        reason: reason::DUPLICATE_SERVER,
        message: format!(
            "spec.address: {address} is RealServer {older} already, which is older; delete one of \
             the two, or give this one another address or port"
        ),
    }
}

/// If a rejected object has an earlier accepted version, adds to its message
/// that this version stays in force.
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

type StoredServer<'a> = (&'a ObjectKey, &'a Stored<CheckedServer>);

/// An index of servers by label, so that a service looks only at servers that
/// its selector may match, and not at tens of thousands of them.
struct ServersByLabel<'a> {
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<StoredServer<'a>>>,
    by_namespace: HashMap<&'a str, Vec<StoredServer<'a>>>,
}

impl<'a> ServersByLabel<'a> {
    /// Builds the index. `servers` must be in the order in which [`Self::of`]
    /// returns them.
    fn new(
        servers: Vec<StoredServer<'a>>,
        selectors: impl Iterator<Item = (&'a str, &'a Selector)>,
    ) -> Self {
        let mut by_label: HashMap<_, Vec<_>> = HashMap::new();
        for (namespace, selector) in selectors {
            for (label, value) in selector.labels() {
                by_label.entry((namespace, label, value)).or_default();
            }
        }
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for server @ (key, stored) in servers {
            let namespace = &*key.namespace;
            for (label, value) in stored.labels.iter() {
                if let Some(list) = by_label.get_mut(&(namespace, label, value)) {
                    list.push(server);
                }
            }
            by_namespace.entry(namespace).or_default().push(server);
        }
        Self {
            by_label,
            by_namespace,
        }
    }

    /// Returns a list that includes every server that the selector matches, and
    /// maybe others.
    fn of(&self, namespace: &'a str, selector: &'a Selector) -> &[StoredServer<'a>] {
        selector
            .labels()
            .filter_map(|(label, value)| self.by_label.get(&(namespace, label, value)))
            .min_by_key(|list| list.len())
            .or_else(|| self.by_namespace.get(namespace))
            .map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
