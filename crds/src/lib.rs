//! The API of ipvs-operator, and what its objects mean together.
//!
//! ```text
//! Loose<VirtualService> ┐   check one object        resolve all objects
//! Loose<RealServer>     ├─▶ Store::change ─▶ Objects ─▶ resolve() ─▶ Resolved ─▶ controller, agents
//! Loose<DirectorGroup>  ┘                      │                        │
//!                                              └─▶ Digest (which state) └─▶ Rejection ─▶ Condition
//! ```
//!
//! In: objects as the API server or a folder of manifests gives them, also
//! those that do not parse. Out: the services that directors are to serve, and
//! for everything else a [`Rejection`] that says what to write instead. Same
//! objects, same answer, in the controller and in every agent.
//!
//! This crate knows no client, no runtime, no clock and no kernel.

pub mod api;
pub mod check;
pub mod condition;
pub mod crd;

mod digest;
#[cfg(test)]
mod fixtures;
mod health;
mod labels;
mod loose;
mod objects;
mod resolve;
mod resolved;

pub use check::{AddressRule, CheckedGroup, SysctlRule};
pub use digest::{Digest, ParseDigestError};
pub use health::{
    Availability, BelowMinimum, BodyRule, DnsProbe, HealthCheck, HttpProbe, OnFailure, Probe,
    Quantity, SorryServer, StatusRange, TlsRule, body_pattern,
};
pub use labels::Labels;
pub use loose::Loose;
pub use objects::{Change, Checked, Kind, ObjectKey, Objects, Store, Stored};
pub use resolve::resolve;
pub use resolved::{
    ForwardingRule, PersistenceRule, Rejection, Resolved, Server, Service, ServiceId,
};
