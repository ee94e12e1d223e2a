//! Probes of real servers. No other part of the agent opens sockets to real
//! servers.
//!
//! ```text
//! Order ─▶ engine: schedule ─▶ attempt: http tcp grpc udp dns icmp
//!     (a thread of its own)       │     └─▶ worker (another thread)
//!                                 ├─▶ success or failure ─▶ Results ─▶ Event::Probed, if it is news
//!                  (silence) ─▶ route, firewall
//!                                 └─▶ trouble of this host's own: void ─▶ Event::ProbesVoid
//! ```
//!
//! A probe ends with a verdict about the server, or it is void. A void probe
//! failed because of this host, so its result does not count for the server.
//! The data that a probe reads from a server is limited in size and time. The
//! namespaces share the prober and the worker fairly: no namespace's probes
//! become late or void because of another namespace's probes. A probe leaves no
//! connection open. Probes close TCP connections with RST, so firewalls on the
//! way to the server stop tracking the connections.

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
mod pattern;
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
mod worker;

pub use self::{
    counts::Counts,
    engine::start,
    target::{Order, Target},
};
