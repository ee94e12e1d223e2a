//! What the objects mean together: values of these types cannot be wrong.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32};

use crate::{
    Kind, ObjectKey,
    api::{IpFamily, PersistenceEngine, Protocol, Scheduler, TunnelChecksum},
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

/// Why an object is not accepted, or a server does not fit a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejection {
    /// A condition's reason: one of the consts of [`crate::condition::reason`].
    pub reason: &'static str,
    /// A sentence that names the field, the other object if there is one, and
    /// what to write instead.
    pub message: String,
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
    /// Its servers, oldest first, each (address, port) once.
    pub servers: Vec<Server>,
}

/// What the kernel knows a service by.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
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
