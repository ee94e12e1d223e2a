//! What the objects mean together: values of these types cannot be wrong.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use crate::{
    Availability, HealthCheck, Kind, ObjectKey,
    api::{IpFamily, PersistenceEngine, Protocol, Scheduler, TunnelChecksum},
    condition::reason,
};

/// Every object's fate: it is accepted or rejected, and every server that a
/// service selects is linked or refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// What is to be in the kernel of each group's directors. A service whose
    /// newest version was rejected stands here with its last good one.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Objects that are not accepted as they are now.
    pub rejected: BTreeMap<(Kind, ObjectKey), Rejection>,
    /// (service, server): selected, but not fitting.
    pub refused: BTreeMap<(ObjectKey, ObjectKey), Rejection>,
    /// Groups that services name and that were seen, and are gone.
    pub gone_groups: Vec<String>,
}

impl Resolved {
    /// The servers that a service selects and that do not fit it.
    pub fn refused_by<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Rejection)> {
        let first = ObjectKey::new("", "");
        self.refused
            .range((service.clone(), first)..)
            .take_while(move |((of, _), _)| of == service)
            .map(|((_, server), rejection)| (server, rejection))
    }

    /// Why an object is not accepted as it is now; None where it is.
    pub fn rejection(&self, kind: Kind, key: &ObjectKey) -> Option<&Rejection> {
        self.rejected.get(&(kind, key.clone()))
    }
}

/// Why an object is not accepted, or a server does not fit a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// A condition's reason: one of the consts of [`crate::condition::reason`].
    pub reason: &'static str,
    /// A sentence that names the field, the other object if there is one, and
    /// what to write instead.
    pub message: String,
}

impl Rejection {
    /// A spec does not parse; `error` names the field.
    pub(crate) fn unreadable(error: &str) -> Self {
        Self {
            reason: reason::UNREADABLE,
            message: format!(
                "{error}. This version of ipvs-operator ({}) cannot read the object: correct the \
                 field, or upgrade if the object is of a newer version",
                env!("CARGO_PKG_VERSION")
            ),
        }
    }
}

/// A virtual service that can be programmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The DirectorGroup.
    pub group: String,
    /// What the kernel knows it by.
    pub id: ServiceId,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// sh-fallback or mh-fallback.
    pub fallback: bool,
    /// sh-port or mh-port.
    pub hash_port: bool,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// Persistence, if any.
    pub persistence: Option<PersistenceRule>,
    /// How its servers are checked, if they are.
    pub health_check: Option<Arc<HealthCheck>>,
    /// What becomes of those that fail.
    pub availability: Availability,
    /// Its servers, oldest first, each (address, port) once.
    pub servers: Vec<Server>,
}

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

/// A real server as one service uses it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The RealServer object.
    pub object: ObjectKey,
    /// The RIP.
    pub address: IpAddr,
    /// Its port; the service's own for DR and TUN; 0 behind a firewall mark or
    /// a service of every port, unless said otherwise.
    pub port: u16,
    /// 0 to 65535.
    pub weight: u16,
    /// How packets reach it.
    pub forwarding: ForwardingRule,
    /// 0 is off.
    pub upper_threshold: u32,
    /// 0 is three quarters of the upper one.
    pub lower_threshold: u32,
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
