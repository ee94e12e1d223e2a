//! Allows one agent per network namespace: two agents would undo each other's
//! work.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The name of the abstract socket that serves as the lock. An abstract name
/// belongs to a network namespace, and the kernel frees the name when its owner
/// dies for whatever reason (unix(7)).
const NAME: &str = "ipvs-operator/agent";

/// The lock of a network namespace, held as long as this process is the
/// namespace's agent.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

/// The reason why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has the lock. [`Lock::owner`] returns its process ID.
    #[error(
        "another ipvs-agent runs in this network namespace: waiting until it ends. Stop one of the two agents"
    )]
    Taken,
    /// The socket that serves as the lock could not be made.
    #[error("cannot take the agent's lock: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// Returns an error if another agent has the lock or the socket cannot be
    /// made.
    pub fn take() -> Result<Self, LockError> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self {
                _listener: listener,
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(LockError::Taken),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the ID of the process that has the lock, as the kernel knows it
    /// (SO_PEERCRED). Do not call this function repeatedly: the owner never
    /// accepts connections, so its queue would fill up.
    pub fn owner() -> Option<i32> {
        let address = SocketAddr::from_abstract_name(NAME).ok()?;
        let stream = UnixStream::connect_addr(&address).ok()?;
        let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
        // The kernel reports 0 for a process in a pid namespace that this
        // process cannot see.
        (pid != 0).then_some(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_learns_which_process_has_the_lock_until_it_is_free() {
        let first = Lock::take().expect("no agent runs where tests do");
        let second = Lock::take().expect_err("two agents in one network namespace");
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(second, LockError::Taken), "{second}");
        assert_eq!(Lock::owner(), Some(own), "the process is named");
        drop(first);
        Lock::take().expect("the lock is free again");
    }
}
