//! The interface to the kernel, and the meaning of its answers.

use std::{fmt, io};

use netlink_packet_core::DecodeError;

use crate::{
    ActualService, ActualTable, Family, ForwardingMethod, Info, Op, ServiceKey, Timeouts,
    TunnelKind,
};

/// The interface to the kernel. It is small, so that tests can put a model in
/// its place.
pub trait Kernel {
    /// What the kernel reports about IPVS itself.
    ///
    /// # Errors
    /// See [`Error`].
    fn info(&mut self) -> Result<Info, Error>;

    /// The whole table, services and destinations.
    ///
    /// The kernel's dumps are consistent only within about 80 entries: if
    /// another program adds or removes an entry meanwhile, another entry may be
    /// missing. So the caller must not write during the reading, and an entry
    /// that is missing from one reading may still exist.
    ///
    /// # Errors
    /// See [`Error`].
    fn table(&mut self) -> Result<ActualTable, Error>;

    /// One service with its destinations. None if the kernel has no service
    /// with that key.
    ///
    /// # Errors
    /// See [`Error`].
    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, Error>;

    /// How long the kernel remembers connections without packets.
    ///
    /// # Errors
    /// See [`Error`].
    fn timeouts(&mut self) -> Result<Timeouts, Error>;

    /// Sets those timeouts that are not 0. A connection gets its new timeout
    /// with its next packet.
    ///
    /// # Errors
    /// See [`Error`]; the kernel refuses more than 2^31 / HZ seconds with
    /// `EINVAL`.
    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error>;

    /// Applies operations in order, and returns those that the kernel refused.
    /// A refused operation does not stop the others: if a service could not be
    /// created, its destinations fail with `ESRCH`.
    ///
    /// # Errors
    /// After an error it is unknown which operations took effect: read the
    /// table again before planning.
    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error>;
}

/// An operation that the kernel refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The index of the operation among those passed to [`Kernel::apply`].
    pub index: usize,
    /// Why the kernel refused it.
    pub errno: Errno,
}

/// An error number of the kernel, as a positive number
/// (`include/uapi/asm-generic/errno*.h`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Errno(pub i32);

impl Errno {
    /// The caller is not permitted to do this.
    pub const EPERM: Self = Self(nix::libc::EPERM);
    /// The destination, scheduler or persistence engine does not exist.
    pub const ENOENT: Self = Self(nix::libc::ENOENT);
    /// The service does not exist.
    pub const ESRCH: Self = Self(nix::libc::ESRCH);
    /// The kernel is out of memory.
    pub const ENOMEM: Self = Self(nix::libc::ENOMEM);
    /// An entry with this key exists already.
    pub const EEXIST: Self = Self(nix::libc::EEXIST);
    /// A value is not valid.
    pub const EINVAL: Self = Self(nix::libc::EINVAL);
    /// A number is out of range.
    pub const ERANGE: Self = Self(nix::libc::ERANGE);
    /// The module ip_vs is being unloaded.
    pub const ENOPROTOOPT: Self = Self(nix::libc::ENOPROTOOPT);
    /// This kernel does not support the address family.
    pub const EAFNOSUPPORT: Self = Self(nix::libc::EAFNOSUPPORT);

    /// What this means as the answer to an operation.
    pub fn meaning(self, op: &Op) -> Meaning {
        match (self, op) {
            (Self::EPERM, _) => Meaning::NotPermitted,
            (Self::ESRCH, Op::DeleteService(_) | Op::DeleteDestination(..))
            | (Self::ENOENT, Op::DeleteDestination(..)) => Meaning::AlreadyGone,
            (Self::ESRCH, _)
            | (Self::ENOENT, Op::NewDestination(..) | Op::SetDestination(..))
            | (Self::EEXIST, _) => Meaning::Stale,
            (Self::ENOENT, Op::NewService(..) | Op::SetService(..) | Op::DeleteService(_)) => {
                Meaning::NotInThisKernel
            }
            (Self::EAFNOSUPPORT, _) => Meaning::NotInThisKernel,
            (Self::EINVAL | Self::ERANGE, _) => Meaning::Refused,
            _ => Meaning::Transient,
        }
    }

