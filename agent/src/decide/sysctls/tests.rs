use super::*;
use crate::fixtures::{config, ip, server, tcp, weight};

/// Returns a host with Linux 6.1 that reaches its NAT servers by eth1.
fn host() -> Facts {
    Facts {
        kernel: Some(KernelVersion(6, 1)),
        facing_v4: ["eth1".to_owned()].into(),
        ..Facts::default()
    }
}

/// Returns the needs of a TCP service with scheduler wrr and one NAT server.
fn nat() -> Needs {
    let mut needs = Needs::default();
    needs.service(&tcp("192.0.2.10", 80), &config("wrr"));
    needs.server(&server(1), &weight(1));
    needs
}

fn by(scheduler: &str, key: ipvs::ServiceKey) -> Needs {
    let mut needs = Needs::default();
    needs.service(&key, &config(scheduler));
    needs
}

fn overriding(overrides: &[(&str, &str)], profile: SysctlProfile) -> Tuning {
    let overrides = overrides.iter();
    Tuning {
        rule: SysctlRule {
            profile,
            overrides: overrides
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        },
        ..Tuning::default()
    }
}

/// Returns the settings in their order, in the syntax of `sysctl -w`.
fn spelled_out(settings: &[Setting]) -> Vec<String> {
    let each = settings.iter();
    each.map(|setting| format!("{}={}", setting.name, setting.value))
        .collect()
}

fn wanted_of(needs: &Needs, facts: &Facts) -> Vec<String> {
    spelled_out(&wanted(needs, &Tuning::default(), facts))
}

const NAT_V4: [&str; 3] = [
    "net.ipv4.conf.eth1.forwarding=1",
    "net.ipv4.conf.eth1.send_redirects=0",
    "net.ipv4.conf.all.send_redirects=0",
];
const REUSE: &str = "net.ipv4.vs.conn_reuse_mode=1";

#[test]
fn without_a_service_nothing_is_wanted() {
    let facts = Facts {
        is_tracking: true,
        ..Facts::default()
    };
    assert_eq!(wanted_of(&Needs::default(), &facts), [""; 0]);
    let routed = Tuning {
        are_vips_routed: true,
        ..Tuning::default()
    };
    assert_eq!(wanted(&Needs::default(), &routed, &facts), []);
}

#[test]
fn nat_needs_forwarding_where_the_replies_come_in_and_no_redirects() {
    assert_eq!(wanted_of(&nat(), &host()), [&NAT_V4[..], &[REUSE]].concat());
    let all = wanted(&nat(), &Tuning::default(), &host());
    for setting in &all {
        assert!(!setting.reason.is_empty(), "{} has a reason", setting.name);
        let is_ipvs = setting.name.starts_with("net.ipv4.vs.");
        assert_eq!(is_ours(&setting.name), is_ipvs, "{}", setting.name);
    }
}

#[test]
fn a_vlan_is_spelled_as_sysctl_has_it() {
    let facts = Facts {
        facing_v4: ["eth1.100".to_owned()].into(),
        ..host()
    };
    let wanted = wanted_of(&nat(), &facts);
    assert_eq!(wanted[0], "net.ipv4.conf.eth1/100.forwarding=1");
}

#[test]
fn tracked_connections_are_shown_to_netfilter_and_only_with_nat() {
    let facts = Facts {
        is_tracking: true,
        ..host()
    };
    let expected = [&NAT_V4[..], &["net.ipv4.vs.conntrack=1", REUSE]].concat();
    assert_eq!(wanted_of(&nat(), &facts), expected);
    let dr = by("wrr", tcp("192.0.2.10", 80));
    let facts = Facts {
        facing_v4: BTreeSet::new(),
        ..facts
    };
    assert_eq!(wanted_of(&dr, &facts), [REUSE], "DR needs no forwarding");
}

#[test]
fn how_a_port_that_is_used_again_is_treated_depends_on_the_kernel() {
    for (kernel, is_tracking, mode) in [
        (Some(KernelVersion(5, 8)), true, "0"),
        (Some(KernelVersion(5, 8)), false, "1"),
        (Some(KernelVersion(5, 9)), true, "1"),
        (Some(KernelVersion(6, 1)), true, "1"),
        (Some(KernelVersion(7, 0)), true, "1"),
        (None, true, "1"),
    ] {
        let facts = Facts {
            kernel,
            is_tracking,
            ..host()
        };
        let all = wanted(&nat(), &Tuning::default(), &facts);
        let found = all.iter().find(|setting| setting.name == CONN_REUSE_MODE);
        let found = found.map(|setting| setting.value.as_str());
        assert_eq!(
            found,
            Some(mode),
            "Linux {kernel:?}, tracking: {is_tracking}"
        );
    }
}

#[test]
fn mh_goes_on_with_what_another_director_began() {
    let facts = Facts {
        facing_v4: BTreeSet::new(),
        ..host()
    };
    let (sloppy, icmp) = ("net.ipv4.vs.sloppy_tcp=1", "net.ipv4.vs.schedule_icmp=1");
    let udp = ipvs::ServiceKey::Address {
        protocol: ipvs::Protocol::UDP,
        address: ip("192.0.2.10"),
        port: 53,
    };
    let mark = ipvs::ServiceKey::FirewallMark {
        family: ipvs::Family::V4,
        mark: 7,
    };
    let web = tcp("192.0.2.10", 80);
    for (needs, expected) in [
        (by("mh", web), vec![REUSE, sloppy, icmp]),
        (by("mh", mark), vec![REUSE, sloppy, icmp]),
        (by("mh", udp), vec![icmp]),
        (by("sh", web), vec![REUSE]),
        (by("wrr", udp), vec![]),
    ] {
        assert_eq!(wanted_of(&needs, &facts), expected, "{needs:?}");
    }
}

