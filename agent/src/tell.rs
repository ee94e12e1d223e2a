//! What the agent says: the Director's status, its Lease, and the log.

pub mod publish;
pub mod report;
pub mod said;
