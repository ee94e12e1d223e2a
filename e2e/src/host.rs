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

/// A network namespace that acts as one machine. The host starts like a freshly
/// installed machine: loopback up, no forwarding, no routes. Dropping the last
/// clone of a `Host` removes the network namespace and every link in it.
#[derive(Clone)]
pub struct Host {
    namespace: Arc<Namespace>,
}

struct Namespace {
    name: String,
    handle: File,
}

impl Host {
    /// Creates a host. `name` is also the name of the host's network namespace
    /// (`ip netns`), so no two hosts may have the same name.
    ///
    /// # Panics
    /// Panics if another host has the name, or if the process may not create
    /// namespaces. Outside the lab, most processes may not create namespaces.
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
        // The guest's first namespace forwards packets for the management
        // network. A new network namespace inherits this setting, but a freshly
        // installed machine does not forward packets.
        host.sysctl("net.ipv4.ip_forward", "0");
        host.ip("link set lo up");
        host
    }

    /// Returns the name of the host, which is also the name of its network
    /// namespace.
    pub fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Runs a command line in the host and returns its standard output. `run`
    /// splits the command line at white space, without a shell and without
    /// quoting.
    ///
    /// # Panics
    /// Panics if the command cannot be started or fails. The panic message
    /// shows the command, its exit status and its output.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        must(self.try_run(line))
    }

    /// Runs a command line as [`run`](Self::run) does, but returns an error if
    /// the command fails.
    ///
    /// # Errors
    /// Returns an error if the command cannot be started or its exit status is
    /// not zero.
    pub fn try_run(&self, line: &str) -> Result<String, CommandFailed> {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        self.try_command(Command::new(program).args(words))
    }

    /// Runs a command like [`try_run`](Self::try_run), but the command can have
    /// environment variables, and arguments with spaces.
    ///
    /// # Errors
    /// Returns an error if the command cannot be started or its exit status is
    /// not zero.
    pub fn try_command(&self, command: &mut Command) -> Result<String, CommandFailed> {
        self.enter(|| run_here(command))
    }

    /// Runs `lines` with `ip -batch` in the host. Each line is an `ip` command
    /// without the leading `ip`.
    ///
    /// # Panics
    /// Panics if one of the `ip` commands fails.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        must(self.enter(|| ip_here(lines)));
    }

    /// Waits until the kernel has checked the host's new addresses for
    /// duplicates. Returns all IP addresses of the host, one per line.
    ///
    /// # Panics
    /// Panics if the duplicate check does not finish in time.
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

    /// Returns the Ethernet address of one of the host's network cards.
    ///
    /// # Panics
    /// Panics if the host has no network card named `card`.
    #[track_caller]
    pub fn mac(&self, card: &str) -> String {
        let link = self.run(&format!("ip -brief link show {card}"));
        let mac = link.split_whitespace().nth(2).expect("name, state, MAC");
        mac.to_owned()
    }

    /// Sets a sysctl in the host. `name` is written with dots, such as
    /// `net.ipv4.ip_forward`.
    ///
    /// # Panics
    /// Panics if the kernel does not have the sysctl or refuses the value.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = sysctl_path(name);
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| {
                panic!("{name} can be set to {value} in {}: {error}", self.name())
            });
    }

    /// Reads a sysctl in the host. `name` is written with dots, such as
    /// `net.ipv4.ip_forward`.
    ///
    /// # Panics
    /// Panics if the kernel does not have the sysctl.
    #[track_caller]
    pub fn read_sysctl(&self, name: &str) -> String {
        let path = sysctl_path(name);
        let value = self
            .enter(|| std::fs::read_to_string(&path))
            .unwrap_or_else(|error| panic!("{name} can be read in {}: {error}", self.name()));
        value.trim_end().to_owned()
    }

    /// Returns the value of every readable sysctl below a name such as
    /// `net.ipv4.conf`, keyed by file path.
    ///
    /// # Panics
    /// Panics if no sysctl below the name is readable.
    #[track_caller]
    pub fn sysctls(&self, below: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        self.enter(|| read_below(&sysctl_path(below), &mut all));
        assert!(!all.is_empty(), "{below} has values");
        all
    }

    /// Runs `work` on a new thread in the host and waits for the result. A
    /// socket that `work` opens belongs to the host's network namespace, even
    /// after `work` has returned. The threads and processes that `work` starts
    /// also run in the host. If the closure `work` panics, the caller of
    /// `enter` panics too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                self.namespace.join();
                work()
            });
            entered.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread in the host, without waiting for its end.
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

    /// Starts a program in the host. Most callers should use
    /// [`Process`](crate::Process), which also ends the program.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
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
    /// Moves the current thread, and no other thread of the process, into the
    /// host's network namespace.
    fn join(&self) {
        setns(&self.handle, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("a thread can enter {}: {error}", self.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Print the error instead of panicking. If the test is already
        // panicking, another panic would hide the test's failure.
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

/// The error that is returned if a command cannot be started or fails.
#[derive(Debug)]
pub struct CommandFailed {
    command: String,
    outcome: Result<Output, io::Error>,
}

impl CommandFailed {
    /// Returns the text that the command wrote to standard error. If the
    /// command could not be started, the text is empty.
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

/// Runs a command in the caller's network namespace and returns its standard
/// output.
///
/// # Errors
/// Returns an error if the command cannot be started or its exit status is not
/// zero.
pub fn run_here(command: &mut Command) -> Result<String, CommandFailed> {
    let outcome = command.stdin(Stdio::null()).output();
    read_outcome(command, outcome)
}

/// Runs `lines` with `ip -batch` in the caller's network namespace.
///
/// # Errors
/// Returns an error if one of the `ip` commands fails. The `ip` commands after
/// the failed command have not run.
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
