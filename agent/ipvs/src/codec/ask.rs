//! Turns operations and queries into netlink attributes for the kernel.

use super::{
    Attribute, Command, DestinationAttribute, Message, ServiceAttribute,
    value::{
        address_bytes, checksum_number, family_number, method_number, netmask, scheduler_name,
        tunnel_kind_number,
    },
};
use crate::{
    DestinationConfig, DestinationKey, Family, ForwardingMethod, Op, ServiceConfig, ServiceKey,
    Timeouts,
};

const ALL_FLAGS: u32 = u32::MAX;

/// Builds the netlink request that carries out an operation.
impl From<&Op> for Message {
    fn from(op: &Op) -> Self {
        let (mut service, mut destination) = (Vec::new(), Vec::new());
        service_attributes(op, &mut service);
        destination_attributes(op, &mut destination);
        let mut attributes = vec![Attribute::Service(service)];
        if !destination.is_empty() {
            attributes.push(Attribute::Destination(destination));
        }
        Self {
            command: command(op),
            attributes,
        }
    }
}

/// Returns the netlink command for an operation.
pub(super) fn command(op: &Op) -> Command {
    match op {
        Op::NewService(..) => Command::NewService,
        Op::SetService(..) => Command::SetService,
        Op::DeleteService(_) => Command::DeleteService,
        Op::NewDestination(..) => Command::NewDestination,
        Op::SetDestination(..) => Command::SetDestination,
        Op::DeleteDestination(..) => Command::DeleteDestination,
    }
}

/// Receives the attributes of a nested netlink attribute, one at a time. Lists
/// and datagrams implement `Nest`. The crate writes operations directly to a
/// datagram, because building a list for each operation would take time.
pub(super) trait Nest<A> {
    fn put(&mut self, attribute: A);
}

impl<A> Nest<A> for Vec<A> {
    fn put(&mut self, attribute: A) {
        self.push(attribute);
    }
}

/// Adds the attributes of an operation's service to a nested attribute.
#[inline]
pub(super) fn service_attributes(op: &Op, nest: &mut impl Nest<ServiceAttribute>) {
    match op {
        Op::NewService(key, config) | Op::SetService(key, config) => {
            service_key_attributes(key, nest);
            service_config_attributes(key, config, nest);
        }
        Op::DeleteService(key)
        | Op::NewDestination(key, ..)
        | Op::SetDestination(key, ..)
        | Op::DeleteDestination(key, _) => service_key_attributes(key, nest),
    }
}

/// Adds the attributes of an operation's destination to a nested attribute, if
/// the operation has a destination.
#[inline]
pub(super) fn destination_attributes(op: &Op, nest: &mut impl Nest<DestinationAttribute>) {
    match op {
        Op::NewDestination(_, key, config) | Op::SetDestination(_, key, config) => {
            destination_key_attributes(key, nest);
            destination_config_attributes(config, nest);
        }
        Op::DeleteDestination(_, key) => destination_key_attributes(key, nest),
        Op::NewService(..) | Op::SetService(..) | Op::DeleteService(_) => {}
    }
}

impl Message {
    /// Builds a request that reads the version of IPVS and the size of its
    /// connection table.
    pub fn info() -> Self {
        Self {
            command: Command::GetInfo,
            attributes: Vec::new(),
        }
    }

    /// Builds a request that reads all IPVS services. The caller must send the
    /// request as a dump (`NLM_F_DUMP`).
    pub fn services() -> Self {
        Self {
            command: Command::GetService,
            attributes: Vec::new(),
        }
    }

    /// Builds a request that reads one IPVS service.
    pub fn service(key: &ServiceKey) -> Self {
        Self {
            command: Command::GetService,
            attributes: vec![Attribute::Service(key_attributes(key))],
        }
    }

    /// Builds a request that reads the kernel's IPVS connection timeouts.
    pub fn timeouts() -> Self {
        Self {
            command: Command::GetConfig,
            attributes: Vec::new(),
        }
    }

