//! What the agent reports: the Director's status, its Lease, and the log.

pub mod publish;
pub mod report;
