use crds::Rejection;
use ipvs::{DestinationConfig, Family, ForwardingMethod, Protocol, Tunnel};

use super::*;
use crate::{
    decide::{
        desired::CheckPolicy,
        refusals::{Reason, Refused},
    },
    fixtures::{self, health, interface, ip, named, server, tcp, wish},
    host::{listeners::Listener, peers::Peer},
};

/// The modelled host's own address.
const OWN: &str = "192.0.2.1";
/// An address that no interface of the modelled host has.
const VIP: &str = "192.0.2.10";

fn key(protocol: Protocol, address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        address: ip(address),
        port,
    }
}

fn listener(protocol: Protocol, address: &str, port: u16) -> Listener {
    Listener {
        protocol,
        address: ip(address),
        port,
        is_v6_only: false,
    }
}

/// Returns the facts of a host that has OWN and 2001:db8::1 on eth0. An ssh
/// server listens on this host, the agent uses an API server at
/// 203.0.113.9:6443, and the group has another director at 198.51.100.2.
fn facts() -> Facts {
    Facts {
        own: Some(
            [OWN, "2001:db8::1"]
                .map(|address| (ip(address), "eth0".to_owned()))
                .into(),
        ),
        listeners: Ok(vec![
            listener(Protocol::TCP, "0.0.0.0", 22),
            listener(Protocol::UDP, OWN, 53),
        ]),
        peers: Ok(BTreeSet::new()),
        served: BTreeSet::new(),
        api_servers: ["203.0.113.9:6443".parse().unwrap()].into(),
        directors: [(OWN, "a"), ("198.51.100.2", "b")]
            .map(|(address, name)| (ip(address), name.to_owned()))
            .into(),
        before_boot: None,
    }
}

fn refused(key: ServiceKey, facts: &Facts) -> Option<String> {
    let suspects = suspects(&wish(&[(key, "rr", &[(1, 1)])]), facts);
    let danger = suspects.get(&key)?.service.clone();
    danger.map(|danger| danger.why)
}

#[test]
fn what_this_hosts_programs_talk_to_is_refused_unless_the_director_serves_it() {
    let peer = |protocol, address: &str| Peer {
        protocol,
        address: address.parse().expect("an address"),
    };
    let peers = [
        peer(Protocol::TCP, "203.0.113.20:443"),
        peer(Protocol::UDP, "203.0.113.53:53"),
        peer(Protocol::UDP, "[2001:db8::123]:123"),
    ];
    let mut facts = Facts {
        peers: Ok(peers.into()),
        ..facts()
    };
    let udp = |address, port| key(Protocol::UDP, address, port);
    for (key, words) in [
        (
            tcp("203.0.113.20", 443),
            Some("203.0.113.20:443 (TCP; `ss -ntp 'dst 203.0.113.20:443'`"),
        ),
        (
            tcp("203.0.113.20", 0),
            Some("grant exactly 203.0.113.20/32"),
        ),
        (tcp("203.0.113.20", 80), None),
        (udp("203.0.113.20", 443), None),
        (udp("203.0.113.53", 53), Some("(UDP; `ss -nup")),
        (udp("2001:db8::123", 123), Some("2001:db8::123/128")),
    ] {
        let found = refused(key, &facts);
        let is_as_expected = match (&found, words) {
            (Some(found), Some(words)) => found.contains(words),
            (found, words) => found.is_none() && words.is_none(),
        };
        assert!(is_as_expected, "{key}: {found:?} instead of {words:?}");
    }

    let registry = (tcp("203.0.113.20", 443), None);
    assert_eq!(reason(&registry, &facts), Reason::Present);
    facts.served.insert(registry.0);
    assert_eq!(refused(registry.0, &facts), None);
    facts.peers = Err("no module tcp_diag".to_owned());
    assert_eq!(reason(&registry, &facts), Reason::Unknown);
}

