//! Tests every case of the fault table. The case's health check must notice the
//! fault, but not before the failure threshold is reached. The Director's
//! message must be clear. The tests in `e2e_health` check that the agent reacts
//! as soon as the threshold is reached.

mod cases;
mod scene;

use std::{
    fmt::Display,
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use crds::api::{DirectorHealth, UnhealthyServer, UnhealthyState};
use e2e::{
    Weights, Wire,
    cluster::{Cluster, PATIENCE, start_agent, value, wait_until_ready},
    eventually, kubectl_apply,
};

use crate::{
    cases::CASES,
    scene::{DIRECTOR, Scene},
};

/// The default thresholds of a health check: `FAILURES` failed probes in a row
/// make a server failed, and `SUCCESSES` successful probes in a row make it
/// healthy.
const FAILURES: usize = 3;
const SUCCESSES: usize = 2;
/// The maximum number of probes that may begin beyond the expected ones. On a
/// busy machine, probes for which the agent had no time are void, and the
/// server's weight changes late after the probe that decides.
const LATE: usize = 40;

/// The result of one case of the fault table.
#[derive(Debug)]
struct Line {
    /// How many probes the faulty server got before its weight changed in the
    /// kernel. The lower bound counts the probes that certainly met the fault.
    /// The upper bound also counts the probes that may have met the fault.
    probes: RangeInclusive<usize>,
    seconds: f64,
    seen: UnhealthyServer,
    /// How many probes the recovered server got before its weight changed back.
    /// The lower bound counts the probes that certainly found the server
    /// recovered. The upper bound also counts the probes that may have found
    /// the server recovered.
    probes_back: RangeInclusive<usize>,
}

#[test]
fn every_fault_is_seen_after_as_many_probes_as_configured_and_told_in_words() {
    let _cluster = Cluster::start();
    let mut scene = Scene::new();
    let _agent = start_agent(&scene.course.director, "director1");
    kubectl_apply(&scene.manifests());
    wait_until_ready(&CASES.map(|case| case.name));
    eventually("every server to be healthy", PATIENCE, || {
        let health = health();
        let all = i32::try_from(2 * CASES.len()).expect("a few");
        match health.checked == all && health.healthy == all {
            true => Ok(()),
            false => Err(format!("{health:#?}")),
        }
    });
    let weights = Weights::watch(&scene.course.director);
    let wire = Wire::listen(&scene.course.director, "eth1", &DIRECTOR.to_string());
    let begun = Instant::now();

    let troubled = in_turn(&mut scene, &wire, Scene::trouble);
    let down: Vec<_> = (0..CASES.len())
        .map(|index| {
            let out = if CASES[index].is_udp() { None } else { Some(0) };
            wait(&weights, &scene, index, out)
        })
        .collect();
    let seen: Vec<_> = (0..CASES.len()).map(expect_told).collect();
    let cured = in_turn(&mut scene, &wire, Scene::cure);
    let back: Vec<_> = (0..CASES.len())
        .map(|index| wait(&weights, &scene, index, Some(1)))
        .collect();
    eventually("no server to be unhealthy", PATIENCE, || {
        let health = health();
        match health.unhealthy.is_empty() {
            true => Ok(()),
            false => Err(format!("{health:#?}")),
        }
    });

    let lines: Vec<_> = seen
        .into_iter()
        .enumerate()
        .map(|(index, seen)| {
            let to = scene.troubled[index].on_the_wire();
            let count = |done: Done, until| {
                let [least, most] = [done.after, done.unseen].map(|at| wire.flows(&to, at, until));
                least..=most
            };
            Line {
                probes: count(troubled[index], down[index]),
                seconds: (down[index] - troubled[index].after).as_secs_f64(),
                seen,
                probes_back: count(cured[index], back[index]),
            }
        })
        .collect();
    print(&lines);

    let others: Vec<_> = weights.changes(begun);
    let others = others.iter().filter(|change| {
        let (_, server) = &change.key;
        server.starts_with("192.168.2.100:")
    });
    assert_eq!(
        others.count(),
        0,
        "the weight of a steady server must not change"
    );
    for (case, line) in CASES.iter().zip(&lines) {
        let found = (&line.probes, &line.probes_back);
        match case.state {
            UnhealthyState::Flapping => {
                // The agent counts an alternating server as failed in two
                // cases: after ten changes between success and failure, or
                // after three failures in a row.
                assert!(*line.probes.end() >= FAILURES, "{}: {found:?}", case.name);
                assert!(
                    *line.probes_back.end() > SUCCESSES,
                    "{}: {found:?}",
                    case.name
                );
            }
            _ => {
                let counts = [(&line.probes, FAILURES), (&line.probes_back, SUCCESSES)];
                let is_right = counts.iter().all(|(probes, expected)| {
                    *probes.end() >= *expected && *probes.start() <= *expected + LATE
                });
                assert!(is_right, "{}: {found:?}", case.name);
            }
        }
    }
}

/// Two times: shortly before and shortly after the test starts or ends a
/// server's fault.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// A time before the change of the server's behaviour. Every probe that
    /// began earlier met the old behaviour. A later probe may have met the new
    /// behaviour.
    unseen: Instant,
    /// A time after the change of the server's behaviour. Every probe that
    /// began later met the new behaviour.
    after: Instant,
}

