//! What outlives the agent: which entries of the kernel's table are ours, and
//! the last known good objects.

pub mod checkpoint;
pub(crate) mod database;
pub mod journal;
