//! Tests of servers that are drained.

use std::time::Duration;

use super::*;

/// Drains server number `server`, or ends its drain.
fn drain(scene: &mut Scene, server: usize, is_drained: bool) {
    let (key, config) = scene.wanted.destinations.get_index_mut(server).unwrap();
    config.weight = if is_drained { 0 } else { WEIGHT };
    let mut policy = CheckPolicy::clone(&scene.policy);
    match is_drained {
        true => policy.drained.insert(*key),
        false => policy.drained.remove(key),
    };
    scene.policy = Arc::new(policy);
    scene.wish();
}

#[test]
fn a_drained_server_gets_nothing_even_if_all_others_fail_and_comes_back_slowly() {
    let mut scene = Scene::with(
        3,
        Availability {
            slow_start: Some(Duration::from_secs(50)),
            ..availability()
        },
    )
    .served();
    scene.wish();
    assert_eq!(scene.probe("+++"), "10 10 10");
    drain(&mut scene, 0, true);
    assert_eq!(scene.probe("+++"), "0 10 10");
    for _ in 0..3 {
        scene.probe("+--");
    }
    assert_eq!(scene.weights(), "0 10 10", "the service fails open");
    for _ in 0..3 {
        scene.probe("+++");
    }
    drain(&mut scene, 0, false);
    assert_eq!(scene.weights(), "1 10 10", "its slow start begins");
    assert_eq!(scene.wait(25), "6 10 10");
    assert_eq!(scene.wait(25), "10 10 10");
}

#[test]
fn the_check_of_a_drained_server_goes_on() {
    let mut scene = Scene::with(2, availability()).served();
    scene.wish();
    scene.probe("++");
    drain(&mut scene, 0, true);
    for _ in 0..3 {
        scene.probe("-+");
    }
    drain(&mut scene, 0, false);
    assert_eq!(scene.weights(), "0 10", "it failed during its drain");
    scene.probe("++");
    assert_eq!(scene.probe("++"), "10 10");
}