    /// The answer to an operation in one line: what happened, and what to do
    /// about it if something is known to help. It is meant to follow the
    /// operation's own text.
    pub fn explain(self, op: &Op) -> String {
        match (self.meaning(op), op) {
            (Meaning::NotPermitted, _) => Error::NotPermitted.to_string(),
            (Meaning::AlreadyGone, _) => format!("{self}: it is gone already"),
            (Meaning::Stale, _) if self == Self::EEXIST => {
                format!("{self}: another program has made it meanwhile")
            }
            (Meaning::Stale, _) if self == Self::ENOENT => {
                format!("{self}: the destination is not in the kernel's table")
            }
            (Meaning::Stale, _) => format!("{self}: the service is not in the kernel's table"),
            (Meaning::NotInThisKernel, _) if self == Self::EAFNOSUPPORT => {
                format!("{self}: this kernel's ip_vs does not support IPv6, or IPv6 is off")
            }
            (Meaning::NotInThisKernel, Op::NewService(_, config) | Op::SetService(_, config)) => {
                let scheduler = &config.scheduler;
                match &config.persistence_engine {
                    None => format!(
                        "{self}: this kernel has no scheduler {scheduler:?}: \
                         modprobe ip_vs_{scheduler}, or name another scheduler"
                    ),
                    Some(engine) => format!(
                        "{self}: this kernel lacks scheduler {scheduler:?} or persistence \
                         engine {engine:?}: modprobe -a ip_vs_{scheduler} ip_vs_pe_{engine}"
                    ),
                }
            }
            (Meaning::Refused, op) => {
                let hint = refusal_hint(self, op).unwrap_or("the kernel refuses these values");
                format!("{self}: {hint}")
            }
            (Meaning::NotInThisKernel | Meaning::Transient, _) => self.to_string(),
        }
    }
}

/// Why `ip_vs_ctl.c` refuses an operation with this errno. The kernel gives no
/// reason itself: IPVS does not fill in extended acknowledgements.
fn refusal_hint(errno: Errno, op: &Op) -> Option<&'static str> {
    let (Op::NewDestination(service, destination, config)
    | Op::SetDestination(service, destination, config)) = op
    else {
        return None;
    };
    let tunnel = match config.method {
        ForwardingMethod::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    };
    if errno == Errno::ERANGE {
        return Some("a weight is at most 2^31-1, a lower threshold at most the upper one");
    }
    if service.family() != Family::of(destination.address) {
        return Some(match tunnel {
            None => "only TUN reaches a server of the other address family",
            Some(_) => {
                "a server of the other address family and the connection sync daemon \
                 exclude each other"
            }
        });
    }
    if tunnel.is_some_and(|tunnel| tunnel.kind == TunnelKind::Gue && tunnel.port == 0) {
        return Some("a GUE tunnel needs a port");
    }
    Some(
        "the address must be unicast, and in a network namespace where no interface was \
         ever up no address is",
    )
}

/// Writes the name and the C library's text: `ESRCH (No such process)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        match errno {
            nix::errno::Errno::UnknownErrno => write!(f, "error {}", self.0),
            _ => write!(f, "{errno:?} ({})", errno.desc()),
        }
    }
}

/// What a refusal means for the caller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Meaning {
    /// The entry that should be deleted does not exist, so nothing needs to be
    /// done.
    AlreadyGone,
    /// The kernel's table differs from what the caller believes: read it again
    /// and plan again.
    Stale,
    /// This kernel does not have the scheduler, persistence engine or address
    /// family. Each further try makes the kernel run modprobe, which takes
    /// tenths of a second, so try rarely.
    NotInThisKernel,
    /// The kernel will refuse these values again.
    Refused,
    /// `CAP_NET_ADMIN` is missing.
    NotPermitted,
    /// Any other reason, mostly lack of memory: it may work later.
    Transient,
}

/// Why the kernel gave no useful answer. After any of these except
/// [`RepliesLost`](Self::RepliesLost), open another socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no generic netlink family `IPVS`, and asking for it did
    /// not load a module.
    #[error(
        "this kernel has no ip_vs: run `modprobe ip_vs` on the host, \
         or install the kernel's package of modules"
    )]
    NoIpvs,
    /// IPVS accepts requests, even readings, only from a process with
    /// `CAP_NET_ADMIN` in the initial user namespace (`netlink_capable`).
    #[error(
        "not permitted to use ip_vs: CAP_NET_ADMIN is needed, \
         in the host's own user namespace (not in that of a rootless container)"
    )]
    NotPermitted,
    /// The receive buffer overflowed (`ENOBUFS`). The operations were done, but
    /// it is unknown which of them failed. Read the table again; the socket
    /// stays usable.
    #[error("answers of the kernel were lost (ENOBUFS): the table must be read again")]
    RepliesLost,
    /// The kernel did not answer in time.
    #[error("no answer from the kernel within {seconds} s while {doing}")]
    NoAnswer {
        /// What was being done.
        doing: &'static str,
        /// How long the caller waited, in seconds.
        seconds: u64,
    },
    /// The kernel refused a reading.
    #[error("the kernel refused {doing}: {errno}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why the kernel refused it.
        errno: Errno,
    },
    /// A message that this build cannot read.
    #[error("while {doing}: {source}")]
    Malformed {
        /// What was being done.
        doing: &'static str,
        /// What was being parsed, and what is wrong with it.
        source: DecodeError,
    },
    /// The operating system reports an error of the socket.
    #[error("while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
