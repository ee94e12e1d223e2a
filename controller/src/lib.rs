//! The controller of ipvs-operator: accepts objects, and combines the reports
//! of the directors into conditions.
//!
//! ```text
//! watches ─▶ Event ─▶ World ─▶ Scope ─▶ aggregate ─▶ Wanted ─▶ Outbox ─▶ publish ─▶ status patches,
//!                      │ Objects, resolve() (pure)            (pure: what, when)     Events
//!                      │ Stale: which statuses may have changed since the last pass
//!                      │ History: the states of the world, in the order they were seen
//!                      │ Renewals: the newest renewal of each director's Lease, from two namespaces
//!                      │ Liveness: which directors renewed their Leases, by this process's own clock
//!                      └ directors: what each reports about its kernel
//! leader ─▶ whether this process may publish ─▶ definitions: upgrades them once it may
//! ```
//!
//! Input: the objects of all four kinds, and the directors' Leases. Output: the
//! statuses of objects, but never their specs. An agent does not report on each
//! object. It reports digests of the states that its last completed round used.
//! [`history`] finds out from the digests which services are programmed.
//!
//! This crate knows nothing of the kernel. Directors never wait for the
//! controller, and serve even if no controller runs.

pub mod aggregate;
pub mod args;
mod bucket;
mod definitions;
pub mod difference;
pub mod event;
pub mod history;
pub mod kubernetes_event;
pub mod leader;
pub mod liveness;
pub mod need;
pub mod outbox;
pub mod pace;
pub mod publish;
pub mod ration;
pub mod renewals;
pub mod ring;
pub mod run;
pub mod scope;
pub mod status;
pub mod trouble;
pub mod waits;
pub mod watch;
pub mod world;
