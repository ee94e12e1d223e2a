//! Finds and refuses services and servers that would take this director's own
//! traffic. The code is pure: it does no I/O.
//!
//! IPVS handles packets before the host's own sockets do. A service takes the
//! host's traffic away at once if its address and port are those at which the
//! host is reached, or at which the host reaches its API server. A server that
//! is itself a director sends the packets of a service back. Entries that are
//! already in the kernel are only reported, never removed for taking the host's
//! traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crds::{ObjectKey, api::DirectorException, condition};
use ipvs::{
    DestinationConfig, DestinationKey, ForwardingMethod, Protocol, ServiceKey, WantedService,
};

use crate::{
    decide::desired::{CheckPolicy, Desired},
    host::{interface::Interface, listeners::Listener},
    ration::Line,
};

/// At most this many addresses of a host are reported to the other directors of
/// its group, in the Director's status.
pub const MOST_ADDRESSES: usize = 100;

/// What is known about this host and its group.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The addresses of this host that the agent did not add, each with its
    /// interface, or none while they cannot be read. While this list is
    /// unknown, any address may be the host's own.
    pub own: Option<BTreeMap<IpAddr, String>>,
    /// The sockets on which programs of this host listen, or why they cannot be
    /// read.
    pub listeners: Result<Vec<Listener>, String>,
    /// The addresses at which the agent reaches its API server.
    pub api_servers: BTreeSet<SocketAddr>,
    /// The addresses of the group's directors, including this one, each with
    /// the name of its Director.
    pub directors: BTreeMap<IpAddr, String>,
}

/// Returns the addresses of a host that the agent did not add: they neither
/// carry our mark nor are in `ours` with their interface.
pub fn own_addresses(
    interfaces: &[Interface],
    ours: &BTreeMap<IpAddr, String>,
) -> BTreeMap<IpAddr, String> {
    let mut own = BTreeMap::new();
    for interface in interfaces {
        for (address, _) in &interface.addresses {
            if !is_ours(interface, ours, address) {
                own.entry(*address)
                    .or_insert_with(|| interface.name.clone());
            }
        }
    }
    own
}

fn is_ours(interface: &Interface, ours: &BTreeMap<IpAddr, String>, address: &IpAddr) -> bool {
    ours.get(address) == Some(&interface.name) || interface.marked.contains(address)
}

/// Returns the host's own addresses by which other hosts reach it, in the order
/// of the interfaces, at most [`MOST_ADDRESSES`]. The addresses of the loopback
/// interface and link-local IPv6 addresses are left out.
pub fn reachable_addresses(
    interfaces: &[Interface],
    ours: &BTreeMap<IpAddr, String>,
) -> Vec<IpAddr> {
    let mut interfaces: Vec<_> = interfaces.iter().filter(|found| !found.loopback).collect();
    interfaces.sort_by_key(|interface| interface.index);
    let mut reachable = Vec::new();
    for interface in interfaces {
        let addresses = interface.addresses.iter().map(|(address, _)| *address);
        let others = addresses.filter(|address| !is_ours(interface, ours, address));
        reachable
            .extend(others.filter(
                |address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()),
            ));
    }
    reachable.truncate(MOST_ADDRESSES);
    reachable
}

/// The parts of a service that would take the director's own traffic. Each part
/// has a message that says why and what to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Suspect {
    /// Why the service as a whole would take the director's own traffic.
    pub service: Option<String>,
    /// The servers that would send the director's packets back, including the
    /// sorry server, each with the reason.
    pub servers: BTreeMap<DestinationKey, String>,
}

/// Returns every wanted service that would take the director's own traffic,
/// itself or by one of its servers, even if it is already in the kernel.
pub fn suspects(desired: &Desired, facts: &Facts) -> BTreeMap<ServiceKey, Suspect> {
    let mut suspects = BTreeMap::new();
    for (key, service) in &desired.table {
        let sorry = desired.checks.get(key).and_then(|policy| policy.sorry);
        let suspect = Suspect {
            service: service_danger(key, facts),
            servers: server_dangers(service, sorry, facts),
        };
        if suspect != Suspect::default() {
            suspects.insert(*key, suspect);
        }
    }
    suspects
}

/// Whether the host's listening sockets matter for a service.
pub fn asks_for_listeners(key: &ServiceKey, own: Option<&BTreeMap<IpAddr, String>>) -> bool {
    match key {
        ServiceKey::Address { address, port, .. } => {
            *port != 0 && own.is_none_or(|own| own.contains_key(address))
        }
        ServiceKey::FirewallMark { .. } => false,
    }
}

