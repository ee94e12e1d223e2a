//! Tracks how far a probe has come before its timeout.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::{trouble::Failed, worker::too_slow};

/// The progress of a probe, for the failure message after a timeout.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU32);

/// The steps of a [`Progress`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Reached {
    /// The server accepted the connection.
    Connected = 1,
    /// The server sent part of the expected answer.
    Answer = 2,
    /// The probe waits for this host's worker, which verifies the server's
    /// certificates or matches the complete answer.
    Worker = 3,
}

impl Progress {
    /// Records that the probe has reached a step.
    pub(super) fn reached(&self, reached: Reached) {
        self.0.store(reached as u32, Relaxed);
    }

    pub(super) fn is_any(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Returns the failure of a probe whose timeout is over. `namespace` is the
    /// namespace of the probe.
    pub(super) fn out_of_time(&self, timeout: Duration, namespace: &str) -> Failed {
        let seconds = timeout.as_secs_f64();
        Failed::Silence(match self.0.load(Relaxed) {
            0 => format!("no answer in {seconds} s"),
            1 => format!("connected, and no answer in {seconds} s"),
            2 => format!("incomplete answer in {seconds} s"),
            _ => return too_slow(namespace),
        })
    }
}
