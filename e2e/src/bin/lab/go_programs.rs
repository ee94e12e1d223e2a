//! Starts the programs of Kubernetes, which are written in Go.

use std::path::PathBuf;
use std::process::Command;

use e2e::layout::{Which, admin_kubeconfig, file};

use crate::tools::built;

/// Returns a command for a program written in Go. The program collects garbage
/// only after it has used much memory, because the lab has more memory than
/// processor time.
pub(crate) fn in_go(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.env("GOGC", "off").env("GOMEMLIMIT", "1GiB");
    command
}

/// Returns a command for a program that connects to an API server as
/// administrator.
pub(crate) fn administrator(of: Which, program: &str) -> Command {
    let mut command = in_go(built(program));
    // Programs such as kubectl keep caches in HOME, so HOME is a folder that is
    // removed with the lab.
    command
        .env("KUBECONFIG", admin_kubeconfig(of))
        .env("HOME", file("home"));
    command
}
