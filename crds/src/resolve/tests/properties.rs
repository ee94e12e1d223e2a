//! Property tests of `resolve` with many good, bad and conflicting objects.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use super::{budgets::Everything, *};
use crate::{Change, check::CheckedServer};

/// Generates objects with different names, in any order.
fn world() -> impl Strategy<Value = Vec<Fixture>> {
    (
        vec(any_service(), 0..8),
        vec(any_server(), 0..10),
        any::<bool>(),
    )
        .prop_map(|(services, servers, edge)| {
            let mut named = BTreeMap::new();
            for fixture in services
                .into_iter()
                .chain(servers)
                .chain(edge.then(|| group("edge")))
            {
                named.insert((fixture.kind().to_owned(), fixture.key()), fixture);
            }
            named.into_values().collect()
        })
}

fn any_service() -> impl Strategy<Value = Fixture> {
    (
        (select(vec!["shop", "bank"]), 0..6_u8, 0..3_u32),
        select(vec!["10.0.0.1", "10.0.0.1", "2001:db8::1", "224.0.0.1"]),
        select(vec![80, 80, 443, 70000]),
        select(vec![json!(null), json!("NAT"), json!("DR"), json!("TUN")]),
        select(vec!["default", "default", "edge"]),
        select(vec![
            json!("wlc"),
            json!("wlc"),
            json!("wlc"),
            json!("quantum"),
        ]),
        select(vec!["x", "y"]),
    )
        .prop_map(
            |((namespace, name, second), address, port, method, group, scheduler, app)| {
                let forwarding = if method.is_null() {
                    method
                } else {
                    json!({"method": method})
                };
                service(&format!("s{name}"))
                    .with("metadata.namespace", namespace)
                    .with("metadata.uid", format!("{namespace}/{name}"))
                    .created(second)
                    .with("spec.vip", json!({"address": address, "port": port}))
                    .with("spec.forwarding", forwarding)
                    .with("spec.directorGroupName", group)
                    .with("spec.scheduler", scheduler)
                    .with("spec.realServerSelector.matchLabels.app", app)
            },
        )
}

fn any_server() -> impl Strategy<Value = Fixture> {
    (
        (select(vec!["shop", "bank"]), 0..8_u8, 0..3_u32),
        select(vec!["10.1.0.1", "10.1.0.2", "2001:db8::11", "0.0.0.0"]),
        option::of(select(vec![80, 8080, 70000])),
        select(vec![
            json!(null),
            json!(null),
            json!({"method": "DR"}),
            json!({"method": "FULLNAT"}),
        ]),
        select(vec!["x", "y"]),
    )
        .prop_map(
            |((namespace, name, second), address, port, forwarding, app)| {
                server(&format!("r{name}"), address)
                    .with("metadata.namespace", namespace)
                    .with("metadata.uid", format!("{namespace}/{name}"))
                    .created(second)
                    .with("metadata.labels.app", app)
                    .with("spec.port", port)
                    .with("spec.forwarding", forwarding)
            },
        )
}

/// The budgets of the group `default`: servers per service, services per
/// namespace, destinations per namespace, and destinations of all namespaces.
type Numbers = (usize, usize, usize, usize);

fn with_budgets(world: &[Fixture], (servers, services, destinations, total): Numbers) -> Objects {
    let budgets = json!({
        "serversPerService": servers,
        "perNamespace": {"services": services, "destinations": destinations},
        "total": {"destinations": total},
    });
    let mut objects = objects(world);
    group("default")
        .with("spec.budgets", budgets)
        .apply(&mut objects);
    objects
}

fn of_default<'a>(
    resolved: &'a Resolved,
    namespace: &'a str,
) -> impl Iterator<Item = &'a crate::Service> {
    let services = resolved.services.iter();
    let of_namespace = services.filter(move |(key, _)| &*key.namespace == namespace);
    of_namespace
        .map(|(_, service)| service)
        .filter(|service| service.group == "default")
}

