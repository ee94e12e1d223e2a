//! Tests that clients on the segment notice no problem while services are
//! created and deleted.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use e2e::{
    Process,
    cluster::{Cluster, PATIENCE, drain_nothing, example, start_agent, value, wait_until_ready},
    course::Course,
    eventually, kubectl, kubectl_apply,
};

use crate::{VIP, scene::addresses};

/// One client repeatedly connects to the VIP. At the same time, arping
/// repeatedly asks for the VIP's MAC address.
#[test]
fn while_a_service_comes_and_goes_nobody_is_reset_and_nobody_but_the_holder_answers() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let _agent = start_agent(&course.director, "director1");
    let mut listen = Command::new("tcpdump");
    listen.args(["-n", "-e", "-l", "--immediate-mode", "-i", "eth0"]);
    let director = course.director.mac("eth0");
    listen.arg(format!(
        "(tcp[tcpflags] & tcp-rst != 0 and src host {VIP} and ether src {director}) \
         or (arp[6:2] = 2 and arp host {VIP})"
    ));
    let wire = Process::start(&course.client, "tcpdump", &mut listen);
    wire.wait_for_log("listening on", PATIENCE);
    let ends = Arc::new(AtomicBool::new(false));
    let connected = Arc::new(AtomicUsize::new(0));
    let (until, counted) = (ends.clone(), connected.clone());
    let client = course.client.thread(move || {
        let to: SocketAddr = format!("{VIP}:80").parse().expect("an address");
        while !until.load(Ordering::SeqCst) {
            let connects = TcpStream::connect_timeout(&to, SHORT).is_ok();
            counted.fetch_add(usize::from(connects), Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut ask = Command::new("busybox");
    ask.args(["arping", "-b", "-I", "eth0", VIP]);
    let mut asking = Process::start(&course.client, "arping", &mut ask);
    for _ in 0..3 {
        let before = connected.load(Ordering::SeqCst);
        kubectl_apply(&example("dr-cluster.yaml"));
        wait_until_ready(&["web"]);
        eventually(
            "a client to connect while the service exists",
            PATIENCE,
            || match connected.load(Ordering::SeqCst) - before {
                count if count > 35 => Ok(()),
                count => Err(format!("{count} times")),
            },
        );
        drain_nothing();
        kubectl(&["delete", "ivs", "--all"]);
        eventually("the VIP to go", PATIENCE, || {
            match addresses(&course.director).contains_key(VIP) {
                true => Err(value("idir/director1", ".status")),
                false => Ok(()),
            }
        });
        thread::sleep(Duration::from_secs(2));
    }
    assert!(
        asking.is_running(),
        "arping must run to the end: {}",
        asking.log()
    );
    ends.store(true, Ordering::SeqCst);
    client.join().expect("connecting does not panic");
    println!("{} connections", connected.load(Ordering::SeqCst));
    let log = wire.log();
    let packets = || log.lines().filter(|line| line.contains(VIP));
    let resets: Vec<_> = packets().filter(|line| line.contains("Flags [R")).collect();
    assert_eq!(resets, [] as [&str; 0], "no client may be reset");
    let answers = packets().filter(|line| line.contains("is-at"));
    let macs: BTreeSet<_> = answers
        .filter_map(|line| line.split(" is-at ").nth(1)?.split([',', ' ']).next())
        .collect();
    assert_eq!(macs, [&*course.director.mac("eth0")].into(), "{log}");
}

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn on_devices_of_their_own_two_directors_hold_a_vip_and_answer_nobody() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let other = course.another_director("director2", "192.168.4.6/24");
    let directors = [&course.director, &other];
    let links = directors.map(|director| director.run("ip -brief link show"));
    let patch = r#"{"spec":{"addresses":{"mode":"Dummy"}}}"#;
    kubectl(&["patch", "idg/default", "--type=merge", "-p", patch]);
    let _first = start_agent(&course.director, "director1");
    let _second = start_agent(&other, "director2");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    for director in directors {
        eventually(
            "both directors to hold the VIP",
            PATIENCE,
            || match addresses(director).get(VIP).map(String::as_str) {
                Some("ipvs-vips") => Ok(()),
                elsewhere => Err(format!("{elsewhere:?}")),
            },
        );
    }
    let ask = format!("busybox arping -b -c 5 -w 60 -I eth0 {VIP} || true");
    let mut command = Command::new("sh");
    command.args(["-c", &ask]);
    let answers = course.client.try_command(&mut command);
    let answers = answers.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        answers.contains("Sent 5"),
        "arping must ask five times:\n{answers}"
    );
    assert!(
        !answers.contains("reply from"),
        "no host may answer:\n{answers}"
    );
    kubectl(&["delete", "ivs", "--all"]);
    for (director, before) in directors.iter().zip(links) {
        eventually("the device to go with its last VIP", PATIENCE, || {
            let now = director.run("ip -brief link show");
            match now == before {
                true => Ok(()),
                false => Err(now),
            }
        });
    }
}
