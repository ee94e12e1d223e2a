//! Probes of real servers. Only probes open sockets to real servers.
//!
//! ```text
//! Order ─▶ engine: schedule ─▶ attempt: http tcp grpc udp dns icmp
//!     (a thread of its own)       │     └─▶ matcher (another thread)
//!                                 ├─▶ success or failure ─▶ Results ─▶ Event::Probed, if it is news
//!                  (silence) ─▶ route, firewall
//!                                 └─▶ trouble of this host's own: void ─▶ Event::ProbesVoid
//! ```
//!
//! A probe ends in a verdict about the server, or it is void. A void probe
//! failed because of this host, so it says nothing about the server. Everything
//! that a probe reads from a server is bounded in size and time. The prober and
//! the matcher are shared fairly by namespace: no namespace's probes are late or
//! void because of another one's. A probe leaves
//! no connection open. TCP connections are closed with RST, so that firewalls
//! on the way do not keep a probe in their connection tracking.

mod attempt;
mod bounded;
mod budget;
mod counts;
mod dns;
mod engine;
mod firewall;
#[cfg(test)]
mod fixtures;
mod grpc;
mod http;
mod icmp;
mod matcher;
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
#[cfg(test)]
mod unquoted;
mod words;

pub use self::{
    counts::Counts,
    engine::start,
    target::{Order, Target},
};
