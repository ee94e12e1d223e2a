//! Tests that servers are drained without hurting their clients.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use e2e::{
    ApiServerAway, Asking, Download, Transfers, Upload,
    cluster::{Cluster, PATIENCE, example, start_agent, wait_until_ready},
    course::{Course, DR_VIP, DR_WEB, NAT_VIP, NAT_WEB},
    eventually,
    fault::{DatagramServer, Protocol},
    ipvsadm, kubectl, kubectl_apply,
    wait::eventually_equal,
};

/// The rate of each transfer, in bytes per second.
const RATE: u64 = 8_000;
/// The size of each download: it lasts for hours.
const BYTES: u64 = 1 << 30;
/// How long a server must be without packets before it is drained, and how long
/// the reports about it may take.
const QUIET: Duration = Duration::from_secs(10);
/// For this long, an entry that leaves may come back.
const GRACE: Duration = Duration::from_secs(10);
/// How long the kernel remembers a closed connection.
const CLOSED: Duration = Duration::from_secs(130);
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
    let downloads = begin(20, || browser.download(vip, BYTES, RATE));
    let half_closed = begin(5, || browser.download(vip, BYTES, RATE));
    half_closed.iter().for_each(Download::close_sending);
    let uploads = begin(20, || browser.upload(vip, RATE));
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
    let downloads = begin(6, || browser.download(NAT_VIP, BYTES, RATE));
    let (drained, others): (Vec<_>, Vec<_>) = downloads
        .into_iter()
        .partition(|download| download.server() == NAT_WEB[0]);

    let spec =
        r#"{"spec":{"desiredState":"Drained","drain":{"timeoutSeconds":50,"atEnd":"Disconnect"}}}"#;
    patch("irs/web1", spec);
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

#[test]
fn clients_that_are_bound_to_a_drained_server_go_to_another_one_at_once() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    patch(
        "ivs/web",
        r#"{"spec":{"persistence":{"timeoutSeconds":20}}}"#,
    );
    wait_until_ready(&["web"]);
    let bound = course.browser().get(NAT_VIP, "/").expect("a page");
    let [first, second] = NAT_WEB;
    let (server, other) = match bound.contains(first) {
        true => ("web1", second),
        false => ("web2", first),
    };
    let browser = course.browser().with_timeout(PATIENCE);
    let download = browser.download(NAT_VIP, BYTES, RATE).expect("a download");
    assert!(bound.contains(download.server()), "one client, one server");
    set_state(server, "Drained");
    expect_state(server, "Draining (1 left)");
    let counts = course.browser().counts(10, NAT_VIP);
    let all: usize = counts
        .iter()
        .filter(|(page, _)| page.contains(other))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(
        all, 10,
        "the bound client goes to the other server: {counts:?}"
    );
    expect_to_move("of the bound client", &[download], &[], &[]);
    wait_until_drained(server);
}

#[test]
fn a_udp_client_that_never_pauses_stays_until_the_drain_ends_it() {
    const TIME: Duration = Duration::from_secs(20);
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _servers: Vec<_> = std::iter::zip(&course.web, NAT_WEB)
        .map(|(web, name)| DatagramServer::start(web, "0.0.0.0:7", Protocol::Echo, name))
        .collect();
    let _agent = start_agent(&course.director, "director1");
    let manifest = example("nat-cluster.yaml");
    let udp = "{address: 192.168.4.5, port: 7, protocol: UDP}";
    kubectl_apply(&manifest.replace("{address: 192.168.4.5, port: 80}", udp));
    wait_until_ready(&["web"]);
    let asking = Asking::datagrams(&course.client, 40_000, "192.168.4.5:7");
    asking.wait_for_more(5);
    let page = asking.so_far()[0].outcome.clone().expect("an answer");
    let (server, other) = match page.contains(NAT_WEB[0]) {
        true => ("web1", NAT_WEB[1]),
        false => ("web2", NAT_WEB[0]),
    };
    let spec =
        r#"{"spec":{"desiredState":"Drained","drain":{"timeoutSeconds":20,"atEnd":"Disconnect"}}}"#;
    patch(&format!("irs/{server}"), spec);
    let began = Instant::now();
    expect_state(server, "Draining (1 left)");
    let message = field(
        server,
        "{.status.conditions[?(@.type==\"Drained\")].message}",
    );
    assert!(message.contains("UDP clients"), "{message}");
    eventually("the client to get another server", PATIENCE + TIME, || {
        let last = asking.so_far().pop().expect("it asks all the time");
        match &last.outcome {
            Ok(page) if page.contains(other) => Ok(()),
            outcome => Err(format!("{outcome:?}")),
        }
    });
    let took = began.elapsed();
    assert!(
        took + Duration::from_secs(3) > TIME,
        "it moved after {took:?}"
    );
    wait_until_drained(server);
}

