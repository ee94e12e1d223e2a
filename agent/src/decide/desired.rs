//! Translates resolved Kubernetes objects into the kernel table and virtual
//! addresses that this director should have. Only this file uses both the terms
//! of the API and the terms of the kernel. The translation is pure: it does no
//! I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crds::{
    AddressRule, Availability, BelowMinimum, CheckedGroup, DrainRule, ForwardingRule, HealthCheck,
    Kind, ObjectKey, Rejection, Resolved, Server, Service, ServiceId, Standing,
    api::{IpFamily, PersistenceEngine, Protocol, Scheduler, TunnelChecksum},
};
use ipvs::{
    DestinationConfig, DestinationKey, Family, ForwardingMethod, OnConflict, Owned, ServiceConfig,
    ServiceFlags, ServiceKey, Timeouts, Tunnel, TunnelKind, WantedService, WantedTable,
};

use crate::decide::{addresses::Holding, ours::Remembered, sysctls::Tuning};

/// For how long an entry stays after its removal was allowed, unless its service
/// says otherwise. The same time is the default of
/// `spec.removalGracePeriodSeconds`.
pub const PERIOD: Duration = crds::REMOVAL_GRACE_PERIOD;

/// The state that the API objects want on one director. Also names the object
/// that wants each part of the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The IPVS table that the objects want the kernel to have.
    pub table: WantedTable,
    /// The virtual addresses, each with the services that need it. Only the
    /// director that holds the group's VIPs should have the virtual addresses.
    pub vips: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// The check policy of each service that has a health check.
    pub checks: BTreeMap<ServiceKey, Arc<CheckPolicy>>,
    /// The VirtualService that wants each kernel service.
    pub services: BTreeMap<ServiceKey, ObjectKey>,
    /// The RealServer that wants each destination.
    pub servers: BTreeMap<(ServiceKey, DestinationKey), ObjectKey>,
    /// The destinations that are drained. Their weight in `table` is 0.
    pub drains: BTreeMap<(ServiceKey, DestinationKey), DrainRule>,
    /// For how long entries of a service stay after their removal was allowed, if
    /// this is not [`PERIOD`].
    pub periods: BTreeMap<ServiceKey, Duration>,
    /// Whether entries that no object wants wait for their clients to finish.
    pub is_draining: bool,
    /// The entries for which the group has no grant or no budget, each with the
    /// reason. A key without a destination stands for the whole service. The
    /// entries in `ungranted` are in the other fields too.
    /// [`crate::decide::protect`] decides which of these entries stay.
    pub ungranted: BTreeMap<(ServiceKey, Option<DestinationKey>), Rejection>,
    /// The services whose VIP the group grants as a single address, not as part
    /// of a network. Only a VIP that is granted as a single address may be an
    /// address of the host.
    pub meant: BTreeSet<ServiceKey>,
}

/// The complete wanted state of this host, from the objects and from the group.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The kernel table and the virtual addresses that the objects want.
    pub desired: Arc<Desired>,
    /// The wanted placement of the virtual addresses.
    pub addresses: Addresses,
    /// How to treat strangers' entries that have the key of a wanted entry.
    pub on_conflict: OnConflict,
    /// The wanted timeouts of connections, or none while they are not known. A
    /// timeout of 0 restores the value that the agent replaced.
    pub timeouts: Option<Timeouts>,
    /// The group's rules for sysctls, or none while the group is not known.
    pub tuning: Option<Tuning>,
    /// Sysctls that keep the agent's value even if no service needs the value.
    pub kept_sysctls: BTreeSet<String>,
}

/// Which interfaces the virtual addresses go on, and whether this host should
/// have them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Addresses {
    /// The rule that chooses the interface of each address.
    pub rule: AddressRule,
    /// Whether this host should have the virtual addresses.
    pub holding: Holding,
    /// Whether the administrator allows removals at the moment. In mode Manual,
    /// this permission makes the agent remove our addresses.
    pub is_released: bool,
    /// Addresses that stay on their interfaces, regardless of the rule and even
    /// if no service needs them.
    pub kept: BTreeMap<IpAddr, String>,
    /// Whether the agent's own network device stays even if no address goes on
    /// it.
    pub is_device_kept: bool,
}

