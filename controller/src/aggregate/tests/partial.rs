//! Property: a pass over the objects that may have changed finds the statuses
//! that a pass over all objects finds.

use std::{collections::BTreeMap, time::Duration};

use crds::{ObjectKey, api::WorldDigests, condition, condition::reason};
use kube::runtime::watcher;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::{REFUSED, Scene, below, down, exception, moment, sick, unproven};
use crate::{event::Event, outbox::Letter, status::Id};

#[derive(Clone, Debug)]
enum Step {
    Service {
        name: usize,
        form: usize,
    },
    Server {
        name: usize,
        form: usize,
    },
    DeleteServer(usize),
    Group {
        form: usize,
    },
    DeleteGroup,
    Report {
        director: usize,
        used: usize,
        says: usize,
    },
    Wait {
        seconds: u64,
    },
    RelistLeases,
    Pass {
        publishes: usize,
    },
}

const SERVERS: [&str; 3] = ["a", "b", "c"];
const SERVICES: [&str; 2] = ["web", "mail"];
const DIRECTORS: [&str; 3] = ["d1", "d2", "d3"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 0..5_usize).prop_map(|(name, form)| Step::Service { name, form }),
        3 => (0..3_usize, 0..4_usize).prop_map(|(name, form)| Step::Server { name, form }),
        1 => (0..3_usize).prop_map(Step::DeleteServer),
        1 => (0..3_usize).prop_map(|form| Step::Group { form }),
        1 => Just(Step::DeleteGroup),
        12 => (0..3_usize, 0..4_usize, 0..11_usize)
            .prop_map(|(director, used, says)| Step::Report { director, used, says }),
        1 => (1..200_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::RelistLeases),
        8 => (0..4_usize).prop_map(|publishes| Step::Pass { publishes }),
    ]
}

fn service(form: usize) -> Value {
    match form {
        0 => json!({}),
        1 | 2 => json!({"healthCheck": {"tcpSocket": {}}}),
        3 => json!({"scheduler": "quantum"}),
        _ => json!({"realServerSelector": {"matchLabels": {"app": "none"}}}),
    }
}

fn server(name: usize, form: usize) -> Value {
    let address = format!("10.1.0.{}", name + 1);
    match form {
        0 => json!({ "address": address }),
        1 => json!({"address": address, "weight": 0}),
        2 => json!({"address": "10.1.0.1"}),
        _ => json!({"address": address, "weight": 70_000}),
    }
}

/// Returns what a director says, apart from the objects that it used.
fn words(says: usize) -> Value {
    match says {
        0..=3 => json!({"health": {}}),
        4 => json!({"health": {"unhealthy": [down("shop/a")]}}),
        5 => json!({"health": {"unhealthy": [unproven("shop/a"), unproven("shop/b")]}}),
        6 => json!({"health": {"unhealthyOmitted": 3, "belowMinimum": [below("shop/web")]}}),
        7 => json!({"exceptions": [exception("shop/web", reason::KERNEL_REFUSED, "no")]}),
        8 => json!({"vips": [], "exceptionsOmitted": 1}),
        9 => json!({"health": {"unhealthy": [sick("shop/b", "Down", REFUSED, &[])]}}),
        _ => {
            let away = reason::KERNEL_UNAVAILABLE;
            let broken = condition::director_not_programmed(away, "no ip_vs", 1);
            json!({ "conditions": [broken] })
        }
    }
}

/// The statuses to publish, as the passes so far have found them.
#[derive(Default)]
struct Found(BTreeMap<Id, Letter>);

/// Makes a pass, and compares what the passes so far have found with what a
/// pass over all objects finds.
fn pass(scene: &mut Scene, found: &mut Found) -> Result<(), TestCaseError> {
    scene.world.resolve();
    let pass = scene.world.pass(moment(scene.now));
    found.0.retain(|id, _| !pass.scope.has(id.subject, &id.key));
    let letters = pass.letters.into_iter();
    found
        .0
        .extend(letters.map(|letter| (letter.id.clone(), letter)));
    let all = scene
        .world
        .pass_over_all(moment(scene.now))
        .letters
        .into_iter();
    let all: BTreeMap<Id, Letter> = all.map(|letter| (letter.id.clone(), letter)).collect();
    prop_assert_eq!(&found.0, &all);
    Ok(())
}

fn publish(scene: &mut Scene, found: &mut Found, letters: usize) {
    for _ in 0..letters {
        if let Some((id, letter)) = found.0.pop_first() {
            scene.world.wrote(&id, letter.status);
        }
    }
}

fn take(scene: &mut Scene, step: &Step, seen: &mut Vec<WorldDigests>) {
    match step {
        Step::Service { name, form } => scene.named_service(SERVICES[*name], service(*form)),
        Step::Server { name, form } => scene.server(SERVERS[*name], server(*name, *form)),
        Step::DeleteServer(name) => scene.delete_server(SERVERS[*name]),
        Step::Group { form: 0 } => scene.group(json!({"addresses": {"mode": "Dummy"}})),
        Step::Group { form: 1 } => scene.group(json!({"addresses": {"holder": "d1"}})),
        Step::Group { .. } => scene.group(json!({})),
        Step::DeleteGroup => scene.delete_group(),
        Step::Report {
            director,
            used,
            says,
        } => {
            let mut report = words(*says);
            // A director is at the current objects, or a few states behind, or
            // it has not used any objects yet.
            match used {
                0 => {}
                3 => report["used"] = Value::Null,
                behind => {
                    let at = seen.len().checked_sub(*behind);
                    report["used"] = json!(at.map(|at| &seen[at]));
                }
            }
            scene.report(DIRECTORS[*director], report);
        }
        Step::Wait { seconds } => scene.now += Duration::from_secs(*seconds),
        Step::RelistLeases => {
            for event in [watcher::Event::Init, watcher::Event::InitDone] {
                scene.world.apply(Event::Leases(event), scene.now);
            }
        }
        Step::Pass { .. } => {}
    }
    let current = scene.world.objects().digests("default");
    if seen.last() != Some(&current) {
        seen.push(current);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn passes_over_what_may_have_changed_find_what_a_pass_over_all_finds(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut scene = Scene::new();
        let (mut found, mut seen) = (Found::default(), Vec::new());
        for step in steps {
            take(&mut scene, &step, &mut seen);
            if let Step::Pass { publishes } = step {
                pass(&mut scene, &mut found)?;
                publish(&mut scene, &mut found, publishes);
            }
        }
        pass(&mut scene, &mut found)?;
    }
}

#[test]
fn a_director_that_joins_one_state_behind_is_awaited_too() {
    let (mut scene, mut found, mut seen) = (Scene::new(), Found::default(), Vec::new());
    let report = |director, used| Step::Report {
        director,
        used,
        says: 0,
    };
    for step in [
        Step::Service { name: 0, form: 0 },
        Step::Server { name: 0, form: 0 },
        report(0, 0),
        Step::Server { name: 0, form: 1 },
        report(0, 0),
        report(1, 2),
        report(1, 0),
    ] {
        take(&mut scene, &step, &mut seen);
        pass(&mut scene, &mut found).expect("a pass over all objects finds the same");
        publish(&mut scene, &mut found, 100);
    }
    let web = scene.wanted().virtual_services[&ObjectKey::new("shop", "web")].clone();
    let programmed = condition::find(&web.conditions, condition::kind::PROGRAMMED);
    assert_eq!(programmed.map(|found| &*found.status), Some("True"));
}
