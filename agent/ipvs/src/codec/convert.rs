//! Attributes to model, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DecodeError, ErrorContext};
use nix::libc::{AF_INET, AF_INET6};

use super::{Attribute, Command, DestinationAttribute, Message, ServiceAttribute};
use crate::{
    Connections, DestinationConfig, DestinationKey, Family, ForwardingMethod, Info, Op, Protocol,
    ServiceConfig, ServiceFlags, ServiceKey, Stats, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};

const NO_SCHEDULER: &str = "none";
const ALL_FLAGS: u32 = u32::MAX;

const IP_VS_CONN_F_FWD_MASK: u32 = 0x7;
const IP_VS_CONN_F_MASQ: u32 = 0;
const IP_VS_CONN_F_LOCALNODE: u32 = 1;
const IP_VS_CONN_F_TUNNEL: u32 = 2;
const IP_VS_CONN_F_DROUTE: u32 = 3;
const IP_VS_CONN_F_BYPASS: u32 = 4;

const IP_VS_CONN_F_TUNNEL_TYPE_IPIP: u8 = 0;
const IP_VS_CONN_F_TUNNEL_TYPE_GUE: u8 = 1;
const IP_VS_CONN_F_TUNNEL_TYPE_GRE: u8 = 2;

const IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM: u16 = 0;
const IP_VS_TUNNEL_ENCAP_FLAG_CSUM: u16 = 1;
const IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM: u16 = 2;

/// The request that does an operation.
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

/// The command that does an operation.
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

/// What takes the attributes of a nest, one after the other: a list, or the
/// bytes of a datagram, so that thousands of operations do not cost a list each.
pub(super) trait Nest<A> {
    fn put(&mut self, attribute: A);
}

impl<A> Nest<A> for Vec<A> {
    fn put(&mut self, attribute: A) {
        self.push(attribute);
    }
}

/// What stands in an operation's service nest.
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

/// What stands in an operation's destination nest; nothing where it has none.
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
    /// Asks for the version and the size of the connection table.
    pub fn info() -> Self {
        Self {
            command: Command::GetInfo,
            attributes: Vec::new(),
        }
    }

    /// Asks for every service; as a dump.
    pub fn services() -> Self {
        Self {
            command: Command::GetService,
            attributes: Vec::new(),
        }
    }

    /// Asks for one service.
    pub fn service(key: &ServiceKey) -> Self {
        Self {
            command: Command::GetService,
            attributes: vec![Attribute::Service(key_attributes(key))],
        }
    }

    /// Asks for the timeouts of connections.
    pub fn timeouts() -> Self {
        Self {
            command: Command::GetConfig,
            attributes: Vec::new(),
        }
    }

    /// Sets the timeouts of connections that are not 0.
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

    /// Asks for every destination of a service; as a dump. A service that does
    /// not exist answers like one without destinations.
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
    let scheduler = match config.scheduler.as_str() {
        "" => NO_SCHEDULER.to_owned(),
        name => name.to_owned(),
    };
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

/// With the family always: the kernel takes the service's if it is missing,
/// and then does not find a destination of the other family (ENOENT).
#[inline]
fn destination_key_attributes(key: &DestinationKey, nest: &mut impl Nest<DestinationAttribute>) {
    let family = family_number(Family::of(key.address));
    nest.put(DestinationAttribute::Family(family));
    nest.put(DestinationAttribute::Address(address_bytes(key.address)));
    nest.put(DestinationAttribute::Port(key.port));
}

