//! What the kernel's table holds, in the kernel's words.
//!
//! Identity ([`ServiceKey`], [`DestinationKey`]), configuration
//! ([`ServiceConfig`], [`DestinationConfig`]) and observation ([`Stats`],
//! [`Connections`]) are three kinds of type: a key never changes, a
//! configuration is compared, an observation never is.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// An address family, as the kernel's `AF_INET` and `AF_INET6`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// An IP protocol number. The kernel does not validate it
/// (`ip_vs_ctl.c`, `ip_vs_genl_parse_service`), so a table that others wrote
/// may hold any.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Protocol(pub u16);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

/// What makes two services the same one to the kernel, within one network
/// namespace. Immutable: another key is another service.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum ServiceKey {
    /// Packets to one address, port and protocol.
    Address {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The VIP.
        address: IpAddr,
        /// 0 means every port, which the kernel serves only for persistent services.
        port: u16,
    },
    /// Packets that netfilter marked.
    FirewallMark {
        /// IPv4 and IPv6 services with one mark are two services.
        family: Family,
        /// Never 0 in a service that we make.
        mark: u32,
    },
}

impl ServiceKey {
    /// The family of the service's own packets.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::FirewallMark { family, .. } => *family,
        }
    }

    /// The VIP; none for a firewall mark.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::FirewallMark { .. } => None,
        }
    }
}

/// As `ipvsadm -Sn` spells it: `-t 192.0.2.1:80`, `-u [2001:db8::1]:53`, `-f 7`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => {
                match *protocol {
                    Protocol::TCP => f.write_str("-t ")?,
                    Protocol::UDP => f.write_str("-u ")?,
                    Protocol::SCTP => f.write_str("--sctp-service ")?,
                    Protocol(other) => write!(f, "protocol {other} ")?,
                }
                write!(f, "{}", std::net::SocketAddr::new(*address, *port))
            }
            Self::FirewallMark { family, mark } => match family {
                Family::V4 => write!(f, "-f {mark}"),
                Family::V6 => write!(f, "-f {mark} -6"),
            },
        }
    }
}

/// What makes two destinations of one service the same one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct DestinationKey {
    /// The RIP.
    pub address: IpAddr,
    /// The server's port; DR and TUN deliver to the service's port whatever
    /// stands here, but it is part of the key all the same.
    pub port: u16,
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::new(self.address, self.port))
    }
}

/// A service's flag bits (`include/uapi/linux/ip_vs.h`, `IP_VS_SVC_F_*`).
/// `HASHED` (0x2) is the kernel's own and is never stored here. Bits that the
/// kernel does not define are kept by it and so are kept here.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// A client stays with its server for the service's timeout.
    pub const PERSISTENT: Self = Self(0x1);
    /// Set by the kernel alone; masked when a table is read.
    pub const HASHED: Self = Self(0x2);
    /// Every datagram is scheduled afresh; UDP only.
    pub const ONE_PACKET: Self = Self(0x4);
    /// sh-fallback, mh-fallback.
    pub const SCHEDULER_1: Self = Self(0x8);
    /// sh-port, mh-port.
    pub const SCHEDULER_2: Self = Self(0x10);
    /// Not used by a scheduler of Linux 6.1.
    pub const SCHEDULER_3: Self = Self(0x20);

    /// Both sets of bits.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every bit of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// All that can be edited in a service without making it another one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceConfig {
    /// The kernel's name, at most 15 bytes; empty is "none".
    pub scheduler: String,
    /// Bits without `HASHED`.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds. Kept by the kernel even when the
    /// service is not persistent; limit 4,294,967 at HZ=1000.
    pub timeout: u32,
    /// Persistence granularity: an IPv4 mask's or IPv6 prefix's length, 0 to
    /// 32 or 1 to 128. ipvsadm sends 32 and 128 when nobody asked.
    /// [`IRREGULAR_MASK`](Self::IRREGULAR_MASK) when read from a stranger's
    /// service whose mask has holes.
    pub prefix_length: u8,
    /// `sip`, or none.
    pub persistence_engine: Option<String>,
}

impl ServiceConfig {
    /// The [`prefix_length`](Self::prefix_length) of an IPv4 mask that is not
    /// a prefix, such as 255.0.255.0. It equals no length that anybody can
    /// want, so such a service, when adopted, is edited.
    pub const IRREGULAR_MASK: u8 = 255;
}

