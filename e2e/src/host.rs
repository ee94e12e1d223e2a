//! A host of the lab: a network namespace with a name.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};

use crate::wait::{PATIENCE, eventually};

/// A network namespace that acts as one machine. It begins as a freshly
/// installed machine does: loopback up, no forwarding, no routes. It is removed
/// with every link in it when the last clone is dropped.
#[derive(Clone)]
pub struct Host {
    namespace: Arc<Namespace>,
}

struct Namespace {
    name: String,
    handle: File,
}

impl Host {
    /// Makes the host. `name` is the namespace's name too (`ip netns`), so no
    /// other host may have it.
    ///
    /// When the name is taken, or without the right to make namespaces (outside
    /// of the lab).
    pub fn new(name: &str) -> Self {
        must(run_here(Command::new("ip").args(["netns", "add", name])));
        let path = format!("/run/netns/{name}");
        let handle = File::open(&path)
            .unwrap_or_else(|error| panic!("the namespace just made at {path} opens: {error}"));
        let host = Self {
            namespace: Arc::new(Namespace {
                name: name.into(),
                handle,
            }),
        };
        // Without this, a new namespace starts with the IPv4 settings of the
        // first one, which forwards for the management network.
        host.sysctl("net.ipv4.ip_forward", "0");
        host.ip("link set lo up");
        host
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Runs a command line in the host and returns its standard output. The
    /// line is split at white space; there is no shell and no quoting.
    ///
    /// # Panics
    /// When it cannot be started or fails: with the command, its exit status
    /// and what it wrote.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        must(self.try_run(line))
    }

    /// As [`run`](Self::run), for a command that may fail.
    ///
    /// # Errors
    /// When it cannot be started or its exit is not zero.
    pub fn try_run(&self, line: &str) -> Result<String, CommandFailed> {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        self.try_command(Command::new(program).args(words))
    }

    /// As [`try_run`](Self::try_run), for a command with an environment, or
    /// with arguments that contain spaces.
    ///
    /// # Errors
    /// When it cannot be started or its exit is not zero.
    pub fn try_command(&self, command: &mut Command) -> Result<String, CommandFailed> {
        self.enter(|| run_here(command))
    }

    /// Runs lines of `ip -batch` (each without the leading `ip`) in the host.
    ///
    /// # Panics
    /// When one of them fails.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        must(self.enter(|| ip_here(lines)));
    }

    /// All addresses, one per line, once the kernel has finished checking new
    /// ones for duplicates.
    ///
    /// # Panics
    /// When the check does not finish.
    #[track_caller]
    pub fn addresses(&self) -> String {
        eventually("addresses to be usable", PATIENCE, || {
            let list = self.run("ip -oneline address show");
            match list.contains("tentative") {
                true => Err(list),
                false => Ok(list),
            }
        })
    }

    /// The Ethernet address of a card.
    ///
    /// # Panics
    /// When there is no such card.
    #[track_caller]
    pub fn mac(&self, card: &str) -> String {
        let link = self.run(&format!("ip -brief link show {card}"));
        let mac = link.split_whitespace().nth(2).expect("name, state, MAC");
        mac.to_owned()
    }

    /// Sets a sysctl, named with dots, in the host.
    ///
    /// # Panics
    /// When the kernel does not have it or refuses the value.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = sysctl_path(name);
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| {
                panic!("{name} can be set to {value} in {}: {error}", self.name())
            });
    }

    /// Reads a sysctl, named with dots, in the host.
    ///
    /// # Panics
    /// When the kernel does not have it.
    #[track_caller]
    pub fn read_sysctl(&self, name: &str) -> String {
        let path = sysctl_path(name);
        let value = self
            .enter(|| std::fs::read_to_string(&path))
            .unwrap_or_else(|error| panic!("{name} can be read in {}: {error}", self.name()));
        value.trim_end().to_owned()
    }

    /// Every sysctl below a name such as `net.ipv4.conf`, by its file, except
    /// those that cannot be read.
    ///
    /// # Panics
    /// When there is no such sysctl.
    #[track_caller]
    pub fn sysctls(&self, below: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        self.enter(|| read_below(&sysctl_path(below), &mut all));
        assert!(!all.is_empty(), "{below} has values");
        all
    }

    /// Runs `work` on a thread in the host and waits for it. Sockets opened
    /// there belong to the host for good, and threads and processes started
    /// there are in the host too. A panic in `work` is passed on to the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                self.namespace.join();
                work()
            });
            entered.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread in the host. The thread may outlive the call.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = Arc::clone(&self.namespace);
        thread::spawn(move || {
            namespace.join();
            work()
        })
    }

    /// Starts a program in the host. Most callers want
    /// [`Process`](crate::Process), which also ends the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.enter(|| command.spawn())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.name())
    }
}

impl Namespace {
    /// Moves the current thread, and no other, into the namespace.
    fn join(&self) {
        setns(&self.handle, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("a thread can enter {}: {error}", self.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic here, while a failed test unwinds, would hide that failure.
        if let Err(error) = run_here(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{error}");
        }
    }
}

fn read_below(folder: &str, into: &mut BTreeMap<String, String>) {
    let entries = std::fs::read_dir(folder);
    for entry in entries.unwrap_or_else(|error| panic!("{folder}: {error}")) {
        let path = entry.expect("a folder of /proc can be read").path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            read_below(&name, into);
        } else if let Ok(value) = std::fs::read_to_string(&path) {
            into.insert(name, value);
        }
    }
}

/// A command that could not be started, or failed.
#[derive(Debug)]
pub struct CommandFailed {
    command: String,
    outcome: Result<Output, io::Error>,
}

impl CommandFailed {
    /// What it wrote to standard error; empty when it could not be started.
    pub fn stderr(&self) -> String {
        let stderr = self.outcome.as_ref().map(|output| output.stderr.as_slice());
        String::from_utf8_lossy(stderr.unwrap_or_default()).into_owned()
    }
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Err(error) => write!(f, "{}: cannot start: {error}", self.command),
            Ok(output) => write!(
                f,
                "{}: {}\n{}{}",
                self.command,
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            ),
        }
    }
}

impl std::error::Error for CommandFailed {}

/// Runs a command in the caller's own namespace and returns its output.
///
/// # Errors
/// When it cannot be started or its exit is not zero.
pub fn run_here(command: &mut Command) -> Result<String, CommandFailed> {
    let outcome = command.stdin(Stdio::null()).output();
    read_outcome(command, outcome)
}

/// Runs lines of `ip -batch` in the caller's own namespace.
///
/// # Errors
/// When one of them fails; those after it have not run.
pub fn ip_here(lines: &str) -> Result<String, CommandFailed> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let outcome = command.spawn().and_then(|mut child| {
        let mut stdin = child.stdin.take().expect("standard input was asked for");
        stdin.write_all(lines.as_bytes())?;
        drop(stdin);
        child.wait_with_output()
    });
    read_outcome(&command, outcome).map_err(|failed| CommandFailed {
        command: format!("{} <<<\n{lines}\n", failed.command),
        ..failed
    })
}

fn read_outcome(command: &Command, outcome: io::Result<Output>) -> Result<String, CommandFailed> {
    match outcome {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        outcome => Err(CommandFailed {
            command: spell(command),
            outcome,
        }),
    }
}

fn spell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[track_caller]
fn must(outcome: Result<String, CommandFailed>) -> String {
    outcome.unwrap_or_else(|failed| panic!("{failed}"))
}

fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}