#[test]
fn a_server_that_leaves_in_any_way_keeps_its_transfers() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    let manifest = example("nat-cluster.yaml");
    kubectl_apply(&manifest);
    patch("ivs/web", r#"{"spec":{"removalGracePeriodSeconds":40}}"#);
    wait_until_ready(&["web"]);
    let transfers = Transfers::begin(&course.browser(), NAT_VIP, 4);
    let selector = |value: &str| {
        format!(
            r#"{{"spec":{{"realServerSelector":{{"matchLabels":{{"app":"web"}},"matchExpressions":[{{"key":"away","operator":"{value}"}}]}}}}}}"#
        )
    };
    let ways: [(&str, &dyn Fn()); 4] = [
        ("was relabelled", &|| {
            kubectl(&["label", "irs/web1", "app=other", "--overwrite"]);
        }),
        ("is no longer selected", &|| {
            kubectl(&["label", "irs/web1", "away=yes"]);
            patch("ivs/web", &selector("DoesNotExist"));
        }),
        ("got another address", &|| {
            patch("irs/web1", r#"{"spec":{"address":"192.168.2.150"}}"#);
        }),
        ("was deleted", &|| {
            kubectl(&["delete", "irs/web1"]);
        }),
    ];
    for (way, leave) in ways {
        leave();
        expect_weight(&course, NAT_WEB[0], Some(0));
        let left = Instant::now();
        while left.elapsed() < GRACE + Duration::from_secs(2) {
            transfers.expect_to_move(&format!("after the server {way}"));
        }
        expect_weight(&course, NAT_WEB[0], Some(0));
        kubectl_apply(&manifest);
        kubectl(&["label", "irs/web1", "away-"]);
        expect_weight(&course, NAT_WEB[0], Some(1));
        transfers.expect_to_move(&format!("when the server that {way} came back"));
    }

    kubectl(&["delete", "irs/web1"]);
    expect_weight(&course, NAT_WEB[0], Some(0));
    let began = Instant::now();
    eventually("the Director to list the server", PATIENCE, || {
        let path = "jsonpath={.status.drains.servers[*]['realServer.name','cause']}";
        let listed = kubectl(&["get", "idir/director1", "-o", path]);
        match listed.trim() == "web1 Leaving" {
            true => Ok(()),
            false => Err(listed),
        }
    });
    expect_weight(&course, NAT_WEB[0], None);
    let took = began.elapsed();
    assert!(
        took + Duration::from_secs(2) > Duration::from_secs(40),
        "it left after {took:?}"
    );
}

#[test]
fn a_deleted_service_refuses_new_connections_until_its_clients_have_finished_or_another_object_takes_it_over()
 {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let mut agent = start_agent(&course.director, "director1");
    let manifest = example("dr-cluster.yaml");
    kubectl_apply(&manifest);
    wait_until_ready(&["web"]);
    let transfers = Transfers::begin(&course.browser(), DR_VIP, 4);
    kubectl(&["delete", "ivs/web"]);
    let deleted = Instant::now();
    while deleted.elapsed() < GRACE {
        transfers.expect_to_move("in the first ten seconds");
    }
    expect_weights(&course, [0, 0]);
    let counts = course.browser().counts(5, DR_VIP);
    let refused = "failed: connection refused".to_owned();
    assert_eq!(
        counts,
        [(refused, 5)].into(),
        "new connections are refused at once"
    );
    agent.kill();
    agent = start_agent(&course.director, "director1");
    transfers.expect_to_move("after a restart");
    expect_weights(&course, [0, 0]);

    // Another object with the same VIP, port and protocol.
    kubectl_apply(&manifest.replacen("name: web\n", "name: heir\n", 1));
    wait_until_ready(&["heir"]);
    expect_weights(&course, [1, 1]);
    transfers.expect_to_move("after another service took over");
    assert_eq!(
        course.browser().counts(10, DR_VIP).values().sum::<usize>(),
        10
    );

    kubectl(&["delete", "ivs/heir"]);
    expect_weights(&course, [0, 0]);
    transfers.finish();
    eventually("the service to leave", PATIENCE + CLOSED, || {
        let table = ipvsadm::saved(&course.director);
        match table.contains("192.168.4.15") {
            false => Ok(()),
            true => Err(table),
        }
    });
    drop(agent);
}

/// Begins transfers.
#[track_caller]
fn begin<T>(number: usize, transfer: impl Fn() -> io::Result<T>) -> Vec<T> {
    let all = (0..number).map(|_| transfer());
    all.collect::<Result<_, _>>().expect("the transfers begin")
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

fn patch(object: &str, patch: &str) {
    kubectl(&["patch", object, "--type=merge", "-p", patch]);
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

/// Waits until a server has this weight in the director's table, or is no longer
/// in it.
#[track_caller]
fn expect_weight(course: &Course, server: &str, expected: Option<u32>) {
    let what = format!("the weight {expected:?} of {server}");
    eventually(&what, PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        let start = format!("-r {server}:");
        let line = table.lines().find(|line| line.contains(&start));
        let weight = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        match weight == expected {
            true => Ok(()),
            false => Err(table),
        }
    });
}
