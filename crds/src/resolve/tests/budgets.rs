//! Tests which objects the budgets of a DirectorGroup leave out.

use std::cell::Cell;

use super::*;
use crate::{Loose, api::VirtualService};

/// A group that grants everything, with these budgets.
fn budgeted(budgets: Value) -> Fixture {
    group("default").with("spec.budgets", budgets)
}

/// A director that serves everything.
pub(super) struct Everything;

impl Standing for Everything {
    fn service(&self, _: ServiceId) -> bool {
        true
    }

    fn server(&self, _: ServiceId, _: SocketAddr) -> bool {
        true
    }
}

fn of_namespace(fixture: Fixture, namespace: &str) -> Fixture {
    fixture.with("metadata.namespace", namespace)
}

/// A service on the given port.
fn at_port(name: &str, port: u16) -> Fixture {
    service(name).with("spec.vip.port", port)
}

fn accepted(resolved: &Resolved) -> Vec<String> {
    resolved.services.keys().map(ToString::to_string).collect()
}

/// Returns the names of a service's servers.
fn names(resolved: &Resolved, service: &ObjectKey) -> Vec<String> {
    let servers = resolved.services[service].servers.iter();
    servers
        .map(|server| server.object.name.to_string())
        .collect()
}

/// Returns how many servers a budget leaves out of a service.
fn left_out(resolved: &Resolved, service: &ObjectKey) -> usize {
    let named = resolved.refused_by(service);
    let named = named.filter(|(_, why)| why.reason == reason::BUDGET_EXCEEDED);
    named.count() + resolved.services[service].left_out
}

#[test]
fn the_newest_services_beyond_the_budget_of_their_namespace_are_refused() {
    let resolved = resolved(&[
        budgeted(json!({"perNamespace": {"services": 2}})),
        at_port("a", 81).created(3),
        at_port("b", 82).created(1),
        at_port("c", 83).created(2),
        of_namespace(at_port("d", 84), "bank").created(9),
    ]);
    assert_eq!(accepted(&resolved), ["bank/d", "shop/b", "shop/c"]);
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &key("a"),
        reason::BUDGET_EXCEEDED,
        &[
            "metadata.namespace: DirectorGroup default serves at most 2 VirtualServices of \
             namespace shop",
            "spec.budgets.perNamespace.services",
            "kubectl edit directorgroup default",
        ],
    );
}

#[test]
fn a_namespace_may_have_a_budget_of_its_own() {
    let services = || ["a", "b"].into_iter().zip([81, 82]);
    let mut all = vec![budgeted(json!({
        "perNamespace": {"services": 1},
        "namespaces": [{"name": "bank", "services": 2}, {"name": "evil", "services": 0}],
    }))];
    for (number, namespace) in (0..).zip(["bank", "evil", "shop"]) {
        all.extend(services().map(|(name, port)| {
            of_namespace(at_port(name, port + 10 * number), namespace).created(1)
        }));
    }
    let resolved = resolved(&all);
    assert_eq!(accepted(&resolved), ["bank/a", "bank/b", "shop/a"]);
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &ObjectKey::new("evil", "a"),
        reason::BUDGET_EXCEEDED,
        &[
            "at most 0",
            "services of entry evil in spec.budgets.namespaces",
        ],
    );
}

#[test]
fn a_service_beyond_its_budget_takes_no_part_in_conflicts() {
    let squatter = of_namespace(service("squatter"), "evil").created(1);
    let resolved = resolved(&[
        budgeted(json!({"namespaces": [{"name": "evil", "services": 0}]})),
        squatter,
        service("web").created(2),
    ]);
    assert_eq!(accepted(&resolved), ["shop/web"]);
}

#[test]
fn of_what_a_smaller_budget_leaves_out_a_director_keeps_what_it_serves() {
    let objects = objects(&[
        budgeted(json!({"perNamespace": {"services": 1, "destinations": 1}})),
        at_port("old", 81).created(1),
        at_port("new", 82).created(2),
        server("a", "10.1.0.1").created(1),
        server("b", "10.1.0.2").created(2),
    ]);
    let all = resolve(&objects);
    assert_eq!(names(&all, &key("old")), ["a"]);
    assert!(all.ungranted.is_empty() && all.services[&key("old")].ungranted.is_empty());

    let standing = resolve_for(&objects, &Everything);
    assert_eq!(standing.rejected, all.rejected);
    assert_eq!(names(&standing, &key("old")), ["a"]);
    let kept = &standing.services[&key("old")].ungranted;
    let kept: Vec<_> = kept
        .iter()
        .map(|(at, server)| (*at, &*server.object.name))
        .collect();
    assert_eq!(kept, [(1, "b")]);
    let kept = &standing.ungranted[&key("new")];
    assert_eq!(kept.servers, [], "its servers are beyond the budget too");
    assert_eq!(kept.ungranted.len(), 2);
    for server in ["a", "b"] {
        let why = &standing.refused[&(key("new"), key(server))];
        assert_eq!(why.reason, reason::BUDGET_EXCEEDED);
    }
}

