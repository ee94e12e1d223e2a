//! Generates specs of services with a health check.

use std::sync::LazyLock;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{always, fields, forwarding, numbers, often, pool, port, seldom, texts};
use crate::{AUTHORITY, base64};

/// Generates a spec that may be invalid only in its health check and
/// availability. So admission and the store can disagree only about the health
/// check and the availability.
pub(super) fn checked_service() -> BoxedStrategy<Value> {
    let known = prop_oneof![
        4 => vip().prop_map(|vip| json!({"vip": vip})),
        1 => mark().prop_map(|mark| json!({"firewallMark": mark})),
    ];
    let rest = fields([
        (
            "scheduler",
            often(select(texts(&["wlc", "rr", "sh", "mh", "dh"]))),
        ),
        ("forwarding", often(method())),
        ("healthCheck", always(health_check())),
        ("availability", often(availability())),
    ]);
    (known, rest)
        .prop_map(|(mut spec, rest)| {
            spec["realServerSelector"] = json!({"matchLabels": {"app": "web"}});
            // Port 0 requires persistence.
            spec["persistence"] = json!({});
            for (name, value) in rest.as_object().unwrap() {
                spec[name.as_str()] = value.clone();
            }
            spec
        })
        .boxed()
}

/// Mostly generates a forwarding method without further fields, because other
/// tests generate tunnels.
fn method() -> BoxedStrategy<Value> {
    let plain = select(texts(&["NAT", "DR", "TUN"])).prop_map(|method| json!({"method": method}));
    prop_oneof![15 => plain, 1 => forwarding()].boxed()
}

fn vip() -> BoxedStrategy<Value> {
    fields([
        ("address", Just(Some(json!("192.0.2.10"))).boxed()),
        (
            "port",
            select(vec![0, 80, 80, 80])
                .prop_map(|port| Some(json!(port)))
                .boxed(),
        ),
        ("protocol", often(select(texts(&["TCP", "UDP", "SCTP"])))),
    ])
}

fn mark() -> BoxedStrategy<Value> {
    fields([
        ("mark", Just(Some(json!(7))).boxed()),
        ("ipFamily", often(select(texts(&["IPv4", "IPv6"])))),
    ])
}

/// Generates a health check with one probe; sometimes with two probes, or with
/// none.
fn health_check() -> BoxedStrategy<Value> {
    let probe = prop_oneof![
        5 => http_get().prop_map(|probe| ("httpGet", probe)),
        1 => tcp_socket().prop_map(|probe| ("tcpSocket", probe)),
        1 => grpc().prop_map(|probe| ("grpc", probe)),
        1 => udp().prop_map(|probe| ("udp", probe)),
        2 => dns().prop_map(|probe| ("dns", probe)),
        1 => Just(("icmp", json!({}))),
    ];
    let probes = prop_oneof![
        1 => vec(probe.clone(), 0..1),
        40 => vec(probe.clone(), 1),
        2 => vec(probe, 2),
    ];
    let rest = fields([
        (
            "periodSeconds",
            often(pool(numbers(&[5, 5, 60, 3600, 2]), numbers(&[0, 1, 3601]))),
        ),
        (
            "timeoutSeconds",
            often(pool(numbers(&[1, 2, 5, 1, 2, 5, 60]), numbers(&[0, 61]))),
        ),
        (
            "successThreshold",
            seldom(pool(numbers(&[1, 10]), numbers(&[0, 11]))),
        ),
        (
            "failureThreshold",
            seldom(pool(numbers(&[1, 10]), numbers(&[0, 11]))),
        ),
    ]);
    (probes, rest)
        .prop_map(|(probes, mut check)| {
            for (name, probe) in probes {
                check[name] = probe;
            }
            check
        })
        .boxed()
}

fn http_get() -> BoxedStrategy<Value> {
    (
        fields([
            ("path", often(path())),
            ("port", often(port())),
            ("host", seldom(host())),
            (
                "httpHeaders",
                seldom(vec(header(), 0..3).prop_map(Value::from)),
            ),
            (
                "expectedStatuses",
                seldom(vec(status(), 0..4).prop_map(Value::from)),
            ),
            ("expectedBody", seldom(expected_body())),
        ]),
        // The scheme and tls usually match.
        prop_oneof![
            8 => Just((None, None)),
            1 => Just((Some(json!("HTTP")), None)),
            6 => tls().prop_map(|tls| (Some(json!("HTTPS")), Some(tls))),
            1 => (
                often(pool(texts(&["HTTP", "HTTPS"]), texts(&["https", ""]))),
                option::of(tls()),
            ),
        ],
    )
        .prop_map(|(mut probe, (scheme, tls))| {
            for (name, value) in [("scheme", scheme), ("tls", tls)] {
                if let Some(value) = value {
                    probe[name] = value;
                }
            }
            probe
        })
        .boxed()
}

