//! Allows only one agent per network namespace, because two agents would undo
//! each other's work.
//!
//! The lock has two parts: a file and a socket. Other users cannot lock the
//! *file*, because the file and its folder belong to the agent's user. On a
//! director, the agent's user is root. The *socket* has an abstract name, and
//! abstract names belong to the network namespace. The socket therefore also
//! excludes agents that do not see the file, such as an agent in a container or
//! an agent of an earlier build. But every process in the network namespace can
//! take the socket's name. The agent therefore ignores the socket if another
//! user's process owns it.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket,
        sockopt::PeerCredentials,
    },
    unistd::geteuid,
};

/// The name of the lock's abstract socket. The kernel frees the name when the
/// owner's process ends (unix(7)).
const NAME: &str = "ipvs-operator/agent";
/// The folder with the lock files, one file for each network namespace. The
/// folder's file system is empty after a boot.
const FOLDER: &str = "/run/ipvs-operator";
/// The file of the calling thread's network namespace. The file's inode number
/// identifies the namespace (namespaces(7)).
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The lock of a network namespace. The namespace's agent holds the lock while
/// the agent runs.
#[derive(Debug)]
pub struct Lock {
    /// The locked file, or `None` if the lock's folder cannot be used.
    _file: Option<File>,
    /// The lock's socket, or `None` if another user's process has the socket's
    /// name.
    _socket: Option<UnixListener>,
    /// Why one part of the lock could not be taken, or `None` if both parts
    /// were taken.
    remark: Option<String>,
}

/// The reason why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has the lock. [`Lock::owner`] returns the process ID of
    /// the agent that has the lock.
    #[error(
        "another ipvs-agent runs in this network namespace: waiting until it ends. Stop one of the two agents"
    )]
    Taken,
    /// Another user's process has the socket's name, and the lock file cannot
    /// be used either.
    #[error(
        "cannot take the agent's lock: the abstract socket @{NAME} belongs to {owner}, and the file {path} cannot be locked: {source}. Make the folder writable for the agent, or stop that process"
    )]
    NoPart {
        /// The process that has the name of the lock's socket.
        owner: String,
        /// The path of the lock file.
        path: PathBuf,
        /// The reason why the lock file cannot be locked.
        source: io::Error,
    },
    /// The lock's socket could not be created.
    #[error("cannot take the agent's lock: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// Returns an error if another agent has the lock or the lock cannot be
    /// taken.
    pub fn take() -> Result<Self, LockError> {
        Self::take_in(Path::new(FOLDER))
    }

    fn take_in(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(file_name()?);
        let file = match lock(folder, &path) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => return Err(LockError::Taken),
            Err(error) => Err(error),
        };
        let socket = match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
            Ok(socket) => Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match Owner::find() {
                Owner::Ours(_) => return Err(LockError::Taken),
                Owner::Others(description) => Err(description),
            },
            Err(error) => return Err(error.into()),
        };
        let (file, socket, remark) = match (file, socket) {
            (Ok(file), Ok(socket)) => (Some(file), Some(socket), None),
            (Ok(file), Err(owner)) => {
                let remark = format!(
                    "the abstract socket @{NAME} belongs to {owner}, which is not an agent of this user: ignored, because the lock on {} decides. Find out what that process is; `ss -xlp` lists it",
                    path.display()
                );
                (Some(file), None, Some(remark))
            }
            (Err(error), Ok(socket)) => {
                let remark = format!(
                    "cannot lock {}: {error}. Without this file, any process in this network namespace can keep the agent from starting: make the folder writable for the agent",
                    path.display()
                );
                (None, Some(socket), Some(remark))
            }
            (Err(error), Err(owner)) => {
                return Err(LockError::NoPart {
                    owner,
                    path,
                    source: error,
                });
            }
        };
        Ok(Self {
            _file: file,
            _socket: socket,
            remark,
        })
    }

    /// Returns why one part of the lock could not be taken, or `None` if both
    /// parts were taken.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Returns the process ID of the agent that has the lock, as reported by
    /// the kernel (SO_PEERCRED). Do not call this function repeatedly: the
    /// lock's owner never accepts connections, so the socket's queue would fill
    /// up.
    pub fn owner() -> Option<i32> {
        match Owner::find() {
            Owner::Ours(pid) => pid,
            Owner::Others(_) => None,
        }
    }
}

