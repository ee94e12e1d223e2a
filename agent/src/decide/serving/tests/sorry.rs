//! Tests the sorry server of a service that has too few healthy servers.

use super::*;

/// Returns a scene with three servers and a sorry server.
fn scene(minimum: u32, recover_above: Option<u32>) -> Scene {
    let availability = Availability {
        minimum: Some(Quantity::Count(minimum)),
        recover_above: recover_above.map(Quantity::Count),
        below: BelowMinimum::Sorry(crds::SorryServer {
            address: server(99).address,
            port: 80,
            forwarding: crds::ForwardingRule::Nat,
        }),
        ..availability()
    };
    let mut scene = Scene::with(3, availability).served();
    let policy = Arc::get_mut(&mut scene.policy).expect("no clone of the policy exists");
    policy.sorry = Some((server(99), weight(1)));
    scene.wish();
    scene
}

/// Returns the sorry server's weight in the kernel, or none if the kernel does
/// not have it.
fn sorry_weight(scene: &Scene) -> Option<u32> {
    let kernel = scene.kernel.as_ref().expect("something was weighed");
    let found = kernel.destinations.get(&server(99));
    found.map(|found| found.weight)
}

fn says_sorry(scene: &Scene) -> bool {
    sorry_weight(scene) == Some(1)
}

#[test]
fn it_serves_below_the_minimum_and_goes_when_enough_are_back() {
    let mut scene = scene(2, Some(2));
    for _ in 0..3 {
        scene.probe("+--");
    }
    assert_eq!(scene.weights(), "0 0 0", "the rest would be overwhelmed");
    assert!(says_sorry(&scene));
    for _ in 0..2 {
        scene.probe("++-");
    }
    assert!(says_sorry(&scene), "two are not more than two");
    for _ in 0..2 {
        scene.probe("+++");
    }
    assert_eq!(scene.weights(), "10 10 10");
    assert!(!says_sorry(&scene));
}

#[test]
fn a_sorry_server_that_is_drained_gets_no_new_connections() {
    let mut scene = scene(2, None);
    let mut policy = CheckPolicy::clone(&scene.policy);
    policy.drained.insert(server(99));
    scene.policy = Arc::new(policy);
    scene.wish();
    for _ in 0..3 {
        scene.probe("---");
    }
    assert!(!says_sorry(&scene), "{:?}", sorry_weight(&scene));
}

/// Returns a scene whose service has just recovered.
fn recovered() -> Scene {
    let mut scene = scene(1, None);
    for _ in 0..3 {
        scene.probe("---");
    }
    assert!(says_sorry(&scene));
    for _ in 0..2 {
        scene.probe("+--");
    }
    scene
}

#[test]
fn after_a_recovery_its_clients_have_ten_seconds_to_finish() {
    let mut scene = recovered();
    assert_eq!(sorry_weight(&scene), Some(0), "it gets no new connections");
    scene.wait(9);
    assert_eq!(sorry_weight(&scene), Some(0));
    scene.wait(1);
    assert_eq!(sorry_weight(&scene), None);
}

#[test]
fn a_restart_during_these_seconds_begins_them_again() {
    let mut scene = recovered();
    scene.restart();
    assert_eq!(sorry_weight(&scene), Some(0));
    scene.wait(9);
    assert_eq!(sorry_weight(&scene), Some(0));
    scene.wait(1);
    assert_eq!(sorry_weight(&scene), None);
}

#[test]
fn it_serves_again_if_the_service_falls_below_its_minimum_meanwhile() {
    let mut scene = recovered();
    for _ in 0..3 {
        scene.probe("---");
    }
    assert!(says_sorry(&scene));
    scene.wait(10);
    assert!(says_sorry(&scene), "the earlier recovery is forgotten");
}

#[test]
fn it_stays_over_a_restart_though_a_server_joined_meanwhile() {
    let mut scene = scene(1, None);
    for _ in 0..3 {
        scene.probe("---");
    }
    scene.wanted.destinations.insert(server(4), weight(WEIGHT));
    scene.restart();
    assert!(says_sorry(&scene));
}

#[test]
fn it_stays_over_a_restart_that_does_not_remember_it() {
    let mut scene = scene(1, None);
    scene.probe("---");
    scene.probe("---");
    let rows = scene.rows.clone();
    scene.probe("---");
    assert!(says_sorry(&scene));
    scene.restart_with(&rows);
    assert!(says_sorry(&scene), "no probe result has come since");
    scene.probe("+--");
    assert!(!says_sorry(&scene), "one is known to be up");
}
