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
mod progress;
mod recent;
mod route;
mod schedule;
pub mod tally;
pub mod target;
mod tcp;
mod tls;
mod tls_failure;
mod trouble;
mod udp;

pub use self::{
    counts::Counts,
    engine::start,
    target::{Order, Target},
};
