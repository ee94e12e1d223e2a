//! Links each selected server to its service, or refuses the server.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
};

use super::{
    Candidate, Standing,
    budgets::{Excess, Limit, Why, limits},
    by_label::{ServersByLabel, oldest_first},
    left_out::{Counted, LeftOut, Rest},
    probes, room,
};
use crate::{
    Extent, ForwardingRule, ObjectKey, Objects, Rejection, Resolved, Server, Service, ServiceId,
    Source, Stored,
    check::{CheckedServer, CheckedService},
    condition::reason,
    service::family,
};

/// Links each selected server to its service, or refuses the server.
pub(super) fn link_servers<'a>(
    objects: &'a Objects,
    candidates: &[Candidate<'a>],
    standing: &dyn Standing,
    resolved: &mut Resolved,
) {
    let servers = ServersByLabel::new(
        oldest_first(objects.real_servers.iter()),
        candidates
            .iter()
            .map(|candidate| (&*candidate.key.namespace, &candidate.service.selector)),
    );
    let mut limits = limits(candidates, &servers);
    let mut left_out = LeftOut::default();
    let mut counted = Counted::new();
    for candidate in candidates {
        let place = (&*candidate.service.group, &*candidate.key.namespace);
        let mut limit = match candidate.source {
            Source::Api => limits.get_mut(&place),
            Source::File => None,
        };
        let selected = Selected {
            candidate,
            servers: &servers,
            standing,
        };
        let service = selected.link(limit.as_deref_mut(), &mut left_out, &mut counted, resolved);
        if let (Some(limit), Some(check)) = (limit, &service.health_check)
            && candidate.takes_part()
        {
            limit.expect_probes(service.servers.len(), check);
        }
        let into = match candidate.extent {
            Some(_) => &mut resolved.services,
            None => &mut resolved.ungranted,
        };
        into.insert(candidate.key.clone(), service);
    }
    probes::limit(
        objects,
        candidates,
        &limits,
        standing,
        &mut left_out,
        resolved,
    );
    room::wait(objects, candidates, &limits, standing, resolved);
}

/// A service, and the servers that it may select.
struct Selected<'a, 'b> {
    candidate: &'b Candidate<'a>,
    servers: &'b ServersByLabel<'a>,
    standing: &'b dyn Standing,
}

impl<'a> Selected<'a, '_> {
    /// Returns the service with its servers. If `limit` is None, the service
    /// counts toward no budget.
    fn link(
        &self,
        mut limit: Option<&mut Limit<'a>>,
        left_out: &mut LeftOut,
        counted_before: &mut Counted<'a>,
        resolved: &mut Resolved,
    ) -> Service {
        let candidate = self.candidate;
        let (key, service) = (candidate.key, candidate.service);
        let place = (&*key.namespace, &service.selector);
        let mut number = 0;
        let mut rest = None;
        let mut linked = without_servers(candidate);
        let mut taken: BTreeMap<SocketAddr, &ObjectKey> = BTreeMap::new();
        let mut counted = 0;
        for (server_key, stored) in self.servers.selected(&key.namespace, &service.selector) {
            number += 1;
            let admitted = match &mut limit {
                None => Ok(()),
                Some(_) if counted == candidate.budgets.servers_per_service => Err(Excess::Service),
                Some(limit) => {
                    counted += 1;
                    let server = candidate.aged(server_key, stored.created);
                    limit.admit(server, candidate.extent.is_some())
                }
            };
            let refused = || (key.clone(), server_key.clone());
            if let Err(excess) = admitted {
                let rest = *rest.get_or_insert_with(|| Rest {
                    first: number,
                    before: counted_before.get(&place).copied(),
                });
                if let Some(selected) = rest.selected_if_named_from(number)
                    && !self.standing.service(service.id)
                {
                    linked.left_out += selected + 1 - number;
                    number = selected;
                    break;
                }
                let standing = self.standing_server(server_key, stored);
                if left_out.is_named(key, server_key) || standing.is_some() {
                    let rejection = excess.rejection(candidate, Why::Newest);
                    resolved.refused.insert(refused(), rejection);
                } else {
                    linked.left_out += 1;
                }
                let standing = standing.map(|server| (linked.servers.len(), server));
                linked.ungranted.extend(standing);
                continue;
            }
            let server = fit(key, service, server_key, stored).and_then(|mut server| {
                let granted = &candidate.granted;
                match granted.judge_server(server_key, &server, stored.source) {
                    Ok(is_listed) => server.is_listed = is_listed,
                    Err(rejection) => {
                        linked.ungranted.push((linked.servers.len(), server));
                        return Err(rejection);
                    }
                }
                match taken.entry(server.socket()) {
                    Entry::Occupied(older) => Err(duplicate(*older.key(), older.get())),
                    Entry::Vacant(free) => {
                        free.insert(server_key);
                        Ok(server)
                    }
                }
            });
            match server {
                Ok(server) => linked.servers.push(server),
                Err(rejection) => {
                    resolved.refused.insert(refused(), rejection);
                }
            }
        }
        if let Some(rest) = rest {
            counted_before.insert(place, rest.count(number));
        }
        linked
    }

    /// Returns a server that a budget leaves out, if a director already serves
    /// that server.
    fn standing_server(&self, key: &ObjectKey, stored: &Stored<CheckedServer>) -> Option<Server> {
        let candidate = self.candidate;
        let id = candidate.service.id;
        if !self.standing.service(id) {
            return None;
        }
        let mut server = fit(candidate.key, candidate.service, key, stored).ok()?;
        let granted = candidate.granted.judge_server(key, &server, stored.source);
        server.is_listed = granted.unwrap_or(false);
        self.standing.server(id, server.socket()).then_some(server)
    }
}

fn without_servers(candidate: &Candidate<'_>) -> Service {
    let service = candidate.service;
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
        removal_grace_period: service.removal_grace_period,
        servers: Vec::new(),
        ungranted: Vec::new(),
        left_out: 0,
        is_meant: candidate.extent == Some(Extent::Address),
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
        drain: server.drain,
        is_listed: false,
    })
}

/// Returns the port by which the kernel knows the server. Port 0 means that
/// packets keep the port that the client used. This is possible only for
/// services without a single port.
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
