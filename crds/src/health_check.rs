//! Health checks, with the defaults filled in. Values of these types are
//! checked and cannot be wrong.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use regex::bytes::{Regex, RegexBuilder};

/// The health check of a virtual service. It is the same for all servers of the
/// service; the prober adds the server's address and port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HealthCheck {
    /// What is sent, and what must come back.
    pub probe: Probe,
    /// The port to probe. None: each server's own port.
    pub port: Option<u16>,
    /// The time from one probe of a server to the next.
    pub period: Duration,
    /// How long an answer may take; at most the period.
    pub timeout: Duration,
    /// How many successes in a row bring a failed server back; at least 1.
    pub success_threshold: u32,
    /// How many failures in a row put a server out of service; at least 1.
    pub failure_threshold: u32,
}

/// The kinds of probes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Probe {
    /// An HTTP GET request.
    Http(HttpProbe),
    /// A TCP connection, and optionally an exchange over it.
    Tcp {
        /// Text to send once the connection is established; may be empty.
        send: String,
        /// Text that the answer must contain; empty if any connection is good.
        expect: String,
    },
    /// A call of `grpc.health.v1.Health/Check`.
    Grpc {
        /// The gRPC service to ask about; empty means the server as a whole.
        service: String,
    },
    /// A UDP datagram, and optionally its answer.
    Udp {
        /// The text of the datagram.
        send: String,
        /// Text that the answer must contain. Empty: no answer is needed, and
        /// only an ICMP error is a failure.
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
    /// With HTTPS, whom to trust. None: plain HTTP.
    pub tls: Option<TlsRule>,
    /// The Host header, with brackets around an IPv6 address. None: the
    /// server's address and port.
    pub host: Option<String>,
    /// Path and query, beginning with a slash.
    pub path: String,
    /// Additional headers: names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The statuses of a good answer; never empty.
    pub statuses: Vec<StatusRange>,
    /// What the body of a good answer must contain, if anything.
    pub body: Option<BodyRule>,
}

/// A range of HTTP statuses, within 100 to 599.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StatusRange {
    /// The first status of the range.
    pub first: u16,
    /// The last status of the range; not below the first.
    pub last: u16,
}

impl StatusRange {
    /// The range as a type of the standard library.
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

/// The largest program, in bytes, that a pattern may compile to. Matching with
/// a larger one would take too long.
const LARGEST_PATTERN: usize = 512 << 10;

/// Compiles the pattern of [`BodyRule::Matches`].
///
/// # Errors
/// When it is not a regular expression, or compiles to a program that is too
/// large.
pub fn body_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(LARGEST_PATTERN)
        .build()
}

/// Whom to trust at the other end of a TLS connection.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TlsRule {
    /// The DNS name or IP address to ask for (SNI), which the certificate must
    /// be for. It defaults to [`HttpProbe::host`]. None: the server's address.
    pub server_name: Option<String>,
    /// The certificates of the trusted authorities as DER, at least one.
    /// `webpki::anchor_from_trusted_cert` accepts each of them. None: any
    /// certificate is trusted.
    pub authorities: Option<Arc<[Vec<u8>]>>,
}

/// A DNS query, and what counts as a good answer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DnsProbe {
    /// The name to ask for.
    pub name: String,
    /// The record type's mnemonic (RFC 1035, section 3.2.2): `A`, `AAAA`, ...
    pub record_type: String,
    /// The record that the answer must contain. For A and AAAA it is written as
    /// [`std::net::IpAddr`]'s `Display` writes it, otherwise as the user wrote
    /// it. None: any answer without an error is good.
    pub expect: Option<String>,
}
