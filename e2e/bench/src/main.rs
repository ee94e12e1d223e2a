//! `make bench` runs this program. The program measures ipvs-operator on a real
//! kernel and a real API server, and compares the figures with their targets.
//!
//! ```text
//! bench              collects the figures
//! ├ bench here …       natively: the parts that need no IPVS
//! └ lab run …          the lab
//!   └ bench here …       in the lab's kernel: all other parts
//!     └ bench contestant …   one sample, in a new network namespace
//! bench servers …        the servers that agents probe
//! bench fleet …          natively: an API server, the controller and simulated
//!                        directors
//! ```
//!
//! The program prints its progress, one line per figure (`BENCH <name> <value>
//! <unit> <= or >= <target> ok|short`), and finally a table of all figures.

mod agent_process;
mod agent_threads;
mod checked;
mod contestant;
mod director;
mod figure;
mod fleet;
mod floor;
mod load;
mod no_host;
mod objects;
mod outside;
mod patterns;
mod plan;
mod probes;
mod probes_lab;
mod profile;
mod scratch;
mod servers;
mod size;
mod trace;
mod trail;
mod transition;
mod usage;
mod weight_edit;

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{contestant::Contestant, size::Size};

/// Measures ipvs-operator, and compares it with other programs.
#[derive(Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Arguments {
    /// The parts of the benchmark to measure; all parts by default
    parts: Vec<Part>,

    /// Exit with 1 if a figure misses its target
    #[arg(long, global = true)]
    check: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// A part of the benchmark that can be measured alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Planning a table that needs no change
    Plan,
    /// Loading a table with our agent, with prebuilt messages, with ipvsadm,
    /// and with moby/ipvs
    Load,
    /// Changing one weight in a big table
    WeightEdit,
    /// The system calls of the agent's loop for the audit trail
    Trail,
    /// The time from a failed probe to the changed weight
    Transition,
    /// How punctual 10,000 probes are, and how much processor time they cost
    Probes,
    /// The slowest match of a health check's regular expression
    Patterns,
    /// The cost of a probe in the agent, compared with keepalived
    ProbesLab,
    /// The processor time of an idle agent
    Idle,
    /// An agent's memory with a big table
    Memory,
}

impl Part {
    /// Returns whether the part is measured outside the lab.
    fn is_native(self) -> bool {
        matches!(
            self,
            Self::Plan | Self::Trail | Self::Probes | Self::Patterns
        )
    }

    /// Returns whether the part needs an API server that has no other objects.
    fn needs_api_server(self) -> bool {
        matches!(self, Self::Idle | Self::Memory)
    }

    fn measure(self) -> Result<()> {
        match self {
            Self::Plan => plan::measure(),
            Self::Load => load::measure(),
            Self::WeightEdit => weight_edit::measure(),
            Self::Trail => trail::measure(),
            Self::Transition => transition::measure(),
            Self::Probes => probes::measure(),
            Self::Patterns => patterns::measure(),
            Self::ProbesLab => probes_lab::measure(),
            Self::Idle => agent_process::measure_idle(),
            Self::Memory => agent_process::measure_memory(),
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Measure what a fleet of simulated directors costs the API server and the
    /// controller. The default size takes both cores of a small machine for half
    /// an hour, and is not a part of the whole benchmark
    Fleet(fleet::Size),
    /// Measure where the agent spends time while it loads a table, outside the
    /// lab and without a kernel
    Profile {
        services: u32,
        servers: u32,
        /// The folder for the journals of the measured loads
        #[arg(long, default_value = "/dev/shm")]
        state_dir: PathBuf,
    },
    /// Measures `parts` in the current process
    #[command(hide = true)]
    Here { parts: Vec<Part> },
    /// Loads a table once with one of the compared programs
    #[command(hide = true)]
    Contestant {
        contestant: Contestant,
        services: u32,
        servers: u32,
    },
    /// Edits a weight in the current process
    #[command(hide = true)]
    EditWeight,
    /// Tells rounds to the audit trail, for the part `trail`
    #[command(hide = true)]
    TellTrail,
    /// Makes servers fail and return, for the part `transition`
    #[command(hide = true)]
    FailServers,
    /// Runs an agent that probes servers, for the part `probes`
    #[command(hide = true)]
    Probe { silent_percent: u32 },
    /// Runs the servers that agents probe
    #[command(hide = true)]
    Servers { first: Ipv4Addr, count: u32 },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        None => return outside::run(arguments.parts, arguments.check),
        Some(Command::Fleet(size)) => return fleet::run(size, arguments.check),
        Some(Command::Profile {
            services,
            servers,
            state_dir,
        }) => profile::measure(Size::new(services, servers), &state_dir)?,
        Some(Command::Here { parts }) => parts.into_iter().try_for_each(Part::measure)?,
        Some(Command::Contestant {
            contestant,
            services,
            servers,
        }) => contestant.run(Size::new(services, servers))?,
        Some(Command::EditWeight) => weight_edit::run()?,
        Some(Command::TellTrail) => trail::run()?,
        Some(Command::FailServers) => transition::run()?,
        Some(Command::Probe { silent_percent }) => probes::run(silent_percent)?,
        Some(Command::Servers { first, count }) => servers::run(first, count)?,
    }
    Ok(ExitCode::SUCCESS)
}