    /// Builds a request that sets each connection timeout that is not 0.
    pub fn set_timeouts(timeouts: Timeouts) -> Self {
        Self {
            command: Command::SetConfig,
            attributes: vec![
                Attribute::TimeoutTcp(timeouts.tcp),
                Attribute::TimeoutTcpFin(timeouts.tcp_fin),
                Attribute::TimeoutUdp(timeouts.udp),
            ],
        }
    }

    /// Builds a request that reads all destinations of a service. The caller
    /// must send the request as a dump (`NLM_F_DUMP`). If the service does not
    /// exist, the kernel answers as if the service had no destinations.
    pub fn destinations(service: &ServiceKey) -> Self {
        Self {
            command: Command::GetDestination,
            attributes: vec![Attribute::Service(key_attributes(service))],
        }
    }
}

fn key_attributes(key: &ServiceKey) -> Vec<ServiceAttribute> {
    let mut attributes = Vec::new();
    service_key_attributes(key, &mut attributes);
    attributes
}

#[inline]
fn service_key_attributes(key: &ServiceKey, nest: &mut impl Nest<ServiceAttribute>) {
    nest.put(ServiceAttribute::Family(family_number(key.family())));
    match *key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            nest.put(ServiceAttribute::Protocol(protocol.0));
            nest.put(ServiceAttribute::Address(address_bytes(address)));
            nest.put(ServiceAttribute::Port(port));
        }
        ServiceKey::FirewallMark { mark, .. } => nest.put(ServiceAttribute::FirewallMark(mark)),
    }
}

#[inline]
fn service_config_attributes(
    key: &ServiceKey,
    config: &ServiceConfig,
    nest: &mut impl Nest<ServiceAttribute>,
) {
    let scheduler = scheduler_name(&config.scheduler).to_owned();
    nest.put(ServiceAttribute::Scheduler(scheduler));
    nest.put(ServiceAttribute::Flags {
        flags: config.flags.0,
        mask: ALL_FLAGS,
    });
    nest.put(ServiceAttribute::Timeout(config.timeout));
    let mask = netmask(key.family(), config.prefix_length);
    nest.put(ServiceAttribute::Netmask(mask));
    if let Some(engine) = &config.persistence_engine {
        nest.put(ServiceAttribute::PersistenceEngine(engine.clone()));
    }
}

/// Adds the attributes of a destination's key, including its address family, to
/// a nested attribute. Without the destination's address family, the kernel
/// assumes the service's family and does not find a destination of the other
/// family (ENOENT).
#[inline]
fn destination_key_attributes(key: &DestinationKey, nest: &mut impl Nest<DestinationAttribute>) {
    let family = family_number(Family::of(key.address));
    nest.put(DestinationAttribute::Family(family));
    nest.put(DestinationAttribute::Address(address_bytes(key.address)));
    nest.put(DestinationAttribute::Port(key.port));
}

/// Adds the attributes of a destination's configuration to a nested attribute.
/// The tunnel attributes are always included, because an edit that lacks tunnel
/// attributes changes the tunnel to IPIP.
#[inline]
fn destination_config_attributes(
    config: &DestinationConfig,
    nest: &mut impl Nest<DestinationAttribute>,
) {
    let method = method_number(config.method);
    nest.put(DestinationAttribute::ForwardingMethod(method));
    nest.put(DestinationAttribute::Weight(config.weight));
    nest.put(DestinationAttribute::UpperThreshold(config.upper_threshold));
    nest.put(DestinationAttribute::LowerThreshold(config.lower_threshold));
    let ForwardingMethod::Tunnel(tunnel) = config.method else {
        return;
    };
    let kind = tunnel_kind_number(tunnel.kind);
    nest.put(DestinationAttribute::TunnelKind(kind));
    nest.put(DestinationAttribute::TunnelPort(tunnel.port));
    let flags = checksum_number(tunnel.checksum);
    nest.put(DestinationAttribute::TunnelFlags(flags));
}
