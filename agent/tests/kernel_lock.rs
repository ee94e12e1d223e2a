//! Tests the agent's lock of a network namespace on a real kernel. In these
//! tests, a process of another user has bound the lock's socket name before the
//! agent starts.
//!
//! This file has only one test, because the test changes the user of the whole
//! process.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixListener, UnixStream},
};

use agent::host::lock::{Lock, LockError};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    unistd::{Uid, seteuid},
};

const NAME: &str = "ipvs-operator/agent";
const NOBODY: u32 = 65534;

#[test]
fn a_process_of_another_user_keeps_no_agent_from_its_lock() {
    unshare(CloneFlags::CLONE_NEWNET).expect(
        "a network namespace cannot be created: run this test as root, in the lab: \
         cargo test -p agent --test kernel_lock",
    );
    let name = SocketAddr::from_abstract_name(NAME).expect("a name");

    let squatter = as_nobody(|| UnixListener::bind_addr(&name).expect("nobody may take the name"));
    ignored("a process of user 65534 (pid ");
    drop(squatter);

    // The next process has bound the name, but accepts no connection. Its
    // accept queue is full.
    let squatter = as_nobody(|| squat(Some(0)));
    let _queued = UnixStream::connect_addr(&name).expect("the queue has one place");
    ignored("a process that does not listen");
    drop(squatter);

    let squatter = as_nobody(|| squat(None));
    ignored("a process that does not listen");
    drop(squatter);

    // An agent of an earlier build owns the lock if it has bound the socket's
    // name.
    let earlier = UnixListener::bind_addr(&name).expect("the name is free");
    taken();
    assert_eq!(Lock::owner(), i32::try_from(std::process::id()).ok());
    drop(earlier);
    let lock = Lock::take().expect("the lock is free");
    assert_eq!(lock.remark(), None);
}

/// Checks that an agent takes the lock, reports the owner of the socket, and
/// prevents another agent from taking the lock.
#[track_caller]
fn ignored(owner: &str) {
    let lock = Lock::take().expect("the socket's owner is ignored");
    let remark = lock.remark().expect("the socket's owner is reported");
    assert!(remark.contains(owner), "{owner:?} in {remark:?}");
    assert!(remark.contains("ss -xlp"), "{remark}");
    taken();
    assert_eq!(Lock::owner(), None, "the squatter is not called an agent");
}

#[track_caller]
fn taken() {
    let error = Lock::take().expect_err("two agents in one network namespace");
    assert!(matches!(error, LockError::Taken), "{error}");
}

/// Binds a socket to the lock's name. If `backlog` is given, the socket
/// listens, and its queue has room for `backlog` + 1 connections.
fn squat(backlog: Option<i32>) -> std::os::fd::OwnedFd {
    use std::os::fd::AsRawFd;
    let kind = (AddressFamily::Unix, SockType::Stream, SockFlag::empty());
    let squatter = socket(kind.0, kind.1, kind.2, None).expect("a socket");
    let address = UnixAddr::new_abstract(NAME.as_bytes()).expect("a name");
    bind(squatter.as_raw_fd(), &address).expect("nobody may take the name");
    if let Some(backlog) = backlog {
        listen(&squatter, Backlog::new(backlog).expect("a length")).expect("the squatter listens");
    }
    squatter
}

fn as_nobody<T>(act: impl FnOnce() -> T) -> T {
    seteuid(Uid::from_raw(NOBODY)).expect("root may become nobody");
    let done = act();
    seteuid(Uid::from_raw(0)).expect("and root again");
    done
}
