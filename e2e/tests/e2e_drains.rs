//! Tests that servers are drained without hurting their clients.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{
    ApiServerAway, Download, Upload,
    cluster::{Cluster, PATIENCE, example, start_agent, wait_until_ready},
    course::{Course, DR_VIP, DR_WEB, NAT_VIP, NAT_WEB},
    eventually, ipvsadm, kubectl, kubectl_apply,
    wait::eventually_equal,
};

/// The rate of each transfer, in bytes per second.
const RATE: u64 = 8_000;
/// The size of each download: it lasts for hours.
const BYTES: u64 = 1 << 30;
/// How long a server must be without packets before it is drained, and how long
/// the reports about it may take.
const QUIET: Duration = Duration::from_secs(10);
/// The time after which an agent has written its objects for the next agent.
const WRITTEN: Duration = Duration::from_secs(8);

#[test]
fn through_nat_a_drained_server_keeps_its_transfers_until_they_end() {
    drain(&Course::nat(), NAT_VIP, NAT_WEB, "nat-cluster.yaml");
}

#[test]
fn through_dr_a_drained_server_keeps_its_transfers_until_they_end() {
    drain(&Course::dr(), DR_VIP, DR_WEB, "dr-cluster.yaml");
}

/// Drains a server that has 20 downloads, 20 uploads and 5 downloads whose
/// clients have closed their direction of the connection.
fn drain(course: &Course, vip: &str, web: [&str; 2], manifest: &str) {
    let _cluster = Cluster::start();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example(manifest));
    wait_until_ready(&["web"]);

    // All transfers go to the first server, because the second one is drained.
    set_state("web2", "Drained");
    wait_until_drained("web2");
    let browser = course.browser().with_timeout(PATIENCE);
    let download = |_| browser.download(vip, BYTES, RATE);
    let downloads: Vec<_> = (0..20).map(download).collect::<Result<_, _>>().unwrap();
    let half_closed: Vec<_> = (0..5).map(download).collect::<Result<_, _>>().unwrap();
    half_closed.iter().for_each(Download::close_sending);
    let upload = |_| browser.upload(vip, RATE);
    let uploads: Vec<_> = (0..20).map(upload).collect::<Result<_, _>>().unwrap();
    set_state("web2", "Active");
    expect_weights(course, [1, 1]);

    set_state("web1", "Drained");
    expect_weights(course, [0, 1]);
    let counts = browser.counts(20, vip);
    let page = format!("{}\n", web[1]);
    let all = counts.get(&page).or_else(|| counts.get(page.trim_end()));
    assert_eq!(
        all,
        Some(&20),
        "new connections go to the other server: {counts:?}"
    );
    expect_state("web1", "Draining (40 left)");
    expect_to_move("during the drain", &downloads, &half_closed, &uploads);

    drop(downloads);
    for upload in uploads {
        let sent = upload.sent();
        let got = upload.finish().expect("the upload ends");
        assert!(got >= sent, "{got} of at least {sent} bytes arrived");
    }
    // To the kernel, the half-closed downloads are inactive.
    thread::sleep(QUIET + Duration::from_secs(5));
    assert!(state("web1").starts_with("Draining"), "{}", state("web1"));
    expect_to_move("while nothing else is left", &[], &half_closed, &[]);

    drop(half_closed);
    wait_until_drained("web1");
    assert_eq!(state("web1"), "Drained");
    set_state("web1", "Active");
    expect_weights(course, [1, 1]);
    expect_state("web1", "Active");
    let conditions = field("web1", "{.status.conditions[*].type}");
    assert_eq!(conditions, "Accepted Ready", "only a drain has a condition");
}

