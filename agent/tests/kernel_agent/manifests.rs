//! Applies every manifest of the repository to a real kernel, twice. Applying a
//! manifest a second time must change nothing in the kernel. These tests run in
//! the lab, each in its own network namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use agent::{
    claim::{Orders, Segments},
    clock::{Clock, local_daytime, uptime},
    decide::serving::memory::Memory,
    director::{Loop, World},
    disk::{checkpoint::Recorder, journal::FileJournal},
    event::Event,
    heartbeat::Heartbeat,
    host::{
        netlink::RouteSocket, sockets::SockDiag, surroundings::ThisHost, sysctls::SysctlFolder,
    },
    input::{Input, manifests, reader::Followed},
    tell::{health::Pulse, report::Observed},
    trail::Trail,
};
use ipvs::{ActualService, ActualTable, Failure, Info, Kernel, Op, ServiceKey, Socket, Timeouts};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc::unbounded_channel;

/// No segment: nobody receives the orders.
struct NoSegment;

impl Segments for NoSegment {
    fn order(&mut self, _: Orders) {}
}

/// The deadline for a director's first round. A test whose first round takes
/// longer fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `ip` commands that create an interface whose subnets contain every VIP.
/// Without the interface, the agent does not create a new service, because the
/// VIP has no interface.
const HOST: [&str; 6] = [
    "link set lo up",
    "link add every type dummy",
    "address add 1.0.0.1/1 dev every",
    "address add 129.0.0.1/1 dev every",
    "address add 2000::1/3 dev every nodad",
    "link set every up",
];

#[test]
fn whatever_manifest_is_applied_a_second_time_nothing_is_written() {
    let manifests = manifests_of_the_repository();
    assert!(manifests.len() > 10, "they were found: {manifests:?}");
    let services: usize = manifests.iter().map(|path| apply_again(path)).sum();
    assert!(services > 20, "they make services: {services}");
}

fn manifests_of_the_repository() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["examples", "crds/tests/unfit"] {
        for entry in fs::read_dir(root.join(folder)).expect("the repository has the folder") {
            found.push(entry.expect("the folder can be read").path());
        }
    }
    found.sort();
    found
}

/// Applies a manifest three times: to an empty kernel, again with the first
/// run's journal, and again without a journal. Returns the number of services
/// that the manifest creates.
fn apply_again(manifest: &Path) -> usize {
    in_a_namespace(|| {
        let folders = tempfile::tempdir().expect("a folder");
        let (objects, state) = (folders.path().join("objects"), folders.path().join("state"));
        fs::create_dir(&objects).expect("a folder");
        fs::copy(manifest, objects.join("it.yaml")).expect("a copy of the manifest");

        let name = manifest.display();
        let (writes, first) = run(&objects, &state);
        let outcome = first.outcome.expect("a round");
        let expected = outcome.services + outcome.destinations;
        assert!(writes >= expected, "{name}: {writes} writes, {outcome:?}");

        let (writes, again) = run(&objects, &state);
        assert_eq!(writes, 0, "{name} needs nothing more: {:?}", again.outcome);

        fs::remove_dir_all(&state).expect("the state folder");
        let (writes, adopted) = run(&objects, &state);
        assert_eq!(writes, 0, "{name} is adopted as it is");
        let adopted = adopted.outcome.expect("a round");
        assert_eq!(adopted.services, outcome.services, "{name}");
        outcome.services
    })
}

fn in_a_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect(
            "a network namespace cannot be created: run this test as root, in the lab: \
             cargo test -p agent --test kernel_agent",
        );
        for arguments in HOST {
            let mut ip = Command::new("ip");
            let status = ip.args(arguments.split(' ')).status();
            let status = status.expect("ip does not start: apt-get install iproute2");
            assert!(status.success(), "ip {arguments}: {status}");
        }
        test()
    };
    thread::scope(|scope| {
        let thread = scope.spawn(run);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a director until the end of its first round. Returns the number of
/// operations that the director sent to the kernel, and the results of the
/// round.
fn run(objects: &Path, state: &Path) -> (usize, Observed) {
    let (events, heard) = mpsc::channel();
    let (recorder, _) = Recorder::new();
    let input = Input {
        events: events.clone(),
        recorder: recorder.clone(),
        files: Default::default(),
        folder: None,
    };
    let objects = objects.to_owned();
    // The thread that watches the manifests may outlive this function. The
    // thread ends when the test process ends, or earlier.
    thread::spawn(move || manifests::watch(&objects, "a", "default", input));

    let writes = Arc::new(AtomicUsize::new(0));
    let (counted, state) = (writes.clone(), state.to_owned());
    let world = World {
        kernel: Box::new(move || {
            let socket = Socket::open()?;
            let writes = counted.clone();
            Ok(Box::new(Counted { socket, writes }))
        }),
        links: Box::new(|| Ok(Box::new(RouteSocket::open()?))),
        journal: Box::new(move || {
            let (journal, remembered) = FileJournal::open(&state, "this boot")?;
            Ok((Box::new(journal), remembered))
        }),
        sysctls: Box::new(SysctlFolder("/proc/sys".into())),
        followed: Followed::default(),
        leases: None,
        sockets: Box::new(SockDiag),
        may_hijack: false,
        surroundings: Box::new(ThisHost::default()),
        uptime: Box::new(uptime),
        daytime: Box::new(local_daytime),
        // Nobody receives the director's orders for segments and probes, so the
        // director sends no packet.
        segments: Box::new(NoSegment),
        orders: unbounded_channel().0,
        heartbeat: Heartbeat::default(),
        trail: Trail::nowhere(),
        prober: Heartbeat::default(),
        pulse: Pulse::default(),
    };
    let (name, group) = ("a".to_owned(), "default".to_owned());
    let clock = Clock::start();
    let director = Loop::new(name, group, clock, world, recorder, Memory::default());
    let mut found = None;
    let watchdog = events.clone();
    thread::spawn(move || {
        thread::sleep(PATIENCE);
        watchdog.send(Event::Stop).unwrap_or_default();
    });
    director.run(&heard, &mut |observed| {
        if observed.outcome.is_some() && found.is_none() {
            found = Some(observed);
            events.send(Event::Stop).expect("the loop runs");
        }
    });
    let found = found.unwrap_or_else(|| panic!("no round within {PATIENCE:?}"));
    (writes.load(SeqCst), found)
}

/// A socket to the kernel's IPVS that counts the director's operations.
struct Counted {
    socket: Socket,
    writes: Arc<AtomicUsize>,
}

impl Kernel for Counted {
    fn info(&mut self) -> Result<Info, ipvs::Error> {
        self.socket.info()
    }

    fn table(&mut self) -> Result<ActualTable, ipvs::Error> {
        self.socket.table()
    }

    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, ipvs::Error> {
        self.socket.service(key)
    }

    fn timeouts(&mut self) -> Result<Timeouts, ipvs::Error> {
        self.socket.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), ipvs::Error> {
        self.writes.fetch_add(1, SeqCst);
        self.socket.set_timeouts(timeouts)
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, ipvs::Error> {
        self.writes.fetch_add(ops.len(), SeqCst);
        self.socket.apply(ops)
    }
}
