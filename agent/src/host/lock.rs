//! Allows one agent per network namespace: two agents would undo each other's
//! work.
//!
//! The lock has two parts. The *file* can be locked by no other user: it and
//! its folder belong to the agent's user, which is root on a director. The
//! *socket* has an abstract name, which belongs to the network namespace
//! whatever the agent's files are, so it also excludes an agent in a container
//! that does not see the file, and an agent of an earlier build. But every
//! process in the network namespace can take the name, so an owner that is
//! another user's process does not count.

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

/// The name of the abstract socket that is one part of the lock. The kernel
/// frees the name when its owner dies for whatever reason (unix(7)).
const NAME: &str = "ipvs-operator/agent";
/// The folder with the other part of the lock: one file for each network
/// namespace. The folder's file system is empty after a boot.
const FOLDER: &str = "/run/ipvs-operator";
/// The network namespace of the calling thread. Its inode number identifies it
/// (namespaces(7)).
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The lock of a network namespace, held as long as this process is the
/// namespace's agent.
#[derive(Debug)]
pub struct Lock {
    /// The locked file, or `None` if the folder cannot be used.
    _file: Option<File>,
    /// The socket, or `None` if another user's process has the name.
    _socket: Option<UnixListener>,
    /// What is wrong with one part of the lock, if the other part suffices.
    remark: Option<String>,
}

/// The reason why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has the lock. [`Lock::owner`] returns its process ID.
    #[error(
        "another ipvs-agent runs in this network namespace: waiting until it ends. Stop one of the two agents"
    )]
    Taken,
    /// Another user's process has the socket's name, and the file cannot be
    /// used either.
    #[error(
        "cannot take the agent's lock: the abstract socket @{NAME} belongs to {owner}, and the file {path} cannot be locked: {source}. Make the folder writable for the agent, or stop that process"
    )]
    NoPart {
        /// The process that has the socket's name.
        owner: String,
        /// The path of the file.
        path: PathBuf,
        /// The reason why the file cannot be locked.
        source: io::Error,
    },
    /// The socket could not be made.
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

    /// Returns what is wrong with one part of the lock, if the other part
    /// suffices.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Returns the ID of the agent's process that has the lock, as the kernel
    /// knows it (SO_PEERCRED). Do not call this function repeatedly: the owner
    /// never accepts connections, so its queue would fill up.
    pub fn owner() -> Option<i32> {
        match Owner::find() {
            Owner::Ours(pid) => pid,
            Owner::Others(_) => None,
        }
    }
}

/// The process that has the socket's name.
enum Owner {
    /// A process of the agent's own user, with its ID if it is visible here.
    Ours(Option<i32>),
    /// A process that is described by these words.
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
            // An agent listens at once, and its queue has room for more
            // connections than other agents ever make.
            Err(errno) => Self::Others(format!("a process that does not listen ({errno})")),
        }
    }
}

/// Returns the user and the ID of the process that listens on the socket. The
/// kernel reports the ID 0 for a process in a pid namespace that this process
/// cannot see. The function does not wait for room in the listener's queue,
/// because a hostile listener may leave none.
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

/// Returns the name of the file for the calling thread's network namespace.
fn file_name() -> io::Result<String> {
    let inode = fs::metadata(NAMESPACE)?.ino();
    Ok(format!("netns-{inode}.lock"))
}

/// Locks the file, or returns `None` if another process has locked it. A process
/// of another user can never have opened the file, so it cannot have locked it
/// either.
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

        // Each part of the lock suffices: an agent in a container may see only
        // the socket, and an agent may have only the file.
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

        // The socket alone does where the folder cannot be used.
        let file = above.path().join("file");
        fs::write(&file, "").unwrap();
        let alone = Lock::take_in(&file).expect("the socket is free");
        let remark = alone.remark().expect("it is worth a line");
        assert!(remark.contains("make the folder writable"), "{remark}");
        let second = Lock::take_in(&folder).expect_err("the name is taken");
        assert!(matches!(second, LockError::Taken), "{second}");
    }
}
