//! Health checks, with the defaults filled in. The values in this module have
//! been checked and are always valid.

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use regex::bytes::{Regex, RegexBuilder};

/// The health check of a virtual service. The check is the same for all servers
/// of the service; the prober adds the server's address and port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HealthCheck {
    /// What the probe sends, and which answer is good.
    pub probe: Probe,
    /// The port to probe. A port of None means each real server's own port.
    pub port: Option<u16>,
    /// The time from one probe of a server to the next.
    pub period: Duration,
    /// How long a probe's answer may take; at most the period.
    pub timeout: Duration,
    /// How many successful probes in a row make a failed server healthy again;
    /// at least 1.
    pub success_threshold: u32,
    /// How many failed probes in a row make a healthy server unhealthy; at
    /// least 1.
    pub failure_threshold: u32,
}

impl HealthCheck {
    /// Returns the address and port to which the probes of a server go. ICMP
    /// has no ports, so the port of an ICMP probe is 0.
    pub fn target(&self, server: SocketAddr) -> SocketAddr {
        let port = match self.probe {
            Probe::Icmp => 0,
            _ => self.port.unwrap_or(server.port()),
        };
        SocketAddr::new(server.ip(), port)
    }
}

/// The kinds of probes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Probe {
    /// An HTTP GET request.
    Http(HttpProbe),
    /// A TCP connection, and optionally an exchange of text over it.
    Tcp {
        /// The text that the probe sends once the connection is established;
        /// empty if the probe sends nothing.
        send: String,
        /// The text that the answer must contain; empty if an established
        /// connection is enough.
        expect: String,
    },
    /// A call to the gRPC method `grpc.health.v1.Health/Check`.
    Grpc {
        /// The gRPC service to ask about; empty means the server as a whole.
        service: String,
    },
    /// A UDP datagram, and optionally the answer that it must get.
    Udp {
        /// The text that the datagram carries.
        send: String,
        /// The text that the answer must contain. If the expected text is
        /// empty, no answer is needed, and only an ICMP error is a failure.
        expect: String,
    },
    /// A DNS query over UDP.
    Dns(DnsProbe),
    /// An ICMP echo request.
    Icmp,
}

/// An HTTP GET request, and what counts as a good answer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HttpProbe {
    /// How the probe verifies the server's certificate. With a `tls` of None,
    /// the probe uses plain HTTP.
    pub tls: Option<TlsRule>,
    /// The value of the Host header, with brackets around an IPv6 address. With
    /// a `host` of None, the Host header is the server's address and port.
    pub host: Option<String>,
    /// The path and query of the request, beginning with a slash.
    pub path: String,
    /// Additional headers as (name, value), with the names in lower case.
    pub headers: Vec<(String, String)>,
    /// The statuses of a good answer; never empty.
    pub statuses: Vec<StatusRange>,
    /// What the body of a good answer must contain. With a `body` of None, any
    /// body is good.
    pub body: Option<BodyRule>,
}

/// A range of HTTP statuses, within 100 to 599.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StatusRange {
    /// The first status of the range.
    pub first: u16,
    /// The last status of the range, which is at least the first.
    pub last: u16,
}

impl StatusRange {
    /// Returns the range as a [`RangeInclusive`].
    pub fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// What the body of a good answer must contain.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BodyRule {
    /// The body must contain this text, literally.
    Contains(String),
    /// The body must contain a match of this regular expression, which
    /// [`body_pattern`] compiles.
    Matches(String),
}

/// The largest size, in bytes, of a compiled pattern. A match may take longer
/// if the compiled pattern is larger.
const LARGEST_PATTERN: usize = 16 << 10;
/// The largest size, in bytes, of a pattern's cache, which holds states of the
/// matcher. Without this limit, the cache of each pattern in use could grow to
/// 2 MiB.
const LARGEST_CACHE: usize = 64 << 10;

/// Compiles the pattern of [`BodyRule::Matches`].
///
/// # Errors
/// Fails if the pattern is not a regular expression, or compiles to a program
/// that is too large.
pub fn body_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(LARGEST_PATTERN)
        .dfa_size_limit(LARGEST_CACHE)
        .build()
}

/// How the certificate of a TLS server is verified.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TlsRule {
    /// The name of the server in TLS: a DNS name or an IP address. The probe
    /// asks for this name (SNI), and the certificate must be valid for this
    /// name. By default, the probe asks for [`HttpProbe::host`], or for the
    /// server's address if there is no host.
    pub server_name: Option<String>,
    /// The certificates of the trusted authorities as DER, at least one.
    /// `webpki::anchor_from_trusted_cert` accepts each certificate. With
    /// `authorities` of None, the probe trusts any certificate.
    pub authorities: Option<Arc<[Vec<u8>]>>,
}

/// A DNS query, and what counts as a good answer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DnsProbe {
    /// The full DNS name to query.
    pub name: String,
    /// The record type's mnemonic (RFC 1035, section 3.2.2): `A`, `AAAA`, ...
    pub record_type: String,
    /// The record that the answer must contain. An IP address (for A and AAAA)
    /// is written as [`std::net::IpAddr`]'s `Display` writes it. Other records
    /// are written as the user wrote them. With an `expect` of None, any answer
    /// without an error is good.
    pub expect: Option<String>,
}
