//! Parts of a virtual service, checked: values of these types cannot be wrong.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
};

use crate::api::{IpFamily, PersistenceEngine, Protocol, TunnelChecksum};

/// What the kernel knows a service by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ServiceId {
    /// A VIP, a port and a protocol.
    Vip {
        /// The VIP.
        address: IpAddr,
        /// 0 is every port.
        port: u16,
        /// TCP, UDP or SCTP.
        protocol: Protocol,
    },
    /// A firewall mark of one family.
    FirewallMark {
        /// The mark.
        mark: NonZeroU32,
        /// The family of the marked packets.
        family: IpFamily,
    },
}

impl ServiceId {
    /// The family of the addresses that clients use.
    pub fn family(self) -> IpFamily {
        match self {
            Self::Vip { address, .. } => family(address),
            Self::FirewallMark { family, .. } => family,
        }
    }

    /// The one port that it serves; none with a firewall mark, and where every
    /// port is served.
    pub fn port(self) -> Option<NonZeroU16> {
        match self {
            Self::Vip { port, .. } => NonZeroU16::new(port),
            Self::FirewallMark { .. } => None,
        }
    }
}

/// The family of an address.
pub(crate) fn family(address: IpAddr) -> IpFamily {
    match address {
        IpAddr::V4(_) => IpFamily::IPv4,
        IpAddr::V6(_) => IpFamily::IPv6,
    }
}

/// `192.0.2.10:80/TCP`, `[2001:db8::10]:80/TCP` or `firewall mark 7 (IPv4)`.
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

/// Checked persistence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PersistenceRule {
    /// 1 to 4294967.
    pub timeout_seconds: u32,
    /// 1 to 32, or 1 to 128, by the service's family: the whole address unless
    /// said otherwise.
    pub prefix_length: u8,
    /// SIP, or none.
    pub engine: Option<PersistenceEngine>,
}

/// A checked forwarding method with what belongs to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForwardingRule {
    /// NAT.
    Nat,
    /// Direct routing.
    Dr,
    /// IPIP tunnel.
    Ipip,
    /// GUE tunnel.
    Gue {
        /// UDP port.
        port: u16,
        /// None, Full or Remote.
        checksum: TunnelChecksum,
    },
    /// GRE tunnel.
    Gre {
        /// None or Full.
        checksum: TunnelChecksum,
    },
}

impl ForwardingRule {
    /// Whether packets reach the server in a tunnel.
    pub fn is_tunnel(self) -> bool {
        match self {
            Self::Nat | Self::Dr => false,
            Self::Ipip | Self::Gue { .. } | Self::Gre { .. } => true,
        }
    }
}
