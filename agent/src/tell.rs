//! The agent's reports: the Director's status, its Lease, a socket for programs
//! on the host, the answers to a kubelet's probes, and log lines about the host.

pub mod health;
pub mod local;
pub mod publish;
pub mod report;
