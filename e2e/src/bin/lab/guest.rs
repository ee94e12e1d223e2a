//! Runs inside the guest's kernel: sets up the guest's network, then runs the
//! lab's program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::control::{Request, Switch, ask};
use e2e::host::ip_here;
use e2e::layout::Which;
use e2e::layout::{GUEST, MANAGEMENT_GATEWAY, file};
use serde::{Deserialize, Serialize};

/// The line that precedes the program's own output on the guest's console.
pub(crate) const BEGINNING: &str = "\u{1}lab: the program begins\n";

/// An order to the guest to run a program, with the program's arguments and
/// environment.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
    pub(crate) api_server: bool,
}

impl Order {
    const FILE: &str = "order.json";

    /// Writes the order to a file, which the guest reads.
    pub(crate) fn write(&self) -> Result<()> {
        fs::write(file(Self::FILE), serde_json::to_vec(self)?).context("writing the guest's order")
    }

    fn read() -> Result<Self> {
        let order = fs::read(file(Self::FILE)).context("reading the guest's order")?;
        serde_json::from_slice(&order).context("the guest's order")
    }
}

/// Returns the exit status that the guest wrote to a file, or `None` if the
/// guest's program did not end.
pub(crate) fn exit_status() -> Option<u8> {
    fs::read_to_string(file(STATUS)).ok()?.trim().parse().ok()
}

const STATUS: &str = "status";

/// Reads the guest's `Order`, sets up the guest's network, and runs the
/// program.
pub(crate) fn run() -> Result<ExitCode> {
    let order = Order::read()?;
    bring_up_network()?;
    if order.api_server {
        let answer = ask(&Request::ApiServer {
            apiserver: Switch::Start,
            cluster: Which::First,
        })
        .context("asking the host side for the API server")?;
        if !answer.is_success() {
            bail!("the API server: {}", answer.stderr);
        }
    }
    thread::spawn(watch_for_standstills);
    eprint!("{BEGINNING}");
    let status = Command::new(&order.program)
        .args(&order.arguments)
        .env_clear()
        .envs(&order.environment)
        .current_dir(&order.folder)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {}", order.program.display()))?;
    fs::write(file(STATUS), byte(status).to_string()).context("writing the exit status")?;
    Ok(ExitCode::SUCCESS)
}

/// Reports when the guest stood still: a busy or frozen machine did not run it.
/// The report explains a test that waited too long.
fn watch_for_standstills() {
    const SLEEP: Duration = Duration::from_millis(500);
    const WORTH_A_LINE: Duration = Duration::from_secs(3);
    loop {
        let before = Instant::now();
        thread::sleep(SLEEP);
        let late = before.elapsed().saturating_sub(SLEEP);
        if late >= WORTH_A_LINE {
            eprintln!("lab: the guest stood still for {:.1} s", late.as_secs_f64());
        }
    }
}

fn bring_up_network() -> Result<()> {
    ip_here(&format!(
        "link set lo up
         address add {GUEST}/24 dev wire
         link set wire up
         link add mgmt type bridge
         address add {MANAGEMENT_GATEWAY}/17 dev mgmt
         link set mgmt up"
    ))?;
    // The guest forwards packets between the management network and the host
    // side.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forwarding in the guest")
}

/// Returns a program's exit code as a shell does: for a program killed by a
/// signal, 128 plus the signal's number.
fn byte(status: ExitStatus) -> u8 {
    let signalled = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signalled).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
