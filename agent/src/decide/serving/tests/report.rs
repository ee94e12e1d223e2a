//! Tests of what a director reports of its servers.

use crds::{ObjectKey, api::UnhealthyServer};

use super::*;

/// Returns what a director reports of server 2, which fails, if several
/// services have the same two servers. The last service has another check,
/// which has no result so far.
fn ailing(services: u16, others: u16) -> Vec<UnhealthyServer> {
    let mut scene = Scene::new(2).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+-");
    }
    let key = |number: u16| tcp("192.0.2.11", number);
    let servers = &[(1, WEIGHT), (2, WEIGHT)][..];
    let mut rows = vec![(scene.key, "wrr", servers)];
    rows.extend((1..services + others).map(|number| (key(number), "wrr", servers)));
    let found = Found {
        service: None,
        is_ours: false,
    };
    let other_check = check_policy(availability(), "PING");
    for number in 1..services + others {
        let policy = match number < services {
            true => &scene.policy,
            false => &other_check,
        };
        let wish = Some((policy, &scene.wanted));
        scene
            .serving
            .wish(key(number), wish, found, at(scene.second));
        scene
            .serving
            .weigh(key(number), &scene.wanted, at(scene.second));
    }
    let health = scene.serving.report(&crate::fixtures::wish(&rows));
    let health = health.expect("there are checks");
    let all = 2 * i32::from(services + others);
    assert_eq!(health.checked, all);
    let unhealthy = health.unhealthy.into_iter();
    let is_second = |key: &ObjectKey| key.name.ends_with("server2");
    unhealthy
        .filter(|entry| is_second(&entry.real_server))
        .collect()
}

fn named(entries: &[UnhealthyServer]) -> Vec<(&str, usize)> {
    let entries = entries.iter();
    let named = entries.map(|entry| (&*entry.message, entry.virtual_services.len()));
    named.collect()
}

#[test]
fn the_report_names_each_ailing_server_once_with_its_services() {
    assert_eq!(named(&ailing(2, 0)), [("connection refused", 2)]);
    assert_eq!(named(&ailing(10, 0)), [("connection refused", 10)]);
}

#[test]
fn a_server_that_ails_for_all_of_many_services_is_named_without_them() {
    let entries = ailing(11, 0);
    assert_eq!(named(&entries), [("connection refused", 0)]);
    assert!(entries[0].is_for_all());
}

#[test]
fn services_for_which_a_server_ails_in_another_way_are_told_apart() {
    assert_eq!(
        named(&ailing(11, 1)),
        [("connection refused", 11), ("no result so far", 1)]
    );
}
