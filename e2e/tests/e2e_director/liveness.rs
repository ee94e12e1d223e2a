//! A director is Alive only while its loop works. It comes back by itself.

use std::time::Instant;

use e2e::{
    FreezingDisk, Process,
    cluster::{
        Cluster, PATIENCE, agent, condition, example, start_agent, wait_for, wait_for_words,
        wait_until_ready,
    },
    course::{Course, NAT_VIP, another_service},
    eventually, kubectl, kubectl_apply, layout,
};

const CHECK: &str = r#"{"spec":{"healthCheck":{"tcpSocket":{}}}}"#;

/// Applies the example cluster with a health check, and waits until it works.
pub(crate) fn serve() {
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl(&["patch", "ivs/web", "--type=merge", "-p", CHECK]);
    wait_until_ready(&["web"]);
    wait_for("irs/web1", "Ready", "True");
}

/// Waits until the director is no longer Alive. Then no status claims anything
/// about services and servers, and clients are still served.
#[track_caller]
fn expect_dead(course: &Course, since: Instant) {
    wait_for("idir/director1", "Alive", "False");
    println!("not Alive after {} s", since.elapsed().as_secs());
    wait_for_words("ivs/web", "Ready", &["NoDirectors"]);
    eventually(
        "the server's health to be unknown",
        PATIENCE,
        || match condition("irs/web1", "Ready", "status").as_str() {
            "True" => Err("Ready is True"),
            _ => Ok(()),
        },
    );
    wait_for("idir/director1", "Reporting", "Unknown");
    let page = course.browser().get(NAT_VIP, "/");
    page.expect("packets keep flowing");
}

/// Waits until the director is Alive and Reporting, and its report counts.
#[track_caller]
pub(crate) fn expect_alive(services: &[&str]) {
    wait_for("idir/director1", "Alive", "True");
    wait_for("idir/director1", "Reporting", "True");
    wait_until_ready(services);
    wait_for("irs/web1", "Ready", "True");
}

#[test]
fn an_agent_whose_process_is_stopped_is_not_alive_until_it_goes_on() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    serve();
    agent.pause();
    expect_dead(&course, Instant::now());
    agent.resume();
    expect_alive(&["web"]);
}

#[test]
fn an_agent_whose_state_folder_blocks_is_not_alive_until_the_disk_answers() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let disk = FreezingDisk::mount(layout::file("state-frozen"));
    let mut command = agent("director1");
    command.env("IPVS_STATE_DIR", disk.path());
    let agent = Process::start(&course.director, "agent-director1", &mut command);
    serve();
    disk.freeze();
    // Before the agent creates the new service, it must write to its journal.
    kubectl_apply(&another_service("new", 82));
    expect_dead(&course, Instant::now());
    let log = agent.log();
    assert!(
        log.contains("the director's thread has not worked for 30 s"),
        "the log must say why the Lease is not renewed:\n{log}"
    );
    disk.thaw();
    expect_alive(&["web", "new"]);
}
