mod namespaces;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
};

use crds::{HealthCheck, Probe};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;
use crate::{event::probed::Tally, heartbeat::Heartbeat, probe::fixtures::silent};

const PATIENCE: Duration = Duration::from_secs(20);

/// An engine that runs on its own thread.
struct Prober {
    orders: UnboundedSender<Order>,
    heard: Receiver<Event>,
    counts: Arc<Counts>,
}

impl Prober {
    fn start() -> Self {
        let (orders, ordered) = unbounded_channel();
        let (events, heard) = channel();
        let counts = Arc::new(Counts::default());
        start(ordered, events, counts.clone(), Heartbeat::default()).unwrap();
        Self {
            orders,
            heard,
            counts,
        }
    }

    fn probe(&self, id: u64, address: SocketAddr) {
        self.start_target(id, target(check(), address));
    }

    fn start_target(&self, id: u64, target: Target) {
        let order = Order::Start(ProbeId(id), Arc::new(target));
        self.orders.send(order).unwrap();
    }

    /// Returns the next tally that the engine reports, with its target's id.
    /// Skips void probes, because they also occur on a busy machine.
    fn next(&self) -> (u64, Tally) {
        loop {
            match self.heard.recv_timeout(PATIENCE) {
                Ok(Event::Probed(ProbeId(id), tally)) => return (id, tally),
                Ok(Event::ProbesVoid(_)) => {}
                other => panic!("{other:?} instead of a tally"),
            }
        }
    }

