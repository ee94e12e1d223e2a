//! Tests of the sysctls that depend on the host and on the group.

use crds::api::SysctlProfile;

use super::*;
use crate::fixtures::{ip, weight};

const ALL_V6: &str = "net.ipv6.conf.all.forwarding";

/// Returns a wish for a service with an IPv6 NAT server in eth0's subnet.
fn nat_v6() -> Desired {
    let key = tcp("2001:db8::10", 80);
    let mut desired = wish(&[(key, "wrr", &[])]);
    let server = DestinationKey {
        address: ip("2001:db8::100"),
        port: 80,
    };
    let service = desired.table.get_mut(&key).expect("it is wanted");
    service.destinations.insert(server, weight(1));
    desired
}

/// Returns a host that does not forward IPv6, as after an installation. Only on
/// eth1, another program has turned on forwarding.
fn v6_host() -> ModelWorld {
    let world = ModelWorld::new();
    for (name, value) in [
        (ALL_V6, "0"),
        ("net.ipv6.conf.default.forwarding", "0"),
        ("net.ipv6.conf.eth0.forwarding", "0"),
        ("net.ipv6.conf.eth1.forwarding", "1"),
        ("net.ipv6.conf.eth0.accept_ra", "1"),
        ("net.ipv6.conf.eth1.accept_ra", "0"),
    ] {
        put(&world, name, value);
    }
    world
}

#[test]
fn ipv6_is_forwarded_and_each_interface_stays_what_it_was() {
    let world = v6_host();
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&nat_v6());
    assert_eq!(told(&outcome, ALL_V6).problem, None);
    for (name, expected) in [
        (ALL_V6, "1"),
        ("net.ipv6.conf.default.forwarding", "0"),
        ("net.ipv6.conf.eth0.forwarding", "0"),
        ("net.ipv6.conf.eth1.forwarding", "1"),
    ] {
        assert_eq!(value(&world, name), expected, "{name}");
    }
    let sysctls = world.parts().disk.remembered().sysctls;
    let expected = [(ALL_V6.to_owned(), "0".to_owned())];
    assert_eq!(sysctls, expected.into(), "only this one must be undone");
}

#[test]
fn whenever_it_dies_the_journal_can_bring_every_interface_back() {
    for calls in 0..60 {
        let world = v6_host();
        world.parts().life = Some(calls);
        let _ = Agent::start(&world).try_round(&nat_v6(), Holding::Take);
        world.parts().life = None;
        let remembered = world.parts().disk.remembered().sysctls;
        for (name, value) in &remembered {
            crate::host::sysctls::set(&mut world.clone(), name, value).unwrap();
        }
        assert_eq!(
            world.parts().sysctls,
            v6_host().parts().sysctls,
            "after {calls} calls, with {remembered:?}"
        );
    }
}

#[test]
fn a_default_route_by_router_advertisement_is_kept_first_or_nothing_is_forwarded() {
    let world = v6_host();
    // Both interfaces have a default route from a router advertisement. The
    // kernel added the route of eth0, and another program added the route of
    // eth1.
    world.parts().advertised = [2, 3].into();
    let accept_ra = "net.ipv6.conf.eth0.accept_ra";
    world.parts().read_only.insert(accept_ra.into());
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&nat_v6());
    let why = problem(&outcome, ALL_V6);
    assert!(
        why.contains(accept_ra),
        "forwarding waits for accept_ra: {why}"
    );
    assert_eq!(value(&world, ALL_V6), "0");

    world.parts().read_only.clear();
    world.news();
    agent.later(&nat_v6());
    let news = world.news();
    let at = |line: &str| news.iter().position(|found| found == line);
    let first = at("net.ipv6.conf.eth0.accept_ra=2");
    assert!(first.is_some(), "{news:?}");
    assert!(first < at("net.ipv6.conf.all.forwarding=1"), "{news:?}");
    assert_eq!(value(&world, "net.ipv6.conf.eth1.accept_ra"), "0");
}

#[test]
fn a_server_in_no_subnet_is_where_the_route_leads() {
    let world = ModelWorld::new();
    put(&world, "net.ipv4.conf.eth0.forwarding", "0");
    put(&world, "net.ipv4.conf.eth0.send_redirects", "0");
    let far = ip("203.0.113.7");
    let mut desired = nat();
    let service = desired.table.values_mut().next().expect("a service");
    let key = DestinationKey {
        address: far,
        port: 80,
    };
    service.destinations.insert(key, weight(1));
    let mut agent = Agent::start(&world);
    agent.round(&desired);
    assert_eq!(
        value(&world, "net.ipv4.conf.eth0.forwarding"),
        "0",
        "no route leads there yet"
    );
    world.parts().routes.insert(far, 2);
    agent.later(&desired);
    assert_eq!(value(&world, "net.ipv4.conf.eth0.forwarding"), "1");
    assert_eq!(value(&world, FORWARDING), "1", "the other is behind eth1");
}

