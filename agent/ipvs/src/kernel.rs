//! The interface to the kernel's IPVS, and the meaning of the kernel's answers.

use std::{fmt, io};

use netlink_packet_core::DecodeError;

use crate::{
    ActualService, ActualTable, Family, ForwardingMethod, Info, Op, ServiceKey, Timeouts,
    TunnelKind,
};

/// The interface to the kernel's IPVS, small enough that tests can replace the
/// kernel with a model.
pub trait Kernel {
    /// Reads the version of IPVS and the size of its connection table.
    ///
    /// # Errors
    /// See [`Error`].
    fn info(&mut self) -> Result<Info, Error>;

    /// Reads the kernel's whole IPVS table: all services with their
    /// destinations.
    ///
    /// The kernel dumps its table in parts of about 80 entries. Each part is
    /// consistent, but the whole dump may not be. If another program adds or
    /// removes an entry during the dump, the dump may lack an unrelated entry.
    /// The caller must not write to the kernel's table while it reads the
    /// table. An entry that is missing from one reading of the table may still
    /// exist.
    ///
    /// # Errors
    /// See [`Error`].
    fn table(&mut self) -> Result<ActualTable, Error>;

    /// Reads one service with its destinations. Returns `None` if the kernel
    /// has no service with the given key.
    ///
    /// # Errors
    /// See [`Error`].
    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, Error>;

    /// Reads how long the kernel remembers idle IPVS connections.
    ///
    /// # Errors
    /// See [`Error`].
    fn timeouts(&mut self) -> Result<Timeouts, Error>;

    /// Sets each connection timeout that is not 0. An existing connection gets
    /// the new timeout with its next packet.
    ///
    /// # Errors
    /// See [`Error`]. The kernel refuses timeouts of more than 2^31 / HZ
    /// seconds with `EINVAL`.
    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error>;

    /// Applies operations in order, and returns the operations that the kernel
    /// refused. If the kernel refuses an operation, it still applies the later
    /// operations. If the kernel refuses to create a service, the operations on
    /// its destinations fail with `ESRCH`.
    ///
    /// # Errors
    /// If `apply` fails, the caller does not know which operations took effect.
    /// After an error, the caller must read the table again before planning.
    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error>;
}

/// An operation that the kernel refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The index of the refused operation among those passed to
    /// [`Kernel::apply`].
    pub index: usize,
    /// The kernel's error number for the refused operation.
    pub errno: Errno,
}

/// An error number of the kernel, as a positive number
/// (`include/uapi/asm-generic/errno*.h`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling process lacks the permission for the request.
    pub const EPERM: Self = Self(nix::libc::EPERM);
    /// The destination, scheduler or persistence engine does not exist.
    pub const ENOENT: Self = Self(nix::libc::ENOENT);
    /// The service of the request does not exist.
    pub const ESRCH: Self = Self(nix::libc::ESRCH);
    /// The kernel is out of memory.
    pub const ENOMEM: Self = Self(nix::libc::ENOMEM);
    /// An entry with the same key exists already.
    pub const EEXIST: Self = Self(nix::libc::EEXIST);
    /// A value in the request to the kernel is not valid.
    pub const EINVAL: Self = Self(nix::libc::EINVAL);
    /// A number in the request to the kernel is out of range.
    pub const ERANGE: Self = Self(nix::libc::ERANGE);
    /// The module ip_vs is being unloaded.
    pub const ENOPROTOOPT: Self = Self(nix::libc::ENOPROTOOPT);
    /// This kernel does not support the address family.
    pub const EAFNOSUPPORT: Self = Self(nix::libc::EAFNOSUPPORT);

    /// Returns what this error number means as the kernel's answer to `op`.
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

    /// Explains in one line why the kernel answered `op` with this error
    /// number. Names a remedy if a remedy is known. Callers print the
    /// explanation after the operation itself.
    pub fn explain(self, op: &Op) -> String {
        match (self.meaning(op), op) {
            (Meaning::NotPermitted, _) => Error::NotPermitted.to_string(),
            (Meaning::AlreadyGone, _) => format!("{self}: the entry is gone already"),
            (Meaning::Stale, _) if self == Self::EEXIST => {
                format!("{self}: another program has created the entry meanwhile")
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

/// Returns the likely reason why `ip_vs_ctl.c` refused an operation with this
/// error number. The kernel itself gives no reason, because IPVS does not fill
/// in extended acknowledgements.
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
        return Some(
            "a weight is at most 2^31-1, and a lower threshold at most the upper threshold",
        );
    }
    if service.family() != Family::of(destination.address) {
        return Some(match tunnel {
            None => "only TUN reaches a server of the other address family",
            Some(_) => {
                "a server of the other address family cannot be used while the connection \
                 sync daemon runs"
            }
        });
    }
    if tunnel.is_some_and(|tunnel| tunnel.kind == TunnelKind::Gue && tunnel.port == 0) {
        return Some("a GUE tunnel needs a port");
    }
    Some(
        "the address must be unicast; in a network namespace where no interface was ever \
         up, the kernel takes no address for unicast",
    )
}

/// Writes the error's name and its standard description, such as `ESRCH (No
/// such process)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        match errno {
            nix::errno::Errno::UnknownErrno => write!(f, "error {}", self.0),
            _ => write!(f, "{errno:?} ({})", errno.desc()),
        }
    }
}

