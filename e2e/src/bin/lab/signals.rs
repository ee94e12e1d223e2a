//! Waits for child processes and for the signals that end a run of the lab.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The file from which the lab reads SIGINT, SIGTERM, SIGHUP and SIGCHLD.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks the lab's signals, and opens the file from which the lab reads
    /// these signals. The lab calls `block` before it creates anything that it
    /// must remove at the end. The lab's child processes start with no signal
    /// blocked.
    pub(crate) fn block() -> Result<Self> {
        let heard = [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ];
        let heard = SigSet::from_iter(heard);
        heard.thread_block().context("blocking signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let file = SignalFd::with_flags(&heard, flags).context("a file to read signals from")?;
        Ok(Self(file))
    }

    /// Waits until a child process may have ended, or until the file `other`
    /// can be read. The wait ends after `at_most` at the latest. Returns
    /// whether `other` can be read.
    ///
    /// # Errors
    /// Returns an error if a signal asks the lab to stop.
    pub(crate) fn wait(&self, at_most: Duration, other: Option<BorrowedFd<'_>>) -> Result<bool> {
        let at_most = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let files = [Some(self.0.as_fd()), other].into_iter().flatten();
        let mut files: Vec<_> = files
            .map(|file| PollFd::new(file, PollFlags::POLLIN))
            .collect();
        poll(&mut files, at_most).context("waiting for signals")?;
        while let Some(signal) = self.0.read_signal().context("reading a signal")? {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => {}
                Ok(Ok(signal)) => bail!("{signal}: taken down"),
                _ => bail!("signal {}: taken down", signal.ssi_signo),
            }
        }
        let other = files.get(1).and_then(PollFd::any);
        Ok(other.unwrap_or(false))
    }
}
