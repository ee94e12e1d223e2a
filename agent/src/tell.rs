//! The agent's reports: the Director's status, its Lease, and log lines about
//! the host.

pub mod publish;
pub mod report;
