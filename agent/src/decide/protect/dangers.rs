//! Finds the services and servers that would take this director's own traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crds::{api::DirectorGroupMemberSpec, one_address};
use ipvs::{
    DestinationConfig, DestinationKey, ForwardingMethod, Protocol, ServiceKey, WantedService,
};

use crate::{
    decide::{
        desired::Desired,
        refusals::{Entry, Reason},
    },
    host::{interface::Interface, listeners::Listener, peers::Peer},
};

/// A director tells the other directors of its group at most this many
/// addresses of its host.
pub const MOST_ADDRESSES: usize = DirectorGroupMemberSpec::MOST_ADDRESSES;
/// The interface on which kube-proxy in mode ipvs puts the cluster IPs.
const KUBE_PROXYS: &str = "kube-ipvs0";

/// The known facts about this host and its group.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The addresses of this host that the agent did not add, each with its
    /// interface, or none while they cannot be read. While the host's addresses
    /// are unknown, any address may be the host's own.
    pub own: Option<BTreeMap<IpAddr, String>>,
    /// The sockets on which programs of this host listen, or the reason why the
    /// agent cannot read them.
    pub listeners: Result<Vec<Listener>, String>,
    /// The remote addresses that programs of this host talk to, or why the
    /// agent cannot read them.
    pub peers: Result<BTreeSet<Peer>, String>,
    /// The services that this director serves, or recently served, at the
    /// addresses of `peers`. Programs of this host are clients of these
    /// services.
    pub served: BTreeSet<ServiceKey>,
    /// The addresses at which the agent reaches its API server.
    pub api_servers: BTreeSet<SocketAddr>,
    /// The addresses of the group's directors, including this one, each with
    /// the name of its Director.
    pub directors: BTreeMap<IpAddr, String>,
    /// The services that were in force before the host's last start, if the
    /// host has just started. A new service on the host's own address may
    /// conflict with a program that has not started yet.
    pub before_boot: Option<BTreeSet<ServiceKey>>,
}

/// Returns the addresses of a host, without the addresses that the agent added.
/// The agent added an address if the address has our mark, or is in `ours` with
/// its interface.
pub fn own_addresses(
    interfaces: &[Interface],
    ours: &BTreeMap<IpAddr, String>,
) -> BTreeMap<IpAddr, String> {
    let mut own = BTreeMap::new();
    for interface in interfaces {
        for (address, _) in &interface.addresses {
            if is_ours(interface, ours, address) {
                continue;
            }
            let name = own.entry(*address);
            let name = name.or_insert_with(|| interface.name.clone());
            if interface.name == KUBE_PROXYS {
                KUBE_PROXYS.clone_into(name);
            }
        }
    }
    own
}

fn is_ours(interface: &Interface, ours: &BTreeMap<IpAddr, String>, address: &IpAddr) -> bool {
    ours.get(address) == Some(&interface.name) || interface.marked.contains(address)
}

/// Returns at most [`MOST_ADDRESSES`] addresses by which other hosts reach this
/// host, in the order of the interfaces, each once. The addresses of the
/// loopback interface and of kube-proxy's device, and link-local IPv6 addresses
/// are left out.
pub fn reachable_addresses(
    interfaces: &[Interface],
    ours: &BTreeMap<IpAddr, String>,
) -> Vec<IpAddr> {
    // kube-proxy's device has the cluster IPs of all services, which are the
    // same on every node and change often.
    let is_own = |found: &&Interface| !found.loopback && found.name != KUBE_PROXYS;
    let mut interfaces: Vec<_> = interfaces.iter().filter(is_own).collect();
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
    // Several interfaces can have the same address.
    let mut known = BTreeSet::new();
    reachable.retain(|address| known.insert(*address));
    reachable.truncate(MOST_ADDRESSES);
    reachable
}

/// Why a service would take the director's own traffic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Danger {
    /// A sentence with the reason for the danger and its remedy.
    pub why: String,
    /// How sure the agent is of the danger, and whether a grant overrules the
    /// refusal.
    pub kind: DangerKind,
}

/// How sure the agent is of a danger, and whether a grant overrules the
/// refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DangerKind {
    /// The agent is sure of the danger. A grant of exactly the service's
    /// address overrules the refusal.
    Known,
    /// The agent cannot read the facts that show whether there is a danger.
    Guess,
    /// The service's address is a cluster IP of kube-proxy. No grant overrules
    /// the refusal of a service at a cluster IP.
    ClusterIp,
    /// The service was refused before, and that refusal has not ended yet
    /// ([`crate::decide::refusals`]).
    Remembered,
}

