//! A server fails, with traffic: clients notice in the window, and only those
//! that were sent to it.

use std::time::{Duration, Instant};

use e2e::{
    Asking, Client, Download, Host, Weights,
    cluster::{Cluster, PATIENCE, start_agent, wait_until_ready},
    course::{Course, NAT_VIP, NAT_WEB},
    eventually,
    fault::{DatagramServer, Protocol},
    kubectl_apply,
};

use crate::farm::{CHECK, TIMING, Timing, assert_failed_within, service, wait_for_healthy};

const SERVER: [&str; 2] = ["192.168.2.100:80", "192.168.2.200:80"];

/// How a web server goes away.
#[derive(Clone, Copy, Debug)]
enum How {
    Stopped,
    PoweredOff,
}

#[test]
fn a_server_that_is_powered_off_is_removed_within_the_window_and_others_do_not_notice() {
    let remove = service(&format!("{CHECK}\n  availability: {{onFailure: Remove}}"));
    let manifests = format!("{remove}{WEB_SERVERS}");
    go_and_come_back(&manifests, How::PoweredOff, None);
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

/// The first web server goes away and comes back; `out` is its weight meanwhile.
fn go_and_come_back(manifests: &str, how: How, out: Option<u32>) {
    let _cluster = Cluster::start();
    let mut course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(manifests);
    wait_until_ready(&["web"]);
    wait_for_healthy(2, 2);
    let window = Timing::of("ivs/web").window();
    let weights = Weights::watch(&course.director);
    let asking = Asking::pages(&course.browser(), NAT_VIP);
    let download = download_from(&course.browser(), NAT_WEB[1]);
    asking.wait_for_more(20);

    let failed = Instant::now();
    go(&mut course, how);
    weights.wait_for((NAT_VIP, SERVER[0]), out, PATIENCE);
    let out = Instant::now();
    asking.wait_for_more(20);
    assert_failed_within(&asking, failed, window);
    let counts = asking.counts(out);
    assert!(counts.contains_key(NAT_WEB[1]), "{counts:?}");
    let health = wait_for_healthy(1, 2);
    assert_eq!(health.unhealthy[0].real_server, "default/web1");

    let cured = Instant::now();
    come_back(&mut course, how);
    weights.wait_for((NAT_VIP, SERVER[0]), Some(1), PATIENCE);
    eventually("the server to be asked again", PATIENCE, || {
        let counts = asking.counts(cured);
        match counts.contains_key(NAT_WEB[0]) {
            true => Ok(()),
            false => Err(format!("{counts:?}")),
        }
    });
    let failed = asking.failed(cured);
    assert!(failed.is_empty(), "none fails on its return: {failed:#?}");
    let others = weights.changes(Instant::now() - PATIENCE);
    let others: Vec<_> = others
        .iter()
        .filter(|change| change.key.1 == SERVER[1])
        .collect();
    assert!(
        others.is_empty(),
        "the other server was left alone: {others:?}"
    );
    assert!(
        download.is_running(),
        "it was to last longer than all of this"
    );
    let before = download.received();
    eventually(
        "the other server's download to go on",
        PATIENCE,
        || match download.received() {
            now if now > before => Ok(()),
            now => Err(now),
        },
    );
    wait_for_healthy(2, 2);
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

/// With its card a host lost its routes.
fn switch_on(host: &Host) {
    host.ip("link set eth0 up
             route add default via 192.168.2.5");
}

/// A download that lasts, from one of the servers.
#[track_caller]
fn download_from(browser: &Client, server: &str) -> Download {
    let browser = browser.clone().with_timeout(Duration::from_secs(20));
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
fn a_client_that_always_gets_the_same_server_is_served_elsewhere_within_the_window() {
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
        assert_eq!(counts.len(), 1, "{what}: one server: {counts:?}");
        let own = NAT_WEB.iter().position(|web| counts.contains_key(*web));
        let own = own.expect("it is one of the two");

        let failed = Instant::now();
        course.stop_web(own);
        weights.wait_for((NAT_VIP, SERVER[own]), out, PATIENCE);
        let moved = Instant::now();
        asking.wait_for_more(20);
        assert_failed_within(&asking, failed, TIMING.window());
        let counts = asking.counts(moved);
        assert!(counts.contains_key(NAT_WEB[1 - own]), "{what}: {counts:?}");
    }
}

#[test]
fn a_flow_of_datagrams_is_served_elsewhere_within_the_window() {
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
        assert_eq!(counts.len(), 1, "one flow, one server: {counts:?}");
        let own = NAT_WEB.iter().position(|web| counts.contains_key(*web));
        let own = own.expect("it is one of the two");
        let address = SERVER[own].replace(":80", ":7");

        let failed = Instant::now();
        match how {
            How::Stopped => servers[own].stop(),
            How::PoweredOff => course.web[own].ip("link set eth0 down"),
        }
        weights.wait_for((ECHO, &address), None, PATIENCE);
        let moved = Instant::now();
        asking.wait_for_more(20);
        assert_failed_within(&asking, failed, TIMING.window());
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
            "{how:?}: none fails on its return: {failed:#?}"
        );
    }
}
