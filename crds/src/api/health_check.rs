use k8s_openapi::ByteString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rule::health_check as rule;
use crate::bounds;

/// How the real servers of a service are checked, in the words of Kubernetes'
/// own probes. Exactly one of the six probes is given. Directors send it to
/// each server's own address, never to the VIP.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule::exactly_one_probe(),
    validation = rule::timeout_within_period()
)]
pub struct HealthCheck {
    /// A GET request over HTTP/1.1. Redirects are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetProbe>,
    /// A TCP connection, and perhaps an exchange of text over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocketProbe>,
    /// The standard health service of gRPC (grpc.health.v1.Health), without
    /// TLS. A server that answers SERVING is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// A UDP datagram. A server that answers with ICMP port unreachable is not
    /// healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpProbe>,
    /// A DNS query over UDP. A server that answers with an error (NXDOMAIN is
    /// one) is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsProbe>,
    /// An ICMP echo request (ping). It shows that the host is up, not that the
    /// server on it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpProbe>,
    /// Seconds from one probe of a server to the next, 1 to 3600.
    #[serde(default = "default_period")]
    #[schemars(range(min = 1, max = bounds::PERIOD_SECONDS))]
    pub period_seconds: i32,
    /// A probe that has no good answer within so many seconds has failed; 1 to
    /// 60, and not above periodSeconds.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = bounds::PROBE_SECONDS))]
    pub timeout_seconds: i32,
    /// So many successes in a row make a failed server healthy again; 1 to 10.
    /// A new one needs only its first.
    #[serde(default = "default_success_threshold")]
    #[schemars(range(min = 1, max = bounds::THRESHOLD))]
    pub success_threshold: i32,
    /// So many failures in a row make a server a failed one; 1 to 10.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = bounds::THRESHOLD))]
    pub failure_threshold: i32,
}

fn default_period() -> i32 {
    5
}

fn default_timeout() -> i32 {
    2
}

fn default_success_threshold() -> i32 {
    2
}

fn default_failure_threshold() -> i32 {
    3
}

/// A GET request, and what counts as a good answer to it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::tls_with_https())]
pub struct HttpGetProbe {
    /// Path and query, from the first slash: /healthz or /status?deep=1. What
    /// a URL cannot hold is percent-encoded.
    #[serde(default = "default_path")]
    #[schemars(length(max = bounds::PATH))]
    #[x_kube(validation = rule::path())]
    pub path: String,
    /// 1 to 65535; each real server's own port when absent. Needed where the
    /// service has no port of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// HTTP, or HTTPS, which needs tls.
    #[serde(default)]
    pub scheme: HttpScheme,
    /// The Host header: a DNS name, or an IP address without brackets. The
    /// server's own address and port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::host())]
    pub host: Option<String>,
    /// More headers of the request, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::HEADERS))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub http_headers: Vec<HttpHeader>,
    /// A good answer has one of these statuses: "204", or a range such as
    /// "200-299"; 1 to 16 of them, from 100 to 599.
    #[serde(default = "default_statuses")]
    #[schemars(schema_with = "expected_statuses")]
    pub expected_statuses: Vec<String>,
    /// And this in the first 64 KiB of its body. When absent, the body is not
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_body: Option<ExpectedBody>,
    /// Whom to believe at the other end. Needed with scheme HTTPS, and refused
    /// with HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProbeTls>,
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_statuses() -> Vec<String> {
    vec!["200-299".to_owned()]
}

fn expected_statuses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": bounds::STATUSES,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "maxLength": 7,
            "x-kubernetes-validations": [rule::status_range()],
        },
    })
}

/// With or without TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum HttpScheme {
    /// Without.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// With.
    #[serde(rename = "HTTPS")]
    Https,
}

/// A header of a request.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpHeader {
    /// Its name, in any case; not Host (write host instead), and none that
    /// frames the message: Connection, Content-Length, Transfer-Encoding.
    #[schemars(length(max = bounds::HEADER_NAME))]
    #[x_kube(validation = rule::header_name(), validation = rule::header_allowed())]
    pub name: String,
    /// Its value: ASCII without control characters, at most 4096.
    #[schemars(length(max = bounds::HEADER_VALUE))]
    #[x_kube(validation = rule::header_value())]
    pub value: String,
}

