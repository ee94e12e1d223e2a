//! Tests that the agent restores its VIPs after another process changed them,
//! or after a link went down and came back.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Host, Process,
    cluster::{Cluster, PATIENCE, example, start_agent, value, wait_until_ready},
    course::Course,
    eventually, kubectl_apply,
};

use crate::scene::addresses;

const VIPS: [&str; 2] = ["192.168.4.15", "2001:db8:4::15"];

const SIXTH: &str = "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: sixth}
spec:
  vip: {address: '2001:db8:4::15', port: 80}
  forwarding: {method: DR}
  realServerSelector: {matchLabels: {app: sixth}}
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: sixth, labels: {app: sixth}}
spec: {address: '2001:db8:4::64'}
";

/// A tcpdump that captures announcements of VIPs: ARP requests for the sender's
/// own address, and IPv6 neighbor advertisements to all nodes.
struct Announcements {
    tcpdump: Process,
}

impl Announcements {
    fn listen(course: &Course) -> Self {
        let mut command = std::process::Command::new("tcpdump");
        command.args(["-n", "-e", "-l", "--immediate-mode", "-i", "eth0"]);
        command.arg("arp or (icmp6 and ip6[40] = 136)");
        let tcpdump = Process::start(&course.client, "tcpdump", &mut command);
        tcpdump.wait_for_log("listening on", PATIENCE);
        Self { tcpdump }
    }

    /// Returns how many announcements of a VIP a network card has sent so far.
    fn of(&self, vip: &str, mac: &str) -> usize {
        let announces = |line: &&str| {
            let said = match vip.contains(':') {
                true => line.contains(&format!("neighbor advertisement, tgt is {vip}")),
                false => {
                    line.contains(&format!("who-has {vip} tell {vip}"))
                        || line.contains(&format!("Announcement {vip}"))
                }
            };
            said && line.contains(mac)
        };
        self.tcpdump.log().lines().filter(announces).count()
    }
}

#[test]
fn vips_that_were_taken_away_are_back_and_announced() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let director = &course.director;
    director.ip("address add 2001:db8:4::5/64 dev eth0 nodad");
    // Without keep_addr_on_down, the host would lose its own IPv6 address and
    // subnet when the link goes down.
    director.sysctl("net.ipv6.conf.eth0.keep_addr_on_down", "1");
    let _agent = start_agent(director, "director1");
    let heard = Announcements::listen(&course);
    kubectl_apply(&format!("{}---\n{SIXTH}", example("dr-cluster.yaml")));
    wait_until_ready(&["web", "sixth"]);
    expect_form(director);
    let mac = director.mac("eth0");
    let announced = || VIPS.map(|vip| heard.of(vip, &mac));
    eventually("each VIP to be announced three times", PATIENCE, || {
        let announced = announced();
        match announced.iter().all(|times| *times == 3) {
            true => Ok(()),
            false => Err(format!("{announced:?}\n{}", heard.tcpdump.log())),
        }
    });
    let primary = "address add 192.168.4.5/24 dev eth0";
    let deeds: [(&str, &str, &[&str]); 4] = [
        (
            "removed",
            "address delete 192.168.4.15/32 dev eth0
                     address delete 2001:db8:4::15/128 dev eth0",
            &VIPS,
        ),
        (
            "link down and up",
            "link set eth0 down
                              link set eth0 up",
            &VIPS,
        ),
        ("flushed", "address flush dev eth0 scope global", &VIPS),
        (
            "one VIP removed",
            "address delete 192.168.4.15/32 dev eth0",
            &VIPS[..1],
        ),
    ];
    for (what, deed, vips) in deeds {
        let before = announced();
        director.ip(deed);
        let began = Instant::now();
        let back = loop {
            let found = addresses(director);
            if VIPS.iter().all(|vip| found.contains_key(*vip)) {
                break began.elapsed();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: {found:?}\n{}",
                value("idir/director1", ".status")
            );
            thread::sleep(Duration::from_millis(100));
        };
        println!("{what}: back after {} ms", back.as_millis());
        if what == "flushed" {
            director.ip(&format!(
                "{primary}\n address add 2001:db8:4::5/64 dev eth0 nodad"
            ));
        }
        eventually(
            &format!("the VIPs to be announced after {what}"),
            PATIENCE,
            || {
                let now = announced();
                let is_announced = |vip: &&&str| {
                    let index = VIPS
                        .iter()
                        .position(|known| known == *vip)
                        .expect("the VIP is in VIPS");
                    now[index] > before[index]
                };
                match vips.iter().filter(is_announced).count() == vips.len() {
                    true => Ok(()),
                    false => Err(format!("{before:?}, then {now:?}")),
                }
            },
        );
        expect_form(director);
    }
    eventually("the repairs to be reported", PATIENCE, || {
        let latest = value("idir/director1", ".status.repairs.latest");
        match latest.contains("ip address add 192.168.4.15 dev eth0") {
            true => Ok(()),
            false => Err(latest),
        }
    });
}

/// Asserts that the VIPs are host addresses (/32 and /128) without a route.
/// Also asserts that the kernel never uses the IPv6 VIP as a source address.
#[track_caller]
fn expect_form(director: &Host) {
    let list = director.run("ip -details -oneline address show dev eth0");
    for (vip, parts) in [
        ("192.168.4.15/32", ["noprefixroute"].as_slice()),
        (
            "2001:db8:4::15/128",
            &["noprefixroute", "nodad", "deprecated", "preferred_lft 0sec"],
        ),
    ] {
        let line = list.lines().find(|line| line.contains(vip));
        let line = line.unwrap_or_else(|| panic!("{vip} is missing on eth0:\n{list}"));
        for part in parts {
            assert!(line.contains(part), "{part:?} is missing in {line:?}");
        }
    }
}
