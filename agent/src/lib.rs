//! The node agent of one director.
//!
//! ```text
//! API server ─▶ input/kubernetes ─┐
//!                                 ├─▶ Event ─▶ director: Objects ─▶ resolve ─▶ desired
//! YAML files ─▶ input/manifests ──┘     ▲         │                              │
//!                                       │         ▼                              ▼
//!                                       │      hijack: without what would shoot the host
//! servers ◀─ probe ─▶ tally ────────────┤      serving: who is healthy ─▶ the table to be
//! segments ◀─ claim ─▶ who has a VIP ───┤         │                              │
//! kernel ─▶ host/watch, observe ────────┘         │                              │
//!                                                 ▼                              ▼
//!            kernel, interfaces, journal ◀── round: read, plan, intend, apply, settle
//!                                                 │
//! Director, Lease ◀── publish ◀── report ◀── Outcome
//! ```
//!
//! In: VirtualServices, RealServers and the director's group. Out: the
//! kernel's IPVS table, the virtual addresses and the sysctls of this host, and
//! a status. The loop is one thread; everything that waits for a network only
//! sends it events. It leaves the data plane as it is when it stops, however it
//! stops.

pub mod act;
pub mod args;
pub mod claim;
pub mod clock;
pub mod decide;
pub mod director;
pub mod disk;
pub mod event;
#[cfg(test)]
mod fixtures;
pub mod host;
pub mod input;
pub mod probe;
pub mod tell;
pub mod undo;
