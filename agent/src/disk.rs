//! The files that outlive the agent: the journal, which records the entries
//! that are ours, and the checkpoint, which holds the last known good objects.

pub mod checkpoint;
pub(crate) mod database;
pub mod journal;
