//! The files that outlive the agent. The journal records which entries are
//! ours. The checkpoint holds the last known good objects.

pub mod checkpoint;
pub(crate) mod database;
pub mod journal;
