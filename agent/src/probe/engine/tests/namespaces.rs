//! Tests that one namespace's load does not affect another namespace's probes.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use crds::{BodyRule, HttpProbe, StatusRange};

use super::*;

/// A slow pattern within the size limit; `make bench BENCH=patterns` has more
/// slow patterns.
const SLOW: &str = "(?-u)(?:a.{40}|b.{40}|aa.{40}|ab.{40})c";
/// The number of targets with a slow pattern. Their namespace is `slow`.
const SLOW_TARGETS: u64 = 12;
const PERIOD: Duration = Duration::from_secs(4);

/// Starts a web server whose body is 16 KiB of `a` and `b`.
fn server_of_a_and_b() -> SocketAddr {
    let (listener, address) = listener();
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(1);
        let body: String = (0..16 << 10)
            .map(|_| if random.bool() { 'a' } else { 'b' })
            .collect();
        let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The probe may already have ended.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn http(body: &str) -> Probe {
    Probe::Http(HttpProbe {
        tls: None,
        host: None,
        path: "/".to_owned(),
        headers: Vec::new(),
        statuses: vec![StatusRange {
            first: 200,
            last: 200,
        }],
        body: Some(BodyRule::Matches(body.to_owned())),
    })
}

/// Returns a flag that is set once this machine has more threads to run than
/// processors for a while, or lets a thread that only sleeps wait for a
/// processor. The prober's thread then waits as well, and says so. Of this
/// test's own threads, two want to run: the prober's, and one for patterns.
fn busy_machine() -> Arc<AtomicBool> {
    const NAP: Duration = Duration::from_millis(20);
    // The thread that counts runs as well.
    let most = thread::available_parallelism().map_or(2, usize::from) + 1;
    let mut crowded = 0;
    let is_busy = Arc::new(AtomicBool::new(false));
    let shared = Arc::downgrade(&is_busy);
    thread::spawn(move || {
        while let Some(is_busy) = shared.upgrade() {
            let began = Instant::now();
            thread::sleep(NAP);
            crowded = match running() > most {
                true => crowded + 1,
                false => 0,
            };
            if began.elapsed() > 5 * NAP || crowded == 5 {
                is_busy.store(true, SeqCst);
            }
        }
    });
    is_busy
}

/// Returns how many threads of this machine run or wait for a processor
/// (proc_loadavg(5)).
fn running() -> usize {
    let loads = fs::read_to_string("/proc/loadavg").unwrap();
    let running = loads
        .split(' ')
        .nth(3)
        .and_then(|some| some.split('/').next());
    running.unwrap().parse().unwrap()
}

#[test]
fn slow_patterns_of_one_namespace_make_no_probe_of_another_void() {
    let is_busy = busy_machine();
    let server = server_of_a_and_b();
    let dead = {
        let listener = TcpListener::bind("127.5.5.6:0").unwrap();
        listener.local_addr().unwrap()
    };
    let prober = Prober::start();
    let slow = HealthCheck {
        probe: http(SLOW),
        period: PERIOD,
        timeout: PERIOD,
        ..check()
    };
    for id in 0..SLOW_TARGETS {
        // Each target has its own check with its own pattern.
        let check = HealthCheck {
            failure_threshold: 3 + id as u32,
            ..slow.clone()
        };
        let target = Target {
            namespace: "slow".into(),
            ..target(check, server)
        };
        prober.start_target(id, target);
    }
    let tcp = HealthCheck {
        period: PERIOD,
        timeout: PERIOD,
        ..check()
    };
    let matches = HealthCheck {
        probe: http("(?-u)^[ab]{8}"),
        ..tcp.clone()
    };
    prober.start_target(100, target(tcp, dead));
    prober.start_target(101, target(matches, server));
    let mut waits_for = BTreeSet::from([100, 101]);
    let end = Instant::now() + 10 * PATIENCE;
    while !waits_for.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        match prober.heard.recv_timeout(left) {
            Ok(Event::Probed(ProbeId(id), tally)) => {
                let is_done = tally.failures == 3 || tally.successes == 2;
                if is_done {
                    waits_for.remove(&id);
                }
                if id >= 100 {
                    assert_eq!(tally.failures > 0, id == 100, "{id}: {tally:?}");
                }
            }
            Ok(Event::ProbesVoid(voids)) => {
                let is_machines = |why: &str| is_busy.load(SeqCst) && why.contains("could not run");
                let others = voids.keys().filter(|why| !why.contains("namespace slow"));
                let mut others = others.filter(|why| !is_machines(why));
                assert_eq!(others.next(), None, "void for another's load");
            }
            other => panic!("{other:?} while {waits_for:?} have no verdict"),
        }
    }
}

#[test]
fn more_silent_targets_than_places_are_late_for_their_own_namespace_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_held, silent) = runtime.block_on(silent());
    let (orders, ordered) = unbounded_channel();
    let (events, heard) = channel();
    let counts = Arc::new(Counts::default());
    let engine = {
        let _inside = runtime.enter();
        Engine::new(
            16,
            Shared::open().unwrap(),
            events,
            counts,
            Heartbeat::default(),
        )
    };
    runtime.spawn(engine.run(ordered));
    let start = |id: u64, target: Target| {
        let order = Order::Start(ProbeId(id), Arc::new(target));
        orders.send(order).unwrap();
    };
    let long = HealthCheck {
        period: 10 * PATIENCE,
        timeout: 10 * PATIENCE,
        ..check()
    };
    for id in 0..100 {
        let target = Target {
            namespace: "silent".into(),
            ..target(long.clone(), silent)
        };
        start(id, target);
    }
    // The test waits until probes of the silent targets hold all places of
    // their namespace.
    thread::sleep(Duration::from_millis(500));
    let (_listener, address) = listener();
    start(100, target(check(), address));
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(Event::Probed(ProbeId(100), tally)) if tally.successes == 2 => break,
            Ok(Event::Probed(ProbeId(100), _) | Event::ProbesVoid(_)) => {}
            other => panic!("{other:?} instead of two successes"),
        }
    }
}
