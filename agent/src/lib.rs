//! The node agent of one director.
//!
//! ```text
//! API server ─▶ input/kubernetes ┐
//! YAML files ─▶ input/manifests  │
//! servers ◀──▶ probe             ├─▶ Event ─▶ director/hear: the objects,
//! segments ◀─▶ claim             │            and a Reason for a round
//! kernel ───▶ input/reader,links ┘                   │
//!                                                    ▼
//! director/round: one round, data goes one way
//!
//!   Objects ─▶ resolve ─▶ desired ─▶ (read) ─▶ protect ─▶ retain ─▶ weigh ─▶ plan
//!              crds       decide/    act/      decide/    decide/   decide/  ipvs
//!                         desired    read      protect,   retain    serving    │
//!                                              places                          │
//!                                                                              ▼
//!   Director, Lease ◀─ tell/publish ◀─ tell/report ◀─ Outcome ◀─ apply, phase by phase
//!   history of writes ◀─ trail                          │        act, disk/journal
//!   `ipvs-agent status` ◀─ tell/local ◀─────────────────┘
//! ```
//!
//! The stages from `protect` to `weigh` correct the wanted table, so that
//! `plan` results only in allowed changes. `protect` leaves out services that
//! would take the host's own traffic. `places` leaves out new services whose
//! VIP cannot be on this host. `retain` keeps entries that must not be removed
//! yet. `weigh` gives each server the weight that its health allows.
//!
//! The agent reads VirtualServices, RealServers and the director's group. The
//! agent writes the kernel's IPVS table, the virtual addresses and the sysctls
//! of this host, and a status. The loop of the agent is one thread. Code that
//! waits for the network runs in other threads and only sends events to the
//! loop. When the agent stops or crashes, the data plane keeps its state.

pub mod act;
pub mod args;
pub mod claim;
pub mod clock;
pub mod decide;
pub mod director;
pub mod disk;
pub mod event;
pub mod fair;
#[cfg(test)]
mod fixtures;
pub mod heartbeat;
pub mod host;
pub mod input;
mod pauses;
pub mod probe;
pub mod ration;
pub mod reach;
pub mod said;
pub mod tell;
pub mod trail;
pub mod undo;