#[test]
fn checks_end_what_a_failed_server_had() {
    let needs = Needs {
        checks: true,
        ..Needs::default()
    };
    assert_eq!(
        wanted_of(&needs, &Facts::default()),
        [
            "net.ipv4.vs.expire_nodest_conn=1",
            "net.ipv4.vs.expire_quiescent_template=1"
        ]
    );
}

#[test]
fn no_interface_uses_routed_vips_in_arp() {
    let tuning = Tuning {
        are_vips_routed: true,
        ..Tuning::default()
    };
    let all = wanted(
        &by("wrr", tcp("192.0.2.10", 80)),
        &tuning,
        &Facts::default(),
    );
    assert_eq!(
        spelled_out(&all),
        [
            REUSE,
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2"
        ]
    );
    let ignore = &all[1];
    for (found, is_met) in [
        ("0", false),
        ("1", true),
        ("2", true),
        ("3", false),
        ("8", true),
    ] {
        assert_eq!(ignore.is_met_by(found), is_met, "arp_ignore={found}");
    }
}

#[test]
fn ipv6_is_forwarded_by_the_whole_host_and_its_default_routes_are_kept_first() {
    let facts = Facts {
        facing_v4: BTreeSet::new(),
        facing_v6: ["eth1".to_owned()].into(),
        advertised: ["eth0".to_owned(), "wan.7".to_owned()].into(),
        ..host()
    };
    let all = wanted(&nat(), &Tuning::default(), &facts);
    let first = [
        "net.ipv6.conf.eth0.accept_ra",
        "net.ipv6.conf.wan/7.accept_ra",
    ];
    assert_eq!(
        spelled_out(&all),
        [
            &format!("{}=2", first[0]),
            &format!("{}=2", first[1]),
            "net.ipv6.conf.all.forwarding=1",
            REUSE
        ]
    );
    assert_eq!(
        all[2].after, first,
        "not before these have their wanted values"
    );

    let newer = Facts {
        has_force_forwarding: true,
        ..facts
    };
    assert_eq!(
        wanted_of(&nat(), &newer),
        ["net.ipv6.conf.eth1.force_forwarding=1", REUSE],
        "Linux 6.17 forwards from single interfaces, which stay a host's"
    );
}

#[test]
fn an_override_takes_the_place_of_what_is_recommended_or_is_added() {
    let tuning = overriding(
        &[
            ("net.ipv4.conf.all.send_redirects", "1"),
            ("net.ipv4.vs.sync_threshold", "3 50"),
        ],
        SysctlProfile::Recommended,
    );
    let all = wanted(&nat(), &tuning, &host());
    assert_eq!(
        spelled_out(&all),
        [
            NAT_V4[0],
            NAT_V4[1],
            REUSE,
            "net.ipv4.conf.all.send_redirects=1",
            "net.ipv4.vs.sync_threshold=3 50"
        ]
    );
    assert!(all[4].is_met_by("3\t50"), "as the kernel spells it");
}

#[test]
fn without_a_profile_only_overrides_are_wanted_and_they_cost_no_default_route() {
    let facts = Facts {
        advertised: ["eth0".to_owned()].into(),
        is_tracking: true,
        ..host()
    };
    let none = overriding(&[], SysctlProfile::None);
    assert_eq!(wanted(&nat(), &none, &facts), []);
    let tuning = overriding(
        &[("net.ipv6.conf.eth1.forwarding", "1")],
        SysctlProfile::None,
    );
    let all = wanted(&nat(), &tuning, &facts);
    assert_eq!(
        spelled_out(&all),
        [
            "net.ipv6.conf.eth0.accept_ra=2",
            "net.ipv6.conf.eth1.forwarding=1"
        ]
    );
    let deliberate = overriding(
        &[
            ("net.ipv6.conf.eth0.accept_ra", "0"),
            ("net.ipv6.conf.eth1.forwarding", "1"),
        ],
        SysctlProfile::None,
    );
    let all = wanted(&nat(), &deliberate, &facts);
    assert_eq!(all.len(), 2, "the group wants both: {all:?}");
    assert_eq!(all[1].after, [""; 0], "and neither waits for another");
}

#[test]
fn only_servers_elsewhere_are_reached_by_nat() {
    let mut needs = nat();
    let own = ipvs::DestinationKey {
        address: ip("127.0.0.1"),
        port: 80,
    };
    needs.server(&own, &weight(1));
    let dr = ipvs::DestinationConfig {
        method: ipvs::ForwardingMethod::DirectRoute,
        ..weight(1)
    };
    needs.server(&server(2), &dr);
    assert_eq!(needs.nat_servers, [server(1).address].into());
}

#[test]
fn a_kernels_version_is_its_first_two_numbers() {
    for (release, version) in [
        ("6.1.0-28-amd64", Some(KernelVersion(6, 1))),
        (
            "5.15.167.4-microsoft-standard-WSL2\n",
            Some(KernelVersion(5, 15)),
        ),
        ("7.2-rc1", Some(KernelVersion(7, 2))),
        ("unknown", None),
    ] {
        assert_eq!(KernelVersion::parse(release), version, "{release}");
    }
}

#[test]
fn what_is_never_recommended_was_set_by_another_process() {
    for (name, found, may_be) in [
        ("net.ipv4.vs.sloppy_tcp", "1", true),
        ("net.ipv4.vs.sloppy_tcp", "2", false),
        ("net.ipv4.vs.conn_reuse_mode", "0", true),
        ("net.ipv4.vs.sync_threshold", "3\t50", true),
    ] {
        assert_eq!(may_be_set_by_us(name, found), may_be, "{name}={found}");
    }
}
