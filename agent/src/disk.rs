//! The files that outlive the agent. The journal records which entries are
//! ours. The checkpoint holds the last known good objects.

pub mod checkpoint;
pub(crate) mod database;
pub mod journal;

/// The name of the socket in the state folder that tells what the agent sees
/// ([`crate::tell::local`]).
pub const SOCKET: &str = "agent.sock";

/// The names of the files with the audit trail begin with this text
/// ([`crate::trail::files`]).
pub const HISTORY: &str = "history";

/// The mode of the files in the state folder. The objects in the files may
/// contain credentials, such as the HTTP headers of a health check.
pub(crate) const FILE_MODE: u32 = 0o600;