/// What a body is to hold. Exactly one of the two is given.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::contains_or_matches())]
pub struct ExpectedBody {
    /// This text, letter by letter; 1 to 4096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub contains: Option<String>,
    /// A match of this regular expression, anywhere unless ^ and $ say
    /// otherwise; 1 to 1024 characters. The syntax is that of Rust's crate
    /// regex, as far as Go's RE2 has it too: no look-around, no
    /// back-references, no \Q...\E, no repetition above 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::PATTERN))]
    #[x_kube(validation = rule::pattern())]
    pub matches: Option<String>,
}

/// Whom to believe at the other end of TLS. Exactly one of caBundle and
/// insecureSkipVerify: true is given.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::trust())]
pub struct ProbeTls {
    /// The name that is asked for (SNI) and that the certificate has to be for:
    /// a DNS name or an IP address. When absent, httpGet's host; without that,
    /// the server's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::host())]
    pub server_name: Option<String>,
    /// The certificates of the authorities to trust, as PEM in base64, which
    /// is at most 128 KiB long. No others are trusted, not even the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_bundle")]
    pub ca_bundle: Option<ByteString>,
    /// Believe anybody: an expired certificate, one of another name, one that
    /// nobody signed.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

fn ca_bundle(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "byte",
        "maxLength": bounds::CA_BUNDLE_BASE64,
        "x-kubernetes-validations": [rule::pem()],
    })
}

/// A TCP connection, and perhaps an exchange of text over it. In YAML, text in
/// double quotes knows \r and \n.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocketProbe {
    /// 1 to 65535; each real server's own port when absent. Needed where the
    /// service has no port of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// Sent once the connection is established; 1 to 4096 characters. Nothing
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub send: Option<String>,
    /// To be found in what the server sends; 1 to 4096 characters. When
    /// absent, an established connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub expect: Option<String>,
}

/// A call of grpc.health.v1.Health/Check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcProbe {
    /// 1 to 65535; each real server's own port when absent. Needed where the
    /// service has no port of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The name of the gRPC service that is asked about; 1 to 256 characters.
    /// The server as a whole when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRPC_SERVICE))]
    pub service: Option<String>,
}

/// A UDP datagram, and perhaps its answer.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpProbe {
    /// 1 to 65535; each real server's own port when absent. Needed where the
    /// service has no port of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// What the datagram holds; 1 to 4096 characters.
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub send: String,
    /// To be found in the answer; 1 to 4096 characters. When absent, any answer
    /// is good and none is needed: only an ICMP error is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub expect: Option<String>,
}

/// A DNS query over UDP, and what counts as a good answer.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::answer_of_the_type())]
pub struct DnsProbe {
    /// 1 to 65535; each real server's own port when absent. Needed where the
    /// service has no port of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The name that is asked for, from the root of DNS; no search list is
    /// tried.
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::dns_name())]
    pub name: String,
    /// The type of record that is asked for.
    #[serde(default, rename = "type")]
    pub record_type: DnsRecordType,
    /// One record of the answer is this: an address for A and AAAA, else as
    /// dig prints it. Any answer without an error when absent. At most 1024
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::DNS_ANSWER))]
    pub expected_answer: Option<String>,
}

/// The types of DNS records that can be asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecordType {
    /// An IPv4 address.
    #[default]
    A,
    /// An IPv6 address.
    Aaaa,
    /// The name that this one stands for.
    Cname,
    /// A mail server.
    Mx,
    /// A name server.
    Ns,
    /// The name of an address.
    Ptr,
    /// The start of a zone.
    Soa,
    /// The place of a service.
    Srv,
    /// Text.
    Txt,
}

impl DnsRecordType {
    /// Its mnemonic (RFC 1035, section 3.2.2).
    pub fn mnemonic(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Soa => "SOA",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }
}

/// An ICMP echo request. It has no options: write icmp: {}.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct IcmpProbe {}
