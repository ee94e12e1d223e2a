//! CEL rules of health checks.

use kube::core::Rule;

use super::rule;

/// CEL rule for a health check: exactly one probe is given.
pub(in crate::api) fn exactly_one_probe() -> Rule {
    rule(
        "[has(self.httpGet), has(self.tcpSocket), has(self.grpc), has(self.udp), has(self.dns), \
         has(self.icmp)].filter(given, given).size() == 1",
        "a check is one probe; write exactly one of httpGet, tcpSocket, grpc, udp, dns and icmp",
    )
}

/// CEL rule for a health check: timeoutSeconds is at most periodSeconds.
pub(in crate::api) fn timeout_within_period() -> Rule {
    rule(
        "self.timeoutSeconds <= self.periodSeconds",
        "is above periodSeconds; write 1 to periodSeconds, or a longer periodSeconds",
    )
    .field_path(".timeoutSeconds")
}

/// CEL rule for a VirtualService's spec: a probe other than icmp names its port
/// if the service has a firewall mark or port 0.
pub(in crate::api) fn port_to_probe() -> Rule {
    rule(
        "!has(self.healthCheck) || (has(self.vip) && self.vip.port != 0) || \
         has(self.healthCheck.icmp) || (has(self.healthCheck.httpGet) && \
         has(self.healthCheck.httpGet.port)) || (has(self.healthCheck.tcpSocket) && \
         has(self.healthCheck.tcpSocket.port)) || (has(self.healthCheck.grpc) && \
         has(self.healthCheck.grpc.port)) || (has(self.healthCheck.udp) && \
         has(self.healthCheck.udp.port)) || (has(self.healthCheck.dns) && \
         has(self.healthCheck.dns.port))",
        "the service has no port of its own that could be probed; write the probe's port",
    )
    .field_path(".healthCheck")
}

/// CEL rule for an httpGet probe: scheme HTTPS has tls, and scheme HTTP has
/// none.
pub(in crate::api) fn tls_with_https() -> Rule {
    rule(
        "has(self.tls) == (self.scheme == 'HTTPS')",
        "scheme HTTPS needs tls with caBundle or insecureSkipVerify: true, and HTTP has none; \
         write it, leave it out, or set the other scheme",
    )
    .field_path(".tls")
}

/// CEL rule for a string: the string is a path with an optional query (RFC
/// 3986, sections 3.3 and 3.4).
pub(in crate::api) fn path() -> Rule {
    rule(
        r"self.matches('^/[-A-Za-z0-9._~!$&\'()*+,;=:@%/?]*$')",
        "is not a path; write one from its first slash, such as /healthz, and percent-encode what \
         a URL cannot hold: a space is %20",
    )
}

/// CEL rule for a string: the string is a DNS name that a certificate can
/// contain, or an IP address.
pub(in crate::api) fn host() -> Rule {
    rule(
        r"isIP(self) || (self.matches('^[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?(\\.[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?)*$') && !self.matches('(^|\\.)[0-9]+$'))",
        "is neither a DNS name nor an IP address; write one such as shop.example or 192.0.2.10, \
         without port, brackets or final dot",
    )
}

/// CEL rule for a string: the string is a header's name, a token (RFC 9110,
/// section 5.6.2).
pub(in crate::api) fn header_name() -> Rule {
    rule(
        r"self.matches('^[-!#$%&\'*+.^_`|~A-Za-z0-9]+$')",
        "is not the name of a header; write one such as X-Probe: letters, digits and '-'",
    )
}

/// CEL rule for a string: the string is not the name of a header that the probe
/// writes itself.
pub(in crate::api) fn header_allowed() -> Rule {
    rule(
        "!(self.lowerAscii() in ['host', 'connection', 'content-length', 'transfer-encoding'])",
        "is written by the probe itself; leave it out, and write httpGet's host instead of a Host \
         header",
    )
}

/// CEL rule for a string: the string can be the value of a header.
pub(in crate::api) fn header_value() -> Rule {
    rule(
        "self.matches('^[ -~]*$')",
        "cannot be the value of a header; write ASCII without control characters",
    )
}

/// CEL rule for a string: the string is an HTTP status or a range of statuses.
pub(in crate::api) fn status_range() -> Rule {
    rule(
        "self.matches('^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$') && (self.size() == 3 || \
         self.substring(0, 3) <= self.substring(4))",
        "is not a range of HTTP statuses; write one such as \"204\" or \"200-299\", from 100 to \
         599, the lower one first",
    )
}

/// CEL rule for an expected body: exactly one of contains and matches is given.
pub(in crate::api) fn contains_or_matches() -> Rule {
    rule(
        "has(self.contains) != has(self.matches)",
        "contains and matches exclude each other, and one is needed; write exactly one of them",
    )
}

/// CEL rule for a string: the string is a regular expression. If the string
/// does not compile, the CEL expression fails, and the API server refuses the
/// object. The expression uses `in`, because `||` would drop the compile error.
pub(in crate::api) fn pattern() -> Rule {
    rule(
        "''.matches(self) in [true, false]",
        "is not a regular expression; mind that YAML takes a backslash in double quotes for its \
         own, and has single quotes for text as it is",
    )
}

/// CEL rule for a probe's tls: exactly one of caBundle and insecureSkipVerify
/// is used.
pub(in crate::api) fn trust() -> Rule {
    rule(
        "has(self.caBundle) != self.insecureSkipVerify",
        "write exactly one of caBundle and insecureSkipVerify: true, which say whom to trust",
    )
    .field_path(".caBundle")
}

/// CEL rule for a base64 string, which CEL sees as bytes: the bytes contain a
/// PEM certificate. CEL cannot check whether the certificates are readable.
pub(in crate::api) fn pem() -> Rule {
    rule(
        "string(self).contains('-----BEGIN CERTIFICATE-----')",
        "has no certificate; write PEM in base64, as `base64 -w 0 ca.pem` prints it",
    )
}

/// CEL rule for a string: the string is a name for a DNS query (RFC 1035,
/// section 2.3.1, with the underscores of RFC 8552).
pub(in crate::api) fn dns_name() -> Rule {
    rule(
        r"self.matches('^(\\.|[_A-Za-z0-9][-_A-Za-z0-9]{0,62}(\\.[_A-Za-z0-9][-_A-Za-z0-9]{0,62})*\\.?)$')",
        "is not a DNS name; write one such as www.example.com, of labels of 1 to 63 letters, \
         digits, '_' and, not first, '-'; international ones as xn--",
    )
}

/// CEL rule for a dns probe: with type A or AAAA, the expected answer is an
/// address of this type.
pub(in crate::api) fn answer_of_the_type() -> Rule {
    rule(
        "!has(self.expectedAnswer) || !(self.type in ['A', 'AAAA']) || (isIP(self.expectedAnswer) \
         && ip(self.expectedAnswer).family() == (self.type == 'A' ? 4 : 6))",
        "is not an address of the type; write an IPv4 address for A and an IPv6 address for AAAA",
    )
    .field_path(".expectedAnswer")
}
