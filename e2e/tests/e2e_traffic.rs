//! Tests that connections through NAT and DR reach the servers in proportion to
//! their weights.

use std::collections::BTreeMap;

use e2e::{
    Host,
    cluster::{Cluster, PATIENCE, example, start_agent, wait_until_ready},
    course::{Course, DR_VIP, DR_WEB, NAT_VIP, NAT_WEB},
    eventually, ipvsadm, kubectl, kubectl_apply,
};

#[test]
fn nat_traffic_follows_the_weights() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);

    let browser = course.browser();
    assert_eq!(
        browser.counts(30, NAT_VIP),
        shares(NAT_WEB, [15, 15]),
        "weights 1:1\n{}",
        ipvsadm::listed(&course.director)
    );
    set_weight("web2", 2);
    expect_weight(&course.director, "192.168.4.5:80 -r 192.168.2.200:80 -m", 2);
    assert_eq!(
        browser.counts(30, NAT_VIP),
        shares(NAT_WEB, [10, 20]),
        "weights 1:2\n{}",
        ipvsadm::listed(&course.director)
    );

    // With persistence, a client always gets the same server.
    patch(
        "ivs/web",
        r#"{"spec":{"persistence":{"timeoutSeconds":60}}}"#,
    );
    eventually("the service to be persistent", PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        if table.contains("-p 60") {
            Ok(())
        } else {
            Err(table)
        }
    });
    let counts = browser.counts(12, NAT_VIP);
    assert_eq!(
        counts.len(),
        1,
        "one client must get one server: {counts:?}"
    );
}

#[test]
fn dr_traffic_follows_the_weights_and_replies_do_not_pass_the_director() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);

    let browser = course.browser();
    assert_eq!(
        browser.counts(30, DR_VIP),
        shares(DR_WEB, [15, 15]),
        "weights 1:1\n{}",
        ipvsadm::listed(&course.director)
    );
    set_weight("web2", 2);
    expect_weight(
        &course.director,
        "192.168.4.15:80 -r 192.168.4.200:80 -g",
        2,
    );
    assert_eq!(
        browser.counts(30, DR_VIP),
        shares(DR_WEB, [10, 20]),
        "weights 1:2\n{}",
        ipvsadm::listed(&course.director)
    );

    // With DR, the director receives only a small part of a download's bytes.
    let bytes = 2 << 20;
    let before = received(&course.director);
    let download = browser
        .download(DR_VIP, bytes, 4 << 20)
        .expect("the download begins");
    assert_eq!(download.finish().expect("the download ends"), bytes);
    let seen = received(&course.director) - before;
    assert!(
        seen < bytes / 4,
        "the director received {seen} bytes while {bytes} went to the client"
    );

    // Only the director answers an ARP request for the VIP.
    let answers = course
        .client
        .run("busybox arping -b -c 3 -w 60 -I eth0 192.168.4.15")
        .to_lowercase();
    let mac = &course.director.mac("eth0");
    let replies: Vec<_> = answers
        .lines()
        .filter(|line| line.contains("reply from"))
        .collect();
    assert_eq!(
        replies.len(),
        3,
        "each of three requests must get one reply:\n{answers}"
    );
    assert!(
        replies.iter().all(|reply| reply.contains(mac)),
        "each reply must come from the director, {mac}:\n{answers}"
    );
}

#[test]
fn an_established_download_survives_every_edit_that_does_not_remove_its_server() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);

    // The download is so large that it cannot end before the test has made all
    // its edits.
    let rate = 60_000;
    let browser = course.browser().with_timeout(PATIENCE);
    let download = browser
        .download(NAT_VIP, 1 << 40, rate)
        .expect("the download begins");
    let (own, other) = if download.server() == NAT_WEB[0] {
        ("web1", "web2")
    } else {
        ("web2", "web1")
    };
    let edits = [
        (
            "ivs/web",
            r#"{"spec":{"scheduler":"sh"}}"#.to_owned(),
            "-s sh",
        ),
        (
            "ivs/web",
            r#"{"spec":{"scheduler":"wlc","persistence":{"timeoutSeconds":60}}}"#.to_owned(),
            "-p 60",
        ),
        (
            "ivs/web",
            r#"{"spec":{"persistence":null}}"#.to_owned(),
            "-s wlc\n",
        ),
        (
            &format!("irs/{other}"),
            r#"{"spec":{"weight":7}}"#.to_owned(),
            "-w 7",
        ),
        (
            &format!("irs/{own}"),
            r#"{"spec":{"weight":9}}"#.to_owned(),
            "-w 9",
        ),
        (
            &format!("irs/{own}"),
            r#"{"spec":{"connections":{"upperThreshold":500}}}"#.to_owned(),
            " 500 ",
        ),
        (
            &format!("irs/{own}"),
            r#"{"spec":{"weight":0}}"#.to_owned(),
            "-w 0",
        ),
    ];
    for (object, edit, shows) in edits {
        patch(object, &edit);
        eventually(
            &format!("{shows:?} after {object} {edit}"),
            PATIENCE,
            || {
                let mut table = ipvsadm::saved(&course.director).replace(" \n", "\n");
                table += &course.director.run("ipvsadm -Ln --thresholds");
                if table.contains(shows) {
                    Ok(())
                } else {
                    Err(table)
                }
            },
        );
    }
    kubectl(&["delete", &format!("irs/{other}")]);
    eventually("the other server to be gone", PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        if table.matches("-r ").count() == 1 {
            Ok(())
        } else {
            Err(table)
        }
    });
    // The client stops the download at the first wrong byte.
    let before = download.received();
    eventually("the download to survive all edits", PATIENCE, || {
        match download.received() - before {
            bytes if bytes > rate => Ok(()),
            bytes => Err(format!(
                "{bytes} more bytes came, running: {}",
                download.is_running()
            )),
        }
    });
    assert!(download.is_running(), "the download was cut");
}

fn shares(web: [&str; 2], counts: [usize; 2]) -> BTreeMap<String, usize> {
    web.into_iter().map(str::to_owned).zip(counts).collect()
}

fn received(host: &Host) -> u64 {
    // In /proc/net/dev, the first column after the interface's name is the
    // number of received bytes.
    let table = host.run("cat /proc/net/dev");
    let bytes = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))
        .and_then(|counters| counters.split_whitespace().next());
    let bytes = bytes.unwrap_or_else(|| panic!("/proc/net/dev has no line for eth0:\n{table}"));
    bytes.parse().expect("a counter is a number")
}

fn set_weight(server: &str, weight: u16) {
    patch(
        &format!("irs/{server}"),
        &format!(r#"{{"spec":{{"weight":{weight}}}}}"#),
    );
}

fn expect_weight(director: &Host, destination: &str, weight: u16) {
    let line = format!("{destination} -w {weight}");
    eventually(&line, PATIENCE, || {
        let table = ipvsadm::saved(director);
        if table.contains(&line) {
            Ok(())
        } else {
            Err(table)
        }
    });
}

fn patch(object: &str, patch: &str) {
    kubectl(&["patch", object, "--type=merge", "-p", patch]);
}