/// The parts of a service that would take the director's own traffic. Each part
/// has a message with the reason and the remedy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Suspect {
    /// Why the service as a whole would take the director's own traffic.
    pub service: Option<Danger>,
    /// The servers that would send the director's packets back, including the
    /// sorry server, each with the reason.
    pub servers: BTreeMap<DestinationKey, String>,
}

/// Returns every wanted service that would take the director's own traffic,
/// either itself or through one of its servers. The result includes services
/// that are already in the kernel.
pub fn suspects(desired: &Desired, facts: &Facts) -> BTreeMap<ServiceKey, Suspect> {
    let mut suspects = BTreeMap::new();
    for (key, service) in &desired.table {
        let sorry = desired.checks.get(key).and_then(|policy| policy.sorry);
        let suspect = Suspect {
            service: service_danger(key, facts).or_else(|| start_danger(key, facts)),
            servers: server_dangers(service, sorry, facts),
        };
        if suspect != Suspect::default() {
            suspects.insert(*key, suspect);
        }
    }
    suspects
}

/// Returns the wanted services at the addresses of `peers` for which
/// `is_served` is true. Programs of this host may be clients of these services.
pub fn with_clients_here(
    desired: &Desired,
    peers: &BTreeSet<Peer>,
    is_served: impl Fn(&ServiceKey) -> bool,
) -> BTreeSet<ServiceKey> {
    let addresses: BTreeSet<_> = peers.iter().map(|peer| peer.address.ip()).collect();
    let is_at_peer = |key: &&ServiceKey| key.vip().is_some_and(|vip| addresses.contains(&vip));
    let services = desired.table.keys().filter(is_at_peer);
    services.filter(|key| is_served(key)).copied().collect()
}

/// Whether the danger of a service depends on the host's listening sockets.
pub fn asks_for_listeners(key: &ServiceKey, own: Option<&BTreeMap<IpAddr, String>>) -> bool {
    match key {
        ServiceKey::Address { address, port, .. } => {
            *port != 0 && own.is_none_or(|own| own.contains_key(address))
        }
        ServiceKey::FirewallMark { .. } => false,
    }
}

/// Returns whether the reason for the refusal of an entry holds now.
pub fn reason((key, server): &Entry, facts: &Facts) -> Reason {
    let is_present = match server {
        Some(server) => facts.directors.contains_key(&server.address),
        None => match service_danger(key, facts) {
            Some(danger) if danger.kind == DangerKind::Guess => return Reason::Unknown,
            None if facts.peers.is_err() => return Reason::Unknown,
            danger => danger.is_some(),
        },
    };
    match is_present {
        true => Reason::Present,
        false => Reason::Absent,
    }
}

/// Adds to `suspects` the entries that were refused before. An entry that
/// already is in `suspects` for a current reason stays unchanged.
pub fn add_remembered<'a>(
    suspects: &mut BTreeMap<ServiceKey, Suspect>,
    refused: impl IntoIterator<Item = (&'a Entry, &'a str)>,
    wanted: &Desired,
) {
    for ((key, server), why) in refused {
        if !wanted.table.contains_key(key) {
            continue;
        }
        match server {
            None => {
                let suspect = suspects.entry(*key).or_default();
                suspect.service.get_or_insert_with(|| Danger {
                    why: waiting(key, why),
                    kind: DangerKind::Remembered,
                });
            }
            Some(server) if may_loop(wanted, key, server) => {
                let suspect = suspects.entry(*key).or_default();
                let server = suspect.servers.entry(*server);
                server.or_insert_with(|| {
                    format!(
                        "the server was refused before, and the reason has been gone for less \
                         than 10 minutes: it is added then. The reason was: {why}"
                    )
                });
            }
            Some(_) => {}
        }
    }
}

/// Whether packets to `server` in the service `key` would loop if the server is
/// a director. This depends on the server's forwarding method.
fn may_loop(wanted: &Desired, key: &ServiceKey, server: &DestinationKey) -> bool {
    let service = wanted.table.get(key);
    let config = service.and_then(|service| service.destinations.get(server));
    let sorry = wanted.checks.get(key).and_then(|policy| policy.sorry);
    let sorry = sorry.filter(|(sorry, _)| sorry == server);
    let config = config.copied().or(sorry.map(|(_, config)| config));
    config.is_some_and(|config| unrewritten(&config).is_some())
}

/// Returns the name of the server's forwarding method, if this method does not
/// change the destination address of packets.
fn unrewritten(config: &DestinationConfig) -> Option<&'static str> {
    match config.method {
        ForwardingMethod::DirectRoute => Some("DR"),
        ForwardingMethod::Tunnel(_) => Some("TUN"),
        _ => None,
    }
}

fn waiting(key: &ServiceKey, why: &str) -> String {
    let grant = key.vip().map(|vip| {
        let cidr = one_address(vip);
        format!(", or as soon as spec.addressPools of the DirectorGroup grants exactly {cidr}")
    });
    format!(
        "the service was refused before, and the reason has been gone for less than 10 minutes: \
         it is programmed then{}. The reason was: {why}",
        grant.unwrap_or_default()
    )
}