fn path() -> BoxedStrategy<Value> {
    let pooled = pool(
        texts(&[
            "/",
            "/healthz",
            "/a/b?c=d&e=%20/?",
            "/~x!$&'()*+,;=:@",
            "//",
        ]),
        texts(&[
            "", "healthz", "/a b", "/a\n", "/a#b", "/é", "/{}", "/a\\b", "*",
        ]),
    );
    prop_oneof![20 => pooled, 1 => "/[ -~]{0,3}".prop_map(Value::from)].boxed()
}

fn host() -> BoxedStrategy<Value> {
    let long = format!("{}.example", ["a".repeat(63).as_str(); 3].join("."));
    let pooled = pool(
        texts(&[
            "shop.example",
            "SHOP",
            "_a-b.c",
            "a1",
            "1a",
            "1-2",
            "192.0.2.10",
            "2001:DB8::10",
            long.as_str(),
        ]),
        texts(&[
            "",
            ".",
            "shop.",
            "shop..example",
            "-shop",
            "shop-",
            "shop-.example",
            "shop.example:80",
            "[2001:db8::10]",
            "fe80::1%eth0",
            "::ffff:192.0.2.10",
            "192.0.2.300",
            "10",
            "shop.1",
            "*.example",
            "bücher",
            "shop\n",
            "a b",
            "a".repeat(64).as_str(),
            format!("{long}.{}", "b".repeat(60)).as_str(),
        ]),
    );
    prop_oneof![10 => pooled, 1 => "[a1.:_-]{1,6}".prop_map(Value::from)].boxed()
}

fn header() -> BoxedStrategy<Value> {
    fields([
        (
            "name",
            always(pool(
                texts(&["X-Probe", "accept", "a!#$%&'*+.^_`|~9", "Hosts"]),
                texts(&[
                    "",
                    "X Probe",
                    "X:Probe",
                    "é",
                    "Host",
                    "hOST",
                    "connection",
                    "Content-Length",
                    "TRANSFER-ENCODING",
                    "X\r\n",
                ]),
            )),
        ),
        (
            "value",
            always(pool(
                texts(&["", "1", " a  b ", "\"~\\"]),
                texts(&["a\tb", "a\r\nb", "é", "\u{7f}", "\u{0}"]),
            )),
        ),
    ])
}

fn status() -> BoxedStrategy<Value> {
    let pooled = pool(
        texts(&["200", "100", "599", "200-299", "301-301", "100-599"]),
        texts(&[
            "",
            "99",
            "600",
            "0200",
            "200-",
            "-200",
            "299-200",
            "200-600",
            "2xx",
            "200 ",
            "+20",
            "+200",
            "200-+30",
            "200--30",
            "200-299-300",
            "²00",
        ]),
    );
    prop_oneof![10 => pooled, 1 => "[1-6][0-9]{2}-[1-6][0-9]{2}".prop_map(Value::from)].boxed()
}

fn expected_body() -> BoxedStrategy<Value> {
    let contains = || pool(texts(&["well", " ", "ü\n"]), texts(&[""]));
    let matches = || {
        pool(
            texts(&[
                "^well$",
                "(?i)well",
                r"\d\s+[[:alpha:]]{3}",
                r"\p{Greek}",
                "a|b",
                ".",
            ]),
            texts(&[
                "", "(", "[", "*", "a{2,1}", r"(a)\1", "(?=a)", "(?<!a)", r"\", r"\y",
            ]),
        )
    };
    prop_oneof![
        5 => contains().prop_map(|text| json!({"contains": text})),
        5 => matches().prop_map(|pattern| json!({"matches": pattern})),
        1 => fields([("contains", often(contains())), ("matches", often(matches()))]),
    ]
    .boxed()
}

