//! The test lab: a real IPVS kernel, a real API server, and hosts joined by
//! virtual Ethernet.
//!
//! ```text
//! make lab-tests ─▶ lab tests ─────┐ one for each binary, several at once
//! cargo test ─▶ e2e/tools/runner ─▶ lab run TEST-BINARY
//!                                    │ own pid, mount and network namespace: all is gone when it ends
//!       host side, 10.77.0.1 ────────┤ etcd, kube-apiserver :6443, control service :8077 (kubectl, helm)
//!                    │ tap           │
//!       guest, 10.77.0.2 ────────────┘ user-mode Linux with ip_vs; runs TEST-BINARY as root
//!                    │ bridge mgmt, 10.77.128.0/17
//!       Host ═ Segment ═ Host          network namespaces that the test makes: client, directors, servers
//! ```
//!
//! `e2e_nodes` runs with `lab run --nodes 2`. Then a bridge takes the place of the
//! tap, and joins the guest with two nodes: machines under QEMU with containerd,
//! kubelet and kube-proxy.
//!
//! Tests and the demo use this library *inside* the guest. If a function cannot
//! set something up, the function panics. The panic message names the failed
//! command and the command's error. Functions whose failure a test may expect
//! also have a `try_` form that returns the error.
//!
//! This library must not interpret the objects of ipvs-operator's API. The
//! library only starts programs, moves packets and sends requests to the API
//! server.

mod acceptor;
pub mod asking;
pub mod cluster;
pub mod control;
pub mod course;
pub mod fault;
pub mod freezing_disk;
pub mod host;
pub mod http;
pub mod ipvsadm;
pub mod layout;
pub mod process;
pub mod segment;
pub mod shell;
pub mod small_disk;
pub mod suite;
pub mod trace;
mod transfers;
pub mod values_page;
pub mod wait;
pub mod weights;
pub mod wire;

pub use asking::Asking;
pub use control::{ApiServerAway, helm, kubectl, kubectl_apply, kubectl_replace};
pub use freezing_disk::FreezingDisk;
pub use host::Host;
pub use http::{Client, Download, Upload, WebServer};
pub use process::Process;
pub use segment::Segment;
pub use small_disk::SmallDisk;
pub use transfers::Transfers;
pub use wait::eventually;
pub use weights::Weights;
pub use wire::Wire;