/// How packets reach a destination (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ForwardingMethod {
    /// NAT (`IP_VS_CONN_F_MASQ`).
    Masquerade,
    /// To the director itself (`IP_VS_CONN_F_LOCALNODE`).
    Local,
    /// In a tunnel (`IP_VS_CONN_F_TUNNEL`).
    Tunnel(Tunnel),
    /// Direct routing (`IP_VS_CONN_F_DROUTE`).
    DirectRoute,
    /// `IP_VS_CONN_F_BYPASS`; not ours to write, but a stranger may have.
    Bypass,
    /// A value that this build does not know.
    Other(u32),
}

/// A tunnel's outer header.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tunnel {
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`: IPIP 0, GUE 1, GRE 2.
    pub kind: TunnelKind,
    /// UDP port of GUE; 0 for the others.
    pub port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    pub checksum: TunnelChecksum,
}

/// The kinds of tunnel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
    /// A value that this build does not know; the kernel accepts any.
    Other(u8),
}

/// The checksum flags of a GUE or GRE tunnel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelChecksum {
    /// `IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM`.
    #[default]
    None,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_CSUM`.
    Full,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM`; GUE only.
    Remote,
    /// A value that this build does not know.
    Other(u16),
}

/// All that can be edited in a destination without making it another one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DestinationConfig {
    /// Established connections keep the method that they began with.
    pub method: ForwardingMethod,
    /// 0 takes no new connections; up to 2^31-1.
    pub weight: u32,
    /// Connections at which the destination counts as overloaded; 0 is off.
    pub upper_threshold: u32,
    /// Connections below which it no longer does; 0 means three quarters of
    /// the upper one.
    pub lower_threshold: u32,
}

/// Counters and rates. The kernel refreshes them every 2 s at most, and not
/// at all with `net.ipv4.vs.run_estimation=0`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets in.
    pub packets_in: u64,
    /// Packets out.
    pub packets_out: u64,
    /// Bytes in.
    pub bytes_in: u64,
    /// Bytes out.
    pub bytes_out: u64,
    /// Connections per second.
    pub connection_rate: u64,
    /// Packets in per second.
    pub packet_rate_in: u64,
    /// Packets out per second.
    pub packet_rate_out: u64,
    /// Bytes in per second.
    pub byte_rate_in: u64,
    /// Bytes out per second.
    pub byte_rate_out: u64,
}

/// Live connection counts of a destination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// Established.
    pub active: u32,
    /// In any other state, TIME_WAIT included.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
}

/// What the kernel says about itself (`IPVS_CMD_GET_INFO`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    /// Major, minor, patch: 1.2.1 for every kernel since 2.6.28.
    pub version: (u8, u8, u8),
    /// Buckets of the connection table.
    pub connection_table_size: u32,
}

/// The timeouts of connections, in seconds, of one network namespace
/// (`IPVS_CMD_SET_CONFIG`): 900, 120 and 300 unless somebody set others. In
/// what is sent to the kernel, 0 keeps what is there; in what it answers, 0 is
/// a protocol that it was built without.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Timeouts {
    /// Of an established TCP connection without packets.
    pub tcp: u32,
    /// Of a TCP connection after a FIN.
    pub tcp_fin: u32,
    /// Of a flow of UDP datagrams.
    pub udp: u32,
}

/// Destinations, oldest first: dh, sh and mh build their tables in that order.
/// Two that differ in the order alone are equal.
pub type Destinations = IndexMap<DestinationKey, DestinationConfig, FxBuildHasher>;

/// A service that somebody wants: configuration and destinations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedService {
    /// The service's own configuration.
    pub config: ServiceConfig,
    /// In the order in which they are to be added.
    pub destinations: Destinations,
}

/// The table that somebody wants.
pub type WantedTable = BTreeMap<ServiceKey, WantedService>;

/// A service as the kernel has it: configuration only, observations apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActualService {
    /// The service's own configuration.
    pub config: ServiceConfig,
    /// In the order in which they were added.
    pub destinations: Destinations,
}

/// The table that the kernel has, as last read and acknowledged since.
pub type ActualTable = BTreeMap<ServiceKey, ActualService>;
