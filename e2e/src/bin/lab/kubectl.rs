//! Runs kubectl's commands in the lab's kubectl server, which is one process for
//! all of them (`e2e/tools/kubernetes/kubectl-server`).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::control::Response;
use e2e::layout::{Which, file};
use serde_json::json;

use crate::background::Background;
use crate::go_programs::administrator;

/// The deadline for starting the kubectl server.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Starts the kubectl server, and waits until it listens. By default, its
/// commands have the kubeconfig of the first cluster's administrator.
pub(crate) fn start() -> Result<Background> {
    let mut server = Background::new("kubectl-server".to_owned());
    let mut command = administrator(Which::First, "kubectl-server");
    // The server lives long and needs little memory at a time, so collecting
    // garbage costs little.
    command.env("GOGC", "200").env_remove("GOMEMLIMIT");
    server.start(command.arg(socket()))?;
    let deadline = Instant::now() + READY_WITHIN;
    while let Err(error) = UnixStream::connect(socket()) {
        server.check()?;
        if Instant::now() > deadline {
            return Err(error).with_context(|| format!("not ready after {READY_WITHIN:?}"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// Whether the kubectl server can run a command. `kubectl auth can-i` ends its
/// process if the answer is no, and the messages that `-v` asks for go to the
/// log of the process.
pub(crate) fn can_serve(args: &[String]) -> bool {
    let is_auth = args.first().is_some_and(|command| command == "auth");
    !is_auth && !args.iter().any(|arg| arg.starts_with("-v"))
}

/// Runs one command of kubectl in the server.
pub(crate) fn run(args: &[impl AsRef<str>], stdin: &str) -> Result<Response> {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let request = json!({"args": args, "stdin": stdin});
    let mut stream = UnixStream::connect(socket())?;
    stream.write_all(&serde_json::to_vec(&request)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    serde_json::from_slice(&answer).context("the kubectl server gave no answer; see its log")
}

fn socket() -> PathBuf {
    file("kubectl.sock")
}
