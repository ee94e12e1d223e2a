//! The programs that load a table in the benchmark's comparison. Each program
//! runs in its own process and network namespace. So the kernel's table is
//! empty before each load, and no earlier removals slow the load down
//! (`ip_vs_ctl.c`, `ip_vs_trash_get_dest`).

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

/// The number of rehearsals, which are rounds before the measured round. After
/// the rehearsals, the measured round needs no new memory pages.
const REHEARSALS: usize = 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Contestant {
    /// The agent loads the table in one round, after rehearsals in the same
    /// process. The agent also writes to the journal in this round.
    Ours,
    /// The agent loads the table in the first round of its process. The agent
    /// also writes to the journal in this round.
    OursCold,
    /// A loop that only sends the agent's prebuilt messages to the kernel.
    Floor,
    /// The command `ipvsadm -R`, which loads a table from its input.
    Ipvsadm,
    /// A program that uses the Go library github.com/moby/ipvs.
    Moby,
}

impl Contestant {
    /// Returns the compared program's name for the printed output.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours, with the journal",
            Self::OursCold => "ours, in memory never used before",
            Self::Floor => "floor: prebuilt, 64 KiB batches",
            Self::Ipvsadm => "ipvsadm -R",
            Self::Moby => "github.com/moby/ipvs",
        }
    }

    /// Runs the compared program in a new process, and returns how long the
    /// program took to load a table.
    pub(crate) fn sample(self, size: Size) -> Result<Duration> {
        read(&mut self.command(size)?)
    }

    /// Runs the compared program under strace, and returns the system calls
    /// with which the program loaded a table.
    pub(crate) fn system_calls(self, size: Size) -> Result<Vec<String>> {
        trace::window(&self.command(size)?)
    }

    fn command(self, size: Size) -> Result<Command> {
        let name = self.to_possible_value().expect("no contestant is skipped");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("contestant").arg(name.get_name());
        // These glibc settings keep freed memory in the process. So the
        // measured round can reuse the memory of the rehearsals in `ours`.
        command.env(
            "GLIBC_TUNABLES",
            "glibc.malloc.trim_threshold=1073741824:glibc.malloc.mmap_max=0",
        );
        command.args([size.services, size.servers].map(|number| number.to_string()));
        Ok(command)
    }

    /// Loads a table in the current process, and prints the duration of the
    /// load in seconds.
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

/// Moves this process into a new network namespace, and brings the loopback
/// interface up. While a namespace has no address, ip_vs treats every address
/// as a broadcast address.
pub(crate) fn empty_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    ip_here("link set lo up")?;
    Ok(())
}

/// Runs a program that prints a number of seconds, and returns the number.
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

/// Returns how long a round of the agent takes. The returned time includes the
/// write to the journal, but not the planning.
///
/// The round is first rehearsed with a simulated kernel. In user-mode Linux,
/// the first access to a memory page costs a process about 50 us, hundreds of
/// times more than on other kernels. Without rehearsals, the benchmark would
/// measure only the cost of first accesses. [`Contestant::Floor`] also prepares
/// its messages in memory before the load begins, so the comparison is fair.
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

/// Checks that the kernel has the whole table, so that an incomplete load does
/// not count as fast.
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