fn service_danger(key: &ServiceKey, facts: &Facts) -> Option<String> {
    let ServiceKey::Address {
        protocol,
        address,
        port,
    } = *key
    else {
        return None;
    };
    let is_all_or = |other: u16| port == 0 || port == other;
    let api_server = facts.api_servers.iter().find(|server| {
        protocol == Protocol::TCP && server.ip() == address && is_all_or(server.port())
    });
    if let Some(api_server) = api_server {
        return Some(format!(
            "it would take this director's own connections to the API server, {api_server}: \
             choose another address or port, give the agent another way to the API server, or \
             start a director that serves the API server with --manifests"
        ));
    }
    let whose = match &facts.own {
        Some(own) => format!(
            "is this host's own address, on {} before the agent put anything there",
            own.get(&address)?
        ),
        None => "may be this host's own address: the host's addresses cannot be read".to_owned(),
    };
    if port == 0 {
        return Some(format!(
            "{address} {whose}, and port 0 would take every port of it, ssh included: choose an \
             address that no interface has, name the ports in VirtualServices of their own, or \
             use a firewallMark"
        ));
    }
    let listeners = match &facts.listeners {
        Ok(listeners) => listeners,
        Err(why) => {
            return Some(format!(
                "{address} {whose}, and the agent cannot see whether a program listens on its port \
                 {port} ({why}): load the kernel's modules tcp_diag and udp_diag, or choose \
                 an address that no interface has"
            ));
        }
    };
    let takes = |listener: &&Listener| listener.takes(protocol, address, port);
    let listener = listeners.iter().find(takes)?;
    let (name, option) = match protocol {
        Protocol::UDP => ("UDP", 'u'),
        Protocol::SCTP => ("SCTP", 'S'),
        _ => ("TCP", 't'),
    };
    let bound = SocketAddr::new(listener.address, listener.port);
    Some(format!(
        "{address} {whose}, and a program of this host listens on {bound} ({name}), which the \
         service would cut off: end it or have it listen elsewhere (`ss -ln{option}p 'sport = \
         :{port}'` on the director names it), or choose another port, or an address that no \
         interface has"
    ))
}

fn server_dangers(
    service: &WantedService,
    sorry: Option<(DestinationKey, DestinationConfig)>,
    facts: &Facts,
) -> BTreeMap<DestinationKey, String> {
    let servers = service.destinations.iter();
    let servers = servers.map(|(key, config)| (*key, *config)).chain(sorry);
    let danger = |(key, config): (DestinationKey, DestinationConfig)| {
        let method = match config.method {
            ForwardingMethod::DirectRoute => "DR",
            ForwardingMethod::Tunnel(_) => "TUN",
            _ => return None,
        };
        let director = facts.directors.get(&key.address)?;
        let message = format!(
            "server {key} is Director {director} of the same group: with {method}, directors \
             would send packets for the service to each other until the packets' TTL ends; give \
             the server forwarding method NAT, or use a server that is no director"
        );
        Some((key, message))
    };
    servers.filter_map(danger).collect()
}

/// What is in force after the refusals, and what to report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The wanted state without the refused entries.
    pub desired: Arc<Desired>,
    /// The refused services (with no server), and the refused servers of other
    /// services.
    pub refused: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// The entries without a grant that are left out, in the same form. Their
    /// objects' own conditions report them.
    pub ungranted: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// The refusals as conditions and log lines, with notices about suspects
    /// that are not refused.
    pub report: Report,
}

/// What a director reports about protecting itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The addresses by which other hosts reach this host, without those that
    /// the agent added.
    pub addresses: Vec<IpAddr>,
    /// The refused services and servers.
    pub exceptions: Vec<DirectorException>,
    /// One sentence for each suspect that is not refused, because it is already
    /// in the kernel or allowed.
    pub notices: Vec<String>,
}

/// What the administrator allows beyond the grants of the group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Permissions {
    /// Suspects may be programmed (`--allow-hijack`).
    pub may_hijack: bool,
    /// Removals are allowed, so entries without a grant need not stay.
    pub is_released: bool,
}