#[test]
fn connection_tracking_that_becomes_active_is_seen_and_stays_seen() {
    let world = ModelWorld::new();
    put(&world, "net.ipv4.vs.conntrack", "0");
    put(&world, "net.netfilter.nf_conntrack_count", "0");
    let mut agent = Agent::start(&world);
    agent.round(&nat());
    agent.later(&nat());
    assert_eq!(
        value(&world, "net.ipv4.vs.conntrack"),
        "0",
        "nothing is tracked"
    );
    put(&world, "net.netfilter.nf_conntrack_count", "7");
    agent.later(&nat());
    assert_eq!(value(&world, "net.ipv4.vs.conntrack"), "1");
    put(&world, "net.netfilter.nf_conntrack_count", "0");
    agent.later(&nat());
    assert_eq!(
        value(&world, "net.ipv4.vs.conntrack"),
        "1",
        "a moment without traffic proves nothing"
    );
}

#[test]
fn an_override_is_set_and_restored_if_it_is_ipvss_own() {
    let world = ModelWorld::new();
    let (own, shared) = ("net.ipv4.vs.sync_threshold", "net.ipv4.conf.eth0.rp_filter");
    put(&world, own, "3\t50");
    put(&world, shared, "1");
    let mut agent = Agent::start(&world);
    agent.tuning.rule.overrides = [
        (own.to_owned(), "5 70".to_owned()),
        (shared.to_owned(), "2".to_owned()),
    ]
    .into();
    agent.round(&wish(&[]));
    assert_eq!(value(&world, own), "5 70");
    assert_eq!(value(&world, shared), "2");
    put(&world, own, "5\t70");
    world.news();
    agent.later(&wish(&[]));
    assert_eq!(world.news(), [""; 0], "the kernel spells it in its own way");

    // The next run does not know the values that this run set. Nevertheless,
    // the next run restores the sysctl `own`.
    let mut next = Agent::start(&world);
    next.round(&wish(&[]));
    assert_eq!(value(&world, own), "3\t50");
    assert_eq!(value(&world, shared), "2", "a shared one stays");
    assert_eq!(before(&world, shared).as_deref(), Some("1"));
}

#[test]
fn a_group_without_a_profile_sets_nothing_by_itself() {
    let world = ModelWorld::new();
    put(&world, FORWARDING, "0");
    let mut agent = Agent::start(&world);
    let mut desired = nat();
    desired.checks = checked().checks;
    agent.round(&desired);
    assert_eq!(values(&world), ["1", "1"]);
    agent.tuning.rule.profile = SysctlProfile::None;
    let outcome = agent.round(&desired);
    assert_eq!(values(&world), ["0", "0"], "at once, as they were before");
    assert_eq!(value(&world, FORWARDING), "1", "other programs may need it");
    assert_eq!(outcome.sysctls, Sysctls::default());
}

#[test]
fn what_the_previous_run_knew_is_kept_until_all_is_known() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    let mut next = Agent::start(&world);
    next.removals = Removals::NotYet { is_late: false };
    next.round(&wish(&[]));
    assert_eq!(values(&world), ["1", "1"]);
    next.removals = Removals::Guarded;
    next.later(&wish(&[]));
    assert_eq!(values(&world), ["0", "0"]);
}

#[test]
fn interfaces_that_cannot_be_read_are_reported_and_what_was_known_stays_wanted() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &nat());
    world.parts().links_broken = true;
    put(&world, FORWARDING, "0");
    let outcome = agent.later(&nat());
    let trouble = outcome.sysctls.trouble.expect("the trouble is reported");
    assert!(trouble.contains("which sysctls are needed"), "{trouble}");
    assert_eq!(value(&world, FORWARDING), "1", "it was known before");
}

#[test]
fn an_interface_that_could_not_be_put_back_is_reported_and_can_be_undone() {
    let world = v6_host();
    let eth0 = "net.ipv6.conf.eth0.forwarding";
    world.parts().read_only.insert(eth0.into());
    let outcome = Agent::start(&world).round(&nat_v6());
    let why = problem(&outcome, ALL_V6);
    assert!(why.contains("Read-only file system"), "{why}");
    assert_eq!(
        value(&world, eth0),
        "1",
        "eth0 was changed together with all"
    );
    assert_eq!(before(&world, eth0).as_deref(), Some("0"));
    assert_eq!(before(&world, ALL_V6).as_deref(), Some("0"));
}
