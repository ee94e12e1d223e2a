//! Tests VIPs on Ethernet segments with several hosts. The agent never takes an
//! address that another host has. The agent announces its VIPs to every host.
//! If another process changes a VIP, the agent undoes the change.

mod calm;
mod drift;
mod kept;
mod reboot;
mod scene;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use e2e::{
    Process,
    cluster::{
        Cluster, PATIENCE, agent, condition, example, name_holder, start_agent, state_dir, value,
        wait_until_ready,
    },
    course::{Course, DR_VIP, DR_WEB},
    eventually, kubectl, kubectl_apply,
};

use self::scene::{ByManifests, Watch, addresses, services};

const VIP: &str = "192.168.4.15";

/// Two directors want the same 50 IPv4 and 50 IPv6 VIPs at the same moment.
/// Neither director knows of the other.
#[test]
fn of_two_directors_that_want_a_vip_in_the_same_instant_one_gets_it_and_the_other_says_who() {
    let course = Course::dr();
    let other = course.another_director("director2", "192.168.4.6/24");
    let hosts = [&course.director, &other];
    for (host, address) in hosts.iter().zip(["2001:db8:4::5/64", "2001:db8:4::6/64"]) {
        host.ip(&format!("address add {address} dev eth0 nodad"));
    }
    let vips: Vec<String> = (0..50)
        .flat_map(|n| {
            [
                format!("192.168.4.{}", 101 + n),
                format!("2001:db8:4::{:x}", 0x100 + n),
            ]
        })
        .collect();
    let agents = hosts.map(ByManifests::start);
    let watch = Watch::start(&hosts);
    let yaml = services(&vips);
    for agent in &agents {
        agent.apply(&yaml);
    }
    let held = || hosts.map(|host| addresses(host).into_keys().collect::<BTreeSet<_>>());
    eventually(
        "each VIP to be on one of the two directors",
        PATIENCE,
        || {
            let [one, two] = held();
            match one.len() + two.len() == vips.len() {
                true => Ok(()),
                false => Err(format!("{} and {} of {}", one.len(), two.len(), vips.len())),
            }
        },
    );
    // Each VIP is now on one director, and this director answers requests for
    // the VIP's MAC address. The other director keeps probing the segment for
    // the VIP.
    let [one, two] = held();
    println!(
        "{} VIPs on the first director, {} on the second",
        one.len(),
        two.len()
    );
    for (loser, mine, winner) in [
        (&agents[0], &one, &other),
        (&agents[1], &two, &course.director),
    ] {
        let mac = winner.mac("eth0");
        let lost = vips.iter().filter(|vip| !mine.contains(*vip));
        let said: Vec<_> = lost
            .map(|vip| format!("{vip} is not put up, as {mac}"))
            .collect();
        eventually("the loser to log each winner", PATIENCE, || {
            let log = loser.agent.log();
            match said.iter().find(|said| !log.contains(*said)) {
                None => Ok(()),
                Some(said) => Err(format!("{said:?} is missing in:\n{log}")),
            }
        });
    }
    assert_eq!(
        watch.came(),
        vips.iter().cloned().collect(),
        "the watch must have seen every VIP"
    );
    assert_eq!(
        watch.doubled(),
        BTreeSet::new(),
        "no VIP may ever be on both directors"
    );
    assert_eq!(held(), [one, two], "no VIP may have moved");
}

#[test]
fn the_second_director_says_who_holds_the_vip_and_gets_it_when_it_is_free() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let other = course.another_director("director2", "192.168.4.6/24");
    kubectl_apply(OTHER_GROUP);
    let _first = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);

    let mut command = agent("director2");
    command.args(["--director-group", "other"]);
    let _second = Process::start(&other, "agent-director2", &mut command);
    kubectl_apply(OTHER_SERVICE);
    let expected = course.director.mac("eth0");
    eventually("director2 to report the VIP's holder", PATIENCE, || {
        let message = condition("ivs/rival", "Programmed", "message");
        let reason = condition("ivs/rival", "Programmed", "reason");
        match message.contains(&expected) {
            true => {
                println!("{reason}: {message}");
                Ok(())
            }
            false => Err(format!("{reason}: {message}")),
        }
    });
    assert_eq!(
        value("idir/director2", ".status.exceptions[0].reason"),
        "VipTaken"
    );
    assert!(!addresses(&other).contains_key(VIP));

    let watch = Watch::start(&[&course.director, &other]);
    kubectl(&["delete", "ivs/web"]);
    wait_until_ready(&["rival"]);
    assert_eq!(watch.doubled(), BTreeSet::new(), "never on both");
    assert_eq!(addresses(&other)[VIP], "eth0");
    kubectl(&["delete", "ivs", "--all"]);
    eventually(
        "the VIP to go with its service",
        PATIENCE,
        || match addresses(&other).contains_key(VIP) {
            true => Err(value("idir/director2", ".status")),
            false => Ok(()),
        },
    );
    kubectl(&["delete", "idg/other"]);
}