/// The meaning of an error number with which the kernel refused an operation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Meaning {
    /// The entry to delete does not exist, so the caller need not do anything.
    AlreadyGone,
    /// The kernel's table differs from the caller's copy of the table. The
    /// caller should read the table again and plan again.
    Stale,
    /// This kernel does not have the operation's scheduler, persistence engine
    /// or address family. Each retry makes the kernel run modprobe, which takes
    /// tenths of a second, so callers should retry rarely.
    NotInThisKernel,
    /// The operation has invalid values, so the kernel would refuse it again.
    Refused,
    /// The process lacks the capability `CAP_NET_ADMIN`.
    NotPermitted,
    /// The kernel refused the operation for another reason, mostly lack of
    /// memory, so a retry may succeed.
    Transient,
}

/// The reason why the kernel gave no useful answer. After any error except
/// [`RepliesLost`](Self::RepliesLost), the caller should open a new socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no generic netlink family `IPVS`. A request for the
    /// family did not make the kernel load ip_vs.
    #[error(
        "this kernel has no ip_vs: run `modprobe ip_vs` on the host, \
         or install the kernel's package of modules"
    )]
    NoIpvs,
    /// For any request to IPVS, even to read, a process needs `CAP_NET_ADMIN`
    /// in the initial user namespace (`netlink_capable`).
    #[error(
        "not permitted to use ip_vs: CAP_NET_ADMIN is needed, \
         in the host's own user namespace (not in that of a rootless container)"
    )]
    NotPermitted,
    /// The socket's receive buffer overflowed (`ENOBUFS`). The kernel processed
    /// the operations, but the caller does not know which operations failed.
    /// The caller should read the table again, and can continue to use the
    /// socket.
    #[error("answers from the kernel were lost (ENOBUFS): the table must be read again")]
    RepliesLost,
    /// The kernel did not answer a request in time.
    #[error("no answer from the kernel within {seconds} s while {doing}")]
    NoAnswer {
        /// The action that the kernel did not answer, such as `reading the
        /// services`.
        doing: &'static str,
        /// The number of seconds that the caller waited for the answer.
        seconds: u64,
    },
    /// The kernel refused a request other than the operations of
    /// [`Kernel::apply`].
    #[error("the kernel refused {doing}: {errno}")]
    Refused {
        /// The action that the kernel refused, such as `reading the services`.
        doing: &'static str,
        /// The kernel's error number for the refused request.
        errno: Errno,
    },
    /// The kernel sent a message that this build cannot parse.
    #[error("while {doing}: {source}")]
    Malformed {
        /// The action whose answer was malformed, such as `reading the
        /// services`.
        doing: &'static str,
        /// The parser's error, which names the malformed part of the message.
        source: DecodeError,
    },
    /// A system call on the netlink socket failed.
    #[error("while {doing}: {source}")]
    Io {
        /// The action that failed, such as `reading the services`.
        doing: &'static str,
        /// The error that the system call returned.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
