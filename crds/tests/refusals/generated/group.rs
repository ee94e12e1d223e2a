//! Generates specs of DirectorGroups.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value};

use super::{fields, name, numbers, often, pool, texts};

fn timeout() -> BoxedStrategy<Value> {
    pool(
        numbers(&[1, 900, 2_147_483]),
        numbers(&[0, 2_147_484, 4_294_967_297]),
    )
}

pub(super) fn group() -> BoxedStrategy<Value> {
    let times = texts(&[
        "2026-11-24T12:00:00Z",
        "2026-11-24T12:00:00.5+01:00",
        "2026-11-24",
        "tomorrow",
        "",
    ]);
    fields([
        (
            "addresses",
            often(fields([
                (
                    "mode",
                    often(pool(
                        texts(&["Interface", "Dummy", "Manual"]),
                        texts(&["manual", ""]),
                    )),
                ),
                (
                    "interface",
                    often(pool(
                        texts(&["eth0", "eth0.100"]),
                        texts(&["a/b", "..", "", "a b", "sixteen-letters-"]),
                    )),
                ),
                ("holder", often(name())),
            ])),
        ),
        (
            "sysctls",
            often(fields([
                (
                    "profile",
                    often(pool(texts(&["Recommended", "None"]), texts(&["none"]))),
                ),
                ("overrides", often(overrides())),
            ])),
        ),
        (
            "removals",
            often(fields([("allowUntil", often(select(times)))])),
        ),
        (
            "onConflict",
            often(pool(texts(&["Adopt", "Leave"]), texts(&["adopt", ""]))),
        ),
        ("budgets", often(budgets())),
        (
            "timeouts",
            often(fields([
                ("tcpSeconds", often(timeout())),
                ("tcpFinSeconds", often(timeout())),
                ("udpSeconds", often(timeout())),
            ])),
        ),
    ])
}

fn budgets() -> BoxedStrategy<Value> {
    let budget = || {
        pool(
            numbers(&[0, 1, 1000, 1_000_000]),
            numbers(&[-1, 10_000_001]),
        )
    };
    let rate = || pool(numbers(&[1, 2000, 8000]), numbers(&[0, -1, 8001]));
    let each = || {
        [
            ("services", often(budget())),
            ("destinations", often(budget())),
            ("probeTargets", often(budget())),
            ("probesPerSecond", often(rate())),
        ]
    };
    let [services, destinations, targets, rates] = each();
    let named = fields([
        ("name", often(name())),
        services,
        destinations,
        targets,
        rates,
    ]);
    fields([
        (
            "serversPerService",
            often(pool(numbers(&[1, 65_535]), numbers(&[0, 65_536]))),
        ),
        ("perNamespace", often(fields(each()))),
        ("total", often(fields([("destinations", often(budget()))]))),
        (
            "namespaces",
            often(vec(named, 0..3).prop_map(Value::from).boxed()),
        ),
    ])
}

fn overrides() -> BoxedStrategy<Value> {
    let names = pool(
        texts(&[
            "net.ipv4.vs.sloppy_tcp",
            "net.ipv4.conf.eth0/100.rp_filter",
            "net.ipv4.conf.all.arp_ignore",
            "net.ipv6.conf.a-b,c;d~.accept_ra",
            "net.ipv6.conf.all.forwarding",
        ]),
        texts(&[
            "",
            "net.ipv4.vs.",
            "net.ipv4.vs.a.b",
            "net.ipv4.vs.a/b",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.forwarding",
            "net.ipv4.conf.eth0.accept_source_route",
            "net.ipv4.conf.eth0.100.rp_filter",
            "net.ipv4.conf./.rp_filter",
            "net.ipv4.conf.//.rp_filter",
            "net.ipv4.conf.///.rp_filter",
            "net.ipv4.conf.a:b.rp_filter",
            "net.ipv4.conf.a b.rp_filter",
            "net.ipv4.conf..rp_filter",
            "net.ipv4.conf.sixteen-letters-.rp_filter",
            "net.ipv6.conf.eth0.rp_filter",
            "kernel.core_pattern",
            "net.ipv4.vs.a_name_of_more_than_64_letters_that_nobody_would_think_of_at_all",
        ]),
    );
    let values = pool(
        texts(&["0", "1", "-1", "3 50"]),
        texts(&["", " 1", "1 ", "1  2", "|/bin/sh", "1\n", "-", "1-"]),
    );
    let entries = vec((names, values), 0..4).prop_map(|entries| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = entries.iter();
        entries
            .map(|(name, value)| (text(name), value.clone()))
            .collect::<Map<_, _>>()
    });
    entries.prop_map(Value::from).boxed()
}
