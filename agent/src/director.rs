//! The loop: one thread that hears events, keeps the objects, runs rounds when
//! something is different or due, and says what came of it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use crds::{
    CheckedGroup, Kind, ObjectKey, Objects,
    api::{DirectorException, WorldDigests},
    resolve,
};
use ipvs::{Kernel, OnConflict};

use crate::{
    caution::Caution,
    checkpoint::{Note, Recorder, Tee},
    clock::Clock,
    desired::{Desired, changed_services, desired, on_conflict, timeouts},
    event::Event,
    host::{
        addresses::{Holding, holding},
        netlink::{LinkError, Links},
    },
    journal::{Journal, JournalError, NoJournal, Remembered},
    report::{Observed, Trouble, complaints, oddities, unreadable},
    retry::{Retry, Subject},
    round::{self, Edges, Outcome, Removals, State, Wish},
};

/// Changes that come within this time of each other make one round.
const QUIET: Duration = Duration::from_millis(20);
/// But a round is not put off for longer than this.
const PATIENCE: Duration = Duration::from_millis(500);
/// The loop wakes at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

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
}

/// The loop's state.
pub struct Director {
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
    unsaved: Option<String>,
    desired: Arc<Desired>,
    unreadable: Vec<DirectorException>,
    /// What is wrong with objects, as said.
    complaints: BTreeSet<String>,
    /// What is odd on this host, as said.
    oddities: BTreeSet<String>,
    state: State,
    /// Back-off of opening the edges.
    retry: Retry,
    trouble: Option<Trouble>,
    changed: bool,
    due: bool,
    /// When the last round ended.
    acted: Option<Instant>,
}