    fn wait_for_probes(&self, count: u64) {
        let end = Instant::now() + PATIENCE;
        while self.counts.probes() < count {
            assert!(Instant::now() < end, "{count} probes in {PATIENCE:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn check() -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp {
            send: String::new(),
            expect: String::new(),
        },
        port: None,
        period: Duration::from_millis(200),
        timeout: Duration::from_millis(100),
        success_threshold: 2,
        failure_threshold: 3,
    }
}

fn target(check: HealthCheck, address: SocketAddr) -> Target {
    Target {
        check: Arc::new(check),
        address,
        namespace: "shop".into(),
        may_quote: true,
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_server_that_accepts_is_reported_up_to_the_threshold_and_then_no_longer() {
    let (_listener, address) = listener();
    let prober = Prober::start();
    prober.probe(7, address);
    let (id, tally) = prober.next();
    assert_eq!((id, tally.successes, tally.failures), (7, 1, 0));
    let (_, tally) = prober.next();
    assert_eq!((tally.successes, tally.why), (2, None));
    prober.wait_for_probes(6);
    assert!(prober.heard.try_recv().is_err(), "it goes on as it was");
}

#[test]
fn a_closed_port_is_refused_and_a_server_that_comes_back_is_news() {
    // The listener has its own address, so no other test can take the port.
    let listener = TcpListener::bind("127.5.5.5:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let prober = Prober::start();
    prober.probe(1, address);
    for failures in 1..=3 {
        let (_, tally) = prober.next();
        assert_eq!(tally.failures, failures);
        assert_eq!(tally.why.as_deref(), Some("connection refused"));
    }
    let _listener = TcpListener::bind(address).unwrap();
    let (_, tally) = prober.next();
    assert_eq!((tally.successes, tally.failures), (1, 0));
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_after_its_time() {
    let (_held, address) = silent().await;
    let prober = Prober::start();
    prober.probe(1, address);
    let (_, tally) = prober.next();
    assert_eq!(tally.why.as_deref(), Some("no answer in 0.1 s"));
}

#[test]
fn what_is_stopped_is_no_longer_reported() {
    let (_listener, address) = listener();
    let prober = Prober::start();
    prober.probe(1, address);
    prober.next();
    prober.orders.send(Order::Stop(ProbeId(1))).unwrap();
    prober.probe(2, address);
    let (id, _) = prober.next();
    assert_eq!(id, 2);
    let before = prober.counts.probes();
    prober.wait_for_probes(before + 3);
    let ids: Vec<_> = prober.heard.try_iter().collect();
    assert_eq!(ids.len(), 1, "the second success of 2: {ids:?}");
}

#[test]
fn the_thread_ends_with_the_sender_of_orders_and_with_the_receiver_of_events() {
    let (orders, ordered) = unbounded_channel();
    let (events, _heard) = channel();
    let thread = start(ordered, events, Arc::default(), Heartbeat::default()).unwrap();
    drop(orders);
    thread.join().unwrap();

    let (_listener, address) = listener();
    let mut prober = Prober::start();
    prober.heard = channel().1;
    prober.probe(1, address);
    let end = Instant::now() + PATIENCE;
    while !prober.orders.is_closed() {
        assert!(Instant::now() < end, "it goes on after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn connections_are_closed_with_a_reset() {
    let (listener, address) = listener();
    let prober = Prober::start();
    prober.probe(1, address);
    let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
    prober.next();
    let error = io::Read::read(&mut stream, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn void_probes_are_reported_when_they_change_and_once_a_second_at_most() {
    let second = Duration::from_secs(1);
    let why: Arc<str> = "no file descriptor".into();
    let mut voids = Voids::default();
    assert_eq!(voids.news(second), None);
    voids.change(None, Some(why.clone()));
    voids.change(None, Some(why.clone()));
    assert_eq!(voids.news(second), Some([(why.clone(), 2)].into()));
    voids.change(Some(why.clone()), None);
    assert_eq!(voids.news(second * 3 / 2), None, "not yet");
    assert_eq!(voids.next_deadline(), Some(second * 2));
    assert_eq!(voids.news(second * 2), Some([(why.clone(), 1)].into()));
    voids.change(Some(why.clone()), None);
    voids.change(None, Some(why.clone()));
    assert_eq!(voids.news(second * 4), None, "as it was");
    voids.change(Some(why), None);
    assert_eq!(voids.news(second * 5), Some(BTreeMap::new()), "it is over");
}

/// Ends one probe with the given outcome, and returns the engine's event. The
/// probe ends `late` after its deadline, and the engine's thread was stalled
/// for `stood_still` during the probe.
fn landed(outcome: Outcome, late: Duration, stood_still: Duration) -> Option<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let (events, heard) = channel();
    let mut engine = Engine::new(
        10,
        Shared::open().unwrap(),
        events,
        Arc::default(),
        Heartbeat::default(),
    );
    let target = target(check(), "127.0.0.1:9".parse().unwrap());
    let order = Order::Start(ProbeId(1), Arc::new(target));
    engine.obey(order, Duration::ZERO);
    let flight = engine.schedule.take(Duration::ZERO).unwrap();
    engine.stood_still = stood_still;
    let now = engine.epoch + Duration::from_secs(60);
    let landed = Landed {
        flight,
        deadline: now - late,
        timeout: Duration::from_secs(2),
        stood_still: Duration::ZERO,
        outcome,
    };
    assert!(engine.land(landed, now).is_ok());
    assert!(engine.tell_troubles(now - engine.epoch).is_ok());
    heard.try_recv().ok()
}

#[test]
fn a_probe_that_ends_long_after_its_time_says_nothing() {
    let failure = || Outcome::Verdict(Verdict::Failure("no answer in 2 s".into()));
    let success = || Outcome::Verdict(Verdict::Success);
    let seconds = Duration::from_secs_f64;
    for (outcome, late, stood_still, is_void) in [
        (failure(), 0.0, 0.0, false),
        (failure(), 0.9, 0.9, false),
        (failure(), 1.1, 0.0, true),
        (failure(), 0.0, 1.1, true),
        (success(), 0.0, 1.1, false),
        (success(), 1.1, 0.0, true),
    ] {
        match landed(outcome.clone(), seconds(late), seconds(stood_still)) {
            Some(Event::Probed(ProbeId(1), _)) => assert!(!is_void, "{outcome:?} {late}"),
            Some(Event::ProbesVoid(why)) => {
                assert!(is_void, "{outcome:?} {late}");
                assert_eq!(why, [(HELD_UP.into(), 1)].into());
            }
            other => panic!("{other:?} of {outcome:?}"),
        }
    }
}

#[test]
fn a_thread_that_stands_still_knows_for_how_long() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let mut engine = Engine::new(
        10,
        Shared::open().unwrap(),
        channel().0,
        Arc::default(),
        Heartbeat::default(),
    );
    engine.planned = Instant::now() - Duration::from_secs(5);
    engine.wake();
    let known = engine.stood_still;
    assert!(known >= Duration::from_secs(5), "{known:?}");
    engine.planned = Instant::now() + Duration::from_secs(5);
    engine.wake();
    assert_eq!(engine.stood_still, known);
}