/// The owner of the name of the lock's socket.
enum Owner {
    /// A process of the agent's own user; the number is the process ID, or
    /// `None` if the process ID is not visible.
    Ours(Option<i32>),
    /// A process of another user, or an unknown process, with a description in
    /// words.
    Others(String),
}

impl Owner {
    fn find() -> Self {
        match peer() {
            Ok((uid, pid)) if uid == geteuid().as_raw() => Self::Ours(pid),
            Ok((uid, pid)) => {
                let pid = pid.map(|pid| format!(" (pid {pid})"));
                Self::Others(format!(
                    "a process of user {uid}{}",
                    pid.unwrap_or_default()
                ))
            }
            // The connection failed, so the socket's owner is not an agent. A
            // connection to an agent succeeds: the agent's socket listens, and
            // its queue has room for all other agents.
            Err(errno) => Self::Others(format!("a process that does not listen ({errno})")),
        }
    }
}

/// Returns the user ID and the process ID of the process that listens on the
/// lock's socket. The kernel reports the process ID 0 for a process in an
/// invisible pid namespace. The function does not wait for room in the
/// listener's queue, because a hostile listener may keep the queue full.
fn peer() -> nix::Result<(u32, Option<i32>)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(
        stream.as_raw_fd(),
        &UnixAddr::new_abstract(NAME.as_bytes())?,
    )?;
    let peer = getsockopt(&stream, PeerCredentials)?;
    Ok((peer.uid(), (peer.pid() != 0).then_some(peer.pid())))
}

/// Returns the name of the lock file for the calling thread's network
/// namespace.
fn file_name() -> io::Result<String> {
    let inode = fs::metadata(NAMESPACE)?.ino();
    Ok(format!("netns-{inode}.lock"))
}

/// Locks the lock file, or returns `None` if another process has locked it.
/// Only processes of the agent's own user can have locked the file, because
/// other users cannot open the file.
fn lock(folder: &Path, path: &Path) -> io::Result<Option<File>> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if !folder.is_dir() => return Err(error),
        _ => {}
    }
    let found = fs::metadata(folder)?;
    if found.uid() != geteuid().as_raw() {
        let message = format!("{} belongs to user {}", folder.display(), found.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_learns_which_process_has_the_lock_until_it_is_free() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("ipvs-operator");
        let first = Lock::take_in(&folder).expect("no agent runs where tests do");
        assert_eq!(first.remark(), None);
        let modes = [&folder, &folder.join(file_name().unwrap())]
            .map(|path| fs::metadata(path).unwrap().mode() & 0o777);
        assert_eq!(modes, [0o700, 0o600], "no other user can lock the file");
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Lock::owner(), Some(own), "the process is named");

        // Each part of the lock alone keeps a second agent out. An agent in a
        // container may see the first agent's socket but not its lock file. If
        // another process has the socket's name, the first agent has only the
        // file.
        let another = above.path().join("another");
        for folder in [&folder, &another] {
            let second = Lock::take_in(folder).expect_err("two agents in one network namespace");
            assert!(matches!(second, LockError::Taken), "{second}");
        }
        let Lock {
            _file: file,
            _socket: socket,
            ..
        } = first;
        drop(socket);
        let second = Lock::take_in(&folder).expect_err("the file is locked");
        assert!(matches!(second, LockError::Taken), "{second}");
        drop(file);
        drop(Lock::take_in(&folder).expect("the lock is free again"));

        // If the lock's folder cannot be used, the agent takes only the lock's
        // socket.
        let file = above.path().join("file");
        fs::write(&file, "").unwrap();
        let alone = Lock::take_in(&file).expect("the socket is free");
        let remark = alone.remark().expect("it is worth a line");
        assert!(remark.contains("make the folder writable"), "{remark}");
        let second = Lock::take_in(&folder).expect_err("the name is taken");
        assert!(matches!(second, LockError::Taken), "{second}");
    }
}
