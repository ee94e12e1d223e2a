//! One agent per network namespace: two would undo each other's work.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// Abstract socket names live in the network namespace, and the kernel frees
/// them when their owner dies, however it dies (unix(7)).
const NAME: &str = "ipvs-operator/agent";

/// The lock of the namespace's agent, for as long as this process is that
/// agent.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has the lock: see [`Lock::owner`].
    #[error(
        "another ipvs-agent runs in this network namespace: stop it, or this one. Waiting until it is gone"
    )]
    Taken,
    /// The socket could not be made.
    #[error("cannot take the agent's lock: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// When another agent has it.
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

    /// The process that has the lock, as the kernel knows it (SO_PEERCRED). Do
    /// not ask again and again: the owner never accepts, and its queue of
    /// connections would fill up.
    pub fn owner() -> Option<i32> {
        let address = SocketAddr::from_abstract_name(NAME).ok()?;
        let stream = UnixStream::connect_addr(&address).ok()?;
        let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
        // 0 is a process in a pid namespace that cannot be seen from here.
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
