//! Tests that uploads and downloads continue, whatever happens to the agent and
//! the API server. The tests use NAT and DR, and compare every byte.

use std::{
    fs,
    time::{Duration, Instant},
};

use e2e::{
    ApiServerAway, Transfers,
    cluster::{Cluster, PATIENCE, example, expect_table, start_agent, state_dir, wait_until_ready},
    course::{Course, DR_VIP, NAT_VIP, another_service},
    eventually, ipvsadm, kubectl, kubectl_apply, kubectl_replace,
};

#[test]
fn transfers_through_nat_survive_the_agent_the_api_server_and_the_journal() {
    survive(&Course::nat(), NAT_VIP, "nat-cluster.yaml");
}

#[test]
fn transfers_through_dr_survive_the_agent_the_api_server_and_the_journal() {
    survive(&Course::dr(), DR_VIP, "dr-cluster.yaml");
}

/// How long an entry stays in the kernel after its object was deleted.
const GRACE: Duration = Duration::from_secs(10);

#[test]
fn a_service_and_its_servers_are_replaced_and_no_transfer_through_nat_is_cut() {
    replace(&Course::nat(), NAT_VIP, "nat-cluster.yaml");
}

#[test]
fn a_service_and_its_servers_are_replaced_and_no_transfer_through_dr_is_cut() {
    replace(&Course::dr(), DR_VIP, "dr-cluster.yaml");
}

fn replace(course: &Course, vip: &str, manifest: &str) {
    let _cluster = Cluster::start();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example(manifest));
    wait_until_ready(&["web"]);
    let transfers = Transfers::begin(&course.browser(), vip, 20);
    for object in ["ivs/web", "irs/web1", "irs/web2"] {
        kubectl_replace(object);
        transfers.expect_to_move(&format!("after {object} was replaced"));
    }
    let replaced = Instant::now();
    wait_until_ready(&["web"]);
    while replaced.elapsed() < GRACE + Duration::from_secs(2) {
        transfers.expect_to_move("when the graces would be over");
    }
    let table = ipvsadm::saved(&course.director);
    let servers = table.lines().filter(|line| line.starts_with("-a "));
    let weights: Vec<_> = servers.map(|line| line.ends_with("-w 1")).collect();
    assert_eq!(weights, [true, true], "both serve: {table}");
    transfers.finish();
}

fn survive(course: &Course, vip: &str, manifest: &str) {
    let _cluster = Cluster::start();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example(manifest));
    kubectl_apply(&another_service("other", 8081));
    wait_until_ready(&["web", "other"]);
    let table = ipvsadm::saved(&course.director);
    let table: Vec<_> = table.lines().collect();
    let transfers = Transfers::begin(&course.browser(), vip, 2);

    agent.kill();
    transfers.expect_to_move("with no agent");
    agent = start_agent(&course.director, "director1");
    wait_until_it_writes("after-kill", 8082);
    transfers.expect_to_move("after a kill and a start");

    agent.terminate(PATIENCE);
    agent = start_agent(&course.director, "director1");
    wait_until_it_writes("after-restart", 8083);
    transfers.expect_to_move("after a restart");

    course.director.run("ipvsadm -D -t 192.168.4.5:8081");
    expect_table(&course.director, &table);
    transfers.expect_to_move("after the repair of another service");

    let away = ApiServerAway::begin();
    agent.wait_for_log("Trying again", PATIENCE);
    transfers.expect_to_move("without an API server");
    agent.kill();
    agent = start_agent(&course.director, "director1");
    agent.wait_for_log("Trying again", PATIENCE);
    transfers.expect_to_move("with an agent that starts without an API server");
    drop(away);
    wait_until_it_writes("after-away", 8084);
    transfers.expect_to_move("when the API server is back");

    // The test waits until the agent has removed the deleted services. The next
    // agent has no journal, and would not remove these services.
    expect_table(&course.director, &table);
    agent.kill();
    let journal = state_dir("director1").join("journal.redb");
    fs::remove_file(&journal).expect("the agent has a journal");
    let _agent = start_agent(&course.director, "director1");
    wait_until_it_writes("after-adoption", 8085);
    transfers.expect_to_move("after the adoption of the table");
    expect_table(&course.director, &table);
    // The agent owns the adopted entries. When an adopted entry's object is
    // deleted, the agent removes the entry.
    kubectl(&["delete", "ivs/other"]);
    eventually("the adopted service to be removed", PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        match table.contains("192.168.4.5:8081") {
            false => Ok(()),
            true => Err(table),
        }
    });
    transfers.expect_to_move("after the removal of another service");
    transfers.finish();
}

/// Waits until a newly started agent has processed all objects. To check, the
/// function creates a service, waits until the agent has programmed the
/// service, and deletes the service.
#[track_caller]
fn wait_until_it_writes(name: &str, port: u16) {
    kubectl_apply(&another_service(name, port));
    wait_until_ready(&[name]);
    kubectl(&["delete", &format!("ivs/{name}")]);
}