#[test]
fn a_service_that_selects_too_many_servers_gets_the_oldest() {
    let mut all = vec![
        budgeted(json!({"serversPerService": 2})),
        at_port("web", 81),
        at_port("mail", 82),
    ];
    all.extend((1..=5).map(|number| {
        server(&format!("s{number}"), &format!("10.1.0.{number}")).created(10 - number)
    }));
    let resolved = resolved(&all);
    for name in ["web", "mail"] {
        assert_eq!(names(&resolved, &key(name)), ["s5", "s4"]);
        assert_eq!(left_out(&resolved, &key(name)), 3);
        let service = key(name);
        let (_, why) = resolved.refused_by(&service).next().expect("one is named");
        assert!(
            why.message
                .contains("at most 2 RealServers (spec.budgets.serversPerService)"),
            "{}",
            why.message
        );
    }
    for number in 1..=3 {
        let server = key(&format!("s{number}"));
        let is_named = resolved.refused.keys().any(|(_, named)| *named == server);
        assert!(is_named, "{server} says why no service has it");
    }
}

#[test]
fn a_new_server_takes_no_place_of_an_older_pair() {
    let mut all = vec![
        budgeted(json!({"perNamespace": {"destinations": 4}})),
        at_port("web", 81).created(1),
        at_port("mail", 82).created(5),
        server("a", "10.1.0.1").created(2),
        server("b", "10.1.0.2").created(3),
    ];
    let before = resolved(&all);
    all.push(server("c", "10.1.0.3").created(6));
    let after = resolved(&all);
    for name in ["web", "mail"] {
        assert_eq!(names(&before, &key(name)), ["a", "b"]);
        assert_eq!(names(&after, &key(name)), ["a", "b"]);
        assert_eq!(left_out(&after, &key(name)), 1);
    }
    let why = &after.refused[&(key("web"), key("c"))];
    assert!(
        why.message
            .contains("at most 4 destinations (spec.budgets.perNamespace.destinations)"),
        "{}",
        why.message
    );
}

#[test]
fn the_total_is_shared_fairly_by_the_namespaces() {
    let mut all = vec![budgeted(json!({"total": {"destinations": 5}}))];
    for (port, namespace, servers) in [(81, "bank", 1), (82, "evil", 9), (83, "shop", 3)] {
        all.push(of_namespace(at_port("web", port), namespace).created(1));
        all.extend((1..=servers).map(|number| {
            let name = format!("s{number}");
            let server = server(&name, &format!("10.1.0.{number}")).created(number);
            of_namespace(server, namespace)
        }));
    }
    let resolved = resolved(&all);
    let web = |namespace: &str| ObjectKey::new(namespace, "web");
    assert_eq!(names(&resolved, &web("bank")), ["s1"]);
    assert_eq!(names(&resolved, &web("evil")), ["s1", "s2"]);
    assert_eq!(names(&resolved, &web("shop")), ["s1", "s2"]);
    let evil = web("evil");
    let (_, why) = resolved.refused_by(&evil).next().expect("one is named");
    for part in [
        "5 destinations for all namespaces",
        "fair share of namespace evil is 2",
    ] {
        assert!(why.message.contains(part), "{}", why.message);
    }
}

/// Services that have a health check and select the same three servers.
fn checked(budget: &Value) -> Vec<Fixture> {
    let check = |period: u32| json!({"tcpSocket": {}, "periodSeconds": period});
    vec![
        budgeted(json!({"perNamespace": budget})),
        at_port("web", 81)
            .created(1)
            .with("spec.healthCheck", check(5)),
        at_port("same", 82).created(2).with(
            "spec.healthCheck",
            json!({"tcpSocket": {"port": 81}, "periodSeconds": 5}),
        ),
        at_port("slow", 83)
            .created(3)
            .with("spec.healthCheck", check(10)),
        server("a", "10.1.0.1").created(1).with("spec.port", 81),
        server("b", "10.1.0.2").created(2).with("spec.port", 81),
        server("c", "10.1.0.3").created(9).with("spec.port", 81),
    ]
}

#[test]
fn a_server_whose_check_makes_too_many_targets_is_refused() {
    let resolved = resolved(&checked(&json!({"probeTargets": 5})));
    // Each different health check makes each server a separate target: 9 in
    // all.
    assert_eq!(names(&resolved, &key("web")), ["a", "b"]);
    assert_eq!(names(&resolved, &key("same")), ["a", "b"]);
    assert_eq!(names(&resolved, &key("slow")), ["a"]);
    let why = &resolved.refused[&(key("slow"), key("b"))];
    assert_eq!(why.reason, reason::BUDGET_EXCEEDED);
    assert!(
        why.message.contains("at most 5 targets of probes"),
        "{}",
        why.message
    );
}

