//! Probes of real servers: the only sockets to them.
//!
//! ```text
//! Order ─▶ engine: schedule ─▶ attempt: http tcp grpc udp dns icmp
//!     (a thread of its own)       │
//!                                 ├─▶ success or failure ─▶ Results ─▶ Event::Probed, if it is news
//!                  (silence) ─▶ route, firewall
//!                                 └─▶ trouble of this host's own: void ─▶ Event::ProbesVoid
//! ```
//!
//! A probe ends in a verdict about the server, or it is void: what went wrong
//! was on this host, and says nothing about the server. Everything that a
//! server can send is bounded in size and time. No connection is kept; TCP is
//! closed with RST, so that nothing of a probe stays in the connection tracking
//! of any firewall on the way.

mod attempt;
mod bounded;
mod counts;
mod dns;
mod engine;
mod firewall;
#[cfg(test)]
mod fixtures;
mod grpc;
mod http;
mod icmp;
mod recent;
mod route;
mod schedule;
mod tcp;
mod tls;
mod trouble;
mod udp;

use std::{net::SocketAddr, sync::Arc};

use crds::HealthCheck;

pub use self::{counts::Counts, engine::start};

/// What is probed: a server as one check looks at it. Equal ones are probed
/// once, however many services stand in front of them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The check.
    pub check: Arc<HealthCheck>,
    /// Where; the port does not matter to ICMP.
    pub address: SocketAddr,
}

/// A name for a target, given by who orders its probes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProbeId(pub u64);

/// What is to be probed from now on.
#[derive(Clone, Debug)]
pub enum Order {
    /// This too.
    Start(ProbeId, Arc<Target>),
    /// This not any more. Nothing that comes of a probe in flight is told.
    Stop(ProbeId),
}
