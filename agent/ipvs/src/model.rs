//! The contents of the kernel's table, in the kernel's terms.
//!
//! Identity ([`ServiceKey`], [`DestinationKey`]), configuration
//! ([`ServiceConfig`], [`DestinationConfig`]) and observation ([`Stats`],
//! [`Connections`]) are separate types: a key never changes, a configuration is
//! compared, an observation never is.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// An address family, as the kernel's `AF_INET` and `AF_INET6`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Family {
    /// IPv4 (`AF_INET`).
    V4,
    /// IPv6 (`AF_INET6`).
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

/// An IP protocol number. The kernel does not check it (`ip_vs_ctl.c`,
/// `ip_vs_genl_parse_service`), so a table of another program may contain any
/// number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Protocol(pub u16);

impl Protocol {
    /// Transmission Control Protocol (TCP).
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol (UDP).
    pub const UDP: Self = Self(17);
    /// Stream Control Transmission Protocol (SCTP).
    pub const SCTP: Self = Self(132);
}

/// Identifies a service within one network namespace. A service cannot change
/// its key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum ServiceKey {
    /// Packets to one address, port and protocol.
    Address {
        /// The transport protocol: TCP, UDP or SCTP.
        protocol: Protocol,
        /// The virtual address (VIP).
        address: IpAddr,
        /// The port. 0 is every port, which the kernel supports only for
        /// persistent services.
        port: u16,
    },
    /// Packets with a firewall mark.
    FirewallMark {
        /// The address family. Two services may have the same mark with
        /// different families.
        family: Family,
        /// The mark. It is never 0 in a service of ours.
        mark: u32,
    },
}

impl ServiceKey {
    /// The service's virtual address (VIP). None for a firewall mark.
    pub fn vip(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::FirewallMark { .. } => None,
        }
    }

    /// The address family of the service's packets.
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

/// Writes the key as `ipvsadm -Sn` does: `-t 192.0.2.1:80`, `-u
/// [2001:db8::1]:53`, `-f 7`.
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

/// Identifies a destination within a service.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct DestinationKey {
    /// The server's address (RIP).
    pub address: IpAddr,
    /// The server's port. It is part of the key even with DR and TUN, which
    /// deliver to the service's port in any case.
    pub port: u16,
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::new(self.address, self.port))
    }
}

/// The flag bits of a service (`include/uapi/linux/ip_vs.h`, `IP_VS_SVC_F_*`).
/// `HASHED` (0x2) belongs to the kernel and is never stored here. The kernel
/// keeps bits that it does not define, so they are kept here too.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// A client stays with its server for the service's timeout.
    pub const PERSISTENT: Self = Self(0x1);
    /// Set by the kernel only. It is masked out when a table is read.
    pub const HASHED: Self = Self(0x2);
    /// Every datagram is scheduled by itself; only for UDP.
    pub const ONE_PACKET: Self = Self(0x4);
    /// The scheduler flag sh-fallback or mh-fallback.
    pub const SCHEDULER_1: Self = Self(0x8);
    /// The scheduler flag sh-port or mh-port.
    pub const SCHEDULER_2: Self = Self(0x10);
    /// No scheduler of Linux 6.1 uses it.
    pub const SCHEDULER_3: Self = Self(0x20);

    /// The union of two sets of bits.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every bit of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The parts of a service that can be edited without making it another service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceConfig {
    /// The kernel's name of the scheduler, at most 15 bytes; empty means
    /// "none".
    pub scheduler: String,
    /// The flag bits, without `HASHED`.
    pub flags: ServiceFlags,
    /// The persistence timeout in seconds. The kernel keeps it even if the
    /// service is not persistent. At most 4,294,967 with HZ=1000.
    pub timeout: u32,
    /// The length of the IPv4 mask or IPv6 prefix by which persistence groups
    /// clients, 0 to 32 or 1 to 128. ipvsadm sends 32 and 128 by default. It is
    /// [`IRREGULAR_MASK`](Self::IRREGULAR_MASK) for another program's service
    /// with a mask that has holes.
    pub prefix_length: u8,
    /// The name of the persistence engine, if there is one: `sip`.
    pub persistence_engine: Option<String>,
}

impl ServiceConfig {
    /// The [`prefix_length`](Self::prefix_length) of an IPv4 mask that is not a
    /// prefix, such as 255.0.255.0. It differs from every valid length, so that
    /// a service with such a mask is edited when it is adopted.
    pub const IRREGULAR_MASK: u8 = 255;
}