impl Wish {
    /// Keeps all our addresses, sysctls and devices, wanted or not.
    pub(crate) fn keep_all_of(&mut self, ours: &Remembered) {
        self.addresses.kept.clone_from(&ours.addresses);
        self.addresses.is_device_kept = ours.device.is_some();
        self.kept_sysctls = ours.sysctls.keys().cloned().collect();
    }
}

impl Desired {
    /// Whether a service has `destination`, as a server or as its sorry server.
    pub fn has_destination(&self, service: &ServiceKey, destination: &DestinationKey) -> bool {
        let wanted = self.table.get(service);
        wanted.is_some_and(|wanted| wanted.destinations.contains_key(destination))
            || self.is_sorry_server(service, destination)
    }

    /// Whether a health check may add and remove `destination` in `service`.
    pub fn is_checked(&self, service: &ServiceKey, destination: &DestinationKey) -> bool {
        self.checks.contains_key(service) && self.has_destination(service, destination)
    }

    /// Returns for how long an entry of a service stays after its removal was
    /// allowed, while it has connections.
    pub fn period(&self, service: &ServiceKey) -> Duration {
        self.periods.get(service).copied().unwrap_or(PERIOD)
    }

    /// Gives a server weight 0, so that it gets no new connections.
    pub fn quiesce(&mut self, (service, server): &(ServiceKey, DestinationKey)) {
        let wanted = self.table.get_mut(service);
        let config = wanted.and_then(|wanted| wanted.destinations.get_mut(server));
        if let Some(config) = config {
            config.weight = 0;
        }
    }

    /// Lets a service's sorry server get no new connections.
    pub fn drain_sorry_server(&mut self, service: &ServiceKey) {
        let Some(policy) = self.checks.get_mut(service) else {
            return;
        };
        if let Some((sorry, _)) = policy.sorry {
            let mut drained = policy.drained.clone();
            drained.insert(sorry);
            *policy = Arc::new(CheckPolicy {
                drained,
                ..CheckPolicy::clone(policy)
            });
        }
    }

    /// Whether a destination is a service's sorry server.
    pub fn is_sorry_server(&self, service: &ServiceKey, destination: &DestinationKey) -> bool {
        let policy = self.checks.get(service);
        let sorry = policy.and_then(|policy| policy.sorry);
        sorry.is_some_and(|(sorry, _)| sorry == *destination)
    }
}

/// How the servers of one service are checked, and what happens to servers that
/// fail.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckPolicy {
    /// The health check that each server must pass.
    pub check: Arc<HealthCheck>,
    /// The service's probes count toward this namespace's share of all probes.
    pub namespace: Arc<str>,
    /// Servers that the group grants by name. The reason of a failed probe may
    /// quote text from the server only if the group grants the server by name.
    pub quotable: BTreeSet<DestinationKey>,
    /// The policy for a service whose servers fail.
    pub availability: Availability,
    /// The sorry server, if the policy has one.
    pub sorry: Option<(DestinationKey, DestinationConfig)>,
    /// Servers that stay in the table with weight 0 when the policy would
    /// remove them.
    pub quiesce_only: BTreeSet<DestinationKey>,
    /// Servers that are drained. They get no new connections, not even as the
    /// sorry server.
    pub drained: BTreeSet<DestinationKey>,
}

/// Answers whether a service or server of an API object is ours.
#[derive(Debug)]
pub struct Ours<'a> {
    /// The entries of the kernel's table that are ours.
    pub owned: &'a Owned,
    /// The previous wanted state.
    pub wanted: &'a Desired,
}

impl Standing for Ours<'_> {
    fn service(&self, service: ServiceId) -> bool {
        self.owned.service(&service_key(service))
    }

    fn server(&self, service: ServiceId, server: SocketAddr) -> bool {
        self.owned
            .destination(&service_key(service), &key_of(server))
    }

    fn has_place(&self, service: ServiceId, server: SocketAddr) -> bool {
        let (service, server) = (service_key(service), key_of(server));
        self.owned.destination(&service, &server) || self.wanted.has_destination(&service, &server)
    }
}

fn key_of(server: SocketAddr) -> DestinationKey {
    DestinationKey {
        address: server.ip(),
        port: server.port(),
    }
}

