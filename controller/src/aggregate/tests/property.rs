//! Property: statuses count the directors' reports correctly, in whatever order
//! the reports arrive.

use std::collections::BTreeMap;

use crds::{ObjectKey, condition::kind};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::scene::{REFUSED, Scene, said, sick};

/// What a director reports about one server of one service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Word {
    Nothing,
    Down,
    Flapping,
    New,
}

const SERVICES: [&str; 2] = ["mail", "web"];
const SERVERS: [&str; 3] = ["a", "b", "c"];

/// The reports of one director, by service and then by server.
type Words = [[Word; 3]; 2];

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        4 => Just(Word::Nothing),
        2 => Just(Word::Down),
        1 => Just(Word::Flapping),
        1 => Just(Word::New),
    ]
}

fn reports() -> impl Strategy<Value = Vec<(Words, bool)>> {
    let words = [[word(), word(), word()], [word(), word(), word()]];
    let words = words.map(|[a, b, c]| (a, b, c).prop_map(|(a, b, c)| [a, b, c]));
    let [mail, web] = words;
    let words = (mail, web).prop_map(|(mail, web)| [mail, web]);
    proptest::collection::vec((words, proptest::bool::weighted(0.1)), 1..4)
}

fn health(words: &Words, leaves_out: bool, backwards: bool) -> Value {
    let mut unhealthy = Vec::new();
    for (service, words) in SERVICES.iter().zip(words) {
        for (server, word) in SERVERS.iter().zip(words) {
            let state = match word {
                Word::Nothing => continue,
                Word::Down => "Down",
                Word::Flapping => "Flapping",
                Word::New => "Unknown",
            };
            let (server, service) = (format!("shop/{server}"), format!("shop/{service}"));
            unhealthy.push(sick(&server, state, REFUSED, &[&service]));
        }
    }
    if backwards {
        unhealthy.reverse();
    }
    json!({"unhealthy": unhealthy, "unhealthyOmitted": i32::from(leaves_out)})
}

fn scene_with(reports: &[(Words, bool)], backwards: bool) -> Scene {
    let mut scene = Scene::new();
    scene.server("c", json!({"address": "10.1.0.3"}));
    for (service, port) in SERVICES.into_iter().zip([25, 80]) {
        scene.named_service(
            service,
            json!({
                "vip": {"address": "10.0.0.1", "port": port},
                "healthCheck": {"tcpSocket": {}},
            }),
        );
    }
    for (number, (words, leaves_out)) in reports.iter().enumerate() {
        let health = health(words, *leaves_out, backwards);
        scene.report(&format!("d{number}"), json!({ "health": health }));
    }
    scene
}

proptest! {
    #[test]
    fn statuses_count_what_directors_say_in_whatever_order(reports in reports()) {
        let wanted = scene_with(&reports, false).wanted();
        prop_assert_eq!(&scene_with(&reports, true).wanted(), &wanted);
        let leaves_out = reports.iter().any(|(_, leaves_out)| *leaves_out);
        for (at, service) in SERVICES.iter().enumerate() {
            let counts = wanted.virtual_services[&ObjectKey::new("shop", *service)]
                .real_servers
                .clone()
                .unwrap();
            let unnamed = (0..SERVERS.len())
                .filter(|server| {
                    reports.iter().all(|(words, _)| words[at][*server] == Word::Nothing)
                })
                .count();
            let (healthy, unknown) = if leaves_out { (0, unnamed) } else { (unnamed, 0) };
            prop_assert_eq!(counts.selected, 3);
            prop_assert_eq!(counts.healthy, i32::try_from(healthy).unwrap());
            prop_assert_eq!(
                counts.unknown.unwrap_or_default(),
                i32::try_from(unknown).unwrap()
            );
        }
        for (at, server) in SERVERS.iter().enumerate() {
            let status = &wanted.real_servers[&ObjectKey::new("shop", *server)];
            let mut sights: BTreeMap<&str, i32> = BTreeMap::new();
            for (words, leaves_out) in &reports {
                let words = words.map(|words| words[at]);
                let sight = if words.iter().any(|word| [Word::Down, Word::Flapping].contains(word)) {
                    "failing"
                } else if words.contains(&Word::New) || *leaves_out {
                    "unknown"
                } else {
                    "healthy"
                };
                *sights.entry(sight).or_default() += 1;
            }
            let seen = |sight| sights.get(sight).copied().unwrap_or_default();
            let directors = status.directors.clone().unwrap();
            prop_assert_eq!(directors.checking, i32::try_from(reports.len()).unwrap());
            prop_assert_eq!(directors.healthy, seen("healthy"));
            prop_assert_eq!(directors.unhealthy, seen("failing"));
            let expected = match (seen("healthy"), seen("failing")) {
                (1.., _) => "True",
                (_, 1..) => "False",
                _ => "Unknown",
            };
            let ready = said(&status.conditions, kind::READY);
            prop_assert!(ready.starts_with(expected), "{}", ready);
        }
    }
}
