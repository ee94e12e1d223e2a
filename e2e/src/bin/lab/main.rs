//! `lab run PROGRAM ARGS…`: runs a program as root inside a kernel with IPVS,
//! with a real API server next to it if it wants one.
//!
//! `lab tests`: runs every test that needs a lab, several labs at once.
//!
//! ```text
//! tests    builds the test binaries and starts a `lab run` for each
//! cage     the process that the user started: makes the namespaces, keeps the
//!          deadline, hears signals. Its end is the end of all below.
//! └ outside   first process of the namespaces: etcd, kube-apiserver, control
//!   │         service, and the kernel; passes on what the program prints
//!   └ guest      inside the kernel: network, then the program; its exit status
//!                travels back through a file
//! ```

mod api_server;
mod background;
mod boot;
mod cage;
mod clusters;
mod control_service;
mod guest;
mod kernel;
mod kind;
mod outside;
mod qemu;
mod signals;
mod test_binaries;
mod tests;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Runs programs in a real kernel with IPVS, next to a real API server")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program in the lab; exits as the program does
    Run(Run),
    /// Run the tests that need the lab, each binary in a lab of its own, several
    /// labs at once
    Tests(tests::Tests),
    /// What `run` starts in its namespaces
    #[command(hide = true)]
    Outside(Run),
    /// What the kernel starts
    #[command(hide = true)]
    Guest,
}

#[derive(Args)]
struct Run {
    /// Start an API server for it
    #[arg(long)]
    api_server: bool,

    /// The kernel to run it on [default: host if that has ip_vs, else uml]
    #[arg(long, env = "LAB_KERNEL")]
    kernel: Option<kind::Kind>,

    /// Seconds after which everything is taken down and the run has failed
    #[arg(long, env = "LAB_TIMEOUT", default_value_t = 2400)]
    timeout: u64,

    /// A folder for the logs of all parts
    #[arg(long, env = "LAB_LOGS")]
    logs: Option<std::path::PathBuf>,

    /// Take everything down when standard input ends
    #[arg(long, hide = true)]
    while_input_lasts: bool,

    /// The program
    program: std::path::PathBuf,

    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(run) => cage::run(&run),
        Command::Tests(tests) => tests::run(&tests),
        Command::Outside(run) => outside::run(&run),
        Command::Guest => guest::run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