/// Returns the wanted state of the directors of `group`.
pub fn desired(resolved: &Resolved, group: &str) -> Desired {
    let mut desired = Desired::default();
    let granted = resolved.services.iter();
    for (object, service) in granted.chain(&resolved.ungranted) {
        if service.group != group {
            continue;
        }
        let key = service_key(service.id);
        if resolved.ungranted.contains_key(object)
            && let Some(why) = resolved.rejection(Kind::VirtualService, object)
        {
            desired.ungranted.insert((key, None), why.clone());
        }
        if service.is_meant {
            desired.meant.insert(key);
        }
        if let ServiceId::Vip { address, .. } = service.id {
            desired
                .vips
                .entry(address)
                .or_default()
                .insert(object.clone());
        }
        for server in &service.servers {
            let place = (key, destination_key(server));
            desired.servers.insert(place, server.object.clone());
            desired
                .drains
                .extend(server.drain.map(|rule| (place, rule)));
        }
        if let Some(check) = &service.health_check {
            let policy = policy(check, object, service);
            desired.checks.insert(key, Arc::new(policy));
        }
        let mut wanted = wanted_service(service);
        for (inserted, (older, server)) in service.ungranted.iter().enumerate() {
            let destination = destination_key(server);
            let refused = (object.clone(), server.object.clone());
            if let Some(why) = resolved.refused.get(&refused)
                && !wanted.destinations.contains_key(&destination)
            {
                let at = (older + inserted).min(wanted.destinations.len());
                let config = destination_config(server);
                wanted.destinations.shift_insert(at, destination, config);
                desired
                    .servers
                    .insert((key, destination), server.object.clone());
                let drain = server.drain.map(|rule| ((key, destination), rule));
                desired.drains.extend(drain);
                desired
                    .ungranted
                    .insert((key, Some(destination)), why.clone());
            }
        }
        if service.removal_grace_period != PERIOD {
            desired.periods.insert(key, service.removal_grace_period);
        }
        desired.services.insert(key, object.clone());
        desired.table.insert(key, wanted);
    }
    desired
}

