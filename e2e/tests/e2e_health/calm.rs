//! Tests that no request fails and no weight changes unless a server fails.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Asking, Process, Weights,
    cluster::{
        Cluster, PATIENCE, start_agent, start_other_agent_traced, state_dir, wait_for,
        wait_for_words, wait_until_ready,
    },
    eventually,
    host::run_here,
    kubectl_apply,
};

use crate::farm::{CHECK, Farm, VIP, service, wait_for_healthy};

/// After each event, the test waits until every server has received this many
/// probes. `PROBES` is larger than the failure threshold, so the agent would
/// notice a failure within these probes.
const PROBES: usize = 5;

#[test]
fn not_one_request_fails_while_nothing_is_wrong_with_the_servers() {
    let _cluster = Cluster::start();
    let farm = Farm::new(2);
    let director = &farm.course.director;
    let mut agent = start_agent(director, "director1");
    kubectl_apply(&farm.real_servers(1));
    kubectl_apply(&service(""));
    wait_until_ready(&["web"]);
    let calm = Calm::begin(&farm);

    kubectl_apply(&service(CHECK));
    wait_for_healthy(2, 2);
    calm.expect("a check was added to a live service");

    kubectl_apply(&service(&CHECK.replace("/healthz", "/health/other")));
    wait_until_ready(&["web"]);
    calm.expect("the check's path was edited");

    kubectl_apply(&service(
        &CHECK.replace("httpGet: {path: /healthz}", "tcpSocket: {}"),
    ));
    wait_until_ready(&["web"]);
    calm.expect("the check became a tcpSocket check");
    kubectl_apply(&service(CHECK));
    wait_until_ready(&["web"]);
    calm.expect("the check became an httpGet check again");

    agent.pause();
    thread::sleep(Duration::from_secs(10));
    agent.resume();
    calm.expect("the agent was paused for 10 s");

    // The test limits the agent to three open files. The agent already has more
    // open files, so it can open no further socket.
    limit_files(&agent, 3);
    wait_for("idir/director1", "ProbesWorking", "False");
    // The condition's message says why the probes do not count.
    wait_for_words(
        "idir/director1",
        "ProbesWorking",
        &["ProbesVoid: ", "EMFILE"],
    );
    // The test sleeps longer than the agent needs to detect a failed server.
    thread::sleep(Duration::from_secs(8));
    limit_files(&agent, 1024);
    wait_for("idir/director1", "ProbesWorking", "True");
    calm.expect("no file descriptor was free");

    agent.kill();
    fs::remove_dir_all(state_dir("director1")).expect("the agent has a state folder");
    agent = start_agent(director, "director1");
    calm.expect("the state folder was lost");

    agent.terminate(PATIENCE);
    let (mut other, _) = start_other_agent_traced(director, "director1", "other");
    calm.expect("another build of the agent took over");
    other.terminate(PATIENCE);
    agent = start_agent(director, "director1");
    calm.expect("the usual build took over again");

    kubectl_apply(&service(""));
    eventually("the check to be gone", PATIENCE, || {
        let begun = Instant::now();
        thread::sleep(Duration::from_secs(2));
        let probes = farm.servers[0].came(crate::farm::DIRECTOR, begun);
        if probes == 0 { Ok(()) } else { Err(probes) }
    });
    calm.expect_no_change("the check was removed");
    agent.terminate(PATIENCE);
}

#[test]
fn not_one_request_fails_when_an_entry_made_by_hand_is_adopted() {
    let _cluster = Cluster::start();
    let farm = Farm::new(2);
    let director = &farm.course.director;
    director.run(&format!("ipvsadm -A -t {VIP} -s rr"));
    for index in 0..2 {
        let server = farm.address(index);
        director.run(&format!("ipvsadm -a -t {VIP} -r {server} -m -w 1"));
    }
    let calm = Calm::begin(&farm);
    let _agent = start_agent(director, "director1");
    kubectl_apply(&farm.real_servers(1));
    kubectl_apply(&service(CHECK));
    wait_until_ready(&["web"]);
    calm.expect("a table made by hand was adopted");
    wait_for_healthy(2, 2);
}

/// A client that sends requests continuously, and a watch on the servers'
/// weights.
struct Calm<'a> {
    farm: &'a Farm,
    asking: Asking,
    weights: Weights,
    begun: Instant,
}

impl<'a> Calm<'a> {
    fn begin(farm: &'a Farm) -> Self {
        Self {
            farm,
            asking: Asking::pages(&farm.course.browser(), VIP),
            weights: Weights::watch(&farm.course.director),
            begun: Instant::now(),
        }
    }

    /// Waits long enough for the latest event to have an effect, and asserts
    /// that no request failed and no weight changed.
    #[track_caller]
    fn expect(&self, when: &str) {
        self.farm.wait_for_probes(PROBES);
        self.expect_no_change(when);
    }

    #[track_caller]
    fn expect_no_change(&self, when: &str) {
        self.asking.wait_for_more(20);
        let failed = self.asking.failed(self.begun);
        let requests = self.asking.so_far().len();
        println!(
            "{} of {requests} requests failed so far: {when}",
            failed.len()
        );
        assert!(failed.is_empty(), "{when}: {failed:#?}");
        let changes = self.weights.changes(self.begun);
        assert!(changes.is_empty(), "{when}: {changes:#?}");
    }
}

fn limit_files(agent: &Process, soft: u32) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &agent.id().to_string()]);
    command.arg(format!("--nofile={soft}:"));
    run_here(&mut command).expect("root may set the limits of another process");
}