#[test]
fn a_service_that_would_take_the_hosts_own_traffic_is_refused_with_what_to_do() {
    let udp = |address, port| key(Protocol::UDP, address, port);
    for (key, words) in [
        (tcp("203.0.113.9", 6443), Some("203.0.113.9:6443")),
        (tcp("203.0.113.9", 0), Some("--manifests")),
        (tcp("203.0.113.9", 443), None),
        (udp("203.0.113.9", 6443), None),
        (tcp(OWN, 22), Some("listens on 0.0.0.0:22 (TCP)")),
        (tcp(OWN, 80), None),
        (tcp(OWN, 53), None),
        (udp(OWN, 53), Some("`ss -lnup 'sport = :53'`")),
        (udp(OWN, 22), None),
        (tcp(OWN, 0), Some("every port")),
        (udp(OWN, 0), Some("every port")),
        (tcp("2001:db8::1", 22), None),
        (tcp("2001:db8::1", 0), Some("on eth0 before")),
        (tcp(VIP, 22), None),
        (tcp(VIP, 0), None),
    ] {
        let found = refused(key, &facts());
        match (words, &found) {
            (None, None) => {}
            (Some(words), Some(why)) if why.contains(words) => {}
            _ => panic!("{key} was expected to be refused for {words:?}: {found:?}"),
        }
    }
}

#[test]
fn without_the_hosts_addresses_any_may_be_its_own() {
    let facts = Facts {
        own: None,
        ..facts()
    };
    let why = refused(tcp(VIP, 22), &facts).expect("ssh listens on every address");
    assert!(why.contains("cannot be read"), "{why}");
    assert!(refused(tcp(VIP, 0), &facts).is_some(), "port 0 as well");
    assert_eq!(refused(tcp(VIP, 80), &facts), None, "nothing listens there");
}

#[test]
fn what_may_listen_unseen_is_refused_on_an_address_of_the_host_alone() {
    let facts = Facts {
        listeners: Err("no such file".into()),
        ..facts()
    };
    let why = refused(tcp(OWN, 80), &facts).expect("something may listen there");
    assert!(
        why.contains("tcp_diag"),
        "the message names what to load: {why}"
    );
    assert_eq!(refused(tcp(VIP, 80), &facts), None);
}

#[test]
fn listeners_matter_for_ports_of_the_hosts_addresses_alone() {
    let facts = facts();
    let own = facts.own.as_ref();
    let mark = ServiceKey::FirewallMark {
        family: Family::V4,
        mark: 1,
    };
    for (key, expected) in [
        (tcp(OWN, 80), true),
        (tcp(OWN, 0), false),
        (tcp(VIP, 80), false),
        (mark, false),
    ] {
        assert_eq!(asks_for_listeners(&key, own), expected, "{key}");
    }
    assert!(asks_for_listeners(&tcp(VIP, 80), None), "not known");
}

/// Returns a service with the servers .1, .2 (the address of director b) and
/// .3, which all have the forwarding method `method`.
fn with_method(method: ForwardingMethod) -> (ServiceKey, Desired) {
    let key = tcp(VIP, 80);
    let mut desired = wish(&[(key, "rr", &[(1, 1), (2, 1), (3, 1)])]);
    let service = desired.table.get_mut(&key).expect("the service is wanted");
    for config in service.destinations.values_mut() {
        config.method = method;
    }
    (key, desired)
}

#[test]
fn a_director_is_no_server_of_its_group_but_by_nat() {
    for (method, is_refused) in [
        (ForwardingMethod::DirectRoute, true),
        (ForwardingMethod::Tunnel(Tunnel::default()), true),
        (ForwardingMethod::Masquerade, false),
    ] {
        let (key, desired) = with_method(method);
        let suspects = suspects(&desired, &facts());
        let servers: Vec<_> = suspects
            .get(&key)
            .map(|suspect| suspect.servers.keys().copied().collect())
            .unwrap_or_default();
        let expected = if is_refused { vec![server(2)] } else { vec![] };
        assert_eq!(servers, expected, "{method:?}");
    }
}

