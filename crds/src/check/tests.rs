//! Tests that valid specs are accepted and get the right checked values. The
//! specs that must be refused are in `tests/bad`, one file for each spec.

mod availability;
mod health_check;

use serde_json::{Value, json};

use super::*;
use crate::{
    Checked, ForwardingRule, Loose, PersistenceRule, ServiceId,
    api::{
        DirectorGroup, IpFamily, PersistenceEngine, Protocol, RealServer, TunnelChecksum,
        VirtualService,
    },
    fixtures::{self, Fixture, group},
};

fn service(fixture: &Fixture) -> Result<CheckedService, Rejection> {
    CheckedService::check(&fixture.read::<Loose<VirtualService>>().spec.unwrap())
}

fn server(fixture: &Fixture) -> Result<CheckedServer, Rejection> {
    CheckedServer::check(&fixture.read::<Loose<RealServer>>().spec.unwrap())
}

fn web() -> Fixture {
    fixtures::service("web")
}

#[test]
fn a_vip_is_any_unicast_address_that_clients_reach() {
    for address in [
        "192.0.2.10",
        "10.0.0.1",
        "169.254.20.10",
        "2001:db8::10",
        "fd00::10",
    ] {
        let checked = service(&web().with("spec.vip.address", address)).unwrap();
        assert_eq!(
            checked.id,
            ServiceId::Vip {
                address: address.parse().unwrap(),
                port: 80,
                protocol: Protocol::Tcp
            }
        );
    }
}

#[test]
fn a_loopback_address_is_a_server_but_no_vip() {
    for address in ["127.0.0.1", "::1"] {
        assert!(server(&fixtures::server("sorry", address)).is_ok());
        let rejection = service(&web().with("spec.vip.address", address)).unwrap_err();
        assert!(
            rejection.message.contains("loopback"),
            "{}",
            rejection.message
        );
    }
}

#[test]
fn a_firewall_mark_is_any_number_of_32_bits_but_0() {
    for mark in [1, u32::MAX] {
        let marked = web()
            .without("vip")
            .with("spec.firewallMark", json!({"mark": mark}));
        let ServiceId::FirewallMark {
            mark: checked,
            family,
        } = service(&marked).unwrap().id
        else {
            panic!("it has a mark");
        };
        assert_eq!((checked.get(), family), (mark, IpFamily::IPv4));
    }
}

/// Each case has (scheduler, flags) and the expected (fallback, hash_port).
#[test]
fn sh_and_mh_fall_back_unless_told_otherwise() {
    let absent = Value::Null;
    for (scheduler, flags, expected) in [
        ("wlc", absent.clone(), (false, false)),
        ("wlc", json!([]), (false, false)),
        ("sh", absent.clone(), (true, false)),
        ("mh", absent, (true, false)),
        ("sh", json!([]), (false, false)),
        ("mh", json!(["mh-port"]), (false, true)),
        ("sh", json!(["sh-port", "sh-fallback"]), (true, true)),
    ] {
        let checked = service(
            &web()
                .with("spec.scheduler", scheduler)
                .with("spec.schedulerFlags", flags.clone()),
        )
        .unwrap();
        assert_eq!(
            (checked.fallback, checked.hash_port),
            expected,
            "{scheduler} {flags}"
        );
    }
}

#[test]
fn one_packet_scheduling_and_sip_go_with_udp_and_with_a_mark() {
    let sip = web()
        .with("spec.onePacketScheduling", true)
        .with("spec.persistence", json!({"engine": "sip"}));
    let marked = sip
        .clone()
        .without("vip")
        .with("spec.firewallMark", json!({"mark": 7}));
    for fixture in [sip.with("spec.vip.protocol", "UDP"), marked] {
        let checked = service(&fixture).unwrap();
        assert!(checked.one_packet);
        assert_eq!(
            checked.persistence.unwrap().engine,
            Some(PersistenceEngine::Sip)
        );
    }
}

#[test]
fn persistence_is_of_whole_addresses_for_300_s_unless_told_otherwise() {
    let rule = |timeout_seconds, prefix_length| PersistenceRule {
        timeout_seconds,
        prefix_length,
        engine: None,
    };
    for (address, persistence, expected) in [
        ("10.0.0.1", json!({}), rule(300, 32)),
        ("2001:db8::1", json!({}), rule(300, 128)),
        (
            "10.0.0.1",
            json!({"timeoutSeconds": 1, "prefixLength": 24}),
            rule(1, 24),
        ),
        (
            "2001:db8::1",
            json!({"timeoutSeconds": 4_294_967, "prefixLength": 64}),
            rule(4_294_967, 64),
        ),
    ] {
        let checked = service(
            &web()
                .with("spec.vip.address", address)
                .with("spec.vip.port", 0)
                .with("spec.persistence", persistence),
        );
        assert_eq!(checked.unwrap().persistence, Some(expected));
    }
}

