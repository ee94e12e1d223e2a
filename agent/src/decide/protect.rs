//! What would take this director's own traffic, and is refused for that: pure.
//!
//! IPVS comes before the host's own sockets. A service on an address and port
//! on which the host itself is reached, or reaches its API server, takes that
//! traffic away at once; a server that is itself a director sends packets back.
//! What stands in the kernel already is never taken away for this: it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crds::{ObjectKey, api::DirectorException, condition};
use ipvs::{
    ActualService, DestinationConfig, DestinationKey, ForwardingMethod, Protocol, ServiceKey,
    WantedService,
};

use crate::{
    decide::desired::{CheckPolicy, Desired},
    host::{interface::Interface, listeners::Listener},
};

/// So many addresses of a host are told to the other directors of its group,
/// at most: those of a Director's status.
pub const MOST_ADDRESSES: usize = 100;

/// What is known of this host and its group.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The addresses of this host that the agent did not put there, each with
    /// its interface. None while they cannot be read: then any may be one.
    pub own: Option<BTreeMap<IpAddr, String>>,
    /// The sockets on which programs of this host listen, or why they cannot
    /// be read.
    pub listeners: Result<Vec<Listener>, String>,
    /// Where the agent reaches its API server.
    pub api_servers: BTreeSet<SocketAddr>,
    /// The addresses of the group's directors, this one's included, each with
    /// whose it is.
    pub directors: BTreeMap<IpAddr, String>,
}

/// The addresses of a host that were there before the agent: present on an
/// interface, and not put there by us (`ours`, by interface).
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

/// Those of them by which other hosts reach this one: without the loopback
/// interface's and IPv6's link-local ones, by interface, up to
/// [`MOST_ADDRESSES`].
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

/// What of a service would take the director's own traffic, and why: sentences
/// with what to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Suspect {
    /// The service as a whole.
    pub service: Option<String>,
    /// Servers of it, the one that says sorry included.
    pub servers: BTreeMap<DestinationKey, String>,
}

/// Every service that is wanted and would take the director's own traffic, or
/// servers of which would, whether it stands already or not.
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

/// Whether it matters for a service on what this host listens.
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
             start a director that is to serve the API server with --manifests"
        ));
    }
    let whose = match &facts.own {
        Some(own) => format!(
            "is this host's own address, on {} before the agent put anything there",
            own.get(&address)?
        ),
        None => "may be this host's own address: its addresses cannot be read".to_owned(),
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
                "{address} {whose}, and it cannot be seen whether something listens on port \
                 {port} of it ({why}): load the kernel's modules tcp_diag and udp_diag, or choose \
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
             would send packets for the service to each other until their time to live ends; \
             give it forwarding method NAT, or use a server that is no director"
        );
        Some((key, message))
    };
    servers.filter_map(danger).collect()
}

/// What is to be in force, and what there is to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// What is wanted, without what is refused.
    pub desired: Arc<Desired>,
    /// What is refused: services, and servers of others.
    pub refused: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// The same, and more, in words.
    pub report: Report,
}

/// What a director says of what it protects itself from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The addresses by which others reach this host, without those that the
    /// agent put there.
    pub addresses: Vec<IpAddr>,
    /// What is refused.
    pub exceptions: Vec<DirectorException>,
    /// What would be, and stands already or is allowed: a sentence each.
    pub notices: Vec<String>,
}

/// Takes what is refused out of what is `wanted`. `found` gives what the
/// kernel has of a suspect: what stands stays. With `is_allowed` all stays.
pub fn judge<'a>(
    wanted: &Arc<Desired>,
    suspects: &BTreeMap<ServiceKey, Suspect>,
    found: impl Fn(&ServiceKey) -> Option<&'a ActualService>,
    is_allowed: bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (key, suspect) in suspects {
        let Some(object) = wanted.services.get(key) else {
            continue;
        };
        let found = found(key);
        if let Some(why) = &suspect.service {
            let ruling = Ruling::of(is_allowed, found.is_some());
            if ruling == Ruling::Refused {
                verdict.refused.insert((*key, None));
            }
            verdict.report.say(ruling, object, None, why);
            if ruling == Ruling::Refused {
                continue;
            }
        }
        for (server, why) in &suspect.servers {
            let stands = found.is_some_and(|found| found.destinations.contains_key(server));
            let ruling = Ruling::of(is_allowed, stands);
            if ruling == Ruling::Refused {
                verdict.refused.insert((*key, Some(*server)));
            }
            let real_server = wanted.servers.get(&(*key, *server));
            verdict.report.say(ruling, object, real_server, why);
        }
    }
    verdict.desired = match verdict.refused.is_empty() {
        true => wanted.clone(),
        false => Arc::new(without(wanted, &verdict.refused)),
    };
    verdict
}

/// What becomes of a suspect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ruling {
    /// The administrator said so.
    Allowed,
    /// It is in the kernel already.
    Stands,
    Refused,
}

impl Ruling {
    fn of(is_allowed: bool, stands: bool) -> Self {
        match (is_allowed, stands) {
            (true, _) => Self::Allowed,
            (false, true) => Self::Stands,
            (false, false) => Self::Refused,
        }
    }
}

impl Report {
    /// What is refused, and what is told, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let refused = self.exceptions.iter().map(|exception| {
            let server = exception.real_server.as_ref();
            let server = server.map(|server| format!(", RealServer {server}"));
            format!(
                "VirtualService {}{} is {}",
                exception.virtual_service,
                server.unwrap_or_default(),
                exception.message
            )
        });
        refused.chain(self.notices.iter().cloned())
    }

    fn say(&mut self, ruling: Ruling, object: &ObjectKey, server: Option<&ObjectKey>, why: &str) {
        match ruling {
            Ruling::Allowed => self.notices.push(format!(
                "VirtualService {object} is programmed all the same, as --allow-hijack says: {why}"
            )),
            Ruling::Stands => self.notices.push(format!(
                "VirtualService {object} is programmed already and stays so, but would be refused \
                 if it was new: {why}"
            )),
            Ruling::Refused => self.exceptions.push(DirectorException {
                virtual_service: object.to_string(),
                real_server: server.map(ToString::to_string),
                reason: condition::reason::WOULD_HIJACK_DIRECTOR.to_owned(),
                message: format!("refused, to protect the director: {why}"),
            }),
        }
    }
}

/// All that is wanted, but for what is refused.
fn without(wanted: &Desired, refused: &BTreeSet<(ServiceKey, Option<DestinationKey>)>) -> Desired {
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
        && let Some(address) = key.address()
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