#[test]
fn a_service_goes_on_without_the_server_that_is_a_director() {
    let (key, desired) = with_method(ForwardingMethod::DirectRoute);
    let desired = Arc::new(desired);
    let suspects = suspects(&desired, &facts());
    let verdict = judge(&desired, &suspects, |_, _| false, Permissions::default());
    let left: Vec<_> = verdict.desired.table[&key]
        .destinations
        .keys()
        .copied()
        .collect();
    assert_eq!(left, [server(1), server(3)], "in their previous order");
    assert!(!verdict.desired.servers.contains_key(&(key, server(2))));
    assert_eq!(verdict.refused, [(key, Some(server(2)))].into());
    let [exception] = verdict.report.exceptions.as_slice() else {
        panic!("one exception: {:?}", verdict.report);
    };
    assert_eq!(exception.virtual_service, named(&key.to_string()));
    assert_eq!(exception.real_server, Some(named("server2")));
    assert_eq!(exception.reason, "WouldHijackDirector");
    assert!(
        exception.message.contains("Director b") && exception.message.contains("NAT"),
        "the message names the director and what to do: {exception:?}"
    );
}

#[test]
fn a_sorry_server_that_is_a_director_is_left_out_too() {
    let (key, mut desired) = with_method(ForwardingMethod::Masquerade);
    let config = DestinationConfig {
        method: ForwardingMethod::DirectRoute,
        ..fixtures::weight(1)
    };
    let policy = CheckPolicy {
        check: Arc::new(health::check()),
        namespace: "shop".into(),
        quotable: BTreeSet::new(),
        availability: health::availability(),
        sorry: Some((server(2), config)),
        quiesce_only: BTreeSet::new(),
        drained: BTreeSet::new(),
    };
    desired.checks.insert(key, Arc::new(policy));
    let desired = Arc::new(desired);
    let suspects = suspects(&desired, &facts());
    let verdict = judge(&desired, &suspects, |_, _| false, Permissions::default());
    assert_eq!(verdict.desired.checks[&key].sorry, None);
}

#[test]
fn nothing_of_a_refused_service_is_wanted_and_its_vip_stays_for_the_others() {
    let (ssh, web) = (tcp(OWN, 22), tcp(OWN, 80));
    let servers: &[_] = &[(1, 1)];
    let both = Arc::new(wish(&[(ssh, "rr", servers), (web, "rr", servers)]));
    let suspects = suspects(&both, &facts());
    let verdict = judge(&both, &suspects, |_, _| false, Permissions::default());
    assert_eq!(*verdict.desired, wish(&[(web, "rr", servers)]));

    let alone = Arc::new(wish(&[(ssh, "rr", servers)]));
    let verdict = judge(&alone, &suspects, |_, _| false, Permissions::default());
    assert_eq!(*verdict.desired, Desired::default(), "no VIP is left over");
}

#[test]
fn what_is_already_in_the_kernel_stays_and_is_reported() {
    let (key, mut desired) = with_method(ForwardingMethod::DirectRoute);
    let ssh = tcp(OWN, 22);
    let service = wish(&[(ssh, "rr", &[])]);
    desired.table.extend(service.table);
    desired.services.extend(service.services);
    let desired = Arc::new(desired);
    let suspects = suspects(&desired, &facts());
    let standing = [(key, None), (key, Some(server(2))), (ssh, None)];
    let stands = |key: &ServiceKey, server: Option<&DestinationKey>| {
        standing.contains(&(*key, server.copied()))
    };
    let verdict = judge(&desired, &suspects, stands, Permissions::default());
    assert!(Arc::ptr_eq(&verdict.desired, &desired), "all of it stays");
    assert_eq!(verdict.report.exceptions, []);
    let [one, other] = verdict.report.notices.as_slice() else {
        panic!("two notices: {:?}", verdict.report);
    };
    assert!(one.contains("0.0.0.0:22") && one.contains("stays"), "{one}");
    assert!(other.contains("Director b"), "{other}");
}

