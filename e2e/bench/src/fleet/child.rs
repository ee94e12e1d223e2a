//! Programs that the fleet bench runs in the background.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a program may take to stop before it is killed. An API server with
/// open watches would take a minute.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
/// The number of lines of a program's log that an error message shows.
const LAST_LINES: usize = 10;

/// A program in the background, with its log. Dropping a `Background` stops the
/// program. The kernel kills the program if the bench itself is killed.
pub(super) struct Background {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Background {
    /// Starts `command`, and appends the program's output to a log in `folder`.
    /// The calling thread must live as long as the program: when the thread
    /// ends, the kernel kills the program.
    pub(super) fn start(name: &'static str, folder: &Path, command: &Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut bound = Command::new("setpriv");
        bound
            .arg("--pdeathsig=KILL")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = bound.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name, log, child })
    }

    /// Returns the program's process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns an error if the program has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.last_words()),
        }
    }

    /// Sends SIGTERM to the program, and waits until it has ended. Kills the
    /// program if it does not end within [`STOPPED_WITHIN`].
    pub(super) fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(i32::try_from(self.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Returns what the program has written so far.
    pub(super) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    fn last_words(&self) -> String {
        let text = self.log().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("fleet: {} may still run: {error:#}", self.name);
        }
    }
}
