//! Measures how punctually one agent probes 10,000 targets, and the cost of the
//! probes. The agent runs outside the lab, in a separate process, and probes
//! over loopback.

use std::{
    net::Ipv4Addr,
    process::{self, Command},
    sync::Arc,
    thread,
    time::Duration,
};

use agent::{
    clock,
    director::World,
    disk::journal::FileJournal,
    event::Event,
    heartbeat::Heartbeat,
    host::sockets::SockDiag,
    input::reader::Followed,
    probe::{self, Counts},
    tell::health::Pulse,
    trail::writer::Writer,
};
use anyhow::{Result, ensure};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    agent_threads::{AgentThreads, NAME},
    checked::{Checked, PERIOD_SECONDS},
    figure::{Figure, Target},
    no_host::{Nothing, Nowhere},
    servers::Servers,
    usage::{mebibytes, processor_seconds},
};

const TABLE: Checked = Checked {
    groups: 1_000,
    services: 1,
    servers: 10,
    first: Ipv4Addr::new(127, 2, 0, 1),
};
/// The percentage of servers that do not answer in the benchmark's second run.
const SILENT_PERCENT: u32 = 3;
const PERIOD: Duration = Duration::from_secs(PERIOD_SECONDS as u64);
/// The number of probe periods that the benchmark measures.
const PERIODS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures an agent in a separate process, first without silent servers and
/// then with some silent servers.
pub(crate) fn measure() -> Result<()> {
    for silent_percent in [0, SILENT_PERCENT] {
        let status = Command::new(std::env::current_exe()?)
            .arg("probe")
            .arg(silent_percent.to_string())
            .status()?;
        ensure!(status.success(), "the prober: {status}");
    }
    Ok(())
}

/// Runs the measured agent in the current process, and prints the figures.
pub(crate) fn run(silent_percent: u32) -> Result<()> {
    let targets = TABLE.targets();
    let silent = targets * silent_percent / 100;
    println!("{targets} targets every {PERIOD_SECONDS} s, {silent} of them silent, natively:");
    let mut servers = Servers::start(TABLE.first, targets, None)?;
    // The silent servers are spread over the services, so that no service has
    // only silent servers.
    for number in 0..silent {
        servers.silence(number * (targets / silent))?;
    }
    let folder = tempfile::tempdir()?;
    let state_dir = folder.path().to_owned();
    let (orders, ordered) = unbounded_channel();
    let (trail, _) = Writer::start(folder.path())?;
    let world = World {
        kernel: Box::new(|| Ok(Box::new(Nothing::default()))),
        links: Box::new(|| Ok(Box::new(Nowhere))),
        journal: Box::new(move || {
            let (journal, remembered) = FileJournal::open(&state_dir, "bench")?;
            Ok((Box::new(journal), remembered))
        }),
        sysctls: Box::new(Nowhere),
        segments: Box::new(Nowhere),
        leases: None,
        sockets: Box::new(SockDiag),
        may_hijack: false,
        surroundings: Box::new(Nowhere),
        uptime: Box::new(clock::uptime),
        followed: Followed::default(),
        daytime: Box::new(clock::local_daytime),
        orders,
        heartbeat: Heartbeat::default(),
        trail,
        prober: Heartbeat::default(),
        pulse: Pulse::default(),
    };
    let agent = AgentThreads::start(world, folder.path())?;
    let counts = Arc::new(Counts::default());
    probe::start(
        ordered,
        agent.events.clone(),
        counts.clone(),
        Heartbeat::default(),
    )?;
    // The agent's first round waits until the directors of the group are known.
    agent.hear([Event::Directors([NAME.to_owned()].into())])?;
    agent.hear(TABLE.events()?)?;
    agent.until_healthy(TABLE.destinations() - silent, PATIENCE)?;
    thread::sleep(PERIOD);

    let id = process::id();
    let (accepted, used) = (servers.connections()?, processor_seconds(id)?);
    counts.reset();
    thread::sleep(PERIOD * PERIODS);
    let (probes, voids) = (counts.probes(), counts.voids());
    let used = processor_seconds(id)? - used;
    let accepted = servers.connections()? - accepted;
    let seconds = (PERIOD * PERIODS).as_secs_f64();
    println!(
        "  {probes} probes in {seconds} s, {accepted} of them accepted by servers; {used:.2} s of processor time, \
         {:.1} us a probe",
        used / probes as f64 * 1e6
    );
    let milliseconds = |lateness: Duration| lateness.as_secs_f64() * 1e3;
    let tenth = milliseconds(PERIOD / 10);
    let per_period = probes as f64 / f64::from(PERIODS);
    for (name, value, unit, target) in [
        (
            "made",
            per_period / f64::from(targets) * 100.0,
            "%",
            Target::AtLeast(99.0),
        ),
        ("void", voids as f64, "probes", Target::AtMost(0.0)),
        (
            "late_99",
            milliseconds(counts.lateness(0.99)),
            "ms",
            Target::AtMost(tenth),
        ),
        (
            "late_most",
            milliseconds(counts.greatest_lateness()),
            "ms",
            Target::AtMost(tenth),
        ),
        (
            "processor",
            used / seconds * 100.0,
            "%",
            Target::AtMost(15.0),
        ),
        (
            "resident",
            mebibytes(id, "VmRSS")?,
            "MiB",
            Target::AtMost(100.0),
        ),
    ] {
        let name = format!("probes_{}_silent{silent_percent}_{name}", targets);
        println!("{}", Figure::new(name, value, unit, target));
    }
    Ok(())
}
