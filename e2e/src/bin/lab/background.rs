//! Runs a program of the lab's host side in the background.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::layout::file;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a background program may take to stop before it is killed. Without
/// this limit, the stop of an API server would take a minute if a client has
/// open watches.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// A background program with at most one running process. The program's log
/// stays after the program has ended.
pub(crate) struct Background {
    name: String,
    child: Option<Child>,
}

impl Background {
    pub(crate) const fn new(name: String) -> Self {
        Self { name, child: None }
    }

    /// Starts the background program unless it is running.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C must not reach the background program, so the program gets
            // its own process group. The lab's top process (`cage`) handles
            // Ctrl-C.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Returns an error if the background program has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let child = self.child.as_mut();
        if let Some(ended) = child.and_then(|child| child.try_wait().transpose()) {
            self.child = None;
            bail!("{} ended: {}\n{}", self.name, ended?, self.last_words());
        }
        Ok(())
    }

    /// Sends SIGTERM to the background program, and waits until the program has
    /// ended. Kills the program if it has not ended within `STOPPED_WITHIN`.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Returns the last lines of the background program's log.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        file(&format!("logs/{}.log", self.name))
    }
}