fn selected<'a>(
    objects: &'a Objects,
    namespace: &'a str,
    selector: &'a Selector,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Stored<CheckedServer>)> {
    objects.real_servers.iter().filter(move |(key, stored)| {
        *key.namespace == *namespace && selector.matches(&stored.labels)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        (world, shuffled) in world().prop_flat_map(|world| (Just(world.clone()), Just(world).prop_shuffle())),
    ) {
        prop_assert_eq!(resolved(&world), resolved(&shuffled));
    }

    #[test]
    fn budgets_are_kept_in_any_order_and_leave_out_the_newest(
        (world, shuffled) in world().prop_flat_map(|world| (Just(world.clone()), Just(world).prop_shuffle())),
        numbers in (1..4_usize, 0..4_usize, 0..6_usize, 0..8_usize),
    ) {
        let objects = with_budgets(&world, numbers);
        let resolved = resolve(&objects);
        prop_assert_eq!(&resolve(&with_budgets(&shuffled, numbers)), &resolved);
        let (servers, services, destinations, total) = numbers;
        let mut sum = 0;
        for namespace in ["shop", "bank"] {
            let all = || of_default(&resolved, namespace);
            prop_assert!(all().count() <= services);
            prop_assert!(all().all(|service| service.servers.len() <= servers));
            let linked: usize = all().map(|service| service.servers.len()).sum();
            prop_assert!(linked <= destinations);
            sum += linked;
        }
        prop_assert!(sum <= total);
        let created = |key: &ObjectKey| {
            let stored = objects.virtual_services.get(key).expect("it exists");
            (stored.created, key.clone())
        };
        for ((kind, key), rejection) in &resolved.rejected {
            if *kind == Kind::VirtualService && rejection.reason == reason::BUDGET_EXCEEDED {
                let group = &objects.virtual_services.get(key).expect("it exists").group;
                let older = resolved.services.iter().filter(|(other, service)| {
                    other.namespace == key.namespace && Some(&service.group) == group.as_ref()
                });
                for (other, _) in older {
                    prop_assert!(created(other) < created(key), "{} is newer than {}", other, key);
                }
            }
        }
    }

    #[test]
    fn what_a_director_serves_changes_nothing_for_the_others(
        world in world(),
        numbers in (1..4_usize, 0..4_usize, 0..6_usize, 0..8_usize),
    ) {
        let objects = with_budgets(&world, numbers);
        let (all, of_one) = (resolve(&objects), resolve_for(&objects, &Everything));
        prop_assert_eq!(&of_one.rejected, &all.rejected);
        let servers = |resolved: &Resolved| -> Vec<_> {
            let services = resolved.services.iter();
            services.map(|(key, service)| (key.clone(), service.servers.clone())).collect()
        };
        prop_assert_eq!(servers(&of_one), servers(&all));
    }

    #[test]
    fn a_new_object_takes_the_place_of_no_older_one(
        world in world(),
        (servers, services, destinations) in (1..4_usize, 0..4_usize, 0..6_usize),
    ) {
        let mut objects = with_budgets(&world, (servers, services, destinations, 1000));
        let before = resolve(&objects);
        let newest = [
            service("z").created(100).with("spec.vip.address", "10.0.9.9").with("spec.realServerSelector.matchLabels.app", "x"),
            server("z", "10.1.0.99").created(100).with("metadata.labels.app", "x"),
        ];
        for object in &newest {
            object.apply(&mut objects);
        }
        let after = resolve(&objects);
        for (key, service) in &before.services {
            let now = after.services.get(key);
            prop_assert!(now.is_some(), "{} is still accepted", key);
            for server in &service.servers {
                let is_there = now.is_some_and(|now| now.servers.contains(server));
                prop_assert!(is_there, "{} still has {}", key, server.object);
            }
        }
    }

    #[test]
    fn every_object_has_one_fate(world in world()) {
        let objects = objects(&world);
        let resolved = resolve(&objects);
        for (key, _) in objects.virtual_services.iter() {
            let accepted = resolved.services.contains_key(key);
            prop_assert_ne!(accepted, resolved.rejection(Kind::VirtualService, key).is_some());
        }
        for (key, stored) in objects.real_servers.iter() {
            prop_assert_ne!(stored.current.is_ok(), resolved.rejection(Kind::RealServer, key).is_some());
        }
    }

    #[test]
    fn every_selected_server_is_linked_or_refused_and_no_other(world in world()) {
        let objects = objects(&world);
        let resolved = resolve(&objects);
        let mut pairs = 0;
        for (key, service) in &resolved.services {
            let selector = &objects.virtual_services.get(key).unwrap().in_force().unwrap().selector;
            let mut linked = 0;
            for (server, _) in selected(&objects, &key.namespace, selector) {
                let is_linked = service.servers.iter().any(|linked| linked.object == *server);
                let is_refused = resolved.refused.contains_key(&(key.clone(), server.clone()));
                prop_assert_ne!(is_linked, is_refused, "{} {}", key, server);
                linked += usize::from(is_linked);
                pairs += usize::from(is_refused);
            }
            prop_assert_eq!(linked, service.servers.len());
        }
        prop_assert_eq!(pairs, resolved.refused.len());
    }

    #[test]
    fn without_a_bad_object_all_others_are_as_they_were(world in world()) {
        let all = resolved(&world);
        for (index, fixture) in world.iter().enumerate() {
            let key = fixture.key();
            let kind = match fixture.kind() {
                "VirtualService" => Kind::VirtualService,
                "RealServer" => Kind::RealServer,
                _ => continue,
            };
            if all.rejection(kind, &key).is_none() {
                continue;
            }
            let mut others = world.clone();
            others.remove(index);
            let mut expected = all.clone();
            expected.rejected.remove(&(kind, key.clone()));
            expected.refused.retain(|(_, server), _| kind != Kind::RealServer || *server != key);
            prop_assert_eq!(resolved(&others), expected);
        }
    }

    #[test]
    fn a_bad_edit_changes_nothing_that_is_in_force(world in world(), at in any::<prop::sample::Index>()) {
        prop_assume!(!world.is_empty());
        let victim = &world[at.index(world.len())];
        let edit = victim.clone().edited("spec", json!({"addressPools": "a newer version's", "directorGroupName": "edge"}));
        let mut objects = objects(&world);
        let before = resolve(&objects);
        edit.apply(&mut objects);
        prop_assert_eq!(resolve(&objects).services, before.services);
    }

    #[test]
    fn a_new_listing_of_the_same_objects_changes_nothing(world in world()) {
        let mut objects = objects(&world);
        let before = resolve(&objects);
        objects.virtual_services.change(Change::Listing);
        for fixture in world.iter().filter(|fixture| fixture.kind() == "VirtualService") {
            objects.virtual_services.change(Change::Item(fixture.read()));
        }
        objects.virtual_services.change(Change::Listed);
        prop_assert_eq!(resolve(&objects), before);
    }
}
