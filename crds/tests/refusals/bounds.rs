//! Tests the maximum lengths of the fields of a health check. A value of the
//! maximum length is accepted, and a longer value is refused.

use serde_json::{Value, json};

use crate::{AUTHORITY, base64, refusal, schema::Admission};

/// Returns a service with the health check `check`.
fn checked(check: &Value) -> Value {
    json!({
        "apiVersion": "ipvs.dev/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "vip": {"address": "192.0.2.10", "port": 80},
            "realServerSelector": {"matchLabels": {"app": "web"}},
            "healthCheck": check,
        },
    })
}

/// Returns a DNS name of the given length, in labels of 60 characters.
fn dns_name(length: usize) -> String {
    let labels = format!("{}.", "a".repeat(60)).repeat(length / 61 + 1);
    format!("{}b", &labels[..length - 1])
}

/// Returns a PEM bundle in base64, with a comment and a certificate. The base64
/// text has the given length.
fn bundle(length: usize) -> String {
    let comment = "#".repeat(length / 4 * 3 - AUTHORITY.len() - 1);
    base64(&format!("{comment}\n{AUTHORITY}"))
}

/// A field, the maximum length of its value, and a function. The function
/// returns a health check in which the field's value has the given length.
type Bound = (&'static str, usize, fn(usize) -> Value);

const BOUNDS: [Bound; 17] = [
    (
        "httpGet.path",
        2048,
        |length| json!({"httpGet": {"path": format!("/{}", "a".repeat(length - 1))}}),
    ),
    (
        "httpGet.host",
        253,
        |length| json!({"httpGet": {"host": dns_name(length)}}),
    ),
    (
        "httpGet.httpHeaders[0].name",
        256,
        |length| json!({"httpGet": {"httpHeaders": [{"name": "a".repeat(length), "value": ""}]}}),
    ),
    (
        "httpGet.httpHeaders[0].value",
        4096,
        |length| json!({"httpGet": {"httpHeaders": [{"name": "a", "value": "a".repeat(length)}]}}),
    ),
    (
        "httpGet.httpHeaders",
        16,
        |length| json!({"httpGet": {"httpHeaders": vec![json!({"name": "a", "value": "b"}); length]}}),
    ),
    (
        "httpGet.expectedStatuses",
        16,
        |length| json!({"httpGet": {"expectedStatuses": vec!["200"; length]}}),
    ),
    (
        "httpGet.expectedBody.contains",
        4096,
        |length| json!({"httpGet": {"expectedBody": {"contains": "ü".repeat(length)}}}),
    ),
    (
        "httpGet.expectedBody.matches",
        1024,
        // The pattern is a character class. A plain sequence of the same length
        // would compile to a program that is too large.
        |length| {
            let class = format!("[{}]", "ü".repeat(length - 2));
            json!({"httpGet": {"expectedBody": {"matches": class}}})
        },
    ),
    ("httpGet.tls.serverName", 253, |length| {
        let tls = json!({"insecureSkipVerify": true, "serverName": dns_name(length)});
        json!({"httpGet": {"scheme": "HTTPS", "tls": tls}})
    }),
    ("httpGet.tls.caBundle", 131_072, |length| {
        let tls = json!({"caBundle": bundle(length.next_multiple_of(4))});
        json!({"httpGet": {"scheme": "HTTPS", "tls": tls}})
    }),
    (
        "tcpSocket.send",
        4096,
        |length| json!({"tcpSocket": {"send": "ü".repeat(length)}}),
    ),
    (
        "tcpSocket.expect",
        4096,
        |length| json!({"tcpSocket": {"expect": "ü".repeat(length)}}),
    ),
    (
        "grpc.service",
        256,
        |length| json!({"grpc": {"service": "ü".repeat(length)}}),
    ),
    (
        "udp.send",
        4096,
        |length| json!({"udp": {"send": "ü".repeat(length)}}),
    ),
    (
        "udp.expect",
        4096,
        |length| json!({"udp": {"send": "a", "expect": "ü".repeat(length)}}),
    ),
    (
        "dns.name",
        253,
        |length| json!({"dns": {"name": dns_name(length)}}),
    ),
    (
        "dns.expectedAnswer",
        1024,
        |length| json!({"dns": {"name": "a", "type": "TXT", "expectedAnswer": "ü".repeat(length)}}),
    ),
];

#[test]
fn what_is_as_long_as_it_may_be_is_let_pass_by_both_and_what_is_longer_by_neither() {
    let admission = Admission::of("VirtualService");
    for (field, longest, check) in BOUNDS {
        let good = checked(&check(longest));
        assert_eq!(admission.refusals(&good, None), [""; 0], "{field}");
        assert_eq!(refusal(&good, None), None, "{field}");
        let bad = checked(&check(longest + 1));
        assert!(!admission.refusals(&bad, None).is_empty(), "{field}");
        let message = refusal(&bad, None).unwrap_or_else(|| panic!("{field} is too long"));
        let start = format!("spec.healthCheck.{field}: ");
        assert!(message.starts_with(&start), "{field}: {message:.300}");
    }
}
