use k8s_openapi::ByteString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rule::health_check as rule;
use crate::bounds;

/// How the real servers of a service are checked. The fields resemble those of
/// Kubernetes' own probes. Exactly one of the six probes must be given.
/// Directors send the probe to each server's own address, never to the VIP.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule::exactly_one_probe(),
    validation = rule::timeout_within_period()
)]
pub struct HealthCheck {
    /// A GET request over HTTP/1.1. The probe does not follow redirects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetProbe>,
    /// A TCP connection, and optionally an exchange of text over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocketProbe>,
    /// A call to gRPC's standard health service (grpc.health.v1.Health),
    /// without TLS. A server that answers SERVING is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// A UDP datagram. A server that answers with ICMP port unreachable is not
    /// healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpProbe>,
    /// A DNS query over UDP. A server that answers with an error (such as
    /// NXDOMAIN) is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsProbe>,
    /// An ICMP echo request (ping). A reply shows that the host is up, but not
    /// that the server on the host works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpProbe>,
    /// Seconds from one probe of a server to the next, 1 to 3600. Defaults to
    /// 5.
    #[serde(default = "default_period")]
    #[schemars(range(min = 1, max = bounds::PERIOD_SECONDS))]
    pub period_seconds: i32,
    /// How many seconds a probe waits for a good answer before it fails; 1 to
    /// 60, and at most periodSeconds. Defaults to 2.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = bounds::PROBE_SECONDS))]
    pub timeout_seconds: i32,
    /// How many successful probes in a row make a failed server healthy again;
    /// 1 to 10. A new server needs only one successful probe. Defaults to 2.
    #[serde(default = "default_success_threshold")]
    #[schemars(range(min = 1, max = bounds::THRESHOLD))]
    pub success_threshold: i32,
    /// How many failed probes in a row make a healthy server unhealthy; 1 to
    /// 10. Defaults to 3.
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
    /// The path and query of the request, beginning with a slash: /healthz or
    /// /status?deep=1. Characters that are not allowed in a URL must be
    /// percent-encoded. Defaults to /.
    #[serde(default = "default_path")]
    #[schemars(length(max = bounds::PATH))]
    #[x_kube(validation = rule::path())]
    pub path: String,
    /// The port to probe, 1 to 65535. The default port is each real server's
    /// own port. The port is required if the service has a firewall mark or
    /// port 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The scheme of the request: HTTP or HTTPS. The scheme HTTPS requires the
    /// field tls. Defaults to HTTP.
    #[serde(default)]
    pub scheme: HttpScheme,
    /// The value of the Host header: a DNS name, or an IP address without
    /// brackets. By default, the Host header is the server's own address and
    /// port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::host())]
    pub host: Option<String>,
    /// Additional headers of the request, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::HEADERS))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub http_headers: Vec<HttpHeader>,
    /// The statuses of a good answer: 1 to 16 statuses such as "204" or ranges
    /// such as "200-299", from 100 to 599. Defaults to 200-299.
    #[serde(default = "default_statuses")]
    #[schemars(schema_with = "expected_statuses")]
    pub expected_statuses: Vec<String>,
    /// A test that the body of a good answer must pass. With contains, the
    /// probe tests the first 64 KiB of the body. With matches, the probe tests
    /// the first 16 KiB. Without expectedBody, the probe does not read the
    /// body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_body: Option<ExpectedBody>,
    /// How the server's certificate is verified. tls is required with scheme
    /// HTTPS, and not allowed with HTTP.
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

/// Whether a request is made over TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum HttpScheme {
    /// The request is made over plain TCP.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// The request is made over TLS.
    #[serde(rename = "HTTPS")]
    Https,
}

/// A header of an HTTP request.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpHeader {
    /// The header's name, in upper or lower case. The header Host is not
    /// allowed; use the field host instead. The headers that frame the message
    /// are not allowed either: Connection, Content-Length, Transfer-Encoding.
    #[schemars(length(max = bounds::HEADER_NAME))]
    #[x_kube(validation = rule::header_name(), validation = rule::header_allowed())]
    pub name: String,
    /// The header's value: at most 4096 ASCII characters without control
    /// characters.
    #[schemars(length(max = bounds::HEADER_VALUE))]
    #[x_kube(validation = rule::header_value())]
    pub value: String,
}