/// Returns a wish for one service with servers 1 and 2, in which `entries` have
/// no grant.
fn ungranted(entries: &[Option<DestinationKey>]) -> (ServiceKey, Arc<Desired>) {
    let key = tcp(VIP, 80);
    let mut desired = wish(&[(key, "rr", &[(1, 1), (2, 1)])]);
    for server in entries {
        let why = Rejection {
            reason: condition::reason::ADDRESS_NOT_GRANTED,
            message: "the group does not grant it".to_owned(),
        };
        desired.ungranted.insert((key, *server), why);
    }
    (key, Arc::new(desired))
}

#[test]
fn without_a_grant_an_entry_stays_only_if_it_is_ours_and_in_the_kernel() {
    for (entry, stands, left) in [
        (None, false, None),
        (None, true, Some(2)),
        (Some(server(2)), false, Some(1)),
        (Some(server(2)), true, Some(2)),
    ] {
        let (key, desired) = ungranted(&[entry]);
        let verdict = judge(
            &desired,
            &BTreeMap::new(),
            |_, _| stands,
            Permissions::default(),
        );
        let servers = verdict.desired.table.get(&key);
        let servers = servers.map(|service| service.destinations.len());
        assert_eq!(servers, left, "{entry:?}, in force before: {stands}");
        let told: Vec<_> = verdict.report.exceptions.iter().collect();
        match (stands, &told[..]) {
            (false, []) => {}
            (true, [exception]) => {
                assert_eq!(exception.reason, "AddressNotGranted");
                assert!(
                    exception.message.starts_with("still served"),
                    "{exception:?}"
                );
                assert_eq!(exception.real_server.is_some(), entry.is_some());
            }
            _ => panic!("only what is still served is reported: {told:?}"),
        }
    }
}

#[test]
fn allowed_removals_end_what_stays_without_a_grant() {
    let (key, desired) = ungranted(&[None]);
    let permissions = Permissions {
        is_released: true,
        ..Permissions::default()
    };
    let verdict = judge(&desired, &BTreeMap::new(), |_, _| true, permissions);
    assert!(!verdict.desired.table.contains_key(&key));
    assert!(verdict.desired.vips.is_empty(), "its VIP goes too");
    assert_eq!(verdict.ungranted, [(key, None)].into());
    assert_eq!(verdict.report, Report::default());
}

#[test]
fn an_address_that_is_granted_by_itself_may_be_the_hosts_own() {
    let ssh = tcp(OWN, 22);
    let mut desired = wish(&[(ssh, "rr", &[])]);
    desired.meant.insert(ssh);
    let desired = Arc::new(desired);
    let suspects = suspects(&desired, &facts());
    let verdict = judge(&desired, &suspects, |_, _| false, Permissions::default());
    assert!(Arc::ptr_eq(&verdict.desired, &desired));
    let [notice] = verdict.report.notices.as_slice() else {
        panic!("one notice: {:?}", verdict.report);
    };
    assert!(notice.contains("grants exactly"), "{notice}");
}

#[test]
fn what_is_allowed_is_programmed_and_reported() {
    let desired = Arc::new(wish(&[(tcp(OWN, 22), "rr", &[])]));
    let suspects = suspects(&desired, &facts());
    let permissions = Permissions {
        may_hijack: true,
        ..Permissions::default()
    };
    let verdict = judge(&desired, &suspects, |_, _| false, permissions);
    assert!(Arc::ptr_eq(&verdict.desired, &desired));
    let [notice] = verdict.report.notices.as_slice() else {
        panic!("one notice: {:?}", verdict.report);
    };
    assert!(notice.contains("--allow-hijack"), "{notice}");
}

#[test]
fn what_the_agent_put_on_an_interface_is_not_the_hosts_own() {
    let host = [
        interface(3, "eth1", &[("198.51.100.254", 24), (VIP, 32)]),
        interface(1, "lo", &[("127.0.0.1", 8)]),
        interface(2, "eth0", &[(OWN, 24), (VIP, 32), ("fe80::1", 64)]),
    ];
    let ours = BTreeMap::from([(ip(VIP), "eth0".to_owned())]);
    let own = own_addresses(&host, &ours);
    assert_eq!(
        own.get(&ip(VIP)).map(String::as_str),
        Some("eth1"),
        "ours is the one on eth0"
    );
    assert_eq!(own.len(), 5, "{own:?}");
    assert_eq!(
        reachable_addresses(&host, &ours),
        [OWN, "198.51.100.254", VIP].map(ip),
        "by interface, without loopback and link-local ones"
    );
}

