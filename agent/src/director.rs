//! The loop: one thread that hears events, keeps the objects, runs rounds when
//! something changed or is due, and reports the results.

mod edges;
mod hear;
mod protect;
mod reason;
mod report;
mod round;
mod weigh;

use std::{collections::BTreeSet, sync::mpsc::Receiver, time::Duration};

use crds::{Kind, Objects, api::DirectorException};
use ipvs::{Kernel, Op, ServiceKey};
use tokio::sync::mpsc::UnboundedSender;

use self::{protect::Protection, reason::Reason, weigh::Health};
use crate::{
    act::{State, retry::Retry},
    claim::Segments,
    clock::Clock,
    decide::{caution::Caution, ours::Remembered, retain::Retention, serving::memory::Memory},
    disk::{
        checkpoint::{Recorder, Tee},
        journal::{Journal, JournalError, NoJournal},
    },
    event::Event,
    host::{
        listeners::Listening,
        netlink::{LinkError, Links},
        surroundings::Surroundings,
        sysctls::Sysctls,
    },
    probe::target::Order,
    said::Said,
    tell::report::{Observed, Trouble},
};

/// How long after the start a VIP that the previous run knew stays off the
/// interfaces, unless the inputs answer: it may have gone to another director
/// in the meantime. The table is made at once.
const VIP_GRACE: Duration = Duration::from_secs(5);

/// A function that opens an edge of the loop.
pub type Opener<T, E> = Box<dyn FnMut() -> Result<T, E> + Send>;

/// How the loop reaches the world outside it. Each edge is opened when it is
/// first needed, and again after it failed.
pub struct World {
    /// Opens the kernel's IPVS table.
    pub kernel: Opener<Box<dyn Kernel>, ipvs::Error>,
    /// Opens the host's interfaces.
    pub links: Opener<Box<dyn Links>, LinkError>,
    /// Opens the journal and reads what is in it.
    pub journal: Opener<(Box<dyn Journal>, Remembered), JournalError>,
    /// The host's sysctls, as they can be read and written.
    pub sysctls: Box<dyn Sysctls + Send>,
    /// The segments that the host's interfaces are on.
    pub segments: Box<dyn Segments + Send>,
    /// The sockets on which the host's programs listen.
    pub listeners: Box<dyn Listening + Send>,
    /// Whether services that take the director's own traffic are programmed
    /// too.
    pub may_hijack: bool,
    /// The parts of the host's network that sysctls depend on.
    pub surroundings: Box<dyn Surroundings + Send>,
    /// Receives the probes to start and stop.
    pub orders: UnboundedSender<Order>,
}

/// Everything that the loop keeps between rounds.
pub struct Loop {
    name: String,
    group: String,
    clock: Clock,
    world: World,
    kernel: Option<Box<dyn Kernel>>,
    links: Option<Box<dyn Links>>,
    /// The open journal, or why there is none.
    journal: Result<Box<dyn Journal>, NoJournal>,
    objects: Objects,
    /// News about objects goes through these to `objects` and the checkpoint.
    services: Tee,
    servers: Tee,
    groups: Tee,
    recorder: Recorder,
    /// Whether the objects come from the previous run until they are listed.
    restored: bool,
    directors: Option<BTreeSet<String>>,
    caution: Caution,
    /// Why the journal does not record the cluster, as last logged.
    unsaved: Said,
    protection: Protection,
    retention: Retention,
    /// The services whose wanted state or state in force has changed since
    /// `health` last heard of it.
    changed: BTreeSet<ServiceKey>,
    /// The removals that wait until they are allowed.
    held: Vec<Op>,
    health: Health,
    unreadable: Vec<DirectorException>,
    /// What is wrong with objects, as last logged.
    complaints: Said,
    /// What is odd on this host, as last logged.
    oddities: Said,
    state: State,
    /// The back-off of opening the edges.
    retry: Retry,
    trouble: Option<Trouble>,
    /// Why the next round should run, so far.
    reason: Reason,
    /// When the last round ended; none before the first.
    acted: Option<Duration>,
}

impl Loop {
    /// Returns a director that has heard nothing yet. `standings` is the health
    /// of servers as the previous run knew it.
    pub fn new(
        name: String,
        group: String,
        clock: Clock,
        world: World,
        recorder: Recorder,
        standings: Memory,
    ) -> Self {
        let tee = |kind| Tee::new(kind, recorder.clone());
        Self {
            services: tee(Kind::VirtualService),
            servers: tee(Kind::RealServer),
            groups: tee(Kind::DirectorGroup),
            restored: false,
            name,
            group,
            clock,
            kernel: None,
            links: None,
            journal: Err(NoJournal(String::new())),
            objects: Objects::default(),
            directors: None,
            caution: Caution::default(),
            unsaved: Said::default(),
            protection: Protection::new(world.may_hijack),
            world,
            retention: Retention::default(),
            changed: BTreeSet::new(),
            held: Vec::new(),
            health: Health::new(standings),
            unreadable: Vec::new(),
            complaints: Said::default(),
            oddities: Said::default(),
            state: State::default(),
            retry: Retry::default(),
            trouble: None,
            reason: Reason::Nothing,
            acted: None,
            recorder,
        }
    }

    /// Runs until [`Event::Stop`], or until all senders of events are gone.
    /// What the loop observes of the director goes to `observe`.
    pub fn run(mut self, events: &Receiver<Event>, observe: &mut dyn FnMut(Observed)) {
        loop {
            if !self.hear(events) {
                return;
            }
            if let Some(observed) = self.act(self.clock.now()) {
                observe(observed);
            }
        }
    }

    /// Runs a round if there is a reason. Returns what the loop observed if
    /// there is news: trouble, or the outcome of the round. Nothing is removed
    /// before every kind of object has been listed once, and before that only
    /// what the previous run knew is made.
    fn act(&mut self, now: Duration) -> Option<Observed> {
        let observed = self.act_if_possible(now);
        self.retry.expire(now);
        observed
    }

    fn act_if_possible(&mut self, now: Duration) -> Option<Observed> {
        let before = self.trouble.take();
        self.trouble = self.obstacle(&before, now).err();
        if self.trouble.is_some() {
            return (self.trouble != before).then(|| self.observed(None, now));
        }
        let reason = self.reason(&before, now);
        let listed = self.objects.is_listed();
        let is_known = listed || self.restored;
        if reason == Reason::Nothing
            || !is_known
            || self.protection.waits(self.directors.is_some(), now)
        {
            return None;
        }
        if reason == Reason::Resolve {
            self.resolve();
        }
        self.reason = Reason::Nothing;
        let outcome = match self.round(now) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                self.kernel_failed(&error, &before, now);
                None
            }
        };
        self.acted = Some(self.clock.now());
        if let Some(outcome) = &outcome {
            self.log_oddities(outcome);
        }
        listed.then(|| self.observed(outcome, now))
    }

    /// Returns why a round should run now.
    fn reason(&self, before: &Option<Trouble>, now: Duration) -> Reason {
        let look = self.protection.is_due(now).then_some(Reason::Look);
        let again = before.is_some().then_some(Reason::Retry);
        let reasons = [Some(self.reason), look, again].into_iter().flatten();
        reasons.max().expect("at least one reason is always given")
    }
}

#[cfg(test)]
mod tests;
