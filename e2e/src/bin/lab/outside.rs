//! Runs the host side of the lab. The host side is the first process in the
//! lab's namespaces.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStderr, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use e2e::host::ip_here;
use e2e::layout::{DIR, PROGRAMS, file};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::clusters::Clusters;
use crate::guest::{self, BEGINNING, Order};
use crate::kernel;
use crate::nodes::Nodes;
use crate::{Run, control_service};

/// How many lines from the end of each log the lab prints when the guest dies.
const TAIL: usize = 30;

/// Creates the lab's folder, `DIR`. The lab mounts a file system on the folder
/// `DIR` in the lab's own mount namespace. Outside the lab, the folder
/// therefore stays empty.
pub(crate) fn make_folder() -> Result<()> {
    fs::create_dir_all(DIR).with_context(|| format!("making {DIR}"))
}

/// Runs the lab in the namespaces that the parent process (`cage`) has created.
pub(crate) fn run(run: &Run) -> Result<ExitCode> {
    // If the parent process (`cage`) is killed, it cannot stop this process. So
    // the kernel must kill this process when the parent process ends.
    set_pdeathsig(Signal::SIGKILL).context("ending with the cage")?;
    let start = Instant::now();
    mount_over("proc", "/proc", None)?;
    mount_over("tmpfs", DIR, Some("mode=755"))?;
    make_logs(run.logs.as_deref())?;
    ip_here("link set lo up")?;

    let kernel = run.kernel.context("the cage names the kernel")?;
    let order = order(run)?;
    let clusters = if order.api_server {
        Some(Arc::new(Clusters::prepare()?))
    } else {
        None
    };
    let name = run
        .program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let has_nodes = order.api_server && run.nodes > 0;
    let (with, time) = match order.api_server {
        true if has_nodes => (", with a cluster of nodes", "half a minute"),
        true => (", with an API server", "a few seconds"),
        false => ("", "a few seconds"),
    };
    let kernel_name = kernel.description();
    eprintln!("lab: {name} on {kernel_name}{with}; they take {time} to start");
    order.write()?;
    fs::write(
        file("program"),
        format!("{}\n", env::current_exe()?.display()),
    )?;

    let mut machine = kernel::start(kernel, has_nodes)?;
    let _nodes = Nodes::start(if has_nodes { run.nodes } else { 0 })?;
    // The control service listens on the address of the link to the guest, so
    // the link must exist first.
    control_service::start(clusters.clone())?;
    if let Some(clusters) = clusters {
        // The API server starts while the guest's kernel boots. The guest also
        // requests the start of the API server, and waits until the server is
        // ready. If the API server does not start, the guest gets the error.
        thread::spawn(move || {
            if clusters.first.start().is_ok()
                && has_nodes
                && let Err(error) = clusters.start_controllers()
            {
                eprintln!("lab: {error:#}");
            }
        });
    }
    let output = machine.stderr.take().expect("a machine's output is piped");
    let began = pass_on(output).context("passing on the program's output")?;
    let end = machine.wait().context("waiting for the kernel")?;
    match guest::exit_status() {
        Some(status) => {
            eprintln!(
                "lab: {name} exited with {status} after {:.1?}",
                start.elapsed()
            );
            Ok(ExitCode::from(status))
        }
        None => {
            show_logs();
            let when = if began {
                "while the program ran"
            } else {
                "before the program began"
            };
            bail!("the guest died {when} ({end})")
        }
    }
}

fn order(run: &Run) -> Result<Order> {
    let program = fs::canonicalize(&run.program)
        .with_context(|| format!("no program at {}", run.program.display()))?;
    let arguments: Vec<String> = run
        .arguments
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let mut environment: BTreeMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    // The program must not see the user's TERM, because the guest's console
    // lacks the features of the user's terminal.
    environment.remove("TERM");
    let path = environment.entry("PATH".into()).or_default();
    path.push_str(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    let programs = env::current_exe()?;
    let programs = programs.parent().context("a program lies in a folder")?;
    environment.insert(PROGRAMS.into(), programs.to_string_lossy().into_owned());
    environment.insert(
        "KUBECONFIG".into(),
        file("kubeconfig").to_string_lossy().into_owned(),
    );
    // Tests of one binary run one at a time, because the tests share the
    // kernel, the API server and the names of hosts.
    environment
        .entry("RUST_TEST_THREADS".into())
        .or_insert_with(|| "1".into());
    // With the argument --list, a test binary runs no test, so it needs no API
    // server.
    let lists = arguments.iter().any(|argument| argument == "--list");
    let folder = env::current_dir().context("the current folder")?;
    Ok(Order {
        program,
        arguments,
        environment,
        folder,
        api_server: run.api_server && !lists,
    })
}

fn mount_over(kind: &str, path: &str, options: Option<&str>) -> Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("mounting {kind} on {path}"))
}

/// Copies the program's output to standard output, line by line. The program's
/// own output follows the line `BEGINNING`. The output before `BEGINNING` comes
/// from the kernel and the guest's setup, and goes to a log. Returns whether
/// the line `BEGINNING` was found, which means that the program was started.
fn pass_on(output: ChildStderr) -> io::Result<bool> {
    let mut lines = BufReader::new(output);
    let mut log = fs::File::create(file("logs/guest.log"))?;
    let mut began = false;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        // The guest's console ends its lines with CR LF.
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            line.push(b'\n');
        }
        if began {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&line)?;
            stdout.flush()?;
        } else if line == BEGINNING.as_bytes() {
            began = true;
        } else {
            log.write_all(&line)?;
        }
        line.clear();
    }
    Ok(began)
}

/// Creates the folder for the lab's logs. If the user named a folder, the lab
/// writes its logs directly to that folder. So the user's folder keeps the
/// logs even if the lab is killed.
fn make_logs(given: Option<&Path>) -> Result<()> {
    let logs = file("logs");
    fs::create_dir(&logs)?;
    let Some(given) = given else {
        return Ok(());
    };
    fs::create_dir_all(given).with_context(|| format!("making {}", given.display()))?;
    mount(
        Some(given),
        &logs,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("mounting {} on {}", given.display(), logs.display()))
}

fn show_logs() {
    let Ok(logs) = fs::read_dir(file("logs")) else {
        return;
    };
    for log in logs.flatten() {
        let text = fs::read(log.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("---- the end of {}", log.file_name().to_string_lossy());
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("{line}");
        }
    }
}
