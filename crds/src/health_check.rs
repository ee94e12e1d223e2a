//! What health checks mean: values of these types cannot be wrong.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use regex::bytes::{Regex, RegexBuilder};

/// A checked health check of a virtual service. It is the same for all of its
/// servers; who probes adds the server's address and port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HealthCheck {
    /// What is sent, and what is to come back.
    pub probe: Probe,
    /// The port that is probed; none is each server's own.
    pub port: Option<u16>,
    /// From one probe of a server to the next.
    pub period: Duration,
    /// How long an answer may take; not longer than the period.
    pub timeout: Duration,
    /// So many successes in a row bring a server back; at least 1.
    pub success_threshold: u32,
    /// So many failures in a row put a server out of service; at least 1.
    pub failure_threshold: u32,
}

/// One kind of probe.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Probe {
    /// A GET request.
    Http(HttpProbe),
    /// A connection, and perhaps an exchange over it.
    Tcp {
        /// Sent once it is established; empty is nothing.
        send: String,
        /// To be found in what comes back; empty is nothing.
        expect: String,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that is asked about; empty is the server as a whole.
        service: String,
    },
    /// A datagram.
    Udp {
        /// Its content.
        send: String,
        /// To be found in the answer. Empty: no answer is needed, and only an
        /// ICMP error is a failure.
        expect: String,
    },
    /// A query over UDP.
    Dns(DnsProbe),
    /// An echo request.
    Icmp,
}

/// A GET request, and what counts as a good answer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HttpProbe {
    /// HTTPS, and whom to believe; none is HTTP.
    pub tls: Option<TlsRule>,
    /// The Host header, an IPv6 address in brackets; none is the server's
    /// address and port.
    pub host: Option<String>,
    /// Path and query, from the first slash.
    pub path: String,
    /// More headers: names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// A good answer has a status in one of these; never empty.
    pub statuses: Vec<StatusRange>,
    /// And this in its body.
    pub body: Option<BodyRule>,
}

/// Statuses of HTTP from the first to the last, 100 to 599.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StatusRange {
    /// The first.
    pub first: u16,
    /// The last; not below the first.
    pub last: u16,
}

impl StatusRange {
    /// As a range of the standard library's.
    pub fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

/// What is to be found in a body.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BodyRule {
    /// This text.
    Contains(String),
    /// A match of this regular expression; [`body_pattern`] compiles it.
    Matches(String),
}

/// A pattern whose program is larger than this many bytes would keep whoever
/// probes from everything else.
const LARGEST_PATTERN: usize = 512 << 10;

/// Compiles the pattern of [`BodyRule::Matches`].
///
/// # Errors
/// When it is no regular expression, or one with too large a program.
pub fn body_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(LARGEST_PATTERN)
        .build()
}

/// Whom to believe at the other end of TLS.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TlsRule {
    /// The DNS name or IP address to ask for (SNI) and to find in the
    /// certificate, [`HttpProbe::host`] unless said otherwise; none is the
    /// server's address.
    pub server_name: Option<String>,
    /// The authorities to trust, as DER, at least one, of which
    /// `webpki::anchor_from_trusted_cert` makes trust anchors; none trusts
    /// anybody.
    pub authorities: Option<Arc<[Vec<u8>]>>,
}

/// A query, and what counts as a good answer.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DnsProbe {
    /// The name that is asked for.
    pub name: String,
    /// Its type, by its mnemonic (RFC 1035, section 3.2.2): `A`, `AAAA`, ...
    pub record_type: String,
    /// One record of the answer reads like this: for A and AAAA as
    /// [`std::net::IpAddr`]'s `Display` writes it, else as the user did; none is any
    /// answer without an error.
    pub expect: Option<String>,
}
