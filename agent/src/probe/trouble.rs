//! Classifies probe failures by their cause, the server or this host, and
//! describes the failures in words.

use std::{borrow::Cow, io};

use nix::errno::Errno;

use super::{bounded, tls_failure, words::Words};

/// The ways in which a probe can fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failed {
    /// The server, or a router on the way to it, gave a wrong answer.
    Answer(Words),
    /// The server or this host's firewall refused the connection.
    Refused,
    /// The server did not answer. The caller must check whether this host has a
    /// working route to the server.
    Silence(String),
    /// The cause of the failure is on this host, so the failure does not count
    /// for the server.
    Own(Cow<'static, str>),
}

impl Failed {
    /// Returns the failure of a server that gave a wrong answer.
    pub(super) fn answer(words: impl Into<Words>) -> Self {
        Self::Answer(words.into())
    }

    /// Classifies an error of a socket to a server.
    pub(super) fn of(error: &io::Error) -> Self {
        if let Some(words) = tls_failure::in_words(error) {
            return Self::Answer(words);
        }
        let Some(code) = error.raw_os_error() else {
            return Self::Answer(match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                    "connection closed".into()
                }
                io::ErrorKind::ConnectionReset => "connection reset".into(),
                _ => match bounded::in_words(error) {
                    Some(words) => words.into(),
                    None => Words::quoting("the answer is not valid", error.to_string()),
                },
            });
        };
        let errno = Errno::from_raw(code);
        if let Some(words) = of_this_host(errno) {
            return Self::Own(words.into());
        }
        match errno {
            Errno::ECONNREFUSED => Self::Refused,
            Errno::ECONNRESET => Self::answer("connection reset"),
            Errno::EPIPE | Errno::ECONNABORTED => Self::answer("connection closed"),
            Errno::EHOSTUNREACH | Errno::EHOSTDOWN => Self::Silence("no route to host".to_owned()),
            Errno::ENETUNREACH => Self::Silence("network unreachable".to_owned()),
            Errno::ETIMEDOUT => Self::Silence("no answer".to_owned()),
            // The kernel returns EINVAL if the route has the type blackhole.
            // Because the result is `Silence`, the caller checks the route.
            Errno::EINVAL => Self::Silence("invalid argument".to_owned()),
            other => Self::answer(other.desc().to_lowercase()),
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

/// The reason for a void probe when this host's firewall blocks the probe.
pub(super) const OWN_FIREWALL: &str =
    "this host's own firewall forbids probes (EPERM): allow outgoing packets to the real servers";
/// The reason for a void probe that ended late because the agent could not run.
pub(super) const HELD_UP: &str =
    "the agent itself could not run for more than half a timeout: give it more processor time";

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
            assert_eq!(of(errno), Failed::answer(words));
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