/// A test that the body of a good answer must pass. Exactly one of contains and
/// matches must be given.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::contains_or_matches())]
pub struct ExpectedBody {
    /// Text that the body must contain, literally; 1 to 4096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub contains: Option<String>,
    /// A regular expression of 1 to 1024 characters that must match a part of
    /// the body. To match the whole body, use ^ and $. The syntax is the common
    /// part of Rust's crate regex and Go's RE2: no look-around, no
    /// back-references, no \Q...\E, no repetition above 1000. The compiled
    /// expression may have at most 16 KiB. The compiled forms of [0-9] and
    /// [0-9A-Za-z_] are smaller than those of \d and \w.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::PATTERN))]
    #[x_kube(validation = rule::pattern())]
    pub matches: Option<String>,
}

/// How the server's certificate is verified. Exactly one of caBundle and
/// insecureSkipVerify: true must be given.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::trust())]
pub struct ProbeTls {
    /// The name by which TLS identifies the server: a DNS name or an IP
    /// address. The probe asks for this name (SNI), and the server's
    /// certificate must be valid for this name. The default name is httpGet's
    /// host, or else the server's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::host())]
    pub server_name: Option<String>,
    /// The certificates of the trusted authorities: PEM, encoded as at most 128
    /// KiB of base64. Other authorities are not trusted, even if the system
    /// trusts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_bundle")]
    pub ca_bundle: Option<ByteString>,
    /// Trust every certificate, even one that is expired, is for another name,
    /// or is signed by an unknown authority. Defaults to false.
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

/// A TCP connection, and optionally an exchange of text over it. In YAML, write
/// \r and \n in double quotes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocketProbe {
    /// The port to probe, 1 to 65535. The default port is each real server's
    /// own port. The port is required if the service has a firewall mark or
    /// port 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// Text to send once the connection is established; 1 to 4096 characters.
    /// By default, the probe sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub send: Option<String>,
    /// Text that the server's answer must contain; 1 to 4096 characters. By
    /// default, an established connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub expect: Option<String>,
}

/// A call to the gRPC method grpc.health.v1.Health/Check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcProbe {
    /// The port to probe, 1 to 65535. The default port is each real server's
    /// own port. The port is required if the service has a firewall mark or
    /// port 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The name of the gRPC service to ask about; 1 to 256 characters. By
    /// default, the probe asks about the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRPC_SERVICE))]
    pub service: Option<String>,
}

/// A UDP datagram, and optionally the answer that it must get.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpProbe {
    /// The port to probe, 1 to 65535. The default port is each real server's
    /// own port. The port is required if the service has a firewall mark or
    /// port 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The text of the datagram; 1 to 4096 characters.
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub send: String,
    /// Text that the answer must contain; 1 to 4096 characters. By default, the
    /// probe needs no answer, and fails only on an ICMP error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::TEXT))]
    pub expect: Option<String>,
}

/// A DNS query over UDP, and what counts as a good answer.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::answer_of_the_type())]
pub struct DnsProbe {
    /// The port to probe, 1 to 65535. The default port is each real server's
    /// own port. The port is required if the service has a firewall mark or
    /// port 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The full DNS name to query: no search list is used.
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::dns_name())]
    pub name: String,
    /// The type of the DNS record to query. Defaults to A.
    #[serde(default, rename = "type")]
    pub record_type: DnsRecordType,
    /// A record that the answer must contain, of at most 1024 characters. For A
    /// and AAAA, write an address; for other types, write the record as dig
    /// prints it. By default, any answer without an error is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::DNS_ANSWER))]
    pub expected_answer: Option<String>,
}

/// The types of DNS records that a probe can ask for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecordType {
    /// Record type A: an IPv4 address.
    #[default]
    A,
    /// Record type AAAA: an IPv6 address.
    Aaaa,
    /// Record type CNAME: the canonical name that the queried alias stands for.
    Cname,
    /// Record type MX: a mail server of the name.
    Mx,
    /// Record type NS: a name server of the zone.
    Ns,
    /// Record type PTR: the name of an address, for reverse lookups.
    Ptr,
    /// Record type SOA: the start of a zone of authority.
    Soa,
    /// Record type SRV: the location of a service.
    Srv,
    /// Record type TXT: a text.
    Txt,
}

impl DnsRecordType {
    /// Returns the record type's mnemonic (RFC 1035, section 3.2.2).
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

/// An ICMP echo request (ping). The probe has no options: write icmp: {}.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct IcmpProbe {}