#[test]
fn every_tunnel_has_what_belongs_to_it() {
    use TunnelChecksum::{Full, None as Without, Remote};
    for (tunnel, expected) in [
        (Value::Null, ForwardingRule::Ipip),
        (json!({}), ForwardingRule::Ipip),
        (
            json!({"type": "IPIP", "checksum": "None"}),
            ForwardingRule::Ipip,
        ),
        (
            json!({"type": "GRE"}),
            ForwardingRule::Gre { checksum: Without },
        ),
        (
            json!({"type": "GRE", "checksum": "Full"}),
            ForwardingRule::Gre { checksum: Full },
        ),
        (
            json!({"type": "GUE", "port": 6080}),
            ForwardingRule::Gue {
                port: 6080,
                checksum: Without,
            },
        ),
        (
            json!({"type": "GUE", "port": 65535, "checksum": "Remote"}),
            ForwardingRule::Gue {
                port: 65535,
                checksum: Remote,
            },
        ),
    ] {
        let forwarding = json!({"method": "TUN", "tunnel": tunnel});
        let checked = service(&web().with("spec.forwarding", forwarding)).unwrap();
        assert_eq!(checked.forwarding, Some(expected));
    }
}

#[test]
fn a_server_has_weight_1_and_no_thresholds_unless_told_otherwise() {
    let plain = server(&fixtures::server("a", "10.1.0.1")).unwrap();
    assert_eq!((plain.port, plain.weight), (None, 1));
    assert_eq!((plain.upper_threshold, plain.lower_threshold), (0, 0));
    let full = fixtures::server("a", "10.1.0.1")
        .with("spec.port", 65535)
        .with("spec.weight", 65535)
        .with(
            "spec.connections",
            json!({"upperThreshold": i32::MAX, "lowerThreshold": i32::MAX}),
        );
    let full = server(&full).unwrap();
    assert_eq!((full.port, full.weight), (Some(65535), 65535));
    assert_eq!(
        (full.upper_threshold, full.lower_threshold),
        (0x7fff_ffff, 0x7fff_ffff)
    );
}

#[test]
fn a_selector_is_read_as_kubernetes_reads_it() {
    let labels = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let web_a = labels(&[("app", "web"), ("zone", "a")]);
    let web = labels(&[("app", "web")]);
    let none = labels(&[]);
    let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]});
    for (selector, matches) in [
        (json!({"matchLabels": {"app": "web"}}), [true, true, false]),
        (
            json!({"matchLabels": {"app": "web", "zone": "a"}}),
            [true, false, false],
        ),
        (expression("In", &["a", "b"]), [true, false, false]),
        (expression("NotIn", &["a"]), [false, true, true]),
        (expression("Exists", &[]), [true, false, false]),
        (expression("DoesNotExist", &[]), [false, true, true]),
    ] {
        let selector = service(&self::web().with("spec.realServerSelector", selector))
            .unwrap()
            .selector;
        let found = [&web_a, &web, &none].map(|labels| selector.matches(labels));
        assert_eq!(found, matches, "{selector:?}");
    }
}

#[test]
fn a_holder_is_the_name_of_a_director() {
    let named = group("edge").with("spec.addresses", json!({"holder": "lb-1.example"}));
    let checked = CheckedGroup::check(&named.read::<Loose<DirectorGroup>>().spec.unwrap()).unwrap();
    assert_eq!(checked.holder.as_deref(), Some("lb-1.example"));
}

#[test]
fn an_interface_is_named_only_where_vips_go_on_one() {
    let checked = |addresses| {
        let group = group("edge").with("spec.addresses", addresses);
        CheckedGroup::check(&group.read::<Loose<DirectorGroup>>().spec.unwrap())
    };
    let rule = |addresses| checked(addresses).unwrap().addresses;
    assert_eq!(rule(json!({})), AddressRule::Subnet);
    assert_eq!(
        rule(json!({"interface": "eth0.100"})),
        AddressRule::Interface("eth0.100".into())
    );
    assert_eq!(rule(json!({"mode": "Dummy"})), AddressRule::Dummy);
    assert_eq!(rule(json!({"mode": "Manual"})), AddressRule::Manual);
    for mode in ["Dummy", "Manual"] {
        let refused = checked(json!({"mode": mode, "interface": "eth0"})).unwrap_err();
        assert!(refused.message.contains("interface"), "{refused:?}");
    }
}

#[test]
fn a_group_sets_only_sysctls_of_ipvs_and_of_interfaces_and_only_so_many() {
    let checked = |overrides: serde_json::Map<String, Value>| {
        let group = group("edge").with("spec.sysctls", json!({"overrides": overrides}));
        CheckedGroup::check(&group.read::<Loose<DirectorGroup>>().spec.unwrap())
    };
    let one = |name: &str| checked([(name.to_owned(), json!("1"))].into_iter().collect());
    for name in [
        "net.ipv4.vs.sloppy_tcp",
        "net.ipv4.conf.eth0/100.accept_local",
        "net.ipv6.conf.all.forwarding",
    ] {
        let rule = one(name).unwrap().sysctls;
        assert_eq!(rule.overrides[name], "1", "{name} is for a group to set");
    }
    for name in [
        "net.ipv4.conf.//.forwarding",
        "net.ipv4.conf.all.forwarding",
        "net.ipv4.vs/../../kernel.panic",
        "vm.overcommit_memory",
    ] {
        let refused = one(name).unwrap_err();
        assert!(refused.message.contains(name), "{name}: {refused:?}");
    }
    let many = |count: usize| {
        let named = |index| (format!("net.ipv4.vs.a{index}"), json!("1"));
        checked((0..count).map(named).collect())
    };
    assert_eq!(many(32).unwrap().sysctls.overrides.len(), 32);
    let refused = many(33).unwrap_err();
    assert!(refused.message.contains("at most 32"), "{refused:?}");
}
