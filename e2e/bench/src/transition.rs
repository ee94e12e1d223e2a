//! Measures how fast the agent changes the weight of a server that failed or
//! returned. The time begins with the decisive probe result, and ends when the
//! kernel acknowledges the new weight. The benchmark reads a clock at the
//! beginning and at the end of this time. The benchmark runs
//! all threads of the agent.
//!
//! ```text
//! prober ─▶ relay: clock ─▶ loop ─▶ the kernel's socket: clock
//! ```

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use agent::{
    clock,
    director::World,
    disk::journal::FileJournal,
    event::{Event, probed::ProbeId},
    heartbeat::Heartbeat,
    host::{netlink::RouteSocket, sockets::SockDiag, surroundings::ThisHost},
    input::reader::{self, Followed},
    probe::{self, target::Order},
    tell::health::Pulse,
    trail::writer::Writer,
};
use anyhow::{Context, Result, bail, ensure};
use e2e::host::{ip_here, run_here};
use ipvs::{
    ActualService, ActualTable, Error, Failure, Info, Kernel, Op, ServiceKey, Socket, Timeouts,
};
use nix::unistd::gettid;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    agent_threads::{AgentThreads, NAME},
    checked::{Checked, FAILURES, SUCCESSES, VIP_INTERFACE},
    contestant::empty_namespace,
    director,
    figure::{Figure, Target},
    no_host::Nowhere,
    scratch::scratch,
    servers::Servers,
};

/// A table of 1,000 services with 10 servers each. Each of the 1,000 servers
/// belongs to 10 services.
const TABLE: Checked = Checked {
    groups: 100,
    services: 10,
    servers: 10,
    first: Ipv4Addr::new(127, 1, 0, 1),
};
/// The number of servers that fail: one server in each group.
const SAMPLES: u32 = TABLE.groups;
/// How long the benchmark waits between the failures of two servers.
const APART: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(180);
/// After the last server has failed or returned, the benchmark waits this long
/// for the remaining weight changes.
const VERDICTS_WITHIN: Duration = Duration::from_secs(60);

/// A moment at which the benchmark reads the clock.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The moment of the probe result that made a server count as failed or
    /// healthy.
    Verdict { server: IpAddr, is_up: bool },
    /// The moment at which the kernel acknowledged a server's new weight in one
    /// service.
    Weight { server: IpAddr, weight: u32 },
}

type Moments = Sender<(Instant, Moment)>;

/// Runs the measurement in a separate process, so that the agent's threads end
/// with that process.
pub(crate) fn measure() -> Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .arg("fail-servers")
        .status()?;
    ensure!(status.success(), "the transitions: {status}");
    Ok(())
}

