//! The loop: one thread that hears events, keeps the objects, runs rounds when
//! something is different or due, and says what came of it.

mod edges;
mod health;
mod hear;
mod protect;

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use crds::{
    AddressRule, CheckedGroup, Kind, ObjectKey, Objects,
    api::{DirectorException, WorldDigests},
    resolve,
};
use ipvs::{Kernel, OnConflict};
use tokio::sync::mpsc::UnboundedSender;

use self::{edges::edges, health::Health, protect::Protection};
use crate::{
    caution::Caution,
    checkpoint::{Recorder, Tee},
    claim::Segments,
    clock::Clock,
    desired::{Desired, changed_services, desired, on_conflict, timeouts},
    event::Event,
    host::{
        addresses::{Holding, holding},
        listeners::Listening,
        netlink::{LinkError, Links},
        surroundings::Surroundings,
        sysctls::Sysctls,
    },
    journal::{Journal, JournalError, NoJournal, Remembered},
    probe::Order,
    report::{Observed, Trouble, complaints, oddities, unreadable},
    retry::{Retry, Subject},
    round::{self, Outcome, Removals, State, Wish},
    serving::memory::Memory,
    sysctls::Tuning,
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
    /// What is wanted, without what is refused.
    desired: Arc<Desired>,
    protection: Protection,
    health: Health,
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
            world,
            kernel: None,
            links: None,
            journal: Err(NoJournal(String::new())),
            objects: Objects::default(),
            directors: None,
            caution: Caution::default(),
            unsaved: None,
            desired: Arc::default(),
            protection: Protection::new(),
            health: Health::new(standings),
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
        let is_due = self.due || self.protection.is_due(now);
        let reason = self.changed || is_due || before.is_some();
        let listed = self.objects.is_listed();
        if !(listed || self.restored) || !reason {
            return None;
        }
        if self.protection.waits(self.directors.is_some(), now) {
            return None;
        }
        if self.changed {
            let resolved = resolve(&self.objects);
            self.protection.wish(desired(&resolved, &self.group));
            self.unreadable = unreadable(&self.objects, &resolved, &self.group);
            if listed {
                let complaints = complaints(&self.objects, &resolved, &self.group);
                complain(&mut self.complaints, complaints);
            }
        }
        if self.changed || self.protection.is_due(now) {
            match self.protected(now) {
                Ok(desired) => self.wish(desired),
                Err(error) => {
                    self.kernel_failed(&error, &before, now);
                    return listed.then(|| self.observed(None));
                }
            }
        }
        self.changed = false;
        self.due = false;
        let outcome = self.round(&before, now);
        self.acted = Some(Instant::now());
        if let Some(outcome) = &outcome {
            let hold = self.caution.hold();
            let mut oddities = oddities(outcome, &self.desired, hold.as_ref(), &self.group);
            oddities.extend(self.protection.report().lines());
            complain(&mut self.oddities, oddities);
        }
        listed.then(|| self.observed(outcome))
    }

    /// This is to be in force from now on.
    fn wish(&mut self, desired: Arc<Desired>) {
        if Arc::ptr_eq(&self.desired, &desired) {
            return;
        }
        let changed = changed_services(&self.desired, &desired);
        self.state.wish_changed(changed.iter().copied());
        // Whom the kernel serves already is not to wait for a verdict.
        let checked = changed
            .iter()
            .filter(|key| desired.guarded.contains_key(key));
        self.state.look_at_strangers(checked.copied());
        self.health.wish_changed(changed, &self.desired, &desired);
        self.desired = desired;
    }

    fn round(&mut self, before: &Option<Trouble>, now: Duration) -> Option<Outcome> {
        let removals = self.removals(now);
        let holding = self.holding(now);
        // Of a group that was never accepted the most careful is assumed.
        let (on_conflict, timeouts, rule) = match self.in_force() {
            Some(group) => {
                let rule = group.addresses.clone();
                (on_conflict(group), Some(timeouts(group)), rule)
            }
            None => (OnConflict::Leave, None, AddressRule::default()),
        };
        let tuning = self.in_force().map(Tuning::from);
        let mut edges = edges(
            &mut self.kernel,
            &mut self.links,
            &mut self.journal,
            &mut self.world,
        )?;
        let wall = self.clock.wall(now);
        let is_listed = self.objects.is_listed();
        let read = round::read(&mut self.state, &mut edges);
        let settled = read.map(|()| {
            self.health
                .settle(&self.desired, is_listed, &mut self.state, wall);
        });
        let wish = Wish {
            desired: &self.desired,
            table: &self.health.table,
            leaving: &self.health.leaving,
            serving: &self.health.serving,
            rule: &rule,
            holding,
            removals,
            on_conflict,
            timeouts,
            tuning: tuning.as_ref(),
        };
        let outcome = settled.and_then(|()| round::run(&mut self.state, &mut edges, &wish, now));
        if let (Ok(outcome), true) = (&outcome, is_listed) {
            let held = &outcome.removals_held;
            self.health
                .keep_held(held, &self.desired, &mut self.state, wall);
        }
        self.health.tell(&self.recorder, &self.world.orders);
        match outcome {
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
                self.kernel_failed(&error, before, now);
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
        let Some(group) = self.in_force() else {
            return Holding::Undecided;
        };
        let holder = group.holder.as_deref();
        holding(
            &group.addresses,
            holder,
            &self.name,
            self.directors.as_ref(),
        )
    }

    fn observed(&mut self, outcome: Option<Outcome>) -> Observed {
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
            health: self.health.report(&self.desired),
            hold: self.caution.hold(),
            protection: self.protection.report(),
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
