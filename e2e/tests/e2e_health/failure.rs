//! Tests servers that fail under traffic. Requests may fail only at the failed
//! server, and only until the failure threshold is reached.

use std::time::{Duration, Instant};

use e2e::{
    Asking, Client, Download, Host, Weights,
    cluster::{
        Cluster, PATIENCE, condition, example, start_agent, value, wait_for, wait_until_ready,
    },
    course::{Course, NAT_VIP, NAT_WEB},
    eventually,
    fault::{Behaviour, DatagramServer, FaultServer, Protocol},
    kubectl_apply,
    wait::eventually_equal,
};

use crate::farm::{
    CHECK, FAILURES, Farm, assert_failed_between, health, service, wait_for_healthy,
};

const SERVER: [&str; 2] = ["192.168.2.100:80", "192.168.2.200:80"];

/// The server of this test fails an exact number of probes and then recovers.
/// The number of failures that the agent sees is therefore the same on busy and
/// idle machines.
#[test]
fn a_server_is_out_after_as_many_failures_in_a_row_as_its_threshold_says_and_not_before() {
    let _cluster = Cluster::start();
    let farm = Farm::new(2);
    let _agent = start_agent(&farm.course.director, "director1");
    kubectl_apply(&farm.real_servers(1));
    let check = CHECK.replace("Seconds: 1", "Seconds: 2");
    kubectl_apply(&service(&check));
    wait_until_ready(&["web"]);
    wait_for_healthy(2, 2);
    let weights = Weights::watch(&farm.course.director);
    let changes = |since| -> Vec<_> {
        let changes = weights.changes(since);
        changes.iter().map(|change| change.weight).collect()
    };

    for failures in 1..FAILURES {
        let begun = Instant::now();
        farm.servers[0].behave_times(failures, Behaviour::Error(500));
        farm.wait_for_probes_since(begun, failures + 2);
        assert_eq!(changes(begun), [], "after {failures} failures");
    }
    let begun = Instant::now();
    farm.servers[0].behave_times(FAILURES, Behaviour::Error(500));
    let out_and_back = vec![Some(0), Some(1)];
    let what = format!("weights after {FAILURES} failures");
    eventually_equal(&what, PATIENCE, &out_and_back, || changes(begun));
}

/// The way in which a web server fails.
#[derive(Clone, Copy, Debug)]
enum How {
    Stopped,
    PoweredOff,
}

#[test]
fn clients_stop_being_sent_to_a_stopped_server_and_others_do_not_notice() {
    let manifests = example("health.yaml");
    go_and_come_back(&manifests, &["web", "web-alt"], How::Stopped, Some(0));
}

#[test]
fn a_server_that_is_powered_off_is_removed_and_others_do_not_notice() {
    let remove = service(&format!("{CHECK}\n  availability: {{onFailure: Remove}}"));
    let manifests = format!("{remove}{WEB_SERVERS}");
    go_and_come_back(&manifests, &["web"], How::PoweredOff, None);
}

const WEB_SERVERS: &str = "
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: web1, labels: {app: web}}
spec: {address: 192.168.2.100}
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: web2, labels: {app: web}}
spec: {address: 192.168.2.200}
";

