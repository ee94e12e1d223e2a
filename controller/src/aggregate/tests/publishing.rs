//! Tests which health reports cause patches and Events, and how often.

use std::time::Duration;

use crds::condition::{self, reason};
use serde_json::json;

use super::scene::{Scene, below, checked, down, moment, sees};
use crate::{
    difference::Difference,
    kubernetes_event,
    outbox::{LASTING, Outbox, Outcome, PAUSE},
    status::Subject,
};

/// One status that was published, with its Events.
#[derive(Debug)]
struct Published {
    subject: Subject,
    difference: Difference,
    events: Vec<String>,
}

/// Publishes all due statuses, except those of Directors.
fn publish(scene: &mut Scene, outbox: &mut Outbox) -> Vec<Published> {
    scene.world.resolve();
    let mut pass = scene.world.pass(moment(scene.now));
    pass.letters
        .retain(|letter| letter.id.subject != Subject::Director);
    outbox.update(pass, scene.now);
    let mut published = Vec::new();
    loop {
        let due = outbox.due(scene.now);
        if due.is_empty() {
            return published;
        }
        for letter in due {
            let events = kubernetes_event::of_letter(&letter)
                .into_iter()
                .map(|made| {
                    let event = made.event;
                    format!(
                        "{:?} {}: {}",
                        event.type_,
                        event.reason,
                        event.note.unwrap()
                    )
                });
            published.push(Published {
                subject: letter.id.subject,
                difference: letter.difference,
                events: events.collect(),
            });
            outbox.done(&letter.id, Outcome::Written, scene.now);
            scene.world.wrote(&letter.id, letter.status);
        }
    }
}

#[test]
fn a_server_that_comes_and_goes_on_one_director_makes_a_patch_in_five_seconds() {
    let mut scene = checked(&["d1", "d2"]);
    let mut outbox = Outbox::default();
    publish(&mut scene, &mut outbox);
    let mut patches = Vec::new();
    for second in 0..60 {
        scene.now += Duration::from_secs(1);
        scene.renew("d1");
        let unhealthy = match second % 2 {
            0 => vec![down("shop/a")],
            _ => vec![],
        };
        scene.report("d2", sees(&unhealthy));
        patches.extend(publish(&mut scene, &mut outbox));
    }
    let most = 60 / usize::try_from(PAUSE.as_secs()).unwrap() + 1;
    for subject in [Subject::RealServer, Subject::VirtualService] {
        let of = patches.iter().filter(|patch| patch.subject == subject);
        assert!(
            (1..=most).contains(&of.clone().count()),
            "{subject:?}: {patches:?}"
        );
        for patch in of {
            assert_eq!(patch.difference, Difference::Plain, "{patch:?}");
        }
    }
}

#[test]
fn the_death_of_a_director_is_soft_for_every_server_that_it_checks() {
    let mut scene = checked(&["d1", "d2"]);
    let mut outbox = Outbox::default();
    publish(&mut scene, &mut outbox);
    scene.let_die(&["d2"]);
    let is_server = |patch: &&Published| patch.subject == Subject::RealServer;
    let published = publish(&mut scene, &mut outbox);
    let at_once = published.iter().filter(is_server).count();
    assert_eq!(at_once, 0, "a soft difference must last");
    scene.now += LASTING;
    scene.renew("d2");
    let published = publish(&mut scene, &mut outbox);
    let servers = published.iter().filter(is_server);
    assert_eq!(servers.clone().count(), 2);
    for patch in servers {
        assert_eq!(patch.difference, Difference::Soft, "{patch:?}");
        assert_eq!(patch.events, [""; 0]);
    }
}

#[test]
fn each_change_of_health_is_one_event_with_the_words() {
    let mut scene = checked(&["d1", "d2"]);
    let mut outbox = Outbox::default();
    publish(&mut scene, &mut outbox);
    let mut events = |scene: &mut Scene| -> Vec<String> {
        scene.now += PAUSE;
        for director in ["d1", "d2"] {
            scene.renew(director);
        }
        let published = publish(scene, &mut outbox);
        published
            .into_iter()
            .flat_map(|patch| patch.events)
            .collect()
    };
    let nothing = [""; 0];
    assert_eq!(events(&mut scene), nothing);
    scene.report("d1", sees(&[down("shop/a")]));
    assert_eq!(
        events(&mut scene),
        [
            "Warning Unhealthy: Serves 1 virtual service; healthy on 1 of 2 directors; on d1: \
             connection refused, for shop/web"
        ]
    );
    scene.report("d2", sees(&[down("shop/a")]));
    assert_eq!(
        events(&mut scene),
        [
            "Warning Unhealthy: Behind 1 virtual service; healthy on 0 of 2 directors; on d1, d2: \
             connection refused, for shop/web"
        ]
    );
    let health = json!({"unhealthy": [down("shop/a")], "belowMinimum": [below("shop/web")]});
    scene.report("d1", json!({ "health": health }));
    assert_eq!(
        events(&mut scene),
        [
            "Warning BelowMinimum: Director d1: 1 of 4 real servers healthy (not a), 2 needed. \
             FailOpen: every server that is not drained counts as healthy"
        ]
    );
    for director in ["d1", "d2"] {
        scene.report(director, json!({"health": {}}));
    }
    assert_eq!(
        events(&mut scene),
        [
            "Normal Ready: On 2 directors",
            "Normal Ready: Serves 1 virtual service; healthy on 2 of 2 directors"
        ]
    );
    assert_eq!(events(&mut scene), nothing);
}

#[test]
fn a_director_that_cannot_probe_turns_and_turns_back() {
    let mut scene = checked(&["d1"]);
    let void = condition::health_checks_void([("no carrier", 2)].into_iter(), 2, 1);
    let probing = condition::health_checks_probing(2, 1);
    scene.report("d1", json!({"health": {}, "conditions": [probing]}));
    assert_eq!(scene.world.agent_flips().len(), 0);
    scene.report("d1", json!({"health": {}, "conditions": [void]}));
    let flips = scene.world.agent_flips();
    let made = flips[0].event();
    assert_eq!(
        (
            made.event.reason.as_str(),
            made.about.kind.as_deref(),
            made.about.name.as_deref()
        ),
        (reason::PROBES_VOID, Some("Director"), Some("d1"))
    );
    scene.report("d1", json!({"health": {}, "conditions": [void]}));
    assert_eq!(scene.world.agent_flips().len(), 0);
    scene.report("d1", json!({"health": {}, "conditions": [probing]}));
    assert_eq!(scene.world.agent_flips()[0].event().event.reason, "Probing");
}