/// How packets reach a destination (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ForwardingMethod {
    /// Network address translation (`IP_VS_CONN_F_MASQ`).
    Masquerade,
    /// Delivery to the director itself (`IP_VS_CONN_F_LOCALNODE`).
    Local,
    /// A tunnel to the server (`IP_VS_CONN_F_TUNNEL`).
    Tunnel(Tunnel),
    /// Direct routing (`IP_VS_CONN_F_DROUTE`).
    DirectRoute,
    /// `IP_VS_CONN_F_BYPASS`. It is never written, but another program's entry
    /// may have it.
    Bypass,
    /// A method that this build does not know.
    Other(u32),
}

/// The parameters of a tunnel's outer header.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tunnel {
    /// The kind of tunnel (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
    pub kind: TunnelKind,
    /// The UDP port of a GUE tunnel; 0 for other tunnels.
    pub port: u16,
    /// The checksum of the outer header (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
    pub checksum: TunnelChecksum,
}

/// The kinds of tunnels.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelKind {
    /// IP in IP (`IP_VS_CONN_F_TUNNEL_TYPE_IPIP`).
    #[default]
    Ipip,
    /// Generic UDP encapsulation (`IP_VS_CONN_F_TUNNEL_TYPE_GUE`).
    Gue,
    /// Generic routing encapsulation (`IP_VS_CONN_F_TUNNEL_TYPE_GRE`).
    Gre,
    /// A kind that this build does not know; the kernel accepts any.
    Other(u8),
}

/// The checksum flags of a GUE or GRE tunnel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelChecksum {
    /// No checksum (`IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM`).
    #[default]
    None,
    /// A full checksum (`IP_VS_TUNNEL_ENCAP_FLAG_CSUM`).
    Full,
    /// Remote checksum offload (`IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM`); only for
    /// GUE.
    Remote,
    /// A flag that this build does not know.
    Other(u16),
}

/// The parts of a destination that can be edited without making it another
/// destination.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DestinationConfig {
    /// The forwarding method. Established connections keep the method they
    /// began with.
    pub method: ForwardingMethod,
    /// The share of new connections, up to 2^31-1; 0 takes no new ones.
    pub weight: u32,
    /// At this many connections the destination counts as overloaded; 0 is no
    /// limit.
    pub upper_threshold: u32,
    /// Below this many connections it no longer counts as overloaded; 0 means
    /// three quarters of the upper threshold.
    pub lower_threshold: u32,
}

/// Counters and rates. The kernel updates them every 2 s at most, and never
/// with `net.ipv4.vs.run_estimation=0`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// The number of connections that were scheduled.
    pub connections: u64,
    /// The number of packets from clients.
    pub packets_in: u64,
    /// The number of packets from servers.
    pub packets_out: u64,
    /// The number of bytes from clients.
    pub bytes_in: u64,
    /// The number of bytes from servers.
    pub bytes_out: u64,
    /// New connections per second.
    pub connection_rate: u64,
    /// Packets from clients per second.
    pub packet_rate_in: u64,
    /// Packets from servers per second.
    pub packet_rate_out: u64,
    /// Bytes from clients per second.
    pub byte_rate_in: u64,
    /// Bytes from servers per second.
    pub byte_rate_out: u64,
}

/// The current numbers of a destination's connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// Established connections.
    pub active: u32,
    /// Connections in any other state, including TIME_WAIT.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
}

/// What the kernel reports about IPVS itself (`IPVS_CMD_GET_INFO`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    /// Major, minor and patch version: 1.2.1 for every kernel since 2.6.28.
    pub version: (u8, u8, u8),
    /// The number of buckets in the connection table.
    pub connection_table_size: u32,
}

/// How long the kernel remembers connections without packets, in seconds, in
/// one network namespace (`IPVS_CMD_SET_CONFIG`). The defaults are 900, 120 and
/// 300. In a request, 0 keeps the current value. In an answer, 0 means that the
/// kernel was built without the protocol.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Timeouts {
    /// The timeout of an established TCP connection.
    pub tcp: u32,
    /// The timeout of a TCP connection after a FIN.
    pub tcp_fin: u32,
    /// The timeout of a flow of UDP datagrams.
    pub udp: u32,
}

/// Destinations, oldest first, because dh, sh and mh build their tables in that
/// order. Comparison ignores the order.
pub type Destinations = IndexMap<DestinationKey, DestinationConfig, FxBuildHasher>;

/// A service as it should be: configuration and destinations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedService {
    /// The configuration of the service itself.
    pub config: ServiceConfig,
    /// The destinations, in the order in which they must be added.
    pub destinations: Destinations,
}

/// The table as it should be.
pub type WantedTable = BTreeMap<ServiceKey, WantedService>;

/// A service as the kernel has it. It contains configuration only, no
/// observations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActualService {
    /// The configuration of the service itself.
    pub config: ServiceConfig,
    /// The destinations, in the order in which they were added.
    pub destinations: Destinations,
}

/// The table as the kernel has it: the last reading, plus the operations
/// acknowledged since.
pub type ActualTable = BTreeMap<ServiceKey, ActualService>;