#[test]
fn a_host_reports_only_as_many_addresses_as_fit() {
    let many: Vec<_> = (0..=255).map(|last| format!("198.51.100.{last}")).collect();
    let many: Vec<_> = many.iter().map(|text| (text.as_str(), 32)).collect();
    let host = [interface(2, "eth0", &many)];
    let told = reachable_addresses(&host, &BTreeMap::new());
    assert_eq!(told.len(), MOST_ADDRESSES);
}

/// The definition of DirectorGroupMembers refuses an address that is given
/// twice.
#[test]
fn an_address_of_several_interfaces_is_told_once_and_kube_proxys_never() {
    let host = [
        interface(2, "eth0", &[(OWN, 24)]),
        interface(3, "veth1", &[("169.254.1.1", 32)]),
        interface(4, "veth2", &[("169.254.1.1", 32), (OWN, 32)]),
        interface(5, "kube-ipvs0", &[("10.96.0.10", 32)]),
    ];
    let told = reachable_addresses(&host, &BTreeMap::new());
    assert_eq!(told, [OWN, "169.254.1.1"].map(ip));
}

#[test]
fn the_cluster_ips_of_kube_proxy_are_refused_whatever_is_granted() {
    let kube = interface(9, "kube-ipvs0", &[("10.96.0.10", 32)]);
    let lo = interface(1, "lo", &[("10.96.0.10", 32)]);
    let facts = Facts {
        own: Some(own_addresses(&[lo, kube], &BTreeMap::new())),
        ..facts()
    };
    let dns = key(Protocol::UDP, "10.96.0.10", 53);
    let mut wanted = wish(&[(dns, "rr", &[(1, 1)])]);
    wanted.meant.insert(dns);
    let wanted = Arc::new(wanted);
    let suspects = suspects(&wanted, &facts);
    let verdict = judge(&wanted, &suspects, |_, _| false, Permissions::default());
    assert_eq!(verdict.refused, [(dns, None)].into());
    let message = &verdict.report.exceptions[0].message;
    assert!(message.contains("kube-ipvs0"), "{message}");
}

#[test]
fn a_refused_server_that_gets_forwarding_method_nat_is_not_waited_for() {
    for (method, waits) in [
        (ForwardingMethod::DirectRoute, true),
        (ForwardingMethod::Masquerade, false),
    ] {
        let (key, wanted) = with_method(method);
        let before = Refused::from([((key, Some(server(1))), "it is Director b".to_owned())]);
        let before = before.iter().map(|(entry, why)| (entry, why.as_str()));
        let mut suspects = BTreeMap::new();
        add_remembered(&mut suspects, before, &wanted);
        assert_eq!(!suspects.is_empty(), waits, "{method:?}");
    }
}

#[test]
fn after_a_boot_only_a_known_address_of_the_host_is_a_known_danger() {
    let facts = |own: Option<&str>| Facts {
        own: own.map(|own| [(ip(own), "eth0".to_owned())].into()),
        before_boot: Some([tcp(OWN, 81)].into()),
        ..facts()
    };
    for (own, port, expected) in [
        (Some(OWN), 80, Some(DangerKind::Known)),
        (Some(OWN), 81, None),
        (Some(VIP), 80, None),
        (None, 80, Some(DangerKind::Guess)),
    ] {
        let key = tcp(OWN, port);
        let suspects = suspects(&wish(&[(key, "rr", &[(1, 1)])]), &facts(own));
        let danger = suspects
            .get(&key)
            .and_then(|suspect| suspect.service.as_ref());
        let kind = danger.map(|danger| danger.kind);
        assert_eq!(kind, expected, "{own:?}, port {port}");
    }
}
