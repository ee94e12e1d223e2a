//! Converts the netlink attributes of the kernel's answers into values of the
//! types in `model.rs`.

use netlink_packet_core::{DecodeError, ErrorContext};

use super::{
    Attribute, DestinationAttribute, Message, ServiceAttribute,
    value::{
        parse_checksum, parse_family, parse_ip, parse_method, parse_scheduler, parse_tunnel_kind,
        prefix_length,
    },
};
use crate::{
    Connections, DestinationConfig, DestinationKey, Family, Info, Protocol, ServiceConfig,
    ServiceFlags, ServiceKey, Stats, Timeouts, Tunnel,
};

/// An IPVS service, parsed from a netlink dump of the kernel.
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
                scheduler: parse_scheduler(scheduler),
                flags: ServiceFlags(flags & !ServiceFlags::HASHED.0),
                timeout: timeout.ok_or("no IPVS_SVC_ATTR_TIMEOUT")?,
                prefix_length: prefix_length(family, mask.ok_or("no IPVS_SVC_ATTR_NETMASK")?),
                persistence_engine: persistence_engine.filter(|name| !name.is_empty()),
            },
            stats: stats64.or(stats).into_iter().flatten().collect(),
        })
    }
}

/// A destination, parsed from a netlink dump of the kernel. The dump does not
/// name the destination's service, but the caller's request named the service.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct DumpedDestination {
    pub(crate) key: DestinationKey,
    pub(crate) config: DestinationConfig,
    pub(crate) connections: Connections,
    pub(crate) stats: Stats,
}

impl DumpedDestination {
    /// Parses one destination from a dump. `family` is the address family of
    /// the destination's service.
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
            kind: parse_tunnel_kind(tunnel_kind),
            port: tunnel_port,
            checksum: parse_checksum(tunnel_flags),
        };
        let method = method.ok_or("no IPVS_DEST_ATTR_FWD_METHOD")?;
        Ok(Self {
            key: DestinationKey {
                address: parse_ip(family, address.ok_or("no IPVS_DEST_ATTR_ADDR")?),
                port: port.ok_or("no IPVS_DEST_ATTR_PORT")?,
            },
            config: DestinationConfig {
                method: parse_method(method, tunnel),
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
        // A kernel that was built without a protocol leaves out that protocol's
        // timeouts (`ip_vs_genl_get_cmd`).
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