/// Calls `act` for each case of the fault table. Before each call, waits until
/// no probe of the case is running.
fn in_turn(scene: &mut Scene, wire: &Wire, act: impl Fn(&mut Scene, usize)) -> Vec<Done> {
    let indices = 0..CASES.len();
    indices
        .map(|index| {
            let latest = wait_for_a_pause(wire, scene, index);
            act(scene, index);
            Done {
                unseen: latest + Duration::from_micros(1),
                after: Instant::now(),
            }
        })
        .collect()
}

/// Waits until a probe has ended and the next probe is not yet due. Returns the
/// time at which the latest probe began.
#[track_caller]
fn wait_for_a_pause(wire: &Wire, scene: &Scene, index: usize) -> Instant {
    let to = scene.troubled[index].on_the_wire();
    // In a case with a period of 1 s, the server answers every probe at once.
    // In a case with a longer period, a probe may time out after 1 s.
    let pause = match CASES[index].period {
        1 => 200..700,
        _ => 1100..1600,
    };
    let what = format!("a pause between probes of {}", CASES[index].name);
    let start = Instant::now();
    loop {
        let latest = wire.latest(&to);
        if let Some(at) = latest
            && pause.contains(&at.elapsed().as_millis())
        {
            return at;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: the last probe at {latest:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn wait(weights: &Weights, scene: &Scene, index: usize, weight: Option<u32>) -> Instant {
    let troubled = &scene.troubled[index];
    println!(
        "waiting for {} to have weight {weight:?}",
        troubled.case.name
    );
    weights.wait_for((&troubled.service, &troubled.address), weight, PATIENCE)
}

/// Waits until the Director reports a message that the case expects.
#[track_caller]
fn expect_told(index: usize) -> UnhealthyServer {
    let case = &CASES[index];
    let what = format!("{}: {:?}, {:?}", case.name, case.state, case.words);
    eventually(&what, PATIENCE, || {
        let health = health();
        let name = format!("default/{}-troubled", case.name);
        let named = health.unhealthy.into_iter();
        let told = named
            .filter(|server| server.real_server.to_string() == name)
            .find(|server| server.state == case.state);
        match told {
            Some(server) if case.words.contains(&&*server.message) => {
                let [service] = &server.virtual_services[..] else {
                    panic!("one service is named: {server:?}");
                };
                assert_eq!(service.to_string(), format!("default/{}", case.name));
                Ok(server)
            }
            told => Err(format!("{told:#?}")),
        }
    })
}

fn health() -> DirectorHealth {
    let health = value("idir/director1", ".status.health");
    serde_json::from_str(&health).unwrap_or_default()
}

fn print(lines: &[Line]) {
    let row = |cells: [&dyn Display; 6]| {
        let [case, probes, seconds, state, back, message] = cells;
        println!("| {case:21} | {probes:6} | {seconds:7} | {state:8} | {back:4} | {message} |");
    };
    row([
        &"fault",
        &"probes",
        &"seconds",
        &"state",
        &"back",
        &"in the Director's status",
    ]);
    row([&"-", &"-", &"-", &"-", &"-", &"-"]);
    for (case, line) in CASES.iter().zip(lines) {
        row([
            &case.name,
            line.probes.start(),
            &format!("{:.1}", line.seconds),
            &format!("{:?}", line.seen.state),
            line.probes_back.start(),
            &line.seen.message,
        ]);
    }
}
