//! Long-running programs in a host, started as an init system would start them.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::layout::{PROGRAMS, file};
use crate::wait::{PATIENCE, eventually};

/// A failed test prints at most this many lines from the end of a program's
/// log.
const TAIL: usize = 40;

/// A long-running program in a host. Dropping a `Process` kills the program. If
/// the test is failing, dropping the `Process` also prints the end of the
/// program's log to standard error.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` in `host`. The program's standard output and standard
    /// error both go to the program's log. `name` appears in messages and in
    /// the log's file name.
    ///
    /// # Panics
    /// Panics if the program cannot be started.
    #[track_caller]
    pub fn start(host: &Host, name: &str, command: &mut Command) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = file(&format!("logs/{number}-{name}.log"));
        let child = open_log(&log)
            .and_then(|(stdout, stderr)| {
                host.spawn(command.stdin(Stdio::null()).stdout(stdout).stderr(stderr))
            })
            .unwrap_or_else(|error| panic!("{name} starts in {}: {error}", host.name()));
        Self {
            name: name.to_owned(),
            log,
            child,
        }
    }

    /// Returns the text that the program has written so far to standard output
    /// and standard error.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Returns the program's process id in the guest.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the program is still running.
    pub fn is_running(&mut self) -> bool {
        self.exit().is_none()
    }

    /// Asks the program to end (SIGTERM) and waits until it has ended.
    ///
    /// # Panics
    /// Panics if the program does not end in time.
    #[track_caller]
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(within)
    }

    /// Kills the program (SIGKILL), as a crash would.
    #[track_caller]
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.wait(PATIENCE)
    }

    /// Pauses the program (SIGSTOP), as if its machine hung.
    #[track_caller]
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Resumes the program after [`pause`](Self::pause).
    #[track_caller]
    pub fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until the program ends by itself.
    ///
    /// # Panics
    /// Panics if the program does not end in time. The panic message shows the
    /// end of the program's log.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        eventually(&what, within, || {
            self.exit()
                .ok_or_else(|| format!("it runs, and last wrote:\n{}", self.tail()))
        })
    }

    /// Waits until the program's log contains `text`, and returns the line with
    /// `text`.
    ///
    /// # Panics
    /// Panics if the text does not appear in the log in time. The panic message
    /// shows the end of the program's log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, within: Duration) -> String {
        eventually(
            &format!("{text:?} in the log of {}", self.name),
            within,
            || {
                let log = self.log();
                let line = log
                    .lines()
                    .find(|line| line.contains(text))
                    .map(str::to_owned);
                line.ok_or_else(|| self.tail())
            },
        )
    }

    #[track_caller]
    fn signal(&mut self, signal: Signal) {
        if self.exit().is_some() {
            // After a program has ended, its process id may belong to another
            // process. A program that has ended therefore gets no signal.
            return;
        }
        let id = i32::try_from(self.child.id()).expect("process ids are positive");
        kill(Pid::from_raw(id), signal)
            .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- the end of the log of {}\n{}\n----",
                self.name,
                self.tail()
            );
        }
        // The program may have ended by itself, so errors of `kill` and `wait`
        // are ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command that runs a program of this workspace, such as
/// `ipvs-agent`.
///
/// # Panics
/// Panics outside the lab, or if the program has not been built.
#[track_caller]
pub fn program(name: &str) -> Command {
    let folder = std::env::var_os(PROGRAMS).expect("the lab sets the programs' folder");
    let path = PathBuf::from(folder).join(name);
    assert!(
        path.exists(),
        "{name} is built (cargo build --workspace --bins)"
    );
    Command::new(path)
}

fn open_log(path: &PathBuf) -> io::Result<(File, File)> {
    fs::create_dir_all(path.parent().expect("the log lies in a folder"))?;
    let log = File::options().create(true).append(true).open(path)?;
    Ok((log.try_clone()?, log))
}
