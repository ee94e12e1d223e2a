//! Tests that a namespace never uses more than its budget, even if a new object
//! sorts before objects that a director already serves.

use std::collections::BTreeSet;

use super::*;

/// A director that serves what the last call of `serve` resolved.
#[derive(Default)]
struct Director {
    services: BTreeSet<ServiceId>,
    servers: BTreeSet<(ServiceId, SocketAddr)>,
}

impl Standing for Director {
    fn service(&self, service: ServiceId) -> bool {
        self.services.contains(&service)
    }

    fn server(&self, service: ServiceId, server: SocketAddr) -> bool {
        self.servers.contains(&(service, server))
    }
}

impl Director {
    /// Resolves the objects and serves the result. Checks that the director
    /// still serves every service and server that it served before.
    fn serve(&mut self, fixtures: &[Fixture]) -> Resolved {
        let resolved = resolve_for(&objects(fixtures), self);
        let mut now = Self::default();
        let accepted = resolved.services.values();
        for service in accepted.chain(resolved.ungranted.values()) {
            now.services.insert(service.id);
            let kept = service.ungranted.iter().map(|(_, server)| server);
            let servers = service.servers.iter().chain(kept);
            now.servers
                .extend(servers.map(|server| (service.id, server.socket())));
        }
        assert!(now.services.is_superset(&self.services), "a service left");
        assert!(now.servers.is_superset(&self.servers), "a server left");
        *self = now;
        resolved
    }
}

fn budgeted(budgets: Value) -> Fixture {
    group("default").with("spec.budgets", budgets)
}

fn at_port(name: &str, port: u16) -> Fixture {
    service(name).with("spec.vip.port", port)
}

fn waiting(resolved: &Resolved) -> Vec<String> {
    let waiting = resolved.waiting.keys();
    waiting
        .map(|(service, server)| match server {
            None => service.name.to_string(),
            Some(server) => format!("{} of {}", server.name, service.name),
        })
        .collect()
}

#[test]
fn services_of_one_second_that_come_in_reverse_do_not_add_up() {
    let mut director = Director::default();
    let mut all = vec![budgeted(json!({"perNamespace": {"services": 2}}))];
    for (port, name) in (81..).zip(["e", "d", "c", "b", "a"]) {
        all.push(at_port(name, port));
        director.serve(&all);
    }
    assert_eq!(director.services.len(), 2, "the budget");
    let resolved = director.serve(&all);
    assert_eq!(waiting(&resolved), ["a", "b"]);
    let why = &resolved.waiting[&(key("a"), None)];
    assert_eq!(why.reason, reason::BUDGET_EXCEEDED);
    for part in [
        "at most 2 VirtualServices of namespace shop (spec.budgets.perNamespace.services)",
        "this director still serves others",
    ] {
        assert!(why.message.contains(part), "{}", why.message);
    }
}

#[test]
fn what_waits_comes_when_others_leave() {
    let mut director = Director::default();
    let group = budgeted(json!({"perNamespace": {"services": 1}}));
    let (late, early) = (at_port("b", 81), at_port("a", 82));
    director.serve(&[group.clone(), late.clone()]);
    let resolved = director.serve(&[group.clone(), late, early.clone()]);
    assert_eq!(waiting(&resolved), ["a"]);
    director.services.clear();
    let resolved = director.serve(&[group, early]);
    assert_eq!(waiting(&resolved), [""; 0]);
    assert_eq!(director.services.len(), 1);
}

/// A service that selects the four servers of [`four_servers`], or no server.
fn selecting(name: &str, port: u16, created: u32, selects: bool) -> Fixture {
    let app = if selects { "web" } else { "none" };
    at_port(name, port)
        .created(created)
        .with("spec.realServerSelector.matchLabels.app", app)
}

fn four_servers() -> impl Iterator<Item = Fixture> {
    (1..=4).map(|last| server(&format!("s{last}"), &format!("10.1.0.{last}")).created(1))
}

#[test]
fn older_services_that_select_more_and_more_do_not_add_up() {
    let mut director = Director::default();
    let mut last = Resolved::default();
    for selecting_from in ["c", "b", "a"] {
        let mut all = vec![budgeted(json!({"perNamespace": {"destinations": 6}}))];
        for (created, name) in (1..).zip(["a", "b", "c"]) {
            let port = 80 + u16::try_from(created).expect("a port");
            all.push(selecting(name, port, created, name >= selecting_from));
        }
        all.extend(four_servers());
        last = director.serve(&all);
        assert!(director.servers.len() <= 6, "{:?}", director.servers);
    }
    assert_eq!(
        director.servers.len(),
        6,
        "c has four from the beginning, and b two"
    );
    // The servers of the oldest service `a` are within the budget. They wait,
    // because the director still serves newer objects, which use up the budget.
    assert_eq!(
        waiting(&last),
        ["s1 of a", "s2 of a", "s3 of a", "s4 of a"],
        "{last:?}"
    );
    let why = &last.waiting[&(key("a"), Some(key("s1")))];
    assert!(
        why.message
            .contains("at most 6 destinations (spec.budgets.perNamespace.destinations)"),
        "{}",
        why.message
    );
}

#[test]
fn older_servers_of_a_service_that_come_later_do_not_add_up() {
    let mut director = Director::default();
    let mut all = vec![budgeted(json!({"serversPerService": 2})), service("web")];
    for last in (1..=4).rev() {
        all.push(server(&format!("s{last}"), &format!("10.1.0.{last}")).created(last));
        director.serve(&all);
    }
    assert_eq!(director.servers.len(), 2, "the budget");
    let resolved = director.serve(&all);
    assert_eq!(waiting(&resolved), ["s1 of web", "s2 of web"]);
}

#[test]
fn a_budget_that_shrinks_makes_nothing_wait_that_is_served() {
    let mut director = Director::default();
    let all = |most: u32| {
        let group = budgeted(json!({"perNamespace": {"services": most, "destinations": most}}));
        let services = ["a", "b"].into_iter().zip(81..);
        let services = services.map(|(name, port)| at_port(name, port));
        [group]
            .into_iter()
            .chain(services)
            .chain(four_servers())
            .collect::<Vec<_>>()
    };
    director.serve(&all(8));
    assert_eq!((director.services.len(), director.servers.len()), (2, 8));
    let resolved = director.serve(&all(1));
    assert_eq!(waiting(&resolved), [""; 0]);
    assert_eq!((director.services.len(), director.servers.len()), (2, 8));
}