/// With the tunnel's attributes for every tunnel: an edit without them makes
/// it IPIP.
#[inline]
fn destination_config_attributes(
    config: &DestinationConfig,
    nest: &mut impl Nest<DestinationAttribute>,
) {
    let (method, tunnel) = match config.method {
        ForwardingMethod::Masquerade => (IP_VS_CONN_F_MASQ, None),
        ForwardingMethod::Local => (IP_VS_CONN_F_LOCALNODE, None),
        ForwardingMethod::Tunnel(tunnel) => (IP_VS_CONN_F_TUNNEL, Some(tunnel)),
        ForwardingMethod::DirectRoute => (IP_VS_CONN_F_DROUTE, None),
        ForwardingMethod::Bypass => (IP_VS_CONN_F_BYPASS, None),
        ForwardingMethod::Other(method) => (method, None),
    };
    nest.put(DestinationAttribute::ForwardingMethod(method));
    nest.put(DestinationAttribute::Weight(config.weight));
    nest.put(DestinationAttribute::UpperThreshold(config.upper_threshold));
    nest.put(DestinationAttribute::LowerThreshold(config.lower_threshold));
    let Some(tunnel) = tunnel else {
        return;
    };
    nest.put(DestinationAttribute::TunnelKind(match tunnel.kind {
        TunnelKind::Ipip => IP_VS_CONN_F_TUNNEL_TYPE_IPIP,
        TunnelKind::Gue => IP_VS_CONN_F_TUNNEL_TYPE_GUE,
        TunnelKind::Gre => IP_VS_CONN_F_TUNNEL_TYPE_GRE,
        TunnelKind::Other(kind) => kind,
    }));
    nest.put(DestinationAttribute::TunnelPort(tunnel.port));
    nest.put(DestinationAttribute::TunnelFlags(match tunnel.checksum {
        TunnelChecksum::None => IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM,
        TunnelChecksum::Full => IP_VS_TUNNEL_ENCAP_FLAG_CSUM,
        TunnelChecksum::Remote => IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM,
        TunnelChecksum::Other(flags) => flags,
    }));
}

/// A service as the kernel dumps it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct DumpedService {
    pub(crate) key: ServiceKey,
    pub(crate) config: ServiceConfig,
    pub(crate) stats: Stats,
}

impl TryFrom<Message> for DumpedService {
    type Error = DecodeError;

    fn try_from(message: Message) -> Result<Self, DecodeError> {
        let attributes = message.attributes.into_iter().find_map(|attribute| {
            let Attribute::Service(attributes) = attribute else {
                return None;
            };
            Some(attributes)
        });
        Self::from_attributes(attributes.ok_or("a dumped service without its nest")?)
            .context("a dumped service")
    }
}

impl DumpedService {
    fn from_attributes(attributes: Vec<ServiceAttribute>) -> Result<Self, DecodeError> {
        let (mut family, mut protocol, mut address, mut port) = (None, None, None, None);
        let (mut mark, mut scheduler, mut flags, mut timeout) = (None, None, None, None);
        let (mut mask, mut persistence_engine) = (None, None);
        let (mut stats, mut stats64) = (None, None);
        for attribute in attributes {
            match attribute {
                ServiceAttribute::Family(number) => family = Some(parse_family(number)?),
                ServiceAttribute::Protocol(number) => protocol = Some(Protocol(number)),
                ServiceAttribute::Address(bytes) => address = Some(bytes),
                ServiceAttribute::Port(number) => port = Some(number),
                ServiceAttribute::FirewallMark(number) => mark = Some(number),
                ServiceAttribute::Scheduler(name) => scheduler = Some(name),
                ServiceAttribute::Flags { flags: bits, .. } => flags = Some(bits),
                ServiceAttribute::Timeout(seconds) => timeout = Some(seconds),
                ServiceAttribute::Netmask(bytes) => mask = Some(bytes),
                ServiceAttribute::PersistenceEngine(name) => persistence_engine = Some(name),
                ServiceAttribute::Stats(list) => stats = Some(list),
                ServiceAttribute::Stats64(list) => stats64 = Some(list),
                ServiceAttribute::Other(_) => {}
            }
        }

        let family = family.ok_or("no IPVS_SVC_ATTR_AF")?;
        let key = match mark {
            Some(mark) => ServiceKey::FirewallMark { family, mark },
            None => ServiceKey::Address {
                protocol: protocol.ok_or("no IPVS_SVC_ATTR_PROTOCOL")?,
                address: parse_ip(family, address.ok_or("no IPVS_SVC_ATTR_ADDR")?),
                port: port.ok_or("no IPVS_SVC_ATTR_PORT")?,
            },
        };
        let scheduler = scheduler.ok_or("no IPVS_SVC_ATTR_SCHED_NAME")?;
        let flags = flags.ok_or("no IPVS_SVC_ATTR_FLAGS")?;
        Ok(Self {
            key,
            config: ServiceConfig {
                scheduler: match scheduler.as_str() {
                    NO_SCHEDULER => String::new(),
                    _ => scheduler,
                },
                flags: ServiceFlags(flags & !ServiceFlags::HASHED.0),
                timeout: timeout.ok_or("no IPVS_SVC_ATTR_TIMEOUT")?,
                prefix_length: prefix_length(family, mask.ok_or("no IPVS_SVC_ATTR_NETMASK")?),
                persistence_engine: persistence_engine.filter(|name| !name.is_empty()),
            },
            stats: stats64.or(stats).into_iter().flatten().collect(),
        })
    }
}

