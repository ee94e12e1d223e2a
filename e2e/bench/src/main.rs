//! `make bench`: figures with their targets, measured on a real kernel and a
//! real API server.
//!
//! ```text
//! bench              collects the figures
//! ├ bench here …       natively: what needs no kernel with IPVS
//! └ lab run …          the lab
//!   └ bench here …       in the lab's kernel: everything else
//!     └ bench contestant …   one sample, in a network namespace of its own
//! bench servers …        is probed by either
//! ```
//!
//! Prints what it is doing, one line per figure
//! (`BENCH <name> <value> <unit> <= or >= <target> ok|short`), and a table of
//! all of them at the end.

mod agent_process;
mod agent_threads;
mod checked;
mod contestant;
mod director;
mod figure;
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
mod transition;
mod usage;
mod weight_edit;

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{contestant::Contestant, size::Size};

/// Measures the product, and compares it with others.
#[derive(Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Arguments {
    /// What to measure; everything by default
    parts: Vec<Part>,

    /// Exit with 1 when a figure is short of its target
    #[arg(long)]
    check: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// A part of the benchmark that can be measured alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// A plan with nothing to do
    Plan,
    /// Loading a table: ours, its floor, ipvsadm, moby/ipvs
    Load,
    /// Changing one weight in a big table
    WeightEdit,
    /// From a failed probe to the changed weight
    Transition,
    /// Punctuality and cost of 10,000 probes
    Probes,
    /// The longest match of a health check's regular expression
    Patterns,
    /// What a probe costs beside keepalived's
    ProbesLab,
    /// What an idle agent costs
    Idle,
    /// An agent's memory with a big table
    Memory,
}

impl Part {
    /// Whether it is measured outside of the lab.
    fn is_native(self) -> bool {
        matches!(self, Self::Plan | Self::Probes | Self::Patterns)
    }

    /// Whether it needs an API server that has no other objects.
    fn needs_api_server(self) -> bool {
        matches!(self, Self::Idle | Self::Memory)
    }

    fn measure(self) -> Result<()> {
        match self {
            Self::Plan => plan::measure(),
            Self::Load => load::measure(),
            Self::WeightEdit => weight_edit::measure(),
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
    /// How our load spends its time, natively, without a kernel
    Profile {
        services: u32,
        servers: u32,
        /// The journal's folder
        #[arg(long, default_value = "/dev/shm")]
        state_dir: PathBuf,
    },
    /// Measures these parts in this process
    #[command(hide = true)]
    Here { parts: Vec<Part> },
    /// Takes one sample of a contestant
    #[command(hide = true)]
    Contestant {
        contestant: Contestant,
        services: u32,
        servers: u32,
    },
    /// The process that edits a weight
    #[command(hide = true)]
    EditWeight,
    /// The process in which servers fail and come back
    #[command(hide = true)]
    FailServers,
    /// The process that probes
    #[command(hide = true)]
    Probe { silent_percent: u32 },
    /// The servers that are probed
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
        Some(Command::FailServers) => transition::run()?,
        Some(Command::Probe { silent_percent }) => probes::run(silent_percent)?,
        Some(Command::Servers { first, count }) => servers::run(first, count)?,
    }
    Ok(ExitCode::SUCCESS)
}