const OTHER_GROUP: &str = "apiVersion: ipvs.dev/v1alpha1
kind: DirectorGroup
metadata: {name: other}
spec: {addressPools: [{name: lab, cidrs: [0.0.0.0/0]}]}
";

const OTHER_SERVICE: &str = "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: rival}
spec:
  vip: {address: 192.168.4.15, port: 80}
  directorGroupName: other
  forwarding: {method: DR}
  realServerSelector: {matchLabels: {app: web}}
";

#[test]
fn a_real_server_that_answers_arp_for_the_vip_is_named() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let [_, careless] = &course.web;
    for interface in ["all", "lo"] {
        careless.sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), "0");
    }
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    let mac = careless.mac("eth0");
    let expected =
        format!("{VIP} is not put up, as {mac} (real server default/web2, 192.168.4.200");
    eventually("the real server to be named", PATIENCE, || {
        let message = condition("ivs/web", "Ready", "message");
        match message.contains(&expected) {
            true => {
                println!("{message}");
                Ok(())
            }
            false => Err(format!("{expected:?} in {message:?}")),
        }
    });
    assert!(!addresses(&course.director).contains_key(VIP));
    for interface in ["all", "lo"] {
        careless.sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), "1");
    }
    wait_until_ready(&["web"]);
    assert_eq!(
        course.browser().counts(10, DR_VIP).len(),
        2,
        "both servers must answer"
    );
}

#[test]
fn an_address_that_was_there_before_stays_when_its_service_goes() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let before = course.director.addresses();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    kubectl(&["delete", "ivs,irs", "--all"]);
    eventually("the service to be gone", PATIENCE, || {
        let services = value("idir/director1", ".status.services");
        match services.as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_eq!(course.director.addresses(), before);
}

/// Without the journal, the agent recognizes its own VIPs by their address
/// protocol (`IFA_PROTO`).
#[test]
fn a_vip_goes_with_its_service_though_the_journal_was_lost() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    assert_eq!(addresses(&course.director)[VIP], "eth0");
    agent.kill();
    fs::remove_dir_all(state_dir("director1")).expect("the agent left a state folder");
    kubectl(&["delete", "ivs", "--all"]);
    let _next = start_agent(&course.director, "director1");
    eventually("the VIP to go", PATIENCE, || {
        match addresses(&course.director).contains_key(VIP) {
            true => Err(value("idir/director1", ".status")),
            false => Ok(()),
        }
    });
}

#[test]
fn a_change_of_holder_releases_first_and_takes_after() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let other = course.another_director("director2", "192.168.4.6/24");
    name_holder("director1");
    let _first = start_agent(&course.director, "director1");
    let _second = start_agent(&other, "director2");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    assert_eq!(addresses(&course.director)[VIP], "eth0");
    let browser = course.browser();
    let both = BTreeMap::from(DR_WEB.map(|web| (web.to_owned(), 2)));
    assert_eq!(browser.counts(4, DR_VIP), both);

    let watch = Watch::start(&[&course.director, &other]);
    name_holder("director2");
    eventually("director2 to hold the VIP", PATIENCE, || {
        match addresses(&other).get(VIP) {
            Some(_) => Ok(()),
            None => Err(value("idir/director2", ".status.exceptions")),
        }
    });
    assert_eq!(watch.doubled(), BTreeSet::new(), "never on both");
    // The client reaches director2, because the announcement of the VIP has
    // updated the client's neighbor table.
    assert_eq!(browser.counts(4, DR_VIP), both);
    let neighbors = course.client.run("ip neighbor show 192.168.4.15");
    assert!(neighbors.contains(&other.mac("eth0")), "{neighbors}");
}