#[test]
fn a_target_that_another_service_has_already_costs_nothing() {
    let mut all = checked(&json!({"probeTargets": 3}));
    all.truncate(2);
    let twin = json!({"tcpSocket": {}, "periodSeconds": 5});
    all.push(
        at_port("twin", 84)
            .created(9)
            .with("spec.healthCheck", twin),
    );
    all.extend((1..=3).map(|number| {
        let name = format!("s{number}");
        server(&name, &format!("10.1.0.{number}"))
            .created(number)
            .with("spec.port", 81)
    }));
    let resolved = resolved(&all);
    for name in ["web", "twin"] {
        assert_eq!(names(&resolved, &key(name)), ["s1", "s2", "s3"]);
    }
}

#[test]
fn a_server_whose_check_makes_too_many_probes_per_second_is_refused() {
    let mut all = vec![
        budgeted(json!({"perNamespace": {"probesPerSecond": 2}})),
        at_port("fast", 81).with(
            "spec.healthCheck",
            json!({"tcpSocket": {}, "periodSeconds": 1, "timeoutSeconds": 1}),
        ),
    ];
    all.extend((1..=3).map(|number| {
        let name = format!("s{number}");
        server(&name, &format!("10.1.0.{number}")).created(number)
    }));
    let resolved = resolved(&all);
    assert_eq!(names(&resolved, &key("fast")), ["s1", "s2"]);
    let why = &resolved.refused[&(key("fast"), key("s3"))];
    assert!(
        why.message.contains("at most 2 probes per second"),
        "{}",
        why.message
    );
}

#[test]
fn a_server_that_a_probe_budget_leaves_out_keeps_its_place_while_it_is_served() {
    let resolved = resolve_for(&objects(&checked(&json!({"probeTargets": 5}))), &Everything);
    let slow = &resolved.services[&key("slow")];
    let kept = slow.ungranted.iter();
    let kept: Vec<_> = kept
        .map(|(at, server)| (*at, &*server.object.name))
        .collect();
    assert_eq!(kept, [(1, "b"), (1, "c")]);
}

#[test]
fn services_from_files_take_part_in_no_budget() {
    let mut objects = objects(&[
        budgeted(json!({
            "serversPerService": 1,
            "perNamespace": {"services": 0, "destinations": 0, "probeTargets": 0},
        })),
        server("a", "10.1.0.1"),
        server("b", "10.1.0.2"),
    ]);
    let check = json!({"tcpSocket": {}});
    let file: VirtualService = service("file").with("spec.healthCheck", check).read();
    objects
        .virtual_services
        .change(crate::Change::Apply(Loose::from_file(&file)));
    assert_eq!(names(&resolve(&objects), &key("file")), ["a", "b"]);
}

/// A director that serves nothing, and counts how often it is asked for a
/// service.
#[derive(Default)]
struct Asked(Cell<usize>);

impl Standing for Asked {
    fn service(&self, _: ServiceId) -> bool {
        self.0.set(self.0.get() + 1);
        false
    }

    fn server(&self, _: ServiceId, _: SocketAddr) -> bool {
        false
    }
}

/// One tenant has 1,000 services, and each service selects the same 1,000
/// servers.
#[test]
fn two_thousand_objects_of_a_tenant_make_no_million_destinations() {
    let mut all =
        vec![of_namespace(at_port("web", 80), "bank").with("spec.vip.address", "10.9.0.1")];
    all.push(of_namespace(server("a", "10.1.0.1"), "bank"));
    for number in 0..1000_u32 {
        let address = format!("10.1.{}.{}", number / 250, number % 250 + 1);
        let port = u16::try_from(number + 1).expect("a port");
        all.push(at_port(&format!("v{number}"), port).created(number));
        all.push(server(&format!("r{number}"), &address).created(number));
    }
    let asked = Asked::default();
    let resolved = resolve_for(&objects(&all), &asked);
    let looks = asked.0.get();
    assert!(
        looks <= 10_000,
        "a few for each object, not one for each left-out pair: {looks}"
    );
    let destinations: usize = resolved
        .services
        .iter()
        .filter(|(key, _)| &*key.namespace == "shop")
        .map(|(_, service)| service.servers.len())
        .sum();
    assert_eq!(destinations, 50_000, "the default budget");
    assert!(
        resolved.refused.len() <= 2000,
        "at most one of each object is named, and the others are counted: {}",
        resolved.refused.len()
    );
    let counted: usize = resolved
        .services
        .values()
        .map(|service| service.left_out)
        .sum();
    assert_eq!(counted + resolved.refused.len(), 950_000);
    assert_eq!(
        names(&resolved, &ObjectKey::new("bank", "web")),
        ["a"],
        "the other tenant has what it wants"
    );
}
