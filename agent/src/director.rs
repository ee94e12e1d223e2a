//! The loop: one thread that hears events, keeps the objects, runs rounds when
//! something is different or due, and says what came of it.

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
    decide::{caution::Caution, retain::Retention, serving::memory::Memory},
    disk::{
        checkpoint::{Recorder, Tee},
        journal::{Journal, JournalError, NoJournal, Remembered},
    },
    event::Event,
    host::{
        listeners::Listening,
        netlink::{LinkError, Links},
        surroundings::Surroundings,
        sysctls::Sysctls,
    },
    probe::target::Order,
    tell::{
        report::{Observed, Trouble},
        said::Said,
    },
};

/// A VIP that an earlier life knew is not put on an interface before this time
/// after the start, unless the inputs answer: it may have gone to another
/// director meanwhile. The table is made at once.
const VIP_GRACE: Duration = Duration::from_secs(5);

/// Opens an edge.
pub type Opener<T, E> = Box<dyn FnMut() -> Result<T, E> + Send>;

/// How the loop gets its edges to the world. Each is opened when it is first
/// needed, and again after it failed.
pub struct World {
    /// Opens the kernel's table.
    pub kernel: Opener<Box<dyn Kernel>, ipvs::Error>,
    /// Opens the host's interfaces.
    pub links: Opener<Box<dyn Links>, LinkError>,
    /// Opens the journal and reads what is in it.
    pub journal: Opener<(Box<dyn Journal>, Remembered), JournalError>,
    /// The host's sysctls.
    pub sysctls: Box<dyn Sysctls + Send>,
    /// The segments that the host's interfaces are on.
    pub segments: Box<dyn Segments + Send>,
    /// On what the host's programs listen.
    pub listeners: Box<dyn Listening + Send>,
    /// Whether also what takes the director's own traffic is programmed.
    pub may_hijack: bool,
    /// What the host's network is like around the table.
    pub surroundings: Box<dyn Surroundings + Send>,
    /// Tells what is to be probed.
    pub orders: UnboundedSender<Order>,
}

/// The loop's state.
pub struct Loop {
    name: String,
    group: String,
    clock: Clock,
    world: World,
    kernel: Option<Box<dyn Kernel>>,
    links: Option<Box<dyn Links>>,
    /// Or why there is none.
    journal: Result<Box<dyn Journal>, NoJournal>,
    objects: Objects,
    /// What becomes known goes through these to `objects` and the checkpoint.
    services: Tee,
    servers: Tee,
    groups: Tee,
    recorder: Recorder,
    /// Whether the objects are those of an earlier life until they are listed.
    restored: bool,
    directors: Option<BTreeSet<String>>,
    caution: Caution,
    /// Why the journal does not remember the cluster, as said.
    unsaved: Said,
    protection: Protection,
    retention: Retention,
    /// The services of which something else is wanted or in force than when
    /// `health` was last told.
    changed: BTreeSet<ServiceKey>,
    /// The removals that wait until they are allowed.
    held: Vec<Op>,
    health: Health,
    unreadable: Vec<DirectorException>,
    /// What is wrong with objects, as said.
    complaints: Said,
    /// What is odd on this host, as said.
    oddities: Said,
    state: State,
    /// Back-off of opening the edges.
    retry: Retry,
    trouble: Option<Trouble>,
    /// Why the next round should run, so far.
    reason: Reason,
    /// When the last round ended.
    acted: Option<Duration>,
}

impl Loop {
    /// A director that has heard nothing yet. `standings` is how servers stood
    /// in an earlier life.
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

    /// Runs until [`Event::Stop`], or until nobody is left to send events. What
    /// the director is found to be like goes to `observe`.
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

    /// Runs a round if there is a reason, and gives what differs: nothing, that
    /// there is trouble, or what came of the round. Nothing is removed before
    /// every kind of object has been listed once, and nothing made before that
    /// but what the previous run knew.
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
            Ok(outcome) => outcome,
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

    /// Why a round should run now.
    fn reason(&self, before: &Option<Trouble>, now: Duration) -> Reason {
        let look = self.protection.is_due(now).then_some(Reason::Look);
        let again = before.is_some().then_some(Reason::Retry);
        let reasons = [Some(self.reason), look, again].into_iter().flatten();
        reasons.max().expect("one is always given")
    }
}

#[cfg(test)]
mod tests;
