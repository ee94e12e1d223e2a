//! The kernel's IPVS table.
//!
//! ```text
//! what is wanted ─┐                     ┌─▶ codec ─▶ Socket ─▶ kernel
//! what is there ──┼─▶ plan ─▶ [Op] ─────┤             (or a model of it)
//! what is ours ───┘                     └─▶ Failure per operation
//!                                                     │
//! what is there, statistics ◀─ codec ◀─ Socket ◀──────┘
//! ```
//!
//! In: a wanted table ([`WantedTable`]), the keys that are ours ([`Owned`]).
//! Out: the kernel's table, changed with as few writes as possible ([`plan()`],
//! [`Kernel::apply`]), a table as read ([`ActualTable`]), counters.
//!
//! This crate knows nothing about Kubernetes, health, time, the disk, or why a
//! table is wanted. It says what a failure means and leaves retries to the
//! caller. It has no operation that empties a table.

#[cfg(test)]
mod arbitrary;
pub mod codec;
mod kernel;
mod listing;
mod model;
#[cfg(any(test, feature = "model-kernel"))]
pub mod model_kernel;
mod op;
mod owned;
mod plan;
mod socket;

pub use kernel::{Errno, Error, Failure, Kernel, Meaning};
pub use listing::Listing;
pub use model::{
    ActualService, ActualTable, Connections, DestinationConfig, DestinationKey, Destinations,
    Family, ForwardingMethod, Info, Protocol, ServiceConfig, ServiceFlags, ServiceKey, Stats,
    Timeouts, Tunnel, TunnelChecksum, TunnelKind, WantedService, WantedTable,
};
pub use op::Op;
pub use owned::{Gone, Owned};
pub use plan::{OnConflict, Plan, plan, plan_services};
pub use socket::{DestinationStatistics, ServiceStatistics, Socket, Statistics};
