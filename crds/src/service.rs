//! Parts of a virtual service. The values in this module have been checked and
//! are always valid.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
};

use crate::api::{ForwardingMethod, IpFamily, PersistenceEngine, Protocol, TunnelChecksum};

/// The key of a service in the kernel's table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ServiceId {
    /// Packets to a VIP, port and protocol.
    Vip {
        /// The virtual address (VIP).
        address: IpAddr,
        /// The service's port; 0 means every port.
        port: u16,
        /// The transport protocol.
        protocol: Protocol,
    },
    /// Packets of one address family with a firewall mark.
    FirewallMark {
        /// The value of the firewall mark, as netfilter sets it.
        mark: NonZeroU32,
        /// The address family of the marked packets.
        family: IpFamily,
    },
}

impl ServiceId {
    /// Returns the family of the addresses that clients use.
    pub fn family(self) -> IpFamily {
        match self {
            Self::Vip { address, .. } => family(address),
            Self::FirewallMark { family, .. } => family,
        }
    }

    /// Returns the service's port, or None if the service has a firewall mark
    /// or serves every port.
    pub fn port(self) -> Option<NonZeroU16> {
        match self {
            Self::Vip { port, .. } => NonZeroU16::new(port),
            Self::FirewallMark { .. } => None,
        }
    }
}

/// Returns the family of an address.
pub(crate) fn family(address: IpAddr) -> IpFamily {
    match address {
        IpAddr::V4(_) => IpFamily::IPv4,
        IpAddr::V6(_) => IpFamily::IPv6,
    }
}

/// Writes `192.0.2.10:80/TCP`, `[2001:db8::10]:80/TCP` or `firewall mark 7
/// (IPv4)`.
impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Vip {
                address,
                port,
                protocol,
            } => write!(f, "{}/{protocol}", SocketAddr::new(address, port)),
            Self::FirewallMark { mark, family } => write!(f, "firewall mark {mark} ({family:?})"),
        }
    }
}

/// How a client stays with its server (persistence).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PersistenceRule {
    /// How long a client keeps its server after the client's last connection, 1
    /// to 4294967 seconds.
    pub timeout_seconds: u32,
    /// How many leading bits of an address identify a client: 1 to 32 for IPv4,
    /// 1 to 128 for IPv6. By default, all bits of the address identify the
    /// client.
    pub prefix_length: u8,
    /// The persistence engine, which identifies a client by something other
    /// than its address. Without an engine, the client's address identifies the
    /// client.
    pub engine: Option<PersistenceEngine>,
}

/// A forwarding method with its parameters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForwardingRule {
    /// Network address translation: replies come back through the director.
    Nat,
    /// Direct routing: the server answers clients directly.
    Dr,
    /// An IPIP tunnel: the server answers clients directly.
    Ipip,
    /// A GUE tunnel: the server answers clients directly.
    Gue {
        /// The UDP port on which the server receives the tunnel's packets.
        port: u16,
        /// The checksum of the outer header: None, Full or Remote.
        checksum: TunnelChecksum,
    },
    /// A GRE tunnel: the server answers clients directly.
    Gre {
        /// The checksum of the outer header, which is None or Full.
        checksum: TunnelChecksum,
    },
}

impl ForwardingRule {
    /// Returns the forwarding method, which is TUN for each tunnel.
    pub fn method(self) -> ForwardingMethod {
        match self {
            Self::Nat => ForwardingMethod::Nat,
            Self::Dr => ForwardingMethod::Dr,
            Self::Ipip | Self::Gue { .. } | Self::Gre { .. } => ForwardingMethod::Tun,
        }
    }

    /// Returns whether packets reach the server through a tunnel.
    pub fn is_tunnel(self) -> bool {
        match self {
            Self::Nat | Self::Dr => false,
            Self::Ipip | Self::Gue { .. } | Self::Gre { .. } => true,
        }
    }
}
