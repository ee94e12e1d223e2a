//! Tests of a drained server's status.

use serde_json::Value;

use super::*;

const SINCE: &str = "2026-01-01T00:00:00Z";
const UNTIL: &str = "2026-01-01T00:05:00Z";

/// Returns a report of the drained server shop/a.
fn drains(connections: u32, drained: bool) -> Value {
    json!({"servers": [{
        "realServer": {"namespace": "shop", "name": "a"},
        "connections": connections, "drained": drained, "since": SINCE, "until": UNTIL,
    }]})
}

/// Returns a scene in which shop/a is drained, and no director has used this
/// yet.
fn drained(drain: &Value) -> Scene {
    let mut scene = Scene::new();
    for director in ["d1", "d2"] {
        scene.report(director, json!({}));
    }
    let spec = json!({"address": "10.1.0.1", "desiredState": "Drained", "drain": drain});
    scene.server("a", spec);
    scene
}

impl Scene {
    /// Returns the server's state and its condition Drained.
    fn drain(&mut self) -> (String, String) {
        let status = &self.wanted().real_servers[&ObjectKey::new("shop", "a")];
        let state = status.state.clone().expect("every server has a state");
        (state, said(&status.conditions, kind::DRAINED))
    }
}

#[test]
fn a_server_that_is_not_drained_is_active_and_has_no_such_condition() {
    let mut scene = Scene::new();
    let status = &scene.wanted().real_servers[&ObjectKey::new("shop", "a")];
    assert_eq!(status.state.as_deref(), Some("Active"));
    assert_eq!(condition::find(&status.conditions, kind::DRAINED), None);
}

#[test]
fn a_server_is_drained_once_every_director_says_so() {
    let mut scene = drained(&json!({}));
    let waiting = "False/Draining: Waiting for director d1, d2".to_owned();
    assert_eq!(scene.drain(), ("Draining".to_owned(), waiting));
    scene.report("d1", json!({"drains": drains(12, false)}));
    scene.report("d2", json!({"drains": drains(5, false)}));
    let left = "False/Draining: 17 connections left: 12 on d1, 5 on d2. The time of the drain ends \
                at 2026-01-01T00:05:00Z. What is left then goes on (spec.drain.atEnd: Keep)";
    let state = "Draining (17 left)".to_owned();
    assert_eq!(scene.drain(), (state, left.to_owned()));
    scene.report("d1", json!({"drains": drains(0, true)}));
    scene.report("d2", json!({"drains": drains(0, false)}));
    let left = "False/Draining: 0 connections left: 0 on d2. Packets still go to the server, or \
                clients are still bound to it by persistence. The time of the drain ends at \
                2026-01-01T00:05:00Z. What is left then goes on (spec.drain.atEnd: Keep)";
    assert_eq!(scene.drain(), ("Draining".to_owned(), left.to_owned()));
    scene.report("d2", json!({"drains": drains(0, true)}));
    let done = "True/Drained: No connection is left on 2 directors".to_owned();
    assert_eq!(scene.drain(), ("Drained".to_owned(), done));
}

#[test]
fn a_report_from_before_the_drain_counts_for_nothing() {
    let mut scene = Scene::new();
    scene.report("d1", json!({"drains": drains(0, true)}));
    let spec = json!({"address": "10.1.0.1", "desiredState": "Drained"});
    scene.server("a", spec);
    let (state, says) = scene.drain();
    assert_eq!(state, "Draining", "{says}");
    assert_eq!(says, "False/Draining: Waiting for director d1");
}

#[test]
fn nobody_knows_what_a_dead_director_still_forwards() {
    let mut scene = drained(&json!({}));
    for director in ["d1", "d2"] {
        scene.report(director, json!({"drains": drains(0, true)}));
    }
    scene.let_die(&["d1"]);
    assert_eq!(
        scene.drain().0,
        "Drained",
        "it had no connection when it died"
    );
    scene.report("d2", json!({"drains": drains(3, false)}));
    scene.let_die(&["d1"]);
    let unknown = "Unknown/NotAlive: Not known on d2, where no agent renews the Lease: the kernel \
                   may still have connections. Start the agent, or delete the Director if its \
                   machine is gone";
    assert_eq!(scene.drain(), ("Draining".to_owned(), unknown.to_owned()));
}

#[test]
fn a_report_that_leaves_servers_out_says_nothing_of_them() {
    let mut scene = drained(&json!({}));
    scene.report("d1", json!({"drains": drains(0, true)}));
    let left_out = json!({"servers": [], "omitted": 3, "omittedNamespaces": ["shop"]});
    scene.report("d2", json!({"drains": left_out}));
    let (_, says) = scene.drain();
    assert!(
        says.starts_with("Unknown/MoreToReport: Not known on d2"),
        "{says}"
    );
    let other = json!({"servers": [], "omitted": 3, "omittedNamespaces": ["bank"]});
    scene.report("d2", json!({"drains": other}));
    assert_eq!(scene.drain().1, "False/Draining: Waiting for director d2");
}

#[test]
fn a_server_without_a_service_is_drained() {
    let mut scene = drained(&json!({}));
    scene.service(json!({"realServerSelector": {"matchLabels": {"app": "other"}}}));
    let done = "True/Drained: No virtual service uses the server".to_owned();
    assert_eq!(scene.drain(), ("Drained".to_owned(), done));
}

#[test]
fn the_end_of_the_time_and_what_clients_feel_are_said() {
    let mut scene = drained(&json!({"atEnd": "Disconnect"}));
    scene.service(json!({"scheduler": "dh"}));
    scene.report("d1", json!({"drains": drains(1, false)}));
    scene.report("d2", json!({"drains": drains(0, true)}));
    let says = "False/Draining: 1 connection left: 1 on d1. The time of the drain ends at \
                2026-01-01T00:05:00Z. What is left then is ended (spec.drain.atEnd: Disconnect). \
                VirtualService shop/web refuses new connections of the clients that its scheduler \
                dh assigns to the server";
    assert_eq!(scene.drain().1, says);
}

#[test]
fn only_the_servers_whose_drain_a_report_changes_are_looked_at() {
    let mut scene = drained(&json!({}));
    scene.report("d1", json!({"drains": drains(12, false)}));
    scene.world.resolve();
    scene.world.pass(MOMENT);
    scene.report("d1", json!({"drains": drains(6, false)}));
    scene.world.resolve();
    let pass = scene.world.pass(MOMENT);
    let ids = pass.scope.ids().expect("not all objects");
    let servers: Vec<_> = ids
        .filter(|id| id.subject == Subject::RealServer)
        .map(|id| id.key.to_string())
        .collect();
    assert_eq!(servers, ["shop/a"]);
}

#[test]
fn a_service_with_too_few_other_servers_is_named() {
    let mut scene = drained(&json!({}));
    scene.service(json!({
        "healthCheck": {"tcpSocket": {}}, "availability": {"minimumHealthy": 2},
    }));
    let (_, says) = scene.drain();
    let few = "VirtualService shop/web has fewer other servers than its minimumHealthy: 1 of 2";
    assert!(says.ends_with(few), "{says}");
    let spec = json!({"address": "10.1.0.2", "desiredState": "Drained"});
    scene.server("b", spec);
    let (_, says) = scene.drain();
    let none = "VirtualService shop/web has no other server and refuses new connections";
    assert!(says.ends_with(none), "{says}");
}
