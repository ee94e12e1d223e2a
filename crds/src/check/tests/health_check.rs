use std::time::Duration;

use k8s_openapi::ByteString;

use super::*;
use crate::{BodyRule, DnsProbe, HealthCheck, HttpProbe, Probe, StatusRange, TlsRule};

const AUTHORITY: &str = include_str!("../../../tests/authority.pem");

fn check(check: Value) -> Result<HealthCheck, Rejection> {
    let checked = service(&web().with("spec.healthCheck", check))?;
    Ok(HealthCheck::clone(&checked.health_check.unwrap()))
}

fn http(probe: &Value) -> Result<HttpProbe, Rejection> {
    match check(json!({ "httpGet": probe }))?.probe {
        Probe::Http(probe) => Ok(probe),
        other => panic!("{other:?}"),
    }
}

/// Checks an httpGet probe with the given `tls` field, and returns the probe's
/// [`TlsRule`].
fn tls(tls: &Value) -> Result<TlsRule, Rejection> {
    Ok(http(&json!({"scheme": "HTTPS", "tls": tls}))?.tls.unwrap())
}

fn bundle(pem: &[u8]) -> Value {
    json!({"caBundle": ByteString(pem.to_vec())})
}

#[test]
fn a_service_without_a_check_has_none() {
    assert_eq!(service(&web()).unwrap().health_check, None);
}

#[test]
fn a_check_is_every_5_s_for_2_s_and_believes_2_successes_and_3_failures() {
    let checked = check(json!({"icmp": {}})).unwrap();
    let expected = HealthCheck {
        probe: Probe::Icmp,
        port: None,
        period: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        success_threshold: 2,
        failure_threshold: 3,
    };
    assert_eq!(checked, expected);
}

#[test]
fn the_timeout_is_as_long_as_the_period_at_most() {
    let checked = check(json!({
        "icmp": {},
        "periodSeconds": 60,
        "timeoutSeconds": 60,
        "successThreshold": 1,
        "failureThreshold": 10,
    }));
    let checked = checked.unwrap();
    assert_eq!(checked.period, checked.timeout);
    assert_eq!(
        (checked.success_threshold, checked.failure_threshold),
        (1, 10)
    );
}

#[test]
fn an_http_probe_asks_for_the_root_and_expects_success() {
    let expected = HttpProbe {
        tls: None,
        host: None,
        path: "/".to_owned(),
        headers: Vec::new(),
        statuses: vec![StatusRange {
            first: 200,
            last: 299,
        }],
        body: None,
    };
    assert_eq!(http(&json!({})).unwrap(), expected);
}

#[test]
fn an_http_probe_says_and_expects_what_it_is_told() {
    let checked = check(json!({"httpGet": {
        "path": "/status?deep=1",
        "port": 8080,
        "host": "shop.example",
        "httpHeaders": [{"name": "X-Probe", "value": "a b"}, {"name": "Accept", "value": ""}],
        "expectedStatuses": ["204", "300-399"],
        "expectedBody": {"contains": "well"},
    }}))
    .unwrap();
    assert_eq!(checked.port, Some(8080));
    let range = |first, last| StatusRange { first, last };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = HttpProbe {
        tls: None,
        host: Some("shop.example".to_owned()),
        path: "/status?deep=1".to_owned(),
        headers: vec![header("x-probe", "a b"), header("accept", "")],
        statuses: vec![range(204, 204), range(300, 399)],
        body: Some(BodyRule::Contains("well".to_owned())),
    };
    assert_eq!(checked.probe, Probe::Http(expected));
}

