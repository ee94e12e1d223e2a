//! What went wrong with a probe, which side caused it, and the words for it.

use std::{borrow::Cow, io};

use nix::errno::Errno;

use super::tls_failure;

/// How a probe can fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failed {
    /// The server, or a router on the way, answered, but not as it should.
    Answer(String),
    /// The server refused the connection, or the firewall of this host did.
    Refused,
    /// The server did not answer. It must be found out whether this host can
    /// reach anything that way.
    Silence(String),
    /// The cause is on this host: nothing is known about the server.
    Own(Cow<'static, str>),
}

impl Failed {
    /// What this error of a socket to a server means.
    pub(super) fn of(error: &io::Error) -> Self {
        if let Some(words) = tls_failure::in_words(error) {
            return Self::Answer(words);
        }
        let Some(code) = error.raw_os_error() else {
            return Self::Answer(match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                    "connection closed".to_owned()
                }
                io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
                _ => error.to_string(),
            });
        };
        let errno = Errno::from_raw(code);
        if let Some(words) = of_this_host(errno) {
            return Self::Own(words.into());
        }
        match errno {
            Errno::ECONNREFUSED => Self::Refused,
            Errno::ECONNRESET => Self::Answer("connection reset".to_owned()),
            Errno::EPIPE | Errno::ECONNABORTED => Self::Answer("connection closed".to_owned()),
            Errno::EHOSTUNREACH | Errno::EHOSTDOWN => Self::Silence("no route to host".to_owned()),
            Errno::ENETUNREACH => Self::Silence("network unreachable".to_owned()),
            Errno::ETIMEDOUT => Self::Silence("no answer".to_owned()),
            // The kernel's word for a route of type blackhole.
            Errno::EINVAL => Self::Silence("invalid argument".to_owned()),
            other => Self::Answer(other.desc().to_lowercase()),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::of(&error)
    }
}

fn of_this_host(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EMFILE => {
            "no file descriptor is free (EMFILE): raise the agent's limit of open files"
        }
        Errno::ENFILE => "no file descriptor is free on this host (ENFILE): raise fs.file-max",
        Errno::ENOMEM => "the kernel has no memory for a socket (ENOMEM)",
        Errno::ENOBUFS => "the kernel has no room to send (ENOBUFS)",
        Errno::ENOSPC => "no more sockets can be watched (ENOSPC): raise fs.epoll.max_user_watches",
        Errno::EADDRNOTAVAIL => {
            "no local address or port is free (EADDRNOTAVAIL): widen net.ipv4.ip_local_port_range"
        }
        Errno::EPERM | Errno::EACCES => OWN_FIREWALL,
        Errno::ENETDOWN => "an interface is down (ENETDOWN)",
        Errno::EAFNOSUPPORT => "this host has no IPv6 (EAFNOSUPPORT)",
        Errno::EMSGSIZE => "the probe's data does not fit into a packet (EMSGSIZE)",
        _ => return None,
    })
}

/// The firewall refused to let a probe out.
pub(super) const OWN_FIREWALL: &str =
    "this host's own firewall forbids probes (EPERM): let them out to the real servers";
/// A probe ended so late that its result means nothing.
pub(super) const HELD_UP: &str =
    "the agent itself was held up for more than half a timeout: it needs more processor time";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: Errno) -> Failed {
        io::Error::from(errno).into()
    }

    #[test]
    fn what_this_host_lacks_is_not_the_servers_fault() {
        for errno in [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::ENOBUFS,
            Errno::EADDRNOTAVAIL,
            Errno::EPERM,
            Errno::EACCES,
            Errno::ENETDOWN,
        ] {
            let failed = of(errno);
            assert!(matches!(failed, Failed::Own(_)), "{errno}: {failed:?}");
        }
    }

    #[test]
    fn what_comes_from_the_other_end_is() {
        for (errno, words) in [
            (Errno::ECONNRESET, "connection reset"),
            (Errno::EPIPE, "connection closed"),
            (Errno::ENOPROTOOPT, "protocol not available"),
        ] {
            assert_eq!(of(errno), Failed::Answer(words.to_owned()));
        }
    }

    #[test]
    fn silence_is_looked_into() {
        for (errno, words) in [
            (Errno::EHOSTUNREACH, "no route to host"),
            (Errno::ENETUNREACH, "network unreachable"),
            (Errno::ETIMEDOUT, "no answer"),
        ] {
            assert_eq!(of(errno), Failed::Silence(words.to_owned()));
        }
    }
}