fn tls() -> BoxedStrategy<Value> {
    static GOOD: LazyLock<Vec<Value>> = LazyLock::new(|| {
        vec![
            json!(base64(AUTHORITY)),
            json!(base64(&format!(
                "# The authority\r\n\r\n{AUTHORITY}\n{AUTHORITY}"
            ))),
        ]
    });
    static BAD: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let mut bad = texts(&[
            "",
            "LS0t",
            "LS0tLQ",
            "-----BEGIN CERTIFICATE-----",
            "LS0t\n",
        ]);
        bad.push(json!(base64(
            &AUTHORITY.replace("CERTIFICATE", "PUBLIC KEY")
        )));
        bad
    });
    let bundle = || pool(GOOD.clone(), BAD.clone());
    let trust = prop_oneof![
        10 => bundle().prop_map(|bundle| json!({"caBundle": bundle})),
        10 => Just(json!({"insecureSkipVerify": true})),
        1 => fields([
            ("caBundle", often(bundle())),
            ("insecureSkipVerify", often(any::<bool>().prop_map(Value::from))),
        ]),
    ];
    (trust, seldom(host()))
        .prop_map(|(mut tls, name)| {
            if let Some(name) = name {
                tls["serverName"] = name;
            }
            tls
        })
        .boxed()
}

fn text() -> BoxedStrategy<Value> {
    pool(texts(&["PING\r\n", "ü", "\u{0}"]), texts(&[""]))
}

fn tcp_socket() -> BoxedStrategy<Value> {
    fields([
        ("port", often(port())),
        ("send", seldom(text())),
        ("expect", seldom(text())),
    ])
}

fn grpc() -> BoxedStrategy<Value> {
    fields([("port", often(port())), ("service", seldom(text()))])
}

fn udp() -> BoxedStrategy<Value> {
    fields([
        ("port", often(port())),
        ("send", always(text())),
        ("expect", seldom(text())),
    ])
}

fn dns() -> BoxedStrategy<Value> {
    let name = pool(
        texts(&[
            ".",
            "www.example",
            "www.example.",
            "_sip._tcp.X-1",
            "a-.b_",
            "10.in-addr.arpa",
        ]),
        texts(&[
            "",
            "..",
            ".www",
            "-www",
            "www.-",
            "www..example",
            "a b",
            "é",
            "a/b",
            "a\n",
            "a".repeat(64).as_str(),
        ]),
    );
    let kinds = texts(&["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"]);
    let answer = pool(
        texts(&["192.0.2.1", "192.0.2.1", "2001:DB8::1", "10 mail.example."]),
        texts(&["", "::ffff:192.0.2.1", "192.0.2.300"]),
    );
    fields([
        ("port", often(port())),
        ("name", always(name)),
        ("type", often(pool(kinds, texts(&["ANY", "a", ""])))),
        ("expectedAnswer", seldom(answer)),
    ])
}

fn availability() -> BoxedStrategy<Value> {
    let quantity = || {
        pool(
            vec![
                json!(0),
                json!(2),
                json!(10_000),
                json!("2"),
                json!("0%"),
                json!("75%"),
                json!("100%"),
                json!("9%"),
            ],
            vec![
                json!(-1),
                json!(10_001),
                json!("10001"),
                json!("101%"),
                json!("05%"),
                json!("02"),
                json!("%"),
                json!("+2"),
                json!("-5%"),
                json!("half"),
                json!(" 5%"),
                json!("5%\n"),
                json!("50%%"),
                json!("5.5%"),
                json!("%50"),
            ],
        )
    };
    fields([
        (
            "onFailure",
            seldom(pool(texts(&["Quiesce", "Remove"]), texts(&["remove"]))),
        ),
        ("minimumHealthy", often(quantity())),
        ("recoverAbove", seldom(quantity())),
        ("belowMinimum", often(below_minimum())),
        (
            "slowStartSeconds",
            seldom(pool(numbers(&[1, 30, 3600]), numbers(&[0, 3601]))),
        ),
    ])
}

fn below_minimum() -> BoxedStrategy<Value> {
    let sorry = || {
        let address = pool(
            texts(&["192.0.2.1", "192.0.2.1", "127.0.0.1", "2001:db8::1"]),
            texts(&["224.0.0.1", "sorry.example", ""]),
        );
        fields([
            ("address", always(address)),
            (
                "port",
                seldom(pool(numbers(&[80, 8080]), numbers(&[0, 65536]))),
            ),
            ("forwarding", often(method())),
        ])
    };
    let action = pool(
        texts(&["FailOpen", "Reject", "SorryServer"]),
        texts(&["Panic"]),
    );
    prop_oneof![
        2 => select(texts(&["FailOpen", "Reject"])).prop_map(|action| json!({"action": action})),
        6 => sorry().prop_map(|sorry| json!({"action": "SorryServer", "sorryServer": sorry})),
        1 => fields([("action", always(action)), ("sorryServer", option::of(sorry()).boxed())]),
    ]
    .boxed()
}
