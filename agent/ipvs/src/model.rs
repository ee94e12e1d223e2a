//! Types for the contents of the kernel's IPVS table, in the kernel's terms.
//!
//! Separate types hold an entry's key ([`ServiceKey`], [`DestinationKey`]), its
//! configuration ([`ServiceConfig`], [`DestinationConfig`]) and its counters
//! ([`Stats`], [`Connections`]). The key of a service or destination never
//! changes. The planner compares configurations, and never compares counters.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// An address family, `AF_INET` or `AF_INET6` in the kernel.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Family {
    /// IPv4 (`AF_INET`).
    V4,
    /// IPv6 (`AF_INET6`).
    V6,
}

impl Family {
    /// Returns the address family of an IP address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// An IP protocol number. The kernel does not check a service's protocol number
/// (`ip_vs_ctl.c`, `ip_vs_genl_parse_service`), so another program's service
/// may have any number.
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

/// Identifies an IPVS service within one network namespace. A service's key
/// cannot change.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum ServiceKey {
    /// An IPVS service for packets to one address, port and protocol.
    Address {
        /// The transport protocol: TCP, UDP or SCTP.
        protocol: Protocol,
        /// The service's virtual address (VIP).
        address: IpAddr,
        /// The service's port. Port 0 stands for every port, which the kernel
        /// supports only for persistent services.
        port: u16,
    },
    /// An IPVS service for packets with a firewall mark.
    FirewallMark {
        /// The service's address family. Two services with different address
        /// families may have the same firewall mark.
        family: Family,
        /// The service's firewall mark, which is never 0 in a service that the
        /// agent made.
        mark: u32,
    },
}

impl ServiceKey {
    /// Returns the service's virtual address (VIP), or `None` for a service
    /// with a firewall mark.
    pub fn vip(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::FirewallMark { .. } => None,
        }
    }

    /// Returns the address family of the service's packets.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::FirewallMark { family, .. } => *family,
        }
    }
}

/// Writes the service's key as `ipvsadm -Sn` does: `-t 192.0.2.1:80`, `-u
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
    /// The server's port. With DR and TUN, the kernel ignores a destination's
    /// port and delivers to the service's port. With every forwarding method,
    /// the port is part of the destination's key.
    pub port: u16,
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::new(self.address, self.port))
    }
}

/// The flag bits of a service (`include/uapi/linux/ip_vs.h`, `IP_VS_SVC_F_*`).
/// `ServiceFlags` never contains the bit `HASHED` (0x2), which belongs to the
/// kernel. Like the kernel, `ServiceFlags` keeps bits that the kernel does not
/// define.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// Persistence: a client stays with its server for the service's timeout.
    pub const PERSISTENT: Self = Self(0x1);
    /// The flag `IP_VS_SVC_F_HASHED`, which only the kernel sets. The codec
    /// removes `HASHED` from every service that it reads.
    pub const HASHED: Self = Self(0x2);
    /// One-packet scheduling, for UDP only: each datagram is scheduled by
    /// itself.
    pub const ONE_PACKET: Self = Self(0x4);
    /// The scheduler flag sh-fallback or mh-fallback.
    pub const SCHEDULER_1: Self = Self(0x8);
    /// The scheduler flag sh-port or mh-port.
    pub const SCHEDULER_2: Self = Self(0x10);
    /// The third scheduler flag, which no scheduler of Linux 6.1 uses.
    pub const SCHEDULER_3: Self = Self(0x20);

    /// Returns the union of two sets of service flags.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether `self` contains every flag of `other`.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The part of a service that can be edited while the service's key stays the
/// same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceConfig {
    /// The kernel's name of the scheduler, at most 15 bytes. An empty name
    /// means that the service has no scheduler.
    pub scheduler: String,
    /// The service's flag bits, without `HASHED`.
    pub flags: ServiceFlags,
    /// The persistence timeout in seconds, at most 4,294,967 with HZ=1000. The
    /// kernel stores the persistence timeout even if the service is not
    /// persistent.
    pub timeout: u32,
    /// The length of the IPv4 mask (0 to 32) or IPv6 prefix (1 to 128) by which
    /// persistence groups clients. The defaults of ipvsadm are 32 for IPv4 and
    /// 128 for IPv6. If another program made the service with an IPv4 mask that
    /// has holes, `prefix_length` is [`IRREGULAR_MASK`](Self::IRREGULAR_MASK).
    pub prefix_length: u8,
    /// The name of the persistence engine, such as `sip`, if the service has
    /// one.
    pub persistence_engine: Option<String>,
}

impl ServiceConfig {
    /// The [`prefix_length`](Self::prefix_length) of an IPv4 mask that is not a
    /// prefix, such as 255.0.255.0. `IRREGULAR_MASK` differs from every valid
    /// length. An adopted service with an irregular mask therefore differs from
    /// every wanted service, so the agent edits the service.
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
    /// Bypass (`IP_VS_CONN_F_BYPASS`). Only another program's destination can
    /// have the forwarding method `Bypass`.
    Bypass,
    /// A forwarding method that this crate does not know.
    Other(u32),
}

