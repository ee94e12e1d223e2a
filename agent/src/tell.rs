//! The agent's reports: the Director's status, its Lease, a socket for programs
//! on the host, and log lines about the host.

pub mod local;
pub mod publish;
pub mod report;
