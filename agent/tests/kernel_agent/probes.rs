//! Tests that probes are void, with a reason, if this host itself cannot reach
//! the servers. These tests run in the lab, each in its own network namespace.

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use agent::{
    event::{Event, probed::ProbeId},
    heartbeat::Heartbeat,
    probe::{
        start,
        target::{Order, Target},
    },
};
use crds::{HealthCheck, Probe};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc::UnboundedSender;

const PATIENCE: Duration = Duration::from_secs(30);
/// The address of a server that does not exist. The test's interface drops all
/// packets to this address.
const SERVER: &str = "192.0.2.9:80";
const SERVER_6: &str = "[2001:db8::9]:80";

#[test]
fn a_server_that_is_silent_on_a_link_that_works_has_failed() {
    for (server, probe) in [
        (SERVER, tcp()),
        (SERVER_6, tcp()),
        (SERVER, udp("pong")),
        (SERVER, Probe::Icmp),
    ] {
        in_a_namespace(|| {
            let probes = Probes::start(server, probe);
            probes.wait_for_failures(3, "no answer in 0.2 s");
        });
    }
}

#[test]
fn without_a_route_or_a_carrier_nothing_is_known_of_a_server() {
    for (server, probe) in [
        (SERVER, tcp()),
        (SERVER_6, tcp()),
        (SERVER, udp("")),
        (SERVER, Probe::Icmp),
    ] {
        in_a_namespace(|| {
            let probes = Probes::start(server, probe);
            ip("link set wire carrier off");
            probes.wait_for_void("interface wire has no carrier");
            ip("link set wire carrier on");
            probes.wait_for_no_void();
            ip("link set wire down");
            probes.wait_for_void("this host has no route to the server");
        });
    }
}

#[test]
fn a_route_that_forbids_it_is_no_route() {
    for kind in ["unreachable", "prohibit", "blackhole"] {
        in_a_namespace(|| {
            let probes = Probes::start(SERVER, tcp());
            probes.wait_for_failures(1, "no answer in 0.2 s");
            ip(&format!("route add {kind} 192.0.2.9/32"));
            probes.wait_for_void("");
            ip(&format!("route del {kind} 192.0.2.9/32"));
            probes.wait_for_no_void();
        });
    }
}

#[test]
fn what_the_own_firewall_drops_or_rejects_says_nothing_of_a_server() {
    let words = "this host's own firewall forbids probes (EPERM)";
    for verdict in ["DROP", "REJECT", "REJECT --reject-with tcp-reset"] {
        in_a_namespace(|| {
            let rule = format!("OUTPUT -p tcp -d 192.0.2.9 -j {verdict}");
            run("iptables-legacy", &format!("-A {rule}"));
            let probes = Probes::start(SERVER, tcp());
            probes.wait_for_void(words);
            run("iptables-legacy", &format!("-D {rule}"));
            probes.wait_for_no_void();
            probes.wait_for_failures(1, "no answer in 0.2 s");
        });
    }
    in_a_namespace(|| {
        run("ip6tables-legacy", "-A OUTPUT -p tcp --dport 80 -j DROP");
        Probes::start(SERVER_6, tcp()).wait_for_void(words);
    });
    for probe in [udp("pong"), udp(""), Probe::Icmp] {
        in_a_namespace(|| {
            let probes = Probes::start(SERVER, probe);
            run("iptables-legacy", "-A OUTPUT -d 192.0.2.9 -j DROP");
            probes.wait_for_void(words);
        });
    }
}

#[test]
fn a_server_that_answered_and_is_then_dropped_by_the_own_firewall_is_not_said_to_fail() {
    in_a_namespace(|| {
        let _listener = TcpListener::bind("192.0.2.1:80").expect("a socket");
        let probes = Probes::start("192.0.2.1:80", tcp());
        let rule = "OUTPUT -p tcp --dport 80 -j";
        probes.wait_for_success();
        for verdict in ["DROP", "REJECT"] {
            run("iptables-legacy", &format!("-A {rule} {verdict}"));
            probes.wait_for("a void probe and nothing else", |event| match event {
                Event::ProbesVoid(voids) => (!voids.is_empty()).then_some(()),
                other => panic!("{other:?}"),
            });
            run("iptables-legacy", &format!("-D {rule} {verdict}"));
            probes.wait_for_no_void();
        }
    });
}

fn tcp() -> Probe {
    Probe::Tcp {
        send: String::new(),
        expect: String::new(),
    }
}

fn udp(expect: &str) -> Probe {
    Probe::Udp {
        send: "ping".to_owned(),
        expect: expect.to_owned(),
    }
}

/// The probes of one server, and the events about these probes.
struct Probes {
    /// The channel for orders to the prober. Dropping the sender ends the
    /// probes.
    _orders: UnboundedSender<Order>,
    heard: Receiver<Event>,
}

impl Probes {
    fn start(server: &str, probe: Probe) -> Self {
        let (orders, ordered) = tokio::sync::mpsc::unbounded_channel();
        let (events, heard) = mpsc::channel();
        start(ordered, events, Arc::default(), Heartbeat::default()).expect("a thread");
        let check = HealthCheck {
            probe,
            port: None,
            period: Duration::from_millis(400),
            timeout: Duration::from_millis(200),
            success_threshold: 1,
            failure_threshold: 1000,
        };
        let address: SocketAddr = server.parse().expect("an address");
        let target = Arc::new(Target {
            check: Arc::new(check),
            address,
            namespace: "shop".into(),
            may_quote: true,
        });
        let order = Order::Start(ProbeId(1), target);
        orders.send(order).expect("the thread listens");
        Self {
            _orders: orders,
            heard,
        }
    }

    fn wait_for<T>(&self, what: &str, find: impl Fn(&Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(event) => match find(&event) {
                    Some(found) => return found,
                    None => heard.push(event),
                },
                Err(_) => panic!("{what:?} not in {PATIENCE:?}, but {:?}", heard.last()),
            }
        }
    }

    fn wait_for_failures(&self, count: u32, why: &str) {
        self.wait_for(why, |event| match event {
            Event::Probed(_, tally) if tally.failures >= count => {
                assert_eq!(tally.why.as_deref(), Some(why));
                Some(())
            }
            _ => None,
        });
    }

    fn wait_for_success(&self) {
        self.wait_for("a success", |event| match event {
            Event::Probed(_, tally) => (tally.successes > 0).then_some(()),
            _ => None,
        });
    }

    fn wait_for_void(&self, why: &str) {
        self.wait_for(why, |event| match event {
            Event::ProbesVoid(voids) if !voids.is_empty() => {
                let (reason, count) = voids.first_key_value().expect("the map is not empty");
                assert_eq!((voids.len(), *count), (1, 1), "{voids:?}");
                reason.starts_with(why).then_some(())
            }
            _ => None,
        });
    }

    fn wait_for_no_void(&self) {
        self.wait_for("no void probe", |event| match event {
            Event::ProbesVoid(voids) => voids.is_empty().then_some(()),
            _ => None,
        });
    }
}

/// Runs a test in a network namespace with one interface, over which no host
/// answers.
fn in_a_namespace(test: impl FnOnce() + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect(
            "a network namespace cannot be created: run this test as root, in the lab: \
             cargo test -p agent --test kernel_agent",
        );
        ip("link set lo up");
        ip("link add wire type dummy");
        ip("address add 192.0.2.1/24 dev wire");
        ip("address add 2001:db8::1/64 dev wire nodad");
        ip("link set wire up");
        test();
    };
    thread::scope(|scope| {
        let thread = scope.spawn(run);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn ip(words: &str) {
    run("ip", words);
}

fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {said}");
}
