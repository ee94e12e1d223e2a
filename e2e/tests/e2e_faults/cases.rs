//! The fault table of the health-check tests. Each case consists of a server's
//! fault, a health check and a message. The health check must notice the fault,
//! and the Director must report the message.

use std::time::Duration;

use crds::api::UnhealthyState;
use e2e::fault::Behaviour::{
    self, ByTurns, EndlessBody, EndlessHead, Error, RedirectLoop, Silent, WrongBody,
};

/// A case of the fault table: a fault, the health check, and the expected
/// message.
pub(crate) struct Case {
    /// The name of the case's Kubernetes objects.
    pub(crate) name: &'static str,
    pub(crate) speaks: Speaks,
    /// The probe of the health check as YAML, with `CA` in place of the
    /// certificate authority's certificate.
    pub(crate) probe: &'static str,
    /// The health check's period in seconds, which is twice the timeout. A
    /// probe therefore fails before the next probe begins, and the test can
    /// count the probes.
    pub(crate) period: u8,
    pub(crate) fault: Fault,
    pub(crate) state: UnhealthyState,
    /// The messages that the Director may report for the fault.
    pub(crate) words: [&'static str; 2],
}

/// The protocol that the servers of a case speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Speaks {
    Http,
    Https,
    Dns,
    Echo,
}

/// The faults that a server can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The server's program ends, and its host reports a closed port to
    /// clients.
    Stopped,
    /// The link of the server's host goes down, as if its cable was pulled out.
    PoweredOff,
    /// All packets that the server sends are lost on the way.
    RepliesDropped,
    Behaves(Behaviour),
    /// The server presents a certificate for another host name.
    OthersCertificate,
    ExpiredCertificate,
    /// The server presents a certificate that an unknown authority signed.
    StrangersCertificate,
}

const HTTP: &str = "httpGet: {path: /healthz}";
const BODY: &str = "httpGet: {path: /healthz, expectedBody: {contains: served by}}";
const HTTPS: &str =
    "httpGet: {path: /healthz, scheme: HTTPS, tls: {serverName: shop.example, caBundle: CA}}";
const TCP: &str = "tcpSocket: {}";
const UDP: &str = "udp: {send: ping, expect: ping}";
const DNS: &str = "dns: {name: shop.example, expectedAnswer: 192.0.2.1}";
const ICMP: &str = "icmp: {}";

const LATE: Behaviour = Behaviour::Late(Duration::from_secs(3));
const SERVFAIL: Behaviour = Error(2);
const NAME: Fault = Fault::OthersCertificate;
const EXPIRED: Fault = Fault::ExpiredCertificate;
const UNKNOWN: Fault = Fault::StrangersCertificate;

/// All cases of the fault table. Each case has its own port. If a case takes a
/// host's link down, the case also has its own host.
pub(crate) const CASES: [Case; 20] = [
    http("stopped", TCP, Fault::Stopped).says("connection refused"),
    // The kernel reports "no route to host" if its ARP requests get no answer.
    http("powered-off", TCP, Fault::PoweredOff)
        .says("no answer in 1 s")
        .or("no route to host"),
    http("powered-off-icmp", ICMP, Fault::PoweredOff)
        .says("no answer in 1 s")
        .or("no route to host"),
    http("replies-dropped", TCP, Fault::RepliesDropped).says("no answer in 1 s"),
    http("never-answers", HTTP, behaves(Silent)).says("connected, and no answer in 1 s"),
    http("answers-late", HTTP, behaves(LATE)).says("connected, and no answer in 1 s"),
    http("http-500", HTTP, behaves(Error(500))).says("HTTP 500, expected 200-299"),
    http("wrong-body", BODY, behaves(WrongBody)).says("the body does not contain \"served by\""),
    http("redirect-loop", HTTP, behaves(RedirectLoop)).says("HTTP 302, expected 200-299"),
    http("endless-body", BODY, behaves(EndlessBody))
        .says("the first 65536 bytes of the body do not contain \"served by\""),
    http("endless-head", HTTP, behaves(EndlessHead))
        .says("headers longer than 16384 bytes, or more than 256"),
    Case {
        state: UnhealthyState::Flapping,
        period: 1,
        ..http("flapping", HTTP, behaves(ByTurns)).says("HTTP 503, expected 200-299")
    },
    https("another-name", NAME).says("certificate: not valid for name shop.example"),
    https("expired", EXPIRED).says("certificate: expired on 2021-01-01"),
    https("no-authority", UNKNOWN).says("certificate: unknown issuer"),
    https("tls-silent", behaves(Silent)).says("connected, and no answer in 1 s"),
    dns("servfail", behaves(SERVFAIL)).says("DNS SERVFAIL"),
    dns("dns-silent", behaves(Silent)).says("no answer in 1 s"),
    udp("udp-closed", Fault::Stopped).says("port unreachable (ICMP)"),
    udp("udp-silent", behaves(Silent)).says("no answer in 1 s"),
];

impl Case {
    /// Returns whether the case's services and servers use UDP.
    pub(crate) fn is_udp(&self) -> bool {
        matches!(self.speaks, Speaks::Dns | Speaks::Echo)
    }

    const fn says(self, words: &'static str) -> Self {
        Self {
            words: [words, words],
            ..self
        }
    }

    const fn or(self, words: &'static str) -> Self {
        Self {
            words: [self.words[0], words],
            ..self
        }
    }
}

const fn http(name: &'static str, probe: &'static str, fault: Fault) -> Case {
    case(name, Speaks::Http, probe, fault)
}

const fn https(name: &'static str, fault: Fault) -> Case {
    case(name, Speaks::Https, HTTPS, fault)
}

const fn dns(name: &'static str, fault: Fault) -> Case {
    case(name, Speaks::Dns, DNS, fault)
}

const fn udp(name: &'static str, fault: Fault) -> Case {
    case(name, Speaks::Echo, UDP, fault)
}

const fn case(name: &'static str, speaks: Speaks, probe: &'static str, fault: Fault) -> Case {
    Case {
        name,
        speaks,
        probe,
        period: 2,
        fault,
        state: UnhealthyState::Down,
        words: [""; 2],
    }
}

const fn behaves(behaviour: Behaviour) -> Fault {
    Fault::Behaves(behaviour)
}