/// Removes from `wanted` the refused suspects and the entries without a grant.
/// `stands` returns whether a service, or a server of a service, is ours and in
/// the kernel: such entries stay.
pub fn judge(
    wanted: &Arc<Desired>,
    suspects: &BTreeMap<ServiceKey, Suspect>,
    stands: impl Fn(&ServiceKey, Option<&DestinationKey>) -> bool,
    permissions: Permissions,
) -> Verdict {
    let mut verdict = Verdict::default();
    for ((key, server), why) in &wanted.ungranted {
        let is_whole_ungranted = wanted.ungranted.contains_key(&(*key, None));
        if server.is_some() && is_whole_ungranted && !stands(key, None) {
            continue;
        }
        if permissions.is_released || !stands(key, server.as_ref()) {
            verdict.ungranted.insert((*key, *server));
        } else if let Some(object) = wanted.services.get(key) {
            let server = server.and_then(|server| wanted.servers.get(&(*key, server)));
            verdict.report.exceptions.push(DirectorException {
                virtual_service: object.clone(),
                real_server: server.cloned(),
                reason: why.reason.to_owned(),
                message: format!(
                    "still served, until its object is deleted or spec.removals.allowUntil of \
                     the DirectorGroup allows removals. {}",
                    why.message
                ),
            });
        }
    }
    for (key, suspect) in suspects {
        let Some(object) = wanted.services.get(key) else {
            continue;
        };
        if verdict.ungranted.contains(&(*key, None)) {
            continue;
        }
        if let Some(why) = &suspect.service {
            let is_meant = wanted.meant.contains(key);
            let ruling = Ruling::of(permissions.may_hijack, stands(key, None), is_meant);
            if ruling == Ruling::Refused {
                verdict.refused.insert((*key, None));
            }
            verdict.report.say(ruling, object, None, why);
            if ruling == Ruling::Refused {
                continue;
            }
        }
        for (server, why) in &suspect.servers {
            if verdict.ungranted.contains(&(*key, Some(*server))) {
                continue;
            }
            let stands = stands(key, Some(server));
            let ruling = Ruling::of(permissions.may_hijack, stands, false);
            if ruling == Ruling::Refused {
                verdict.refused.insert((*key, Some(*server)));
            }
            let real_server = wanted.servers.get(&(*key, *server));
            verdict.report.say(ruling, object, real_server, why);
        }
    }
    let removed: BTreeSet<_> = verdict.refused.union(&verdict.ungranted).copied().collect();
    verdict.desired = match removed.is_empty() {
        true => wanted.clone(),
        false => Arc::new(without(wanted, &removed)),
    };
    verdict
}

/// The decision about a suspect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ruling {
    /// The administrator allowed the suspect.
    Allowed,
    /// The group grants exactly this address.
    Meant,
    /// The suspect is ours, already in the kernel, and stays.
    Stands,
    Refused,
}

impl Ruling {
    fn of(is_allowed: bool, stands: bool, is_meant: bool) -> Self {
        match (is_allowed, stands, is_meant) {
            (true, _, _) => Self::Allowed,
            (false, true, _) => Self::Stands,
            (false, false, true) => Self::Meant,
            (false, false, false) => Self::Refused,
        }
    }
}

impl Report {
    /// Returns one line for each refusal and each notice.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let refused = self.exceptions.iter().map(|exception| {
            let server = exception.real_server.as_ref();
            let server = server.map(|server| format!(", RealServer {server}"));
            Line {
                namespace: exception.virtual_service.namespace.clone(),
                text: format!(
                    "VirtualService {}{} is {}",
                    exception.virtual_service,
                    server.unwrap_or_default(),
                    exception.message
                ),
            }
        });
        let notices = self.notices.iter().cloned();
        refused.chain(notices.map(Line::of_host))
    }

    fn say(&mut self, ruling: Ruling, object: &ObjectKey, server: Option<&ObjectKey>, why: &str) {
        match ruling {
            Ruling::Allowed => self.notices.push(format!(
                "VirtualService {object} is programmed anyway, as --allow-hijack says: {why}"
            )),
            Ruling::Meant => self.notices.push(format!(
                "VirtualService {object} is programmed, because the DirectorGroup grants exactly \
                 its address: {why}"
            )),
            Ruling::Stands => self.notices.push(format!(
                "VirtualService {object} is programmed already and stays so, but a new one would \
                 be refused: {why}"
            )),
            Ruling::Refused => self.exceptions.push(DirectorException {
                virtual_service: object.clone(),
                real_server: server.cloned(),
                reason: condition::reason::WOULD_HIJACK_DIRECTOR.to_owned(),
                message: format!("refused, to protect the director: {why}"),
            }),
        }
    }
}

/// Returns the wanted state without the refused entries.
pub(super) fn without(
    wanted: &Desired,
    refused: &BTreeSet<(ServiceKey, Option<DestinationKey>)>,
) -> Desired {
    let mut rest = wanted.clone();
    for (key, server) in refused {
        match server {
            Some(server) => remove_server(&mut rest, key, server),
            None => remove_service(&mut rest, key),
        }
    }
    rest
}

fn remove_server(rest: &mut Desired, key: &ServiceKey, server: &DestinationKey) {
    if let Some(service) = rest.table.get_mut(key) {
        service.destinations.shift_remove(server);
    }
    rest.servers.remove(&(*key, *server));
    if let Some(policy) = rest.checks.get_mut(key)
        && matches!(policy.sorry, Some((sorry, _)) if sorry == *server)
    {
        *policy = Arc::new(CheckPolicy {
            sorry: None,
            ..CheckPolicy::clone(policy)
        });
    }
}

fn remove_service(rest: &mut Desired, key: &ServiceKey) {
    let service = rest.table.remove(key);
    for server in service
        .iter()
        .flat_map(|service| service.destinations.keys())
    {
        rest.servers.remove(&(*key, *server));
    }
    rest.checks.remove(key);
    if let Some(object) = rest.services.remove(key)
        && let Some(address) = key.vip()
        && let Some(users) = rest.vips.get_mut(&address)
    {
        users.remove(&object);
        if users.is_empty() {
            rest.vips.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests;
