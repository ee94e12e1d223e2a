//! Tests agents that restart, some after a kill in the middle of a change. The
//! new agent must still know the health of its servers, and must not write
//! entries that the kernel already has.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use e2e::{
    Weights,
    cluster::{Cluster, PATIENCE, start_agent, start_agent_traced, state_dir, wait_until_ready},
    course::another_service,
    fault::Behaviour,
    kubectl_apply, trace,
};

use crate::farm::{CHECK, DIRECTOR, Farm, VIP, service, wait_for_healthy};

const DOWN: [usize; 3] = [2, 5, 9];
const SERVERS: usize = 10;
const DOWN_FOR_GOOD: Behaviour = Behaviour::Error(500);

/// Creates a farm of ten servers, where three servers are down.
fn with_three_down() -> (Cluster, Farm) {
    let cluster = Cluster::start();
    let farm = Farm::new(SERVERS);
    kubectl_apply(&farm.real_servers(1));
    kubectl_apply(&service(CHECK));
    for index in DOWN {
        farm.servers[index].behave(DOWN_FOR_GOOD);
    }
    (cluster, farm)
}

#[test]
fn a_restart_with_servers_down_writes_no_weight() {
    let (_cluster, farm) = with_three_down();
    let director = &farm.course.director;
    let mut first = start_agent(director, "director1");
    wait_until_ready(&["web"]);
    wait_for_healthy(SERVERS - DOWN.len(), SERVERS);
    let weights = Weights::watch(director);
    for index in DOWN {
        weights.wait_for((VIP, &farm.address(index)), Some(0), PATIENCE);
    }
    let begun = Instant::now();

    first.terminate(PATIENCE);
    for (how, name, port) in [
        ("a stop", "second", 8081),
        ("a kill", "third", 8082),
        ("the loss of its state folder", "fourth", 8083),
    ] {
        if name == "fourth" {
            fs::remove_dir_all(state_dir("director1")).expect("the agent has a state folder");
        }
        let (mut agent, file) = start_agent_traced(director, "director1", name);
        // When the new service is Ready, the agent has also processed all older
        // objects. After five more probes, the agent has a verdict on each
        // server.
        kubectl_apply(&another_service(name, port));
        wait_until_ready(&[name]);
        farm.wait_for_probes(5);
        agent.kill();
        let writes = trace::kernel_writes(&file, agent.id());
        let mut expected = vec!["NEW_DEST"; SERVERS];
        expected.insert(0, "NEW_SERVICE");
        assert_eq!(writes, expected, "only {name} must be written after {how}");
    }
    let changes = weights.changes(begun);
    let changes: Vec<_> = changes
        .iter()
        .filter(|change| change.key.0 == VIP)
        .collect();
    assert!(changes.is_empty(), "no weight may change: {changes:#?}");
}

/// The moments at which a test kills the agent while a server fails or
/// recovers.
#[derive(Clone, Copy, Debug)]
enum When {
    /// The test kills the agent after the failing or recovering server has
    /// received this many probes.
    Probed(usize),
    /// The test kills the agent when the kernel has the server's new weight.
    Changed,
}

#[test]
fn an_agent_that_dies_in_the_middle_of_a_change_makes_it_once_and_no_other() {
    let (_cluster, farm) = with_three_down();
    let director = &farm.course.director;
    let mut agent = start_agent(director, "director1");
    wait_until_ready(&["web"]);
    wait_for_healthy(SERVERS - DOWN.len(), SERVERS);
    let weights = Weights::watch(director);
    for index in DOWN {
        weights.wait_for((VIP, &farm.address(index)), Some(0), PATIENCE);
    }

    for (moving, behaviour, weight, when) in [
        (0, DOWN_FOR_GOOD, 0, When::Probed(1)),
        (1, DOWN_FOR_GOOD, 0, When::Probed(3)),
        (3, DOWN_FOR_GOOD, 0, When::Changed),
        (0, Behaviour::Good, 1, When::Probed(1)),
        (1, Behaviour::Good, 1, When::Probed(2)),
        (3, Behaviour::Good, 1, When::Changed),
    ] {
        let address = farm.address(moving);
        let begun = Instant::now();
        farm.servers[moving].behave(behaviour);
        match when {
            When::Probed(count) => wait_closely(&farm, moving, begun, count),
            When::Changed => {
                weights.wait_for((VIP, &address), Some(weight), PATIENCE);
            }
        }
        agent.kill();
        agent = start_agent(director, "director1");
        weights.wait_for((VIP, &address), Some(weight), PATIENCE);
        farm.wait_for_probes(4);
        let changes = weights.changes(begun);
        let seen: Vec<_> = changes
            .iter()
            .map(|change| (change.key.1.as_str(), change.weight))
            .collect();
        assert_eq!(
            seen,
            [(address.as_str(), Some(weight))],
            "server{moving} to weight {weight}, killed when {when:?}"
        );
    }
}

/// Waits for `count` probes of one server. The function checks every
/// millisecond, so the caller can act right after the last probe.
#[track_caller]
fn wait_closely(farm: &Farm, index: usize, since: Instant, count: usize) {
    while farm.servers[index].came(DIRECTOR, since) < count {
        assert!(
            since.elapsed() < PATIENCE,
            "{count} probes of server{index}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}