/// Makes the first web server fail under traffic, and then brings the server
/// back. While the server is down, its weight in the service `web` must be
/// `out`. If `out` is `None`, the kernel must not have the server. Every
/// service must have both web servers.
fn go_and_come_back(manifests: &str, services: &[&str], how: How, out: Option<u32>) {
    let _cluster = Cluster::start();
    let mut course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(manifests);
    wait_until_ready(services);
    let all = 2 * services.len();
    wait_for_healthy(all, all);
    let is_healthy = || "healthy on 1 of 1 director".to_owned();
    expect_shown("web1", "True", is_healthy, "2/2");
    let weights = Weights::watch(&course.director);
    let weight = weights.of(NAT_VIP, SERVER[0]);
    let asking = Asking::pages(&course.browser(), NAT_VIP);
    let download = download_from(&course.browser(), NAT_WEB[1]);
    asking.wait_for_more(20);

    let begun = Instant::now();
    go(&mut course, how);
    weights.wait_for((NAT_VIP, SERVER[0]), out, PATIENCE);
    let out = Instant::now();
    asking.wait_for_more(20);
    assert_failed_between(&asking, begun, out);
    let counts = asking.counts(out);
    assert!(counts.contains_key(NAT_WEB[1]), "{counts:?}");
    let health = wait_for_healthy(all / 2, all);
    let [unhealthy] = &*health.unhealthy else {
        panic!("expected one unhealthy server: {health:#?}");
    };
    let of_services = services.iter().map(|service| format!("default/{service}"));
    assert_eq!(unhealthy.real_server.to_string(), "default/web1");
    let named = unhealthy.virtual_services.iter().map(ToString::to_string);
    assert_eq!(named.collect::<Vec<_>>(), of_services.collect::<Vec<_>>());
    // While the server is down, the Director's message may change from "no
    // answer" to "no route". So `words` reads the Director's current message
    // whenever it is called.
    let words = || match &*self::health().unhealthy {
        [unhealthy] => unhealthy.message.clone(),
        others => format!("expected one unhealthy server, not {others:?}"),
    };
    expect_shown("web1", "False", words, "1/2");

    let cured = Instant::now();
    come_back(&mut course, how);
    weights.wait_for((NAT_VIP, SERVER[0]), weight, PATIENCE);
    eventually("clients to be sent to the server again", PATIENCE, || {
        let counts = asking.counts(cured);
        match counts.contains_key(NAT_WEB[0]) {
            true => Ok(()),
            false => Err(format!("{counts:?}")),
        }
    });
    let failed = asking.failed(cured);
    assert!(
        failed.is_empty(),
        "requests failed when the server came back: {failed:#?}"
    );
    let changes = weights.changes(begun);
    let other = (NAT_VIP.to_owned(), SERVER[1].to_owned());
    let others: Vec<_> = changes
        .iter()
        .filter(|change| change.key == other)
        .collect();
    assert!(
        others.is_empty(),
        "the other server's weight must not change: {others:?}"
    );
    expect_to_move("the other server's", &download);
    wait_for_healthy(all, all);
    let is_healthy = || "healthy on 1 of 1 director".to_owned();
    expect_shown("web1", "True", is_healthy, "2/2");
}

/// Waits until the statuses of a RealServer and of the VirtualService `web`
/// show the given values.
#[track_caller]
fn expect_shown(server: &str, ready: &str, words: impl Fn() -> String, summary: &str) {
    let server = format!("irs/{server}");
    wait_for(&server, "Ready", ready);
    eventually(
        &format!("{server} to show its message and web to show {summary}"),
        PATIENCE,
        || {
            let (message, words) = (condition(&server, "Ready", "message"), words());
            let shown = value("ivs/web", ".status.realServers.summary");
            match message.contains(&words) && shown == summary {
                true => Ok(()),
                false => Err(format!("{message:?} and {shown}, not {words:?}")),
            }
        },
    );
    // The VirtualService stays Ready with the remaining servers.
    wait_until_ready(&["web"]);
}

fn go(course: &mut Course, how: How) {
    match how {
        How::Stopped => course.stop_web(0),
        How::PoweredOff => course.web[0].ip("link set eth0 down"),
    }
}

fn come_back(course: &mut Course, how: How) {
    match how {
        How::Stopped => course.start_web(0),
        How::PoweredOff => switch_on(&course.web[0]),
    }
}

/// Brings the host's link up, and restores the default route that was lost with
/// the link.
fn switch_on(host: &Host) {
    host.ip("link set eth0 up
             route add default via 192.168.2.5");
}

/// How long a download may receive nothing before it counts as cut.
const HALT: Duration = Duration::from_secs(30);

/// Starts a long download through the VIP from the given server.
#[track_caller]
fn download_from(browser: &Client, server: &str) -> Download {
    let browser = browser.clone().with_timeout(HALT);
    for _ in 0..10 {
        let download = browser.download(NAT_VIP, 1 << 30, 20_000);
        let download = download.expect("the download begins");
        if download.server() == server {
            return download;
        }
    }
    panic!("none of ten downloads came from {server}");
}

#[test]
fn connections_of_a_failed_server_go_on_when_it_is_quiesced_and_end_when_it_is_removed() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    // A separate server answers the probes, so that probes can fail without
    // breaking the web server's connections.
    let asked = [0, 1].map(|index| {
        let host = &course.web[index];
        FaultServer::start(host, "0.0.0.0:9000", NAT_WEB[index])
    });
    let _agent = start_agent(&course.director, "director1");
    let check = CHECK.replace("/healthz}", "/healthz, port: 9000}");
    let manifest = |on_failure: &str| {
        let policy = format!("availability: {{onFailure: {on_failure}}}");
        service(&format!("{check}\n  {policy}"))
    };
    kubectl_apply(&format!("{}{WEB_SERVERS}", manifest("Quiesce")));
    wait_until_ready(&["web"]);
    wait_for_healthy(2, 2);
    let weights = Weights::watch(&course.director);
    let [own, other] = NAT_WEB.map(|server| download_from(&course.browser(), server));

    asked[0].behave(Behaviour::Error(500));
    weights.wait_for((NAT_VIP, SERVER[0]), Some(0), PATIENCE);
    expect_to_move("the failed server's", &own);

    kubectl_apply(&manifest("Remove"));
    weights.wait_for((NAT_VIP, SERVER[0]), None, PATIENCE);
    // The download from the removed server stalls, because the client gets no
    // more data. The client also gets no RST, because the client sends no
    // packet.
    own.finish()
        .expect_err("the removed server's download is cut");
    expect_to_move("the other server's", &other);
}

