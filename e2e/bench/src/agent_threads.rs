//! Runs the threads of an agent in the benchmark's process.

use std::{
    path::Path,
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use agent::{
    clock::Clock,
    director::{Loop, World},
    disk::checkpoint::{Checkpoint, Recorder},
    event::Event,
    tell::report::Observed,
};
use anyhow::{Context, Result, bail};
use tokio::sync::watch;

/// The name of the benchmark's only director.
pub(crate) const NAME: &str = "director";
/// How often [`AgentThreads::until_healthy`] checks the state of the agent.
const INTERVAL: Duration = Duration::from_millis(100);

/// Two running threads of an agent: one runs the agent's loop, and the other
/// writes the agent's checkpoint. Both threads run until the benchmark's
/// process ends.
pub(crate) struct AgentThreads {
    /// The channel for events to the agent's loop.
    pub(crate) events: Sender<Event>,
    observed: watch::Receiver<Option<Observed>>,
}

impl AgentThreads {
    /// Starts the agent's threads, with a new state folder.
    pub(crate) fn start(world: World, state_dir: &Path) -> Result<Self> {
        let (events, heard) = mpsc::channel();
        let (observe, observed) = watch::channel(None);
        let (recorder, notes) = Recorder::new();
        let (checkpoint, restored) = Checkpoint::open(state_dir);
        let restored = restored?;
        let report = events.clone();
        checkpoint.record(notes, move |trouble| {
            // An error is ignored, because sending fails only when the agent's
            // loop has ended.
            report.send(Event::Checkpoint(trouble)).unwrap_or_default();
        })?;
        thread::Builder::new()
            .name("director".to_owned())
            .spawn(move || {
                let (name, group) = (NAME.to_owned(), "default".to_owned());
                let (clock, standings) = (Clock::start(), restored.standings);
                Loop::new(name, group, clock, world, recorder, standings).run(
                    &heard,
                    &mut |found| {
                        observe.send_replace(Some(found));
                    },
                );
            })?;
        Ok(Self { events, observed })
    }

    /// Sends `events` to the agent's loop.
    pub(crate) fn hear(&self, events: impl IntoIterator<Item = Event>) -> Result<()> {
        for event in events {
            self.events.send(event).context("the loop runs")?;
        }
        Ok(())
    }

    /// Waits until `expected` destinations are healthy and the last round had
    /// no failed operation. Returns an error if the wait takes longer than
    /// `patience`.
    pub(crate) fn until_healthy(&self, expected: u32, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let seen = self.observed.borrow().clone();
            let found = seen.as_ref().and_then(|seen| seen.health.found.as_ref());
            let healthy = found.map_or(0, |found| i64::from(found.healthy));
            let failures = seen.as_ref().and_then(|seen| seen.outcome.as_ref());
            let failures = failures.map(|outcome| &outcome.failures);
            if healthy == i64::from(expected) && failures.is_some_and(|all| all.is_empty()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let trouble = seen.as_ref().and_then(|seen| seen.trouble.as_ref());
                bail!(
                    "{healthy} of {expected} destinations are healthy; failures: {failures:?}; \
                     trouble: {trouble:?}"
                );
            }
            thread::sleep(INTERVAL);
        }
    }
}