#[test]
fn a_drain_that_disconnects_ends_at_its_time_whatever_happens_to_the_agent_and_the_api_server() {
    const TIME: Duration = Duration::from_secs(50);
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    let browser = course.browser().with_timeout(PATIENCE);
    let download = |_| browser.download(NAT_VIP, BYTES, RATE);
    let downloads: Vec<_> = (0..6).map(download).collect::<Result<_, _>>().unwrap();
    let (drained, others): (Vec<_>, Vec<_>) = downloads
        .into_iter()
        .partition(|download| download.server() == NAT_WEB[0]);

    let spec =
        r#"{"spec":{"desiredState":"Drained","drain":{"timeoutSeconds":50,"atEnd":"Disconnect"}}}"#;
    kubectl(&["patch", "irs/web1", "--type=merge", "-p", spec]);
    expect_weights(&course, [0, 1]);
    let began = Instant::now();
    thread::sleep(WRITTEN);
    let away = ApiServerAway::begin();
    agent.kill();
    agent = start_agent(&course.director, "director1");
    agent.wait_for_log("Trying again", PATIENCE);
    expect_weights(&course, [0, 1]);
    expect_to_move("after the restart", &drained, &others, &[]);
    assert!(
        began.elapsed() < TIME,
        "the machine is too slow for this test"
    );
    let patience = PATIENCE + TIME;
    eventually("the drained server to leave", patience, || {
        let table = ipvsadm::saved(&course.director);
        match table.contains(NAT_WEB[0]) {
            false => Ok(()),
            true => Err(table),
        }
    });
    let took = began.elapsed();
    assert!(
        took + Duration::from_secs(2) > TIME,
        "it left too early: {took:?}"
    );
    // A client that only reads may hear nothing of the end.
    let before: Vec<_> = drained.iter().map(Download::received).collect();
    expect_to_move("after the end", &[], &others, &[]);
    let after: Vec<_> = drained.iter().map(Download::received).collect();
    assert_eq!(before, after, "the drained server's connections have ended");

    drop(away);
    wait_until_drained("web1");
    let table = ipvsadm::saved(&course.director);
    assert!(!table.contains(NAT_WEB[0]), "it stays away: {table}");
    set_state("web1", "Active");
    expect_weights(&course, [1, 1]);
    drop(agent);
}

#[track_caller]
fn expect_to_move(when: &str, some: &[Download], others: &[Download], uploads: &[Upload]) {
    let moved = || -> Vec<u64> {
        let downloads = some.iter().chain(others).map(Download::received);
        downloads.chain(uploads.iter().map(Upload::sent)).collect()
    };
    let before = moved();
    eventually(&format!("transfers to move {when}"), PATIENCE, || {
        let now = moved();
        let slowest = now.iter().zip(&before).map(|(now, before)| now - before);
        match slowest.min() {
            Some(bytes) if bytes >= RATE => Ok(()),
            _ => Err(format!("{before:?}, then {now:?}")),
        }
    });
}

fn set_state(server: &str, desired: &str) {
    let patch = format!(r#"{{"spec":{{"desiredState":"{desired}"}}}}"#);
    kubectl(&[
        "patch",
        &format!("irs/{server}"),
        "--type=merge",
        "-p",
        &patch,
    ]);
}

#[track_caller]
fn wait_until_drained(server: &str) {
    let timeout = format!("--timeout={}s", (QUIET + PATIENCE).as_secs());
    let object = format!("irs/{server}");
    kubectl(&["wait", &object, "--for=condition=Drained", &timeout]);
}

fn state(server: &str) -> String {
    field(server, "{.status.state}")
}

#[track_caller]
fn expect_state(server: &str, expected: &str) {
    let what = format!("the state of {server}");
    eventually_equal(&what, PATIENCE, &expected.to_owned(), || state(server));
}

fn field(server: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    kubectl(&["get", &format!("irs/{server}"), "-o", &path])
}

/// Waits until the two servers have these weights in the director's table.
#[track_caller]
fn expect_weights(course: &Course, expected: [u32; 2]) {
    eventually(&format!("the weights {expected:?}"), PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        let servers = table.lines().filter(|line| line.starts_with("-a "));
        let weights = servers.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        match weights.eq(expected) {
            true => Ok(()),
            false => Err(table),
        }
    });
}
