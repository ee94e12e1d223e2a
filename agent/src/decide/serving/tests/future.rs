//! Tests a restart after the clock was set back. The times that the previous
//! run recorded are then in the future. These times must not take servers out
//! of service.

use super::*;

const DAY: i64 = 24 * 60 * 60;

#[test]
fn a_server_that_was_calm_for_long_is_not_flapping_because_of_a_time_in_the_future() {
    let mut scene = Scene::new(2).served();
    scene.wish();
    "---++---++---".chars().for_each(|result| {
        scene.probe(&format!("+{result}"));
    });
    for _ in 0..60 {
        scene.probe("++");
    }
    assert_eq!(scene.weights(), "10 10", "it is back");
    scene.second -= DAY;
    assert_eq!(scene.restart(), "10 10");
    for _ in 0..100 {
        scene.probe("++");
    }
    for _ in 0..3 {
        scene.probe("+-");
    }
    assert_eq!(scene.weights(), "10 0", "it failed after minutes of calm");
    assert_eq!(scene.probe("++"), "10 0");
    assert_eq!(scene.probe("++"), "10 10", "it needs no more than usual");
}

#[test]
fn a_slow_start_that_begins_in_the_future_ends_in_time() {
    let slow = Availability {
        slow_start: Some(Duration::from_secs(100)),
        ..availability()
    };
    let mut scene = Scene::with(2, slow).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+-");
    }
    scene.probe("++");
    assert_eq!(scene.probe("++"), "10 1");
    scene.second -= DAY;
    assert_eq!(scene.restart(), "10 1");
    assert_eq!(scene.wait(100), "10 10");
}
