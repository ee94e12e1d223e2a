//! Reads and writes the kernel's IPVS table.
//!
//! ```text
//! wanted table ───┐                     ┌─▶ codec ─▶ Socket ─▶ kernel
//! kernel's table ─┼─▶ plan ─▶ [Op] ─────┤             (or a model of it)
//! our keys ───────┘                     └─▶ Failure per operation
//!                                                     │
//! kernel's table, statistics ◀─ codec ◀─ Socket ◀─────┘
//! ```
//!
//! The crate compares the wanted table ([`WantedTable`]), the kernel's table
//! ([`ActualTable`]) and the keys that are ours ([`Owned`]). It plans as few
//! writes as possible ([`plan()`]) and sends them to the kernel
//! ([`Kernel::apply`]). The crate also reads the kernel's counters.
//!
//! This crate knows nothing about Kubernetes, health, time, the disk, or the
//! reasons for the wanted table. The crate returns the meaning of each failure
//! and leaves retries to the caller. No operation of the crate empties the
//! kernel's table.

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
mod statistics;

pub use kernel::{Errno, Error, Failure, Kernel, Meaning};
pub use listing::Listing;
pub use model::{
    ActualService, ActualTable, Connections, DestinationConfig, DestinationKey, Destinations,
    Family, ForwardingMethod, Info, Protocol, ServiceConfig, ServiceFlags, ServiceKey, Stats,
    Timeouts, Tunnel, TunnelChecksum, TunnelKind, WantedService, WantedTable,
};
pub use op::{Op, destination_options, service_options};
pub use owned::{Gone, Owned};
pub use plan::{OnConflict, Plan, plan, plan_services};
pub use socket::Socket;
pub use statistics::{DestinationStatistics, ServiceStatistics, Statistics};