/// Makes servers fail and return, and prints the figures.
pub(crate) fn run() -> Result<()> {
    empty_namespace()?;
    ip_here(VIP_INTERFACE)?;
    println!(
        "{} services x {} servers checked, {} targets:",
        TABLE.virtual_services(),
        TABLE.servers,
        TABLE.targets()
    );
    let folder = scratch("transition")?;
    let mut servers = Servers::start(TABLE.first, TABLE.targets(), None)?;
    let (moments, timed) = mpsc::channel();
    start_agent(&folder, &moments)?.until_healthy(TABLE.destinations(), PATIENCE)?;
    println!("  all are healthy");
    while timed.try_recv().is_ok() {}
    for is_up in [false, true] {
        let transitions = transitions(&mut servers, &timed, is_up)?;
        report(&transitions, is_up);
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn start_agent(folder: &std::path::Path, moments: &Moments) -> Result<AgentThreads> {
    let (orders, given) = unbounded_channel();
    let (passed_on, ordered) = unbounded_channel();
    let (probed, heard) = mpsc::channel();
    let state_dir = folder.to_owned();
    let weights = moments.clone();
    let (trail, _) = Writer::start(folder)?;
    let world = World {
        kernel: Box::new(move || {
            let socket = Socket::open()?;
            let moments = weights.clone();
            Ok(Box::new(Timed { socket, moments }))
        }),
        links: Box::new(|| Ok(Box::new(RouteSocket::open()?))),
        journal: Box::new(move || {
            let (journal, remembered) = FileJournal::open(&state_dir, "bench")?;
            Ok((Box::new(journal), remembered))
        }),
        sysctls: Box::new(director::sysctls()),
        segments: Box::new(Nowhere),
        leases: None,
        sockets: Box::new(SockDiag),
        may_hijack: false,
        surroundings: Box::new(ThisHost::default()),
        uptime: Box::new(clock::uptime),
        followed: Followed::default(),
        daytime: Box::new(clock::local_daytime),
        orders,
        heartbeat: Heartbeat::default(),
        trail,
        prober: Heartbeat::default(),
        pulse: Pulse::default(),
    };
    let agent = AgentThreads::start(world, folder)?;
    let targets = Targets::default();
    let known = targets.clone();
    thread::spawn(move || pass_on_orders(given, &passed_on, &known));
    probe::start(ordered, probed, Arc::default(), Heartbeat::default())?;
    let (events, moments) = (agent.events.clone(), moments.clone());
    thread::spawn(move || relay(&heard, &events, &targets, &moments));
    let readings = agent.events.clone();
    thread::spawn(move || reader::watch(&readings, &Followed::default()));
    agent.hear([Event::Directors([NAME.to_owned()].into())])?;
    agent.hear(TABLE.events()?)?;
    Ok(agent)
}

/// The address of each probed server, by probe id.
type Targets = Arc<Mutex<HashMap<ProbeId, IpAddr>>>;

fn pass_on_orders(
    mut given: UnboundedReceiver<Order>,
    passed_on: &UnboundedSender<Order>,
    targets: &Targets,
) {
    while let Some(order) = given.blocking_recv() {
        if let Order::Start(id, target) = &order {
            let mut targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
            targets.insert(*id, target.address.ip());
        }
        // This send cannot fail, because the prober receives orders until the
        // process ends.
        passed_on.send(order).unwrap_or_default();
    }
}

/// Passes the prober's events on to the loop, and records the time of each
/// verdict. The thread of `relay` has real-time priority, so other threads do
/// not delay its clock readings.
fn relay(heard: &Receiver<Event>, events: &Sender<Event>, targets: &Targets, moments: &Moments) {
    let thread = gettid().to_string();
    let first = run_here(Command::new("chrt").args(["--fifo", "--pid", "1", &thread]));
    first.unwrap_or_else(|failed| panic!("{failed}"));
    for event in heard {
        if let Event::Probed(id, tally) = &event {
            let verdicts = [
                (false, tally.failures == FAILURES),
                (true, tally.successes == SUCCESSES),
            ];
            let verdict = verdicts.into_iter().find(|(_, is_one)| *is_one);
            if let Some((is_up, _)) = verdict {
                let now = Instant::now();
                let targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
                let server = targets[id];
                let moment = Moment::Verdict { server, is_up };
                moments.send((now, moment)).unwrap_or_default();
            }
        }
        events.send(event).unwrap_or_default();
    }
}

/// A measured failure or return of one server.
struct Transition {
    took: Duration,
    /// How many weight changes of the server the kernel has acknowledged.
    writes: u32,
}

/// Stops the servers or starts them again, and waits until the kernel has every
/// resulting weight.
fn transitions(
    servers: &mut Servers,
    timed: &Receiver<(Instant, Moment)>,
    is_up: bool,
) -> Result<Vec<Transition>> {
    let samples: Vec<_> = (0..SAMPLES).map(|group| group * TABLE.servers).collect();
    for number in &samples {
        if is_up {
            servers.listen(*number)?;
        } else {
            servers.stop(*number)?;
        }
        thread::sleep(APART);
    }
    let mut verdicts = HashMap::new();
    let mut writes: HashMap<IpAddr, Vec<Instant>> = HashMap::new();
    let wanted: Vec<_> = samples
        .iter()
        .map(|number| TABLE.server(*number).ip())
        .collect();
    let deadline = Instant::now() + VERDICTS_WITHIN;
    let is_complete = |writes: &HashMap<IpAddr, Vec<Instant>>| {
        let written = |server| writes.get(server).map_or(0, Vec::len);
        wanted
            .iter()
            .all(|server| written(server) >= TABLE.services as usize)
    };
    while !is_complete(&writes) {
        let (at, moment) = match timed.recv_timeout(deadline - Instant::now()) {
            Err(RecvTimeoutError::Timeout) => bail!(
                "the kernel has the weights of {} of {SAMPLES} servers, and {} servers have a verdict",
                writes.len(),
                verdicts.len()
            ),
            received => received?,
        };
        match moment {
            Moment::Verdict { server, is_up: its } if its == is_up => {
                verdicts.entry(server).or_insert(at);
            }
            Moment::Weight { server, weight } if (weight > 0) == is_up => {
                writes.entry(server).or_default().push(at);
            }
            Moment::Weight { server, weight } => {
                bail!("unexpected weight {weight} of {server}")
            }
            // A verdict that only repeats the server's previous verdict is
            // ignored. The prober can repeat a verdict after a late answer.
            Moment::Verdict { .. } => {}
        }
    }
    let transition = |server| {
        let writes: &Vec<_> = &writes[server];
        let verdict = verdicts.get(server).context("a verdict came first")?;
        let last = writes.iter().max().expect("every server has writes");
        Ok(Transition {
            took: last.saturating_duration_since(*verdict),
            writes: u32::try_from(writes.len())?,
        })
    };
    wanted.iter().map(transition).collect()
}

fn report(transitions: &[Transition], is_up: bool) {
    let mut taken: Vec<_> = transitions.iter().map(|one| one.took).collect();
    taken.sort();
    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
    let at = |part: usize| milliseconds(taken[taken.len() * part / 100]);
    let way = if is_up { "up" } else { "down" };
    let writes: u32 = transitions.iter().map(|one| one.writes).sum();
    let longest = milliseconds(*taken.last().expect("there are samples"));
    println!(
        "  {way}: {} servers; median {:.2} ms, 90 % {:.2} ms, 99 % {:.2} ms, longest {longest:.2} ms; \
         {writes} writes of weights",
        taken.len(),
        at(50),
        at(90),
        at(99),
    );
    for (name, value) in [("median", at(50)), ("longest", longest)] {
        let name = format!("transition_{way}_{name}");
        println!("{}", Figure::new(name, value, "ms", Target::AtMost(50.0)));
    }
    let services = transitions.len() as f64 * f64::from(TABLE.services);
    let name = format!("transition_{way}_writes");
    let value = f64::from(writes) / services;
    println!(
        "{}",
        Figure::new(name, value, "writes/service", Target::AtMost(1.0))
    );
}

/// A socket to the kernel's IPVS. The socket reads the clock when the kernel
/// has acknowledged a weight.
struct Timed {
    socket: Socket,
    moments: Moments,
}

impl Kernel for Timed {
    fn info(&mut self) -> Result<Info, Error> {
        self.socket.info()
    }

    fn table(&mut self) -> Result<ActualTable, Error> {
        self.socket.table()
    }

    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, Error> {
        self.socket.service(key)
    }

    fn timeouts(&mut self) -> Result<Timeouts, Error> {
        self.socket.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        self.socket.set_timeouts(timeouts)
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, Error> {
        let failures = self.socket.apply(ops)?;
        let now = Instant::now();
        for (index, op) in ops.iter().enumerate() {
            if let Op::SetDestination(_, server, config) = op
                && !failures.iter().any(|failure| failure.index == index)
            {
                let (server, weight) = (server.address, config.weight);
                let moment = Moment::Weight { server, weight };
                self.moments.send((now, moment)).unwrap_or_default();
            }
        }
        Ok(failures)
    }
}