/// A destination as the kernel dumps it. Which service it is in, only the one
/// who asked knows.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct DumpedDestination {
    pub(crate) key: DestinationKey,
    pub(crate) config: DestinationConfig,
    pub(crate) connections: Connections,
    pub(crate) stats: Stats,
}

impl DumpedDestination {
    /// From the answer to a dump of the destinations of a service of `family`.
    pub(crate) fn parse(message: Message, family: Family) -> Result<Self, DecodeError> {
        let attributes = message.attributes.into_iter().find_map(|attribute| {
            let Attribute::Destination(attributes) = attribute else {
                return None;
            };
            Some(attributes)
        });
        Self::from_attributes(
            attributes.ok_or("a dumped destination without its nest")?,
            family,
        )
        .context("a dumped destination")
    }

    fn from_attributes(
        attributes: Vec<DestinationAttribute>,
        mut family: Family,
    ) -> Result<Self, DecodeError> {
        let (mut address, mut port, mut method, mut weight) = (None, None, None, None);
        let (mut upper_threshold, mut lower_threshold) = (0, 0);
        let (mut tunnel_kind, mut tunnel_port, mut tunnel_flags) = (0, 0, 0);
        let mut connections = Connections::default();
        let (mut stats, mut stats64) = (None, None);
        for attribute in attributes {
            match attribute {
                DestinationAttribute::Address(bytes) => address = Some(bytes),
                DestinationAttribute::Port(number) => port = Some(number),
                DestinationAttribute::ForwardingMethod(number) => method = Some(number),
                DestinationAttribute::Weight(number) => weight = Some(number),
                DestinationAttribute::UpperThreshold(number) => upper_threshold = number,
                DestinationAttribute::LowerThreshold(number) => lower_threshold = number,
                DestinationAttribute::ActiveConnections(count) => connections.active = count,
                DestinationAttribute::InactiveConnections(count) => connections.inactive = count,
                DestinationAttribute::PersistentConnections(count) => {
                    connections.persistent = count;
                }
                DestinationAttribute::Family(number) => family = parse_family(number)?,
                DestinationAttribute::TunnelKind(number) => tunnel_kind = number,
                DestinationAttribute::TunnelPort(number) => tunnel_port = number,
                DestinationAttribute::TunnelFlags(number) => tunnel_flags = number,
                DestinationAttribute::Stats(list) => stats = Some(list),
                DestinationAttribute::Stats64(list) => stats64 = Some(list),
                DestinationAttribute::Other(_) => {}
            }
        }

        let tunnel = Tunnel {
            kind: match tunnel_kind {
                IP_VS_CONN_F_TUNNEL_TYPE_IPIP => TunnelKind::Ipip,
                IP_VS_CONN_F_TUNNEL_TYPE_GUE => TunnelKind::Gue,
                IP_VS_CONN_F_TUNNEL_TYPE_GRE => TunnelKind::Gre,
                other => TunnelKind::Other(other),
            },
            port: tunnel_port,
            checksum: match tunnel_flags {
                IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM => TunnelChecksum::None,
                IP_VS_TUNNEL_ENCAP_FLAG_CSUM => TunnelChecksum::Full,
                IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM => TunnelChecksum::Remote,
                other => TunnelChecksum::Other(other),
            },
        };
        let method = method.ok_or("no IPVS_DEST_ATTR_FWD_METHOD")?;
        Ok(Self {
            key: DestinationKey {
                address: parse_ip(family, address.ok_or("no IPVS_DEST_ATTR_ADDR")?),
                port: port.ok_or("no IPVS_DEST_ATTR_PORT")?,
            },
            config: DestinationConfig {
                method: match method & IP_VS_CONN_F_FWD_MASK {
                    IP_VS_CONN_F_MASQ => ForwardingMethod::Masquerade,
                    IP_VS_CONN_F_LOCALNODE => ForwardingMethod::Local,
                    IP_VS_CONN_F_TUNNEL => ForwardingMethod::Tunnel(tunnel),
                    IP_VS_CONN_F_DROUTE => ForwardingMethod::DirectRoute,
                    IP_VS_CONN_F_BYPASS => ForwardingMethod::Bypass,
                    other => ForwardingMethod::Other(other),
                },
                weight: weight.ok_or("no IPVS_DEST_ATTR_WEIGHT")?,
                upper_threshold,
                lower_threshold,
            },
            connections,
            stats: stats64.or(stats).into_iter().flatten().collect(),
        })
    }
}

