//! Tests that probes are void if the probing process has no file descriptor
//! left. This file has only one test, because the limit of file descriptors
//! applies to the whole process.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, mpsc},
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
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_millis(200);

#[test]
fn without_a_file_descriptor_nothing_is_known_of_any_server() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    let (orders, ordered) = tokio::sync::mpsc::unbounded_channel();
    let (events, heard) = mpsc::channel();
    start(ordered, events, Arc::default(), Heartbeat::default()).expect("a thread");
    let tcp = Probe::Tcp {
        send: String::new(),
        expect: String::new(),
    };
    let udp = Probe::Udp {
        send: "ping".to_owned(),
        expect: "pong".to_owned(),
    };
    for (id, probe) in [tcp, udp].into_iter().enumerate() {
        let check = HealthCheck {
            probe,
            port: None,
            period: PERIOD,
            timeout: PERIOD,
            success_threshold: 1,
            failure_threshold: 1,
        };
        let target = Arc::new(Target {
            check: Arc::new(check),
            address,
            namespace: "shop".into(),
            may_quote: true,
        });
        let order = Order::Start(ProbeId(id as u64), target);
        orders.send(order).expect("the thread listens");
    }
    let next = || match heard.recv_timeout(PATIENCE) {
        Ok(event) => event,
        Err(_) => panic!("no event within {PATIENCE:?}"),
    };
    for _ in 0..2 {
        assert!(
            matches!(next(), Event::Probed(..)),
            "each target must have a probe result"
        );
    }

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(soft >= hard.min(32_768), "it was raised: {soft} of {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("a lower limit");
    let why = "no file descriptor is free (EMFILE): raise the agent's limit of open files";
    let end = Instant::now() + PATIENCE;
    loop {
        match next() {
            Event::ProbesVoid(voids) if voids == [(why.into(), 2)].into() => break,
            // While the probes of the other target are not void yet, an event
            // reports only one of the two targets.
            Event::ProbesVoid(voids) => assert_eq!(voids, [(why.into(), 1)].into()),
            event => panic!("{event:?}, and nothing else changed"),
        }
        assert!(
            Instant::now() < end,
            "the probes of both targets must be void"
        );
    }
    std::thread::sleep(5 * PERIOD);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the limit as it was");
    loop {
        match next() {
            Event::ProbesVoid(voids) if voids == BTreeMap::new() => break,
            Event::ProbesVoid(voids) => assert_eq!(voids, [(why.into(), 1)].into()),
            event => panic!("{event:?}, and a void probe says nothing"),
        }
        assert!(Instant::now() < end, "the probes must not stay void");
    }
}
