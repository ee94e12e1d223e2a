//! The edge to the kernel, and what it answers.

use std::{fmt, io};

use netlink_packet_core::DecodeError;

use crate::{
    ActualService, ActualTable, Family, ForwardingMethod, Info, Op, ServiceKey, Timeouts,
    TunnelKind,
};

/// The edge to the kernel: small, so that a modelled kernel can stand in.
pub trait Kernel {
    /// What the kernel says about itself.
    ///
    /// # Errors
    /// See [`Error`].
    fn info(&mut self) -> Result<Info, Error>;

    /// The whole table, services and destinations.
    ///
    /// The kernel's dumps are consistent only within about 80 entries: an
    /// entry that somebody adds or removes meanwhile may hide another. So
    /// nobody of ours writes while this reads, and an entry that was missing
    /// from one reading is no proof that it is not there.
    ///
    /// # Errors
    /// See [`Error`].
    fn table(&mut self) -> Result<ActualTable, Error>;

    /// One service with its destinations; none if the kernel has none of that
    /// key.
    ///
    /// # Errors
    /// See [`Error`].
    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, Error>;

    /// The timeouts of connections.
    ///
    /// # Errors
    /// See [`Error`].
    fn timeouts(&mut self) -> Result<Timeouts, Error>;

    /// Sets the timeouts that are not 0. Connections take them up with their
    /// next packet.
    ///
    /// # Errors
    /// See [`Error`]; the kernel refuses more than 2^31 / HZ seconds with
    /// `EINVAL`.
    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error>;

    /// Applies operations in order, and tells which of them the kernel
    /// refused. A refused operation does not stop the others: the destinations
    /// of a service that could not be made fail with `ESRCH` of their own.
    ///
    /// # Errors
    /// With an error it is unknown which operations took effect: read the
    /// table again before planning.
    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error>;
}

/// An operation that the kernel refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    /// Which of the operations that were passed to [`Kernel::apply`].
    pub index: usize,
    /// Why.
    pub errno: Errno,
}

/// An error number of the kernel's, positive (`include/uapi/asm-generic/errno*.h`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Errno(pub i32);

impl Errno {
    /// Not permitted.
    pub const EPERM: Self = Self(nix::libc::EPERM);
    /// No such destination, scheduler or persistence engine.
    pub const ENOENT: Self = Self(nix::libc::ENOENT);
    /// No such service.
    pub const ESRCH: Self = Self(nix::libc::ESRCH);
    /// Out of memory.
    pub const ENOMEM: Self = Self(nix::libc::ENOMEM);
    /// The key is taken.
    pub const EEXIST: Self = Self(nix::libc::EEXIST);
    /// A value that makes no sense.
    pub const EINVAL: Self = Self(nix::libc::EINVAL);
    /// A number out of range.
    pub const ERANGE: Self = Self(nix::libc::ERANGE);
    /// The module is being unloaded.
    pub const ENOPROTOOPT: Self = Self(nix::libc::ENOPROTOOPT);
    /// An address family that this kernel does not do.
    pub const EAFNOSUPPORT: Self = Self(nix::libc::EAFNOSUPPORT);

    /// What it means as the answer to an operation.
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

    /// The answer to an operation in one line, to be put behind the operation's
    /// own name: what happened, and what to do about it where something is
    /// known to help.
    pub fn explain(self, op: &Op) -> String {
        match (self.meaning(op), op) {
            (Meaning::NotPermitted, _) => Error::NotPermitted.to_string(),
            (Meaning::AlreadyGone, _) => format!("{self}: it is gone already"),
            (Meaning::Stale, _) if self == Self::EEXIST => {
                format!("{self}: somebody else has made it meanwhile")
            }
            (Meaning::Stale, _) if self == Self::ENOENT => {
                format!("{self}: the destination is not in the kernel's table")
            }
            (Meaning::Stale, _) => format!("{self}: the service is not in the kernel's table"),
            (Meaning::NotInThisKernel, _) if self == Self::EAFNOSUPPORT => {
                format!("{self}: this kernel's ip_vs does no IPv6, or IPv6 is off")
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

/// What `ip_vs_ctl.c` refuses for this errno. The kernel itself gives no reason:
/// IPVS fills in no extended acknowledgement.
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
            None => "a server of the other address family is reached by TUN alone",
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
        "the address has to be a unicast one, and in a network namespace where no \
         interface was ever up none is",
    )
}

/// The name, and the C library's words: `ESRCH (No such process)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        match errno {
            nix::errno::Errno::UnknownErrno => write!(f, "error {}", self.0),
            _ => write!(f, "{errno:?} ({})", errno.desc()),
        }
    }
}

/// What a refusal means for the one who asked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Meaning {
    /// What was to be deleted does not exist: the wish is fulfilled.
    AlreadyGone,
    /// The kernel's table is not what it was thought to be: read it again and
    /// plan again.
    Stale,
    /// A scheduler, persistence engine or address family that this kernel does
    /// not have. Each further try makes the kernel run modprobe, which takes
    /// tenths of a second: try seldom.
    NotInThisKernel,
    /// Values that the kernel will refuse again.
    Refused,
    /// `CAP_NET_ADMIN` is missing.
    NotPermitted,
    /// Anything else, memory above all: it may work later.
    Transient,
}

/// Why the kernel could not be asked at all. After any of them but
/// [`RepliesLost`](Self::RepliesLost), open another socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no generic netlink family `IPVS`, and asking for it did
    /// not load one.
    #[error(
        "this kernel has no ip_vs: run `modprobe ip_vs` on the host, \
         or install the kernel's package of modules"
    )]
    NoIpvs,
    /// IPVS takes requests only from `CAP_NET_ADMIN` in the initial user
    /// namespace (`netlink_capable`), readings too.
    #[error(
        "not permitted to use ip_vs: CAP_NET_ADMIN is needed, \
         in the host's own user namespace (not in a user namespace's or rootless container's)"
    )]
    NotPermitted,
    /// The receive buffer overflowed (`ENOBUFS`): the operations were done,
    /// but which of them failed is lost. Read the table again. The socket
    /// stays usable.
    #[error("answers of the kernel were lost (ENOBUFS): the table has to be read again")]
    RepliesLost,
    /// No answer came in time.
    #[error("no answer from the kernel within {seconds} s while {doing}")]
    NoAnswer {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The kernel refused a reading.
    #[error("the kernel refused {doing}: {errno}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why.
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
    /// The socket itself failed.
    #[error("while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
