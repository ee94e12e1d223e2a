//! Tests what a status says of an object that waits.

use std::time::Duration;

use crds::{ObjectKey, condition::kind};
use serde_json::json;

use super::scene::{Scene, moment, said, unproven};
use crate::{
    outbox::Letter,
    status::{Id, Subject},
    waits::PATIENCE,
};

const WEB: (Subject, &str) = (Subject::VirtualService, "web");

fn id(of: (Subject, &str)) -> Id {
    Id {
        subject: of.0,
        key: ObjectKey::new("shop", of.1),
    }
}

/// Makes a pass and publishes what it finds. Returns the status of one object,
/// if the pass found a new one.
fn publish(scene: &mut Scene, of: (Subject, &str)) -> Option<Letter> {
    scene.world.resolve();
    let letters = scene.world.pass(moment(scene.now)).letters;
    for letter in &letters {
        let clock = moment(scene.now).clock;
        let dated = letter.status.dated(letter.published.as_ref(), clock);
        scene.world.wrote(&letter.id, dated);
    }
    letters.into_iter().find(|letter| letter.id == id(of))
}

fn says(letter: Option<Letter>, kind: &str) -> String {
    said(letter.expect("a new status").status.conditions(), kind)
}

/// Lets time pass until the world asks for a pass, with all directors alive.
fn wait_for_a_deadline(scene: &mut Scene, directors: &[&str]) -> Duration {
    let began = scene.now;
    while !scene.world.time_passed(scene.now) {
        scene.now += Duration::from_secs(1);
        for director in directors {
            scene.renew(director);
        }
        assert!(scene.now < began + 3 * PATIENCE, "nothing was too long");
    }
    scene.now - began
}

const NOT_YET: &str = "False/Programming: Waiting for director d2. Waiting since \
                       1970-01-01T00:00:01Z";

const TOO_LONG: &str = "False/ProgressDeadlineExceeded: Waiting for director d2. Waiting since \
                        1970-01-01T00:00:01Z, which is too long: look at the directors with \
                        kubectl describe idir, and at the logs of their agents";

/// Returns a scene in which d2 has not used any object yet.
fn half_programmed() -> Scene {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    scene.report("d2", json!({"used": null}));
    scene
}

#[test]
fn a_wait_says_since_when_and_is_an_error_after_minutes() {
    let mut scene = half_programmed();
    let before = publish(&mut scene, WEB);
    for kind in [kind::PROGRAMMED, kind::READY] {
        assert_eq!(says(before.clone(), kind), NOT_YET);
    }
    let waited = wait_for_a_deadline(&mut scene, &["d1", "d2"]);
    assert_eq!(waited, PATIENCE);
    let late = publish(&mut scene, WEB);
    for kind in [kind::PROGRAMMED, kind::READY] {
        assert_eq!(says(late.clone(), kind), TOO_LONG);
    }
    assert!(!scene.world.time_passed(scene.now), "it is said once");
    scene.report("d2", json!({}));
    let done = publish(&mut scene, WEB);
    assert_eq!(
        says(done, kind::PROGRAMMED),
        "True/Programmed: On 2 directors"
    );
}

#[test]
fn an_edit_begins_a_new_wait() {
    let mut scene = half_programmed();
    publish(&mut scene, WEB);
    scene.now += PATIENCE - Duration::from_secs(1);
    for director in ["d1", "d2"] {
        scene.renew(director);
    }
    scene.server("a", json!({"address": "10.1.0.1", "weight": 7}));
    let edited = publish(&mut scene, WEB);
    let words = says(edited, kind::PROGRAMMED);
    assert!(
        words.ends_with("Waiting for director d1, d2. Waiting since 1970-01-01T00:05:00Z"),
        "{words}"
    );
    assert_eq!(wait_for_a_deadline(&mut scene, &["d1", "d2"]), PATIENCE);
}

#[test]
fn a_controller_that_starts_goes_on_with_a_wait_that_another_published() {
    let mut before = half_programmed();
    let published = publish(&mut before, WEB).unwrap();
    let mut scene = half_programmed();
    let dated = published.status.dated(None, moment(before.now).clock);
    scene.world.wrote(&published.id, dated);
    scene.now += PATIENCE / 2;
    for director in ["d1", "d2"] {
        scene.renew(director);
    }
    assert!(publish(&mut scene, WEB).is_none(), "nothing is new");
    let waited = wait_for_a_deadline(&mut scene, &["d1", "d2"]);
    assert_eq!(waited, PATIENCE - PATIENCE / 2);
    assert_eq!(says(publish(&mut scene, WEB), kind::PROGRAMMED), TOO_LONG);
}

#[test]
fn the_first_results_of_a_slow_check_may_take_as_long_as_it_needs() {
    let unhealthy = [unproven("shop/a"), unproven("shop/b")];
    let of_server = (Subject::RealServer, "a");
    for of in [WEB, of_server] {
        let mut scene = Scene::new();
        scene.service(json!({"healthCheck": {
            "tcpSocket": {}, "periodSeconds": 60, "timeoutSeconds": 10, "failureThreshold": 3,
        }}));
        scene.report("d1", json!({"health": {"unhealthy": unhealthy}}));
        let words = says(publish(&mut scene, of), kind::READY);
        assert!(words.starts_with("Unknown/Checking: "), "{words}");
        let waited = wait_for_a_deadline(&mut scene, &["d1"]);
        assert_eq!(waited, PATIENCE + 3 * Duration::from_secs(70));
        let words = says(publish(&mut scene, of), kind::READY);
        assert!(
            words.starts_with("False/ProgressDeadlineExceeded: "),
            "{words}"
        );
    }
}
