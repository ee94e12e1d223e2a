use std::num::NonZeroU32;

use crds::PersistenceRule;

use super::*;
use crate::fixtures::health::availability;

fn service(id: ServiceId) -> Service {
    Service {
        group: "default".into(),
        id,
        scheduler: Scheduler::Wrr,
        fallback: false,
        hash_port: false,
        one_packet: false,
        persistence: None,
        health_check: None,
        availability: availability(),
        removal_grace_period: PERIOD,
        servers: Vec::new(),
        ungranted: Vec::new(),
        left_out: 0,
        is_meant: false,
    }
}

fn vip(address: &str) -> ServiceId {
    ServiceId::Vip {
        address: address.parse().unwrap(),
        port: 80,
        protocol: Protocol::Tcp,
    }
}

fn named(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn resolved(services: impl IntoIterator<Item = (&'static str, Service)>) -> Resolved {
    Resolved {
        services: services
            .into_iter()
            .map(|(name, service)| (named(name), service))
            .collect(),
        ..Resolved::default()
    }
}

#[test]
fn another_groups_services_are_not_this_directors_business() {
    let mut elsewhere = service(vip("192.0.2.2"));
    elsewhere.group = "edge".into();
    let wanted = desired(
        &resolved([
            ("here", service(vip("192.0.2.1"))),
            ("elsewhere", elsewhere),
        ]),
        "default",
    );
    assert_eq!(
        wanted.services.values().collect::<Vec<_>>(),
        [&named("here")],
        "only the group's own service is wanted"
    );
    assert_eq!(wanted.vips.len(), 1, "and only its VIP");
}

#[test]
fn a_plain_service_is_what_ipvsadm_would_write() {
    let config = service_config(&service(vip("192.0.2.1")));
    assert_eq!(
        config,
        ServiceConfig {
            scheduler: "wrr".into(),
            flags: ServiceFlags::default(),
            timeout: 0,
            prefix_length: 32,
            persistence_engine: None,
        }
    );
    assert_eq!(
        service_config(&service(vip("2001:db8::1"))).prefix_length,
        128,
        "the whole address of IPv6 is 128 bits"
    );
}

#[test]
fn every_option_of_a_service_sets_its_own_flag() {
    let mut service = service(ServiceId::FirewallMark {
        mark: NonZeroU32::new(7).unwrap(),
        family: IpFamily::IPv6,
    });
    service.scheduler = Scheduler::Mh;
    service.fallback = true;
    service.hash_port = true;
    service.persistence = Some(PersistenceRule {
        timeout_seconds: 60,
        prefix_length: 64,
        engine: Some(PersistenceEngine::Sip),
    });
    let config = service_config(&service);
    assert_eq!(
        config.flags,
        ServiceFlags::PERSISTENT
            .with(ServiceFlags::SCHEDULER_1)
            .with(ServiceFlags::SCHEDULER_2)
    );
    assert_eq!((config.timeout, config.prefix_length), (60, 64));
    assert_eq!(config.persistence_engine.as_deref(), Some("sip"));
}

#[test]
fn every_forwarding_rule_has_its_method() {
    let gue = ForwardingRule::Gue {
        port: 6080,
        checksum: TunnelChecksum::Remote,
    };
    for (rule, method) in [
        (ForwardingRule::Nat, ForwardingMethod::Masquerade),
        (ForwardingRule::Dr, ForwardingMethod::DirectRoute),
        (
            ForwardingRule::Ipip,
            ForwardingMethod::Tunnel(Tunnel::default()),
        ),
        (
            gue,
            ForwardingMethod::Tunnel(Tunnel {
                kind: TunnelKind::Gue,
                port: 6080,
                checksum: ipvs::TunnelChecksum::Remote,
            }),
        ),
    ] {
        assert_eq!(forwarding_method(rule), method, "{rule:?}");
    }
}
