//! The controller of ipvs-operator: accepts objects, and folds what directors
//! report into conditions.
//!
//! ```text
//! watches ─▶ Event ─▶ World ─────────────▶ aggregate ─▶ Wanted ─▶ Publisher ─▶ status patches, Events
//!                      │ Objects, resolve()   (pure)                 │ (pure: what, when)
//!                      │ History: which states of the world were seen, in which order
//!                      │ Liveness: whose Lease was renewed, by this process's own clock
//!                      └ directors: what each says that its kernel holds
//! leader ─▶ who may publish
//! ```
//!
//! In: the four kinds and the directors' Leases. Out: status, never spec. An
//! agent reports once for all objects, by a digest of the states that its last
//! completed round used; which services that proves to be programmed is worked
//! out here ([`history`]).
//!
//! This crate must never know a kernel, and nothing waits for it: directors
//! serve whether it runs or not.

pub mod aggregate;
pub mod args;
mod bucket;
pub mod difference;
pub mod event;
pub mod history;
pub mod kubernetes_event;
pub mod leader;
pub mod liveness;
pub mod need;
pub mod outbox;
pub mod publish;
pub mod ring;
pub mod run;
pub mod status;
pub mod trouble;
pub mod watch;
pub mod world;
