//! `lab run PROGRAM ARGS…` runs a program as root inside a kernel with IPVS.
//! With `--api-server`, a real API server runs next to that kernel.
//!
//! `lab tests` runs every test that needs a lab, in several labs at once.
//!
//! ```text
//! tests    builds the test binaries and starts a `lab run` for each
//! cage     the process that the user started: creates the namespaces, enforces
//!          the deadline, handles signals. When it ends, all below end too.
//! └ outside   first process of the namespaces: starts etcd, kube-apiserver, the
//!   │         control service and the kernel; prints the program's output
//!   ├ guest      inside the kernel: sets up the network, runs the program, and
//!   │            writes its exit status to a file
//!   └ node       inside the kernel of each node (`--nodes`): runs containerd,
//!                kubelet and kube-proxy
//! ```

mod api_server;
mod background;
mod boot;
mod cage;
mod clusters;
mod control_service;
mod go_programs;
mod guest;
mod kernel;
mod kind;
mod kubectl;
mod node;
mod nodes;
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
    /// Run a program in a lab, and exit with the program's exit status
    Run(Run),
    /// Run the tests that need a lab: each test binary in its own lab, several
    /// labs at once
    Tests(tests::Tests),
    /// Run the host side of a lab; `lab run` starts this command in the lab's
    /// namespaces
    #[command(hide = true)]
    Outside(Run),
    /// Run the program inside the guest; the guest's kernel starts this command
    #[command(hide = true)]
    Guest,
    /// Run the programs of a Kubernetes node; a node's kernel starts this command
    #[command(hide = true)]
    Node,
}

#[derive(Args)]
struct Run {
    /// Start an API server that the program can use
    #[arg(long)]
    api_server: bool,

    /// Also boot this many nodes of the cluster, each a machine of its own with
    /// a kubelet, and run the other parts of Kubernetes
    #[arg(long, default_value_t = 0, requires = "api_server", value_parser = clap::value_parser!(u8).range(..=9))]
    nodes: u8,

    /// The kernel to run the program on [default: host if its kernel has ip_vs,
    /// else uml, and uml-packaged for tests that need iptables]
    #[arg(long, env = "LAB_KERNEL")]
    kernel: Option<kind::Kind>,

    /// Seconds after which the lab is stopped and the run fails
    #[arg(long, env = "LAB_TIMEOUT", default_value_t = 2400)]
    timeout: u64,

    /// A folder for the logs of all the lab's programs
    #[arg(long, env = "LAB_LOGS")]
    logs: Option<std::path::PathBuf>,

    /// Stop the lab when standard input ends
    #[arg(long, hide = true)]
    while_input_lasts: bool,

    /// The program to run in the lab
    program: std::path::PathBuf,

    /// The arguments of the program that runs in the lab
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(run) => cage::run(&run),
        Command::Tests(tests) => tests::run(&tests),
        Command::Outside(run) => outside::run(&run),
        Command::Guest => guest::run(),
        Command::Node => node::run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
