//! Runs each lab in its own namespaces. When the first process of the pid
//! namespace ends, the kernel ends all other processes of the lab. The lab's
//! network links then disappear with the network namespace. The lab's files
//! disappear with the mount namespace. Labs that run side by side cannot affect
//! each other.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::signals::Signals;
use crate::{Run, outside, tools};

/// The prefixes of the environment variables that the lab passes through sudo.
const KEPT_BY_SUDO: [&str; 8] = [
    "PATH=",
    "CARGO",
    "RUST",
    "LAB_",
    "IPVS_",
    "PROPTEST_",
    "CI=",
    "NEXTEST",
];

/// Runs the lab in its own namespaces and returns the program's exit code.
pub(crate) fn run(run: &Run) -> Result<ExitCode> {
    if !geteuid().is_root() {
        return again_with_sudo();
    }
    let kernel = run
        .kernel
        .unwrap_or_else(|| tools::kernel_for(&run.program));
    tools::check(kernel, run.api_server, run.nodes > 0)?;

    let signals = Signals::block()?;
    outside::make_folder()?;
    let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    unshare(namespaces).context("making namespaces (a container needs --privileged for that)")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("keeping mounts private")?;

    let mut lab = Command::new(env::current_exe().context("the path of this program")?)
        .arg("outside")
        .args(env::args_os().skip(2))
        .env("LAB_KERNEL", kernel.name())
        .stdin(Stdio::null())
        .spawn()
        .context("starting the first process of the namespaces")?;
    let outcome = wait(&mut lab, &signals, run);
    // When the first process of a pid namespace ends, the kernel kills all
    // other processes in the namespace. Waiting for the first process also
    // waits for all other processes in the namespace.
    let _ = lab.kill();
    lab.wait().context("waiting for the lab to be gone")?;
    outcome
}

fn wait(lab: &mut Child, signals: &Signals, run: &Run) -> Result<ExitCode> {
    let timeout = Duration::from_secs(run.timeout);
    let deadline = Instant::now() + timeout;
    let input = run.while_input_lasts.then(io::stdin);
    loop {
        if let Some(status) = lab.try_wait().context("looking at the lab")? {
            return exit_code(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "not done after {} s (LAB_TIMEOUT): taken down",
                timeout.as_secs()
            );
        }
        // No program writes to the lab's standard input, so the input becomes
        // readable only when the input is closed.
        if signals.wait(left, input.as_ref().map(AsFd::as_fd))? {
            bail!("standard input ended: taken down");
        }
    }
}

fn exit_code(status: ExitStatus) -> Result<ExitCode> {
    let code = status
        .code()
        .with_context(|| format!("the lab ended by itself: {status}"))?;
    Ok(ExitCode::from(
        u8::try_from(code).context("exit codes are bytes")?,
    ))
}

/// If the user is not root, runs `modprobe ip_vs` with sudo. sudo can then ask
/// for a password once, before the labs start, and not in each lab.
pub(crate) fn prepare_root() -> Result<()> {
    if !geteuid().is_root() {
        let mut modprobe = Command::new("sudo");
        modprobe.args(["--", "modprobe", "--quiet", "ip_vs"]);
        // The exit status of modprobe is ignored, because most kernels that
        // lack IPVS have no module to load.
        modprobe
            .status()
            .context("the lab needs root, and sudo does not start")?;
    }
    Ok(())
}

fn again_with_sudo() -> Result<ExitCode> {
    let kept = env::vars_os().filter_map(|(name, value)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        let kept = KEPT_BY_SUDO
            .iter()
            .any(|start| pair.as_encoded_bytes().starts_with(start.as_bytes()));
        kept.then_some(pair)
    });
    let error = Command::new("sudo")
        .args(["--", "env"])
        .args(kept.collect::<Vec<OsString>>())
        .arg(env::current_exe().context("the path of this program")?)
        .args(env::args_os().skip(1))
        .exec();
    bail!("the lab needs root, and sudo does not start: {error}")
}