/// The parameters of a tunnel's outer header.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tunnel {
    /// The kind of tunnel (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
    pub kind: TunnelKind,
    /// The UDP port of a GUE tunnel, or 0 for other tunnels.
    pub port: u16,
    /// The checksum of the outer header (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
    pub checksum: TunnelChecksum,
}

/// The encapsulation that a tunnel uses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelKind {
    /// IP in IP (`IP_VS_CONN_F_TUNNEL_TYPE_IPIP`).
    #[default]
    Ipip,
    /// Generic UDP encapsulation (`IP_VS_CONN_F_TUNNEL_TYPE_GUE`).
    Gue,
    /// Generic routing encapsulation (`IP_VS_CONN_F_TUNNEL_TYPE_GRE`).
    Gre,
    /// A kind of tunnel that this crate does not know. The kernel accepts any
    /// number as the kind of a tunnel.
    Other(u8),
}

/// The checksum flags of a GUE or GRE tunnel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelChecksum {
    /// No checksum in the tunnel header (`IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM`).
    #[default]
    None,
    /// A full checksum in the tunnel header (`IP_VS_TUNNEL_ENCAP_FLAG_CSUM`).
    Full,
    /// Remote checksum offload (`IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM`), for GUE
    /// only.
    Remote,
    /// Checksum flags of a tunnel that this crate does not know.
    Other(u16),
}

/// The part of a destination that can be edited while the destination's key
/// stays the same.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DestinationConfig {
    /// The destination's forwarding method. After an edit, established
    /// connections keep the forwarding method that they began with.
    pub method: ForwardingMethod,
    /// The destination's share of new connections, up to 2^31-1. A destination
    /// with weight 0 gets no new connections.
    pub weight: u32,
    /// The number of connections at which the kernel treats the destination as
    /// overloaded, or 0 for no limit.
    pub upper_threshold: u32,
    /// The number of connections below which the kernel no longer treats the
    /// destination as overloaded. A lower threshold of 0 means three quarters
    /// of the upper threshold.
    pub lower_threshold: u32,
}

/// The counters and rates of a service or destination. The kernel updates
/// statistics at most every 2 s, and never with `net.ipv4.vs.run_estimation=0`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// The number of connections that the kernel has scheduled.
    pub connections: u64,
    /// The number of packets from clients.
    pub packets_in: u64,
    /// The number of packets from servers.
    pub packets_out: u64,
    /// The number of bytes from clients.
    pub bytes_in: u64,
    /// The number of bytes from servers.
    pub bytes_out: u64,
    /// The number of new connections per second.
    pub connection_rate: u64,
    /// The number of packets from clients per second.
    pub packet_rate_in: u64,
    /// The number of packets from servers per second.
    pub packet_rate_out: u64,
    /// The number of bytes from clients per second.
    pub byte_rate_in: u64,
    /// The number of bytes from servers per second.
    pub byte_rate_out: u64,
}

/// The numbers of a destination's current connections, by state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// The number of established connections.
    pub active: u32,
    /// The number of connections in any other state, including TIME_WAIT.
    pub inactive: u32,
    /// The number of persistence templates.
    pub persistent: u32,
}

/// The kernel's information about IPVS itself (`IPVS_CMD_GET_INFO`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    /// The major, minor and patch version of IPVS, which is 1.2.1 in every
    /// Linux kernel since 2.6.28.
    pub version: (u8, u8, u8),
    /// The number of buckets in the kernel's IPVS connection table.
    pub connection_table_size: u32,
}

/// How many seconds the kernel remembers idle connections in a network
/// namespace (`IPVS_CMD_SET_CONFIG`). The kernel's defaults are 900 s for TCP,
/// 120 s after a FIN, and 300 s for UDP. In a request, a timeout of 0 keeps the
/// current timeout. In an answer, a timeout of 0 means that the kernel was
/// built without the protocol.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Timeouts {
    /// The timeout of an established TCP connection.
    pub tcp: u32,
    /// The timeout of a TCP connection after a FIN.
    pub tcp_fin: u32,
    /// The timeout of a flow of UDP datagrams.
    pub udp: u32,
}

/// The destinations of a service, oldest first, because the schedulers dh, sh
/// and mh build their tables in that order. A comparison of two `Destinations`
/// ignores the order.
pub type Destinations = IndexMap<DestinationKey, DestinationConfig, FxBuildHasher>;

/// The wanted state of an IPVS service: its configuration and its destinations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedService {
    /// The wanted configuration of the service itself, without its
    /// destinations.
    pub config: ServiceConfig,
    /// The service's destinations, in the order in which they must be added.
    pub destinations: Destinations,
}

/// The wanted state of the kernel's IPVS table.
pub type WantedTable = BTreeMap<ServiceKey, WantedService>;

/// The kernel's state of an IPVS service: its configuration and its
/// destinations, without counters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActualService {
    /// The kernel's configuration of the service itself, without its
    /// destinations.
    pub config: ServiceConfig,
    /// The service's destinations, in the order in which they were added.
    pub destinations: Destinations,
}

/// The kernel's IPVS table as last read, with the changes that the kernel
/// acknowledged after the reading.
pub type ActualTable = BTreeMap<ServiceKey, ActualService>;
