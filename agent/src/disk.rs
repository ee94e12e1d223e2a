//! The files that outlive the agent. The journal records which entries are
//! ours. The checkpoint holds the last known good objects.

pub mod checkpoint;
pub(crate) mod database;
pub mod journal;

/// The name of the socket in the state folder that tells what the agent sees
/// ([`crate::tell::local`]).
pub const SOCKET: &str = "agent.sock";
