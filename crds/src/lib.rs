//! The API of ipvs-operator, and the function that combines its objects.
//!
//! ```text
//! Loose<VirtualService> ┐   check one object        resolve all objects
//! Loose<RealServer>     ├─▶ Store::change ─▶ Objects ─▶ resolve() ─▶ Resolved ─▶ controller, agents
//! Loose<DirectorGroup>  ┘                      │                        │
//!                                              └─▶ Digest (which state) └─▶ Rejection ─▶ Condition
//! ```
//!
//! Input: objects from the API server or from a folder of manifests, including
//! objects that do not parse. Output: the services that directors must serve,
//! and a [`Rejection`] for each object that is not accepted. The rejection says
//! what to write instead. The same objects give the same result in the
//! controller and in every agent.
//!
//! This crate uses no API client, no async runtime, no clock and no kernel.

pub mod advice;
pub mod api;
pub mod check;
pub mod condition;
pub mod crd;
pub mod installed;

mod availability;
mod bounds;
mod digest;
mod drain;
mod fair;
#[cfg(test)]
mod fixtures;
mod health_check;
mod key;
mod labels;
mod loose;
mod objects;
mod rejection;
mod resolve;
mod resolved;
mod schema;
mod service;

pub use availability::{Availability, BelowMinimum, OnFailure, Quantity, SorryServer};
pub use check::{
    AddressRule, BudgetRule, Checked, CheckedGroup, Extent, Grants, NamespaceRule, SysctlRule,
};
pub use digest::{Digest, ParseDigestError};
pub use drain::{DrainRule, REMOVAL_GRACE_PERIOD};
pub use fair::fair_limit;
pub use health_check::{
    BodyRule, DnsProbe, HealthCheck, HttpProbe, Probe, StatusRange, TlsRule, body_pattern,
};
pub use key::{Kind, ObjectKey};
pub use labels::Labels;
pub use loose::{Loose, Source, spelled};
pub use objects::{Change, Objects, Store, Stored};
pub use rejection::Rejection;
pub use resolve::{Standing, one_address, resolve, resolve_for};
pub use resolved::{Resolved, Server, Service};
pub use service::{ForwardingRule, PersistenceRule, ServiceId};
