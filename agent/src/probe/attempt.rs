//! One probe, from its beginning to a verdict or to nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use crds::Probe;
use tokio::time::{Instant, timeout_at};

use super::{Target, tcp, trouble::Failed};
use crate::serving::tally::Verdict;

/// What came of a probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// Something about the server.
    Verdict(Verdict),
    /// Nothing; why, in words.
    Void(Arc<str>),
}

/// How far a probe has come, for the words when its time is over.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU32);

/// See [`Progress`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Reached {
    /// The server accepted the connection.
    Connected = 1,
    /// It sent something, not all that was expected.
    Answer = 2,
}

impl Progress {
    /// It has come so far.
    pub(super) fn reached(&self, reached: Reached) {
        self.0.store(reached as u32, Relaxed);
    }

    fn out_of_time(&self, timeout: Duration) -> Failed {
        let seconds = timeout.as_secs_f64();
        Failed::Silence(match self.0.load(Relaxed) {
            0 => format!("no answer in {seconds} s"),
            1 => format!("connected, and no answer in {seconds} s"),
            _ => format!("not the whole answer in {seconds} s"),
        })
    }
}

/// Probes a target once, from this time on.
pub(super) async fn attempt(target: &Target, began: Instant) -> Outcome {
    let check = &*target.check;
    let progress = Progress::default();
    let deadline = began + check.timeout;
    let result = timeout_at(deadline, exchange(target, &progress))
        .await
        .unwrap_or_else(|_| Err(progress.out_of_time(check.timeout)));
    match result {
        Ok(()) => Outcome::Verdict(Verdict::Success),
        Err(Failed::Answer(words)) => Outcome::Verdict(Verdict::Failure(words.into())),
        Err(Failed::Silence(words)) => Outcome::Verdict(Verdict::Failure(words.into())),
        Err(Failed::Own(words)) => Outcome::Void(words.into()),
    }
}

async fn exchange(target: &Target, progress: &Progress) -> Result<(), Failed> {
    let address = target.address;
    match &target.check.probe {
        Probe::Tcp { send, expect } => tcp::probe(address, send, expect, progress).await,
        _ => Err(Failed::Own("this agent cannot probe so yet".into())),
    }
}