/// Waits until a download has received more bytes than any buffer can hold.
#[track_caller]
fn expect_to_move(whose: &str, download: &Download) {
    let before = download.received();
    eventually(&format!("{whose} download to go on"), PATIENCE, || {
        match download.received() - before {
            bytes if bytes > 20_000 => Ok(()),
            bytes => Err(format!("{bytes} bytes came")),
        }
    });
    assert!(download.is_running(), "{whose} download was cut");
}

#[test]
fn a_client_that_always_gets_the_same_server_is_served_elsewhere_once_it_is_out() {
    for (what, more, out) in [
        (
            "a persistent service",
            "persistence: {timeoutSeconds: 300}",
            None,
        ),
        ("the scheduler sh", "", Some(0)),
    ] {
        let _cluster = Cluster::start();
        let mut course = Course::nat();
        let _agent = start_agent(&course.director, "director1");
        let mut manifest = service(&format!("{CHECK}\n  {more}"));
        if out.is_some() {
            manifest = manifest.replace("scheduler: rr", "scheduler: sh");
        }
        kubectl_apply(&format!("{manifest}{WEB_SERVERS}"));
        wait_until_ready(&["web"]);
        wait_for_healthy(2, 2);
        let weights = Weights::watch(&course.director);
        let asking = Asking::pages(&course.browser(), NAT_VIP);
        let begun = Instant::now();
        asking.wait_for_more(20);
        let counts = asking.counts(begun);
        assert_eq!(
            counts.len(),
            1,
            "{what}: one client must get one server: {counts:?}"
        );
        let own = NAT_WEB.iter().position(|web| counts.contains_key(*web));
        let own = own.expect("the server is one of the two web servers");

        let failed = Instant::now();
        course.stop_web(own);
        weights.wait_for((NAT_VIP, SERVER[own]), out, PATIENCE);
        let moved = Instant::now();
        asking.wait_for_more(20);
        assert_failed_between(&asking, failed, moved);
        let counts = asking.counts(moved);
        assert!(counts.contains_key(NAT_WEB[1 - own]), "{what}: {counts:?}");
    }
}

#[test]
fn a_flow_of_datagrams_is_served_elsewhere_once_its_server_is_out() {
    const ECHO: &str = "192.168.4.5:7";
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut servers = [0, 1].map(|index| {
        let page = NAT_WEB[index];
        DatagramServer::start(&course.web[index], "0.0.0.0:7", Protocol::Echo, page)
    });
    let _agent = start_agent(&course.director, "director1");
    let check = CHECK.replace(
        "httpGet: {path: /healthz}",
        "udp: {send: ping, expect: ping}",
    );
    let echo = service(&check).replace("port: 80", "port: 7, protocol: UDP");
    kubectl_apply(&format!("{echo}{WEB_SERVERS}"));
    wait_until_ready(&["web"]);
    wait_for_healthy(2, 2);
    let weights = Weights::watch(&course.director);

    for how in [How::Stopped, How::PoweredOff] {
        let asking = Asking::datagrams(&course.client, 40_000, ECHO);
        let begun = Instant::now();
        asking.wait_for_more(20);
        let counts = asking.counts(begun);
        assert_eq!(counts.len(), 1, "one flow must get one server: {counts:?}");
        let own = NAT_WEB.iter().position(|web| counts.contains_key(*web));
        let own = own.expect("the server is one of the two web servers");
        let address = SERVER[own].replace(":80", ":7");

        let failed = Instant::now();
        match how {
            How::Stopped => servers[own].stop(),
            How::PoweredOff => course.web[own].ip("link set eth0 down"),
        }
        weights.wait_for((ECHO, &address), None, PATIENCE);
        let moved = Instant::now();
        asking.wait_for_more(20);
        assert_failed_between(&asking, failed, moved);
        let counts = asking.counts(moved);
        assert!(counts.contains_key(NAT_WEB[1 - own]), "{how:?}: {counts:?}");

        let cured = Instant::now();
        match how {
            How::Stopped => servers[own].start_again(),
            How::PoweredOff => switch_on(&course.web[own]),
        }
        weights.wait_for((ECHO, &address), Some(1), PATIENCE);
        asking.wait_for_more(20);
        let failed = asking.failed(cured);
        assert!(
            failed.is_empty(),
            "{how:?}: requests failed when the server came back: {failed:#?}"
        );
    }
}
