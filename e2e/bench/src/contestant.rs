//! The programs that load a table. Each has a process and a network namespace
//! of its own, so that the kernel's table is empty and no earlier removal slows
//! it down (`ip_vs_ctl.c`, `ip_vs_trash_get_dest`).

use std::{
    fs::{self, File},
    io::Write,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use e2e::host::ip_here;
use nix::sched::{CloneFlags, unshare};

use crate::{
    director::{self, Director},
    floor, profile,
    scratch::scratch,
    size::Size,
    trace,
};

/// After this many rounds no further page is touched for the first time.
const REHEARSALS: usize = 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Contestant {
    /// The agent's round, journal included.
    Ours,
    /// The same, in a process that has just started.
    OursCold,
    /// The same messages, prebuilt, from a bare loop.
    Floor,
    /// `ipvsadm -R`.
    Ipvsadm,
    /// github.com/moby/ipvs.
    Moby,
}

impl Contestant {
    /// The name that people know it by.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours, with the journal",
            Self::OursCold => "ours, in memory never used before",
            Self::Floor => "floor: prebuilt, 64 KiB batches",
            Self::Ipvsadm => "ipvsadm -R",
            Self::Moby => "github.com/moby/ipvs",
        }
    }

    /// Makes it load a table in a process of its own; returns the time that it
    /// took.
    pub(crate) fn sample(self, size: Size) -> Result<Duration> {
        read(&mut self.command(size)?)
    }

    /// Returns the system calls between its marks in the trace.
    pub(crate) fn system_calls(self, size: Size) -> Result<Vec<String>> {
        trace::window(&self.command(size)?)
    }

    fn command(self, size: Size) -> Result<Command> {
        let name = self.to_possible_value().expect("none is skipped");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("contestant").arg(name.get_name());
        // Freed memory stays with the process: see `ours`.
        command.env(
            "GLIBC_TUNABLES",
            "glibc.malloc.trim_threshold=1073741824:glibc.malloc.mmap_max=0",
        );
        command.args([size.services, size.servers].map(|number| number.to_string()));
        Ok(command)
    }

    /// Loads the table in this process, and prints how many seconds it took.
    pub(crate) fn run(self, size: Size) -> Result<()> {
        empty_namespace()?;
        let took = match self {
            Self::Ours => ours(size, REHEARSALS)?,
            Self::OursCold => ours(size, 0)?,
            Self::Floor => floor::load(size)?,
            Self::Ipvsadm => ipvsadm(size)?,
            Self::Moby => moby(size)?,
        };
        expect_loaded(size)?;
        println!("{}", took.as_secs_f64());
        Ok(())
    }
}

/// Moves this process into a new network namespace. The loopback is up: as long
/// as there is no address, ip_vs takes every address for a broadcast.
pub(crate) fn empty_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    ip_here("link set lo up")?;
    Ok(())
}

/// Runs a program that prints seconds.
fn read(command: &mut Command) -> Result<Duration> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let seconds = String::from_utf8_lossy(&output.stdout);
    let seconds = seconds.trim().parse();
    Ok(Duration::from_secs_f64(seconds.with_context(|| {
        format!("{command:?} prints its seconds")
    })?))
}

/// Measures a whole round, from the plan until the journal has recorded the
/// round, less the time that its planning takes.
///
/// The round was rehearsed before, on a kernel that does nothing. In user-mode
/// Linux a process pays about 50 us for each page that it touches for the first
/// time, hundreds of times the price elsewhere: a cold start would measure only
/// that. The floor's messages are in memory before it begins, too.
fn ours(size: Size, rehearsals: usize) -> Result<Duration> {
    let folder = scratch("journal")?;
    let desired = director::desired(size.wanted());
    for number in 0..rehearsals {
        profile::sample(size, &folder.join(number.to_string()))?;
    }
    let mut director = Director::start(&folder)?;
    let planning = profile::planning(&desired.table);
    trace::begin();
    let start = Instant::now();
    director.round(&desired)?;
    let took = start.elapsed();
    trace::end();
    fs::remove_dir_all(folder)?;
    Ok(took.saturating_sub(planning))
}

fn ipvsadm(size: Size) -> Result<Duration> {
    let folder = scratch("ipvsadm")?;
    let path = folder.join("table");
    fs::write(&path, size.lines())?;
    let start = Instant::now();
    let status = Command::new("ipvsadm")
        .arg("-R")
        .stdin(File::open(&path)?)
        .status()
        .context("ipvsadm starts")?;
    let took = start.elapsed();
    ensure!(status.success(), "ipvsadm -R: {status}");
    fs::remove_dir_all(folder)?;
    Ok(took)
}

fn moby(size: Size) -> Result<Duration> {
    let program = e2e::cluster::workspace().join("e2e/tools/bin/moby-load");
    ensure!(
        program.exists(),
        "moby-load is not built: `make bench` builds it"
    );
    let folder = scratch("moby")?;
    let path = folder.join("table");
    fs::write(&path, size.lines())?;
    let took = read(Command::new(program).arg(&path))?;
    fs::remove_dir_all(folder)?;
    Ok(took)
}

/// Checks that the whole table is loaded: a load is fast only if it is
/// complete.
fn expect_loaded(size: Size) -> Result<()> {
    let table = fs::read_to_string("/proc/net/ip_vs").context("reading the table")?;
    let count = |start: &str| table.lines().filter(|line| line.starts_with(start)).count();
    let found = (count("TCP "), count("  -> ") - 1);
    let expected = (size.services, size.services * size.servers);
    if (found.0 as u64, found.1 as u64) != (expected.0.into(), expected.1.into()) {
        bail!("expected {expected:?} services and destinations in the kernel, found {found:?}");
    }
    std::io::stdout().flush()?;
    Ok(())
}
