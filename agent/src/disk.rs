//! What outlives the agent: whose the entries of the kernel's table are, and
//! the last known good objects.

pub mod checkpoint;
pub(crate) mod database;
pub mod journal;