#[test]
fn a_pattern_that_does_not_compile_says_why_in_one_line() {
    let body = |pattern: &str| http(&json!({"expectedBody": {"matches": pattern}}));
    for pattern in [
        r"^status: (well|up)\b",
        r#"(?m)^\s*"status":\s*"(ok|fine|degraded)",?$"#,
        r#""version":"\d+\.\d+\.\d+""#,
        "(?i)all systems (operational|nominal)",
        r"[0-9A-Za-z_]+@[0-9A-Za-z_]+\.example",
    ] {
        assert_eq!(
            body(pattern).unwrap().body,
            Some(BodyRule::Matches(pattern.to_owned()))
        );
    }
    for (pattern, why) in [
        ("(well", "unclosed group"),
        ("(?=well)", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        (r"((\w{1000}){1000}){1000}", "compiles to more than 16 KiB"),
        (
            "(?-u)(?:a.{900}|b.{900}|aa.{900}|ab.{900})c",
            "compiles to more than 16 KiB",
        ),
    ] {
        let message = body(pattern).unwrap_err().message;
        let path = "spec.healthCheck.httpGet.expectedBody.matches: ";
        assert!(message.starts_with(path), "{message}");
        assert!(message.contains(why), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// Each case has (probe, serverName) and the expected (Host header, name in the
/// certificate).
#[test]
fn the_name_in_the_certificate_is_the_hosts_unless_told_otherwise() {
    for (probe, server_name, host, expected) in [
        (json!({}), None, None, None),
        (
            json!({"host": "shop.example"}),
            None,
            Some("shop.example"),
            Some("shop.example"),
        ),
        (
            json!({"host": "shop.example"}),
            Some("web1.example"),
            Some("shop.example"),
            Some("web1.example"),
        ),
        (
            json!({"host": "2001:DB8::10"}),
            None,
            Some("[2001:db8::10]"),
            Some("2001:DB8::10"),
        ),
    ] {
        let mut tls = json!({"insecureSkipVerify": true});
        if let Some(name) = server_name {
            tls["serverName"] = json!(name);
        }
        let mut probe = probe;
        probe["scheme"] = json!("HTTPS");
        probe["tls"] = tls;
        let checked = http(&probe).unwrap();
        assert_eq!(checked.host.as_deref(), host);
        assert_eq!(checked.tls.unwrap().server_name.as_deref(), expected);
    }
}

#[test]
fn only_the_bundle_is_trusted_or_anybody() {
    let skipped = tls(&json!({"insecureSkipVerify": true})).unwrap();
    assert_eq!(skipped.authorities, None);
    let twice = format!("# Ours\r\n{AUTHORITY}{}", AUTHORITY.replace('\n', "\r\n"));
    let trusted = tls(&bundle(twice.as_bytes())).unwrap();
    let authorities = trusted.authorities.unwrap();
    assert_eq!(authorities.len(), 2);
    assert_eq!(authorities[0], authorities[1]);
}

#[test]
fn a_bundle_that_cannot_be_read_says_which_certificate_and_why() {
    let begin = "-----BEGIN CERTIFICATE-----";
    let end = "-----END CERTIFICATE-----";
    let mut lines: Vec<_> = AUTHORITY.lines().collect();
    lines.remove(3);
    let short = lines.join("\n");
    for (pem, why) in [
        (String::new(), "has no certificate"),
        ("hello".to_owned(), "has no certificate"),
        (
            AUTHORITY.replace("CERTIFICATE", "PUBLIC KEY"),
            "has no certificate",
        ),
        (
            format!("{AUTHORITY}{begin}\nAAAA\n"),
            "certificate 2: it does not end with -----END CERTIFICATE-----",
        ),
        (
            format!("{begin}\n!!!!\n{end}\n"),
            "certificate 1: the text between its first and last line is not base64",
        ),
        (
            format!("{begin}\nAAAA\n{end}\n"),
            "certificate 1: it is not an X.509 certificate",
        ),
        (short, "certificate 1: it is not an X.509 certificate"),
        (
            format!("{begin}--\n"),
            "certificate 1: \"-----BEGIN CERTIFICATE-------\" does not begin it",
        ),
    ] {
        let message = tls(&bundle(pem.as_bytes())).unwrap_err().message;
        let expected = format!("spec.healthCheck.httpGet.tls.caBundle: {why}");
        assert!(message.starts_with(&expected), "{message}");
    }
    let der = tls(&bundle(&[0x30, 0x82])).unwrap_err().message;
    assert!(der.contains("is not text; write PEM"), "{der}");
}

#[test]
fn the_other_probes_say_and_expect_what_they_are_told() {
    let text = str::to_owned;
    for (raw, port, expected) in [
        (
            json!({"tcpSocket": {}}),
            None,
            Probe::Tcp {
                send: text(""),
                expect: text(""),
            },
        ),
        (
            json!({"tcpSocket": {"port": 25, "send": "QUIT\r\n", "expect": "221"}}),
            Some(25),
            Probe::Tcp {
                send: text("QUIT\r\n"),
                expect: text("221"),
            },
        ),
        (json!({"grpc": {}}), None, Probe::Grpc { service: text("") }),
        (
            json!({"grpc": {"port": 9090, "service": "shop.Cart"}}),
            Some(9090),
            Probe::Grpc {
                service: text("shop.Cart"),
            },
        ),
        (
            json!({"udp": {"send": "ping"}}),
            None,
            Probe::Udp {
                send: text("ping"),
                expect: text(""),
            },
        ),
        (
            json!({"udp": {"port": 5060, "send": "ping", "expect": "pong"}}),
            Some(5060),
            Probe::Udp {
                send: text("ping"),
                expect: text("pong"),
            },
        ),
        (json!({"icmp": {}}), None, Probe::Icmp),
    ] {
        let checked = check(raw).unwrap();
        assert_eq!((checked.port, checked.probe), (port, expected));
    }
}

/// Each case has the fields of a dns probe, and the expected type and answer.
#[test]
fn an_address_in_an_answer_has_one_spelling() {
    for (raw, record_type, expect) in [
        (json!({}), "A", None),
        (
            json!({"expectedAnswer": "192.0.2.1"}),
            "A",
            Some("192.0.2.1"),
        ),
        (
            json!({"type": "AAAA", "expectedAnswer": "2001:DB8:0::1"}),
            "AAAA",
            Some("2001:db8::1"),
        ),
        (
            json!({"type": "MX", "expectedAnswer": "10 Mail.example."}),
            "MX",
            Some("10 Mail.example."),
        ),
    ] {
        let mut raw = raw;
        raw["name"] = json!("www.example");
        let expected = Probe::Dns(DnsProbe {
            name: "www.example".to_owned(),
            record_type: record_type.to_owned(),
            expect: expect.map(str::to_owned),
        });
        assert_eq!(check(json!({"dns": raw})).unwrap().probe, expected);
    }
}

#[test]
fn a_probe_needs_a_port_where_the_service_has_none_but_icmp_has_no_ports() {
    let marked = web()
        .without("vip")
        .with("spec.firewallMark", json!({"mark": 7}));
    let every_port = web()
        .with("spec.vip.port", 0)
        .with("spec.persistence", json!({}));
    for portless in [marked, every_port] {
        for (check, missing) in [
            (json!({"tcpSocket": {}}), Some("tcpSocket.port")),
            (json!({"dns": {"name": "."}}), Some("dns.port")),
            (json!({"tcpSocket": {"port": 80}}), None),
            (json!({"icmp": {}}), None),
        ] {
            let rejection = service(&portless.clone().with("spec.healthCheck", check)).err();
            let start =
                missing.map(|field| format!("spec.healthCheck.{field}: the service has no"));
            match (rejection, start) {
                (None, None) => {}
                (Some(rejection), Some(start)) if rejection.message.starts_with(&start) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