impl Director {
    /// A director that has heard nothing yet.
    pub fn new(
        name: String,
        group: String,
        clock: Clock,
        world: World,
        recorder: Recorder,
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
            world,
            kernel: None,
            links: None,
            journal: Err(NoJournal(String::new())),
            objects: Objects::default(),
            directors: None,
            caution: Caution::default(),
            unsaved: None,
            desired: Arc::default(),
            unreadable: Vec::new(),
            complaints: BTreeSet::new(),
            oddities: BTreeSet::new(),
            state: State::default(),
            retry: Retry::default(),
            trouble: None,
            changed: false,
            due: false,
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

    /// Waits for events until the next deadline, and takes in all that come
    /// close together. False when it is time to stop.
    fn hear(&mut self, events: &Receiver<Event>) -> bool {
        let now = self.clock.now();
        let wait = self.next_deadline(now).saturating_sub(now);
        match events.recv_timeout(wait) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                self.due = true;
                return true;
            }
            Ok(event) => self.take(event),
        }
        let latest = self.clock.now() + PATIENCE;
        while self.clock.now() < latest {
            match events.recv_timeout(QUIET) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
                Ok(event) => self.take(event),
            }
        }
        true
    }

    fn take(&mut self, event: Event) {
        self.changed |= match event {
            Event::VirtualService(change) => {
                let store = &mut self.objects.virtual_services;
                self.services.change(store, change)
            }
            Event::RealServer(change) => {
                let store = &mut self.objects.real_servers;
                self.servers.change(store, change)
            }
            Event::DirectorGroup(change) => {
                let store = &mut self.objects.director_groups;
                self.groups.change(store, change)
            }
            Event::Caution(word) => {
                self.due |= self.caution.hear(word);
                false
            }
            Event::Reading(began, reading) => {
                let is_old = self.acted.is_some_and(|acted| began < acted);
                self.due |= self.state.hint(&reading, is_old);
                false
            }
            Event::Unread => {
                self.state.distrust();
                self.due = true;
                false
            }
            Event::Restored => {
                self.restored = true;
                true
            }
            Event::Directors(directors) => {
                self.recorder.note(Note::Directors(directors.clone()));
                let directors = Some(directors);
                let changed = self.directors != directors;
                self.directors = directors;
                changed
            }
            Event::Probed(..) | Event::ProbesVoid(_) | Event::Stop => false,
        };
    }

    /// When there is something to do without an event. Without rounds nothing
    /// that waits for one is due.
    fn next_deadline(&self, now: Duration) -> Duration {
        let round = match self.trouble {
            None => self.state.next_deadline(),
            Some(_) => None,
        };
        let grace = self.is_in_grace(now).then_some(VIP_GRACE);
        [round, grace, self.retry.next_deadline()]
            .into_iter()
            .flatten()
            .fold(now + LONGEST_SLEEP, Duration::min)
    }

    /// Runs a round if there is reason to, and says what is different: nothing,
    /// that there is trouble, or what the round came to. Nothing is removed
    /// before every kind of object has been listed once, and nothing made
    /// before that but what an earlier life knew.
    fn act(&mut self, now: Duration) -> Option<Observed> {
        let observed = self.act_if_possible(now);
        self.retry.expire(now);
        observed
    }

    fn act_if_possible(&mut self, now: Duration) -> Option<Observed> {
        let before = self.trouble.take();
        self.trouble = self.obstacle(&before, now).err();
        if self.trouble.is_some() {
            return (self.trouble != before).then(|| self.observed(None));
        }
        let reason = self.changed || self.due || before.is_some();
        let listed = self.objects.is_listed();
        if !(listed || self.restored) || !reason {
            return None;
        }
        if self.changed {
            let resolved = resolve(&self.objects);
            let desired = desired(&resolved, &self.group);
            let changed = changed_services(&self.desired, &desired);
            self.state.wish_changed(changed);
            self.desired = Arc::new(desired);
            self.unreadable = unreadable(&self.objects, &resolved, &self.group);
            if listed {
                let complaints = complaints(&self.objects, &resolved, &self.group);
                complain(&mut self.complaints, complaints);
            }
        }
        self.changed = false;
        self.due = false;
        let outcome = self.round(&before, now);
        self.acted = Some(Instant::now());
        if let Some(outcome) = &outcome {
            let hold = self.caution.hold();
            let oddities = oddities(outcome, hold.as_ref(), &self.group);
            complain(&mut self.oddities, oddities);
        }
        listed.then(|| self.observed(outcome))
    }

    fn round(&mut self, before: &Option<Trouble>, now: Duration) -> Option<Outcome> {
        let removals = self.removals(now);
        let holding = self.holding(now);
        // Of a group that was never accepted the most careful is assumed.
        let (on_conflict, timeouts) = match self.in_force() {
            Some(group) => (on_conflict(group), Some(timeouts(group))),
            None => (OnConflict::Leave, None),
        };
        let mut edges = Edges {
            kernel: self.kernel.as_mut()?.as_mut(),
            links: self.links.as_mut()?.as_mut(),
            journal: match &mut self.journal {
                Ok(journal) => journal.as_mut(),
                Err(none) => none,
            },
        };
        let wish = Wish {
            desired: &self.desired,
            holding,
            removals,
            on_conflict,
            timeouts,
        };
        match round::run(&mut self.state, &mut edges, &wish, now) {
            Ok(mut outcome) => {
                self.retry.succeeded(Subject::Kernel);
                if let Err(NoJournal(why)) = &self.journal {
                    outcome.failures.insert(Subject::Journal, why.clone());
                }
                if outcome.failures.contains_key(&Subject::Links) {
                    // Its connection ends with an error of the socket's.
                    self.links = None;
                }
                Some(outcome)
            }
            Err(error) => {
                let trouble = Trouble::Kernel(error.to_string());
                if before.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                }
                if !matches!(error, ipvs::Error::RepliesLost) {
                    self.kernel = None;
                }
                self.retry.failed(Subject::Kernel, now);
                self.trouble = Some(trouble);
                None
            }
        }
    }

    /// The group as it was accepted last.
    fn in_force(&self) -> Option<&CheckedGroup> {
        let group = self.objects.group(&self.group);
        group.and_then(|group| group.in_force())
    }

    fn removals(&mut self, now: Duration) -> Removals {
        if !self.objects.is_listed() {
            return Removals::NotYet;
        }
        let allowed_until = self
            .in_force()
            .and_then(|group| group.removals_allowed_until);
        let wall = self.clock.wall(now).as_second();
        let removals = self
            .caution
            .judge(allowed_until.is_some_and(|until| wall < until));
        if let Ok(journal) = &mut self.journal
            && let Err(error) = self.caution.save(journal.as_mut())
            && self.unsaved.replace(error.to_string()) != Some(error.to_string())
        {
            tracing::warn!("{error}");
        }
        removals
    }

    fn is_in_grace(&self, now: Duration) -> bool {
        self.restored && !self.objects.is_listed() && now < VIP_GRACE
    }

    fn holding(&self, now: Duration) -> Holding {
        if self.is_in_grace(now) || self.caution.is_elsewhere() {
            return Holding::Undecided;
        }
        let holder = self.in_force().and_then(|group| group.holder.as_deref());
        holding(holder, &self.name, self.directors.as_ref())
    }

    /// Opens what is not open, and says why no round can run.
    fn obstacle(&mut self, before: &Option<Trouble>, now: Duration) -> Result<(), Trouble> {
        self.open_journal(now);
        let waits = [Subject::Kernel, Subject::Links]
            .into_iter()
            .any(|subject| !self.retry.allows(subject, now));
        if let (true, Some(trouble)) = (waits, before) {
            return Err(trouble.clone());
        }
        if self.kernel.is_none() {
            let opened = (self.world.kernel)().map_err(|error| Trouble::Kernel(error.to_string()));
            self.kernel = Some(self.tried(Subject::Kernel, opened, before, now)?);
        }
        if self.links.is_none() {
            let opened = (self.world.links)().map_err(|error| Trouble::Links(error.to_string()));
            self.links = Some(self.tried(Subject::Links, opened, before, now)?);
        }
        if self.objects.is_listed() && self.objects.group(&self.group).is_none() {
            let trouble = Trouble::Group(self.group.clone());
            if before.as_ref() != Some(&trouble) {
                tracing::error!("{trouble}");
            }
            return Err(trouble);
        }
        Ok(())
    }

    /// Without a journal the rounds go on as far as they can.
    fn open_journal(&mut self, now: Duration) {
        if self.journal.is_ok() || !self.retry.allows(Subject::Journal, now) {
            return;
        }
        match (self.world.journal)() {
            Ok((journal, remembered)) => {
                self.caution.remember(remembered.cluster.clone());
                self.state.remember(remembered);
                self.retry.succeeded(Subject::Journal);
                self.due = true;
                if let Err(NoJournal(said)) = std::mem::replace(&mut self.journal, Ok(journal))
                    && !said.is_empty()
                {
                    tracing::info!("the state folder can be used again");
                }
            }
            Err(error) => {
                let NoJournal(said) = self.journal.as_ref().err().expect("looked at above");
                let message = error.to_string();
                if *said != message {
                    tracing::error!("{message}");
                }
                self.journal = Err(NoJournal(message));
                self.retry.failed(Subject::Journal, now);
            }
        }
    }

    fn tried<T>(
        &mut self,
        subject: Subject,
        opened: Result<T, Trouble>,
        before: &Option<Trouble>,
        now: Duration,
    ) -> Result<T, Trouble> {
        match opened {
            // Its back-off ends with a round that succeeds, or with none to run.
            Ok(edge) => Ok(edge),
            Err(trouble) => {
                if before.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}");
                }
                self.retry.failed(subject, now);
                Err(trouble)
            }
        }
    }

    fn observed(&self, outcome: Option<Outcome>) -> Observed {
        let used = outcome.as_ref().map(|_| WorldDigests {
            virtual_services: self
                .objects
                .virtual_services
                .digest(Some(&self.group))
                .to_string(),
            real_servers: self.objects.real_servers.digest(None).to_string(),
            director_groups: self
                .objects
                .director_groups
                .digest_of(&ObjectKey::cluster(self.group.as_str()))
                .to_string(),
        });
        Observed {
            at: self.clock.wall(self.clock.now()),
            group: self.group.clone(),
            used,
            outcome,
            trouble: self.trouble.clone(),
            wishes: self.desired.clone(),
            unreadable: self.unreadable.clone(),
            hold: self.caution.hold(),
        }
    }
}

/// Says what was not said before.
fn complain(said: &mut BTreeSet<String>, complaints: BTreeSet<String>) {
    for complaint in complaints.difference(said) {
        tracing::warn!("{complaint}");
    }
    *said = complaints;
}

#[cfg(test)]
mod tests;