/// Returns why a service may conflict with a program that has not started yet.
fn start_danger(key: &ServiceKey, facts: &Facts) -> Option<Danger> {
    let before = facts.before_boot.as_ref()?;
    let address = key.vip().filter(|_| !before.contains(key))?;
    let (is, kind) = match &facts.own {
        Some(own) if own.contains_key(&address) => ("is", DangerKind::Known),
        Some(_) => return None,
        None => ("may be", DangerKind::Guess),
    };
    let why = format!(
        "{address} {is} this host's own address, and the host started less than 10 minutes ago: \
         a program that listens on the port of the service may not have started yet; choose an \
         address that no interface has"
    );
    Some(Danger { why, kind })
}

fn service_danger(key: &ServiceKey, facts: &Facts) -> Option<Danger> {
    let (why, kind) = service_trouble(key, facts)?;
    Some(Danger { why, kind })
}

fn service_trouble(key: &ServiceKey, facts: &Facts) -> Option<(String, DangerKind)> {
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
        let why = format!(
            "it would take this director's own connections to the API server, {api_server}: \
             choose another address or port, give the agent another way to the API server, or \
             start a director that serves the API server with --manifests"
        );
        return Some((why, DangerKind::Known));
    }
    let peers = facts.peers.iter().flatten();
    let peer = peers.filter(|_| !facts.served.contains(key)).find(|peer| {
        let found = peer.address;
        peer.protocol == protocol && found.ip() == address && is_all_or(found.port())
    });
    if let Some(peer) = peer {
        let (name, option) = transport(protocol);
        let peer = peer.address;
        let cidr = one_address(address);
        let why = format!(
            "it would take the connections that a program of this host has to {peer} ({name}; \
             `ss -n{option}p 'dst {peer}'` on the director names the program): choose another \
             address, or have spec.addressPools of the DirectorGroup grant exactly \
             {cidr} if this host should use the service, too"
        );
        return Some((why, DangerKind::Known));
    }
    let (whose, kind) = match &facts.own {
        Some(own) => {
            let interface = own.get(&address)?;
            if interface == KUBE_PROXYS {
                let why = format!(
                    "{address} is the cluster IP of a Kubernetes Service, which kube-proxy has \
                     on {KUBE_PROXYS}: choose another address"
                );
                return Some((why, DangerKind::ClusterIp));
            }
            let whose = format!(
                "is this host's own address, on {interface} before the agent put anything there"
            );
            (whose, DangerKind::Known)
        }
        None => {
            let whose = "may be this host's own address: the host's addresses cannot be read";
            (whose.to_owned(), DangerKind::Guess)
        }
    };
    if port == 0 {
        let why = format!(
            "{address} {whose}, and port 0 would take every port of it, ssh included: choose an \
             address that no interface has, name the ports in VirtualServices of their own, or \
             use a firewallMark"
        );
        return Some((why, kind));
    }
    let listeners = match &facts.listeners {
        Ok(listeners) => listeners,
        Err(why) => {
            let why = format!(
                "{address} {whose}, and the agent cannot see whether a program listens on its port \
                 {port} ({why}): load the kernel's modules tcp_diag and udp_diag, or choose \
                 an address that no interface has"
            );
            return Some((why, DangerKind::Guess));
        }
    };
    let takes = |listener: &&Listener| listener.takes(protocol, address, port);
    let listener = listeners.iter().find(takes)?;
    let (name, option) = transport(protocol);
    let bound = SocketAddr::new(listener.address, listener.port);
    let why = format!(
        "{address} {whose}, and a program of this host listens on {bound} ({name}), which the \
         service would cut off: end it or have it listen elsewhere (`ss -ln{option}p 'sport = \
         :{port}'` on the director names it), or choose another port, or an address that no \
         interface has"
    );
    Some((why, kind))
}

/// Returns the name of a protocol, and the option with which `ss` lists its
/// sockets.
fn transport(protocol: Protocol) -> (&'static str, char) {
    match protocol {
        Protocol::UDP => ("UDP", 'u'),
        Protocol::SCTP => ("SCTP", 'S'),
        _ => ("TCP", 't'),
    }
}

fn server_dangers(
    service: &WantedService,
    sorry: Option<(DestinationKey, DestinationConfig)>,
    facts: &Facts,
) -> BTreeMap<DestinationKey, String> {
    let servers = service.destinations.iter();
    let servers = servers.map(|(key, config)| (*key, *config)).chain(sorry);
    let danger = |(key, config): (DestinationKey, DestinationConfig)| {
        let method = unrewritten(&config)?;
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
