use std::time::Duration;

use super::*;
use crate::{Availability, BelowMinimum, OnFailure, Quantity, SorryServer};

fn checked() -> Fixture {
    web().with("spec.healthCheck", json!({"icmp": {}}))
}

fn availability(fixture: &Fixture) -> Availability {
    service(fixture).unwrap().availability
}

#[test]
fn a_service_that_says_nothing_fails_open_without_a_healthy_server() {
    for fixture in [web(), checked()] {
        let expected = Availability {
            on_failure: OnFailure::Quiesce,
            minimum: None,
            recover_above: None,
            below: BelowMinimum::FailOpen,
            slow_start: None,
        };
        assert_eq!(availability(&fixture), expected);
    }
}

#[test]
fn a_failed_server_is_removed_where_its_clients_would_stay_on_it() {
    use OnFailure::{Quiesce, Remove};
    let udp = checked().with("spec.vip.protocol", "UDP");
    let persistent = checked().with("spec.persistence", json!({}));
    let marked = checked()
        .without("vip")
        .with("spec.firewallMark", json!({"mark": 7}));
    for (fixture, expected) in [
        (checked(), Quiesce),
        (checked().with("spec.vip.protocol", "SCTP"), Quiesce),
        (udp.clone(), Remove),
        (persistent.clone(), Remove),
        (checked().with("spec.scheduler", "dh"), Remove),
        (marked.clone(), Quiesce),
        (marked.clone().with("spec.persistence", json!({})), Remove),
        (marked.with("spec.onePacketScheduling", true), Remove),
        (checked().with("spec.scheduler", "mh"), Quiesce),
        (udp.with("spec.scheduler", "sh"), Quiesce),
        (persistent.with("spec.scheduler", "mh"), Quiesce),
    ] {
        assert_eq!(availability(&fixture).on_failure, expected, "{fixture:?}");
    }
}

#[test]
fn what_becomes_of_a_failed_server_can_be_said() {
    for (protocol, said, expected) in [
        ("TCP", "Remove", OnFailure::Remove),
        ("UDP", "Quiesce", OnFailure::Quiesce),
    ] {
        let fixture = checked()
            .with("spec.vip.protocol", protocol)
            .with("spec.availability", json!({"onFailure": said}));
        assert_eq!(availability(&fixture).on_failure, expected);
    }
}

#[test]
fn a_minimum_is_a_count_or_a_percentage() {
    use Quantity::{Count, Percent};
    for (minimum, recovery, expected) in [
        (json!(2), json!(2), (Count(2), Count(2))),
        (json!(0), json!(10_000), (Count(0), Count(10_000))),
        (json!("2"), json!("10"), (Count(2), Count(10))),
        (json!("50%"), json!("100%"), (Percent(50), Percent(100))),
        (json!("0%"), json!("9%"), (Percent(0), Percent(9))),
        (json!(3), json!("50%"), (Count(3), Percent(50))),
        (json!("50%"), json!(1), (Percent(50), Count(1))),
    ] {
        let fixture = checked().with(
            "spec.availability",
            json!({"minimumHealthy": minimum, "recoverAbove": recovery}),
        );
        let checked = availability(&fixture);
        assert_eq!(checked.minimum, Some(expected.0));
        assert_eq!(checked.recover_above, Some(expected.1));
    }
}

#[test]
fn a_server_that_says_sorry_is_reached_as_the_services_own_unless_told_otherwise() {
    let sorry = |fixture: Fixture, server: Value| {
        let below = json!({"belowMinimum": {"action": "SorryServer", "sorryServer": server}});
        availability(&fixture.with("spec.availability", below)).below
    };
    let marked = checked()
        .without("vip")
        .with("spec.firewallMark", json!({"mark": 7}));
    for (fixture, server, port, forwarding) in [
        (
            checked(),
            json!({"address": "127.0.0.1"}),
            80,
            ForwardingRule::Nat,
        ),
        (
            checked(),
            json!({"address": "10.1.0.9", "port": 8080}),
            8080,
            ForwardingRule::Nat,
        ),
        (
            checked(),
            json!({"address": "10.1.0.9", "port": 80, "forwarding": {"method": "DR"}}),
            80,
            ForwardingRule::Dr,
        ),
        (
            checked(),
            json!({"address": "2001:db8::9", "forwarding": {"method": "TUN"}}),
            80,
            ForwardingRule::Ipip,
        ),
        (
            checked().without("forwarding"),
            json!({"address": "10.1.0.9", "forwarding": {"method": "NAT"}}),
            80,
            ForwardingRule::Nat,
        ),
        (
            marked.clone(),
            json!({"address": "10.1.0.9"}),
            0,
            ForwardingRule::Nat,
        ),
        (
            marked,
            json!({"address": "10.1.0.9", "port": 80}),
            80,
            ForwardingRule::Nat,
        ),
    ] {
        let expected = BelowMinimum::Sorry(SorryServer {
            address: server["address"].as_str().unwrap().parse().unwrap(),
            port,
            forwarding,
        });
        assert_eq!(sorry(fixture, server), expected);
    }
}

#[test]
fn clients_can_be_refused_instead_and_weights_can_grow() {
    let fixture = checked().with(
        "spec.availability",
        json!({"belowMinimum": {"action": "Reject"}, "slowStartSeconds": 30}),
    );
    let checked = availability(&fixture);
    assert_eq!(checked.below, BelowMinimum::Reject);
    assert_eq!(checked.slow_start, Some(Duration::from_secs(30)));
}