fn policy(check: &Arc<HealthCheck>, object: &ObjectKey, service: &Service) -> CheckPolicy {
    let availability = &service.availability;
    let sorry = match &availability.below {
        BelowMinimum::Sorry(sorry) => {
            let key = DestinationKey {
                address: sorry.address,
                port: sorry.port,
            };
            let config = DestinationConfig {
                method: forwarding_method(sorry.forwarding),
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            Some((key, config))
        }
        BelowMinimum::FailOpen | BelowMinimum::Reject => None,
    };
    let quotable = service.servers.iter().filter(|server| server.is_listed);
    let refused = service.ungranted.iter().map(|(_, server)| server);
    let drained = service.servers.iter().chain(refused);
    let drained = drained.filter(|server| server.drain.is_some());
    CheckPolicy {
        check: check.clone(),
        namespace: object.namespace.clone(),
        quotable: quotable.map(destination_key).collect(),
        availability: availability.clone(),
        sorry,
        quiesce_only: BTreeSet::new(),
        drained: drained.map(destination_key).collect(),
    }
}

/// Returns the services that differ between `before` and `after`. The
/// comparison covers the configuration, the destinations with their order, and
/// the health check.
pub fn changed_services(before: &Desired, after: &Desired) -> BTreeSet<ServiceKey> {
    let same = |before: &WantedService, after: &WantedService| {
        before.config == after.config
            && before.destinations.as_slice() == after.destinations.as_slice()
    };
    let differs = |(key, service): &(&ServiceKey, &WantedService)| {
        let other = before.table.get(key);
        other.is_none_or(|other| !same(other, service))
            || before.checks.get(key) != after.checks.get(key)
    };
    let new = after.table.iter().filter(differs).map(|(key, _)| *key);
    let gone = before.table.keys().copied();
    let gone = gone.filter(|key| !after.table.contains_key(key));
    new.chain(gone).collect()
}

/// Returns how the group wants strangers' entries to be treated.
pub fn on_conflict(group: &CheckedGroup) -> OnConflict {
    match group.on_conflict {
        crds::api::OnConflict::Adopt => OnConflict::Adopt,
        crds::api::OnConflict::Leave => OnConflict::Leave,
    }
}

/// Returns the timeouts of connections that the group wants. A timeout that the
/// group does not set is 0.
pub fn timeouts(group: &CheckedGroup) -> Timeouts {
    let rule = group.timeouts;
    Timeouts {
        tcp: rule.tcp.unwrap_or(0),
        tcp_fin: rule.tcp_fin.unwrap_or(0),
        udp: rule.udp.unwrap_or(0),
    }
}

fn wanted_service(service: &Service) -> WantedService {
    WantedService {
        config: service_config(service),
        destinations: service
            .servers
            .iter()
            .map(|server| (destination_key(server), destination_config(server)))
            .collect(),
    }
}

/// Returns the key of a service in the kernel's table.
pub fn service_key(id: ServiceId) -> ServiceKey {
    match id {
        ServiceId::Vip {
            address,
            port,
            protocol,
        } => ServiceKey::Address {
            protocol: match protocol {
                Protocol::Tcp => ipvs::Protocol::TCP,
                Protocol::Udp => ipvs::Protocol::UDP,
                Protocol::Sctp => ipvs::Protocol::SCTP,
            },
            address,
            port,
        },
        ServiceId::FirewallMark { mark, family } => ServiceKey::FirewallMark {
            family: match family {
                IpFamily::IPv4 => Family::V4,
                IpFamily::IPv6 => Family::V6,
            },
            mark: mark.get(),
        },
    }
}

fn service_config(service: &Service) -> ServiceConfig {
    let mut flags = ServiceFlags::default();
    for (wanted, flag) in [
        (service.persistence.is_some(), ServiceFlags::PERSISTENT),
        (service.one_packet, ServiceFlags::ONE_PACKET),
        (service.fallback, ServiceFlags::SCHEDULER_1),
        (service.hash_port, ServiceFlags::SCHEDULER_2),
    ] {
        if wanted {
            flags = flags.with(flag);
        }
    }
    let whole_address = match service_key(service.id).family() {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let persistence = service.persistence.as_ref();
    ServiceConfig {
        scheduler: scheduler_name(service.scheduler).to_owned(),
        flags,
        timeout: persistence.map_or(0, |rule| rule.timeout_seconds),
        prefix_length: persistence.map_or(whole_address, |rule| rule.prefix_length),
        persistence_engine: persistence
            .and_then(|rule| rule.engine)
            .map(|PersistenceEngine::Sip| "sip".to_owned()),
    }
}

fn scheduler_name(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::Rr => "rr",
        Scheduler::Wrr => "wrr",
        Scheduler::Lc => "lc",
        Scheduler::Wlc => "wlc",
        Scheduler::Lblc => "lblc",
        Scheduler::Lblcr => "lblcr",
        Scheduler::Dh => "dh",
        Scheduler::Sh => "sh",
        Scheduler::Sed => "sed",
        Scheduler::Nq => "nq",
        Scheduler::Fo => "fo",
        Scheduler::Ovf => "ovf",
        Scheduler::Mh => "mh",
        Scheduler::Twos => "twos",
    }
}

fn destination_key(server: &Server) -> DestinationKey {
    DestinationKey {
        address: server.address,
        port: server.port,
    }
}

fn destination_config(server: &Server) -> DestinationConfig {
    DestinationConfig {
        method: forwarding_method(server.forwarding),
        weight: u32::from(server.share()),
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
    }
}

fn forwarding_method(rule: ForwardingRule) -> ForwardingMethod {
    match rule {
        ForwardingRule::Nat => ForwardingMethod::Masquerade,
        ForwardingRule::Dr => ForwardingMethod::DirectRoute,
        ForwardingRule::Ipip => ForwardingMethod::Tunnel(Tunnel::default()),
        ForwardingRule::Gue { port, checksum } => ForwardingMethod::Tunnel(Tunnel {
            kind: TunnelKind::Gue,
            port,
            checksum: tunnel_checksum(checksum),
        }),
        ForwardingRule::Gre { checksum } => ForwardingMethod::Tunnel(Tunnel {
            kind: TunnelKind::Gre,
            port: 0,
            checksum: tunnel_checksum(checksum),
        }),
    }
}

fn tunnel_checksum(checksum: TunnelChecksum) -> ipvs::TunnelChecksum {
    match checksum {
        TunnelChecksum::None => ipvs::TunnelChecksum::None,
        TunnelChecksum::Full => ipvs::TunnelChecksum::Full,
        TunnelChecksum::Remote => ipvs::TunnelChecksum::Remote,
    }
}

#[cfg(test)]
mod tests;