impl From<Message> for Timeouts {
    fn from(message: Message) -> Self {
        let (mut tcp, mut tcp_fin, mut udp) = (None, None, None);
        for attribute in message.attributes {
            match attribute {
                Attribute::TimeoutTcp(seconds) => tcp = Some(seconds),
                Attribute::TimeoutTcpFin(seconds) => tcp_fin = Some(seconds),
                Attribute::TimeoutUdp(seconds) => udp = Some(seconds),
                _ => {}
            }
        }
        // A kernel that was built without a protocol leaves its timeouts out
        // (`ip_vs_genl_get_cmd`).
        Self {
            tcp: tcp.unwrap_or(0),
            tcp_fin: tcp_fin.unwrap_or(0),
            udp: udp.unwrap_or(0),
        }
    }
}

impl TryFrom<Message> for Info {
    type Error = DecodeError;

    fn try_from(message: Message) -> Result<Self, DecodeError> {
        let (mut version, mut connection_table_size) = (None, None);
        for attribute in message.attributes {
            match attribute {
                Attribute::InfoVersion(number) => version = Some(number),
                Attribute::InfoConnectionTableSize(size) => connection_table_size = Some(size),
                _ => {}
            }
        }
        let [_, major, minor, patch] = version
            .ok_or("no IPVS_INFO_ATTR_VERSION in the answer to IPVS_CMD_GET_INFO")?
            .to_be_bytes();
        Ok(Self {
            version: (major, minor, patch),
            connection_table_size: connection_table_size
                .ok_or("no IPVS_INFO_ATTR_CONN_TAB_SIZE in the answer to IPVS_CMD_GET_INFO")?,
        })
    }
}

fn family_number(family: Family) -> u16 {
    let number = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    u16::try_from(number).expect("address families are below 2^16")
}

fn parse_family(number: u16) -> Result<Family, DecodeError> {
    match i32::from(number) {
        AF_INET => Ok(Family::V4),
        AF_INET6 => Ok(Family::V6),
        _ => Err(format!("address family {number}, neither AF_INET nor AF_INET6").into()),
    }
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn parse_ip(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}

fn netmask(family: Family, prefix_length: u8) -> [u8; 4] {
    match family {
        Family::V4 => {
            let zeroes = 32u32.saturating_sub(prefix_length.into());
            u32::MAX.checked_shl(zeroes).unwrap_or(0).to_be_bytes()
        }
        Family::V6 => u32::from(prefix_length).to_ne_bytes(),
    }
}

fn prefix_length(family: Family, mask: [u8; 4]) -> u8 {
    let length = match family {
        Family::V4 => {
            let mask = u32::from_be_bytes(mask);
            let ones = mask.leading_ones();
            (ones == mask.count_ones()).then_some(ones)
        }
        Family::V6 => Some(u32::from_ne_bytes(mask)).filter(|length| *length <= 128),
    };
    length
        .and_then(|length| u8::try_from(length).ok())
        .unwrap_or(ServiceConfig::IRREGULAR_MASK)
}
