//! The loop: one thread that receives events, keeps the objects, runs rounds,
//! and reports the results. The loop runs a round after a change, or when a
//! deadline has come.

mod drain;
mod edges;
mod hear;
mod holder;
mod protect;
mod reason;
mod report;
mod round;
mod trail;
mod weigh;

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use crds::{Kind, Objects, api::DirectorException};
use ipvs::{Kernel, Op, ServiceKey};
use tokio::sync::mpsc::UnboundedSender;

use self::{drain::Draining, protect::Protection, reason::Reason, weigh::Health};
use crate::{
    act::{State, retry::Retry},
    claim::Segments,
    clock::Clock,
    decide::{
        absence::Absence,
        caution::Caution,
        desired::Desired,
        liveness::Liveness,
        ours::Remembered,
        permission::{Daytime, Doubt},
        places::Places,
        retain::Retention,
        serving::memory::Memory,
    },
    disk::{
        checkpoint::{Recorder, Tee},
        journal::{Journal, JournalError, NoJournal},
    },
    event::Event,
    heartbeat::Heartbeat,
    host::{
        netlink::{LinkError, Links},
        sockets::Sockets,
        surroundings::Surroundings,
        sysctls::Sysctls,
    },
    input::{
        leases::{Leases, Looks},
        reader::Followed,
    },
    probe::target::{Order, Rates},
    ration::{Line, Ration},
    said::Said,
    tell::{
        health::Pulse,
        report::{Observed, Trouble},
    },
    trail::Trail,
};

/// How long the agent waits after its start before it restores VIPs of the
/// previous run. Another director may have taken the VIPs while the agent was
/// down. Once all objects have been listed, the agent waits no longer. The
/// agent restores the IPVS table without a wait.
const VIP_GRACE: Duration = Duration::from_secs(5);

/// If a kind of object is not listed this long after the agent's start, the
/// agent reports the kind's name.
const LISTING_TIME: Duration = Duration::from_secs(60);

/// If the listing has not come this long after the agent's start, drains end as
/// the previous run knew them.
const LATE_LISTING: Duration = Duration::from_secs(30);

/// Opens one of the loop's connections to the outside, such as the kernel or
/// the journal.
pub type Opener<T, E> = Box<dyn FnMut() -> Result<T, E> + Send>;

/// The loop's connections to the outside, called edges. Each edge (connection
/// to the outside) is opened when it is first needed, and opened again after an
/// error.
pub struct World {
    /// Opens the kernel's IPVS table.
    pub kernel: Opener<Box<dyn Kernel>, ipvs::Error>,
    /// Opens the socket that reads and changes the host's interfaces.
    pub links: Opener<Box<dyn Links>, LinkError>,
    /// Opens the journal and reads its content.
    pub journal: Opener<(Box<dyn Journal>, Remembered), JournalError>,
    /// Reads and writes the host's sysctls.
    pub sysctls: Box<dyn Sysctls + Send>,
    /// The Ethernet segments that the host's interfaces are connected to.
    pub segments: Box<dyn Segments + Send>,
    /// The reader of other directors' Leases, or none if the agent uses no API
    /// server. Without an API server, the agent assumes that the group's holder
    /// is alive.
    pub leases: Option<Box<dyn Leases + Send>>,
    /// The sockets of the host's programs.
    pub sockets: Box<dyn Sockets + Send>,
    /// Whether services are programmed even if they take the director's own
    /// traffic.
    pub may_hijack: bool,
    /// The facts about the host's network that sysctls depend on.
    pub surroundings: Box<dyn Surroundings + Send>,
    /// Reads the time since the host started, including the time during which
    /// the host was suspended.
    pub uptime: Box<dyn FnMut() -> Duration + Send>,
    /// The services whose connections the reader reads.
    pub followed: Followed,
    /// Reads the time of day.
    pub daytime: Box<dyn FnMut() -> Daytime + Send>,
    /// The channel for orders to start and stop probes.
    pub orders: UnboundedSender<Order>,
    /// The loop's end of the channel to the audit trail.
    pub trail: Trail,
    /// Tells a kubelet's probes that a table is in force.
    pub pulse: Pulse,
    /// Shows to other threads that the loop works.
    pub heartbeat: Heartbeat,
    /// The heartbeat of the thread that makes probes.
    pub prober: Heartbeat,
}

/// The loop and the state that it keeps between rounds.
pub struct Loop {
    name: String,
    group: String,
    clock: Clock,
    /// The uptime of the host at the loop's start.
    started: Duration,
    world: World,
    kernel: Option<Box<dyn Kernel>>,
    links: Option<Box<dyn Links>>,
    /// The open journal, or the reason why it is not open.
    journal: Result<Box<dyn Journal>, NoJournal>,
    objects: Objects,
    /// Each of the tees `services`, `servers` and `groups` handles one kind of
    /// object. A tee copies each change of an object to `objects` and to the
    /// checkpoint.
    services: Tee,
    servers: Tee,
    groups: Tee,
    recorder: Recorder,
    /// The reason why the checkpoint cannot be written, or none if it can be
    /// written.
    checkpoint_trouble: Option<String>,
    /// The mistakes in the manifests, one sentence each.
    manifest_problems: Vec<String>,
    /// Whether the objects of the previous run were restored. The loop uses the
    /// restored objects until the inputs have listed all objects.
    restored: bool,
    directors: Option<BTreeSet<String>>,
    liveness: Liveness,
    /// The cached result of `lacks_any`, after its inputs: the wanted state and
    /// the number of address changes.
    lacks_any: Option<(Arc<Desired>, u64, bool)>,
    /// The directors whose Leases the agent looks at.
    asked: Looks,
    caution: Caution,
    /// The objects that listings left out, with the reasons to doubt their
    /// deletion.
    absence: Absence,
    /// The last logged error about writing two records of the journal: the
    /// cluster's id and the refused entries.
    unsaved: Said,
    protection: Protection,
    places: Places,
    retention: Retention,
    draining: Draining,
    /// The services whose wanted state or state in force has changed since the
    /// last update of `health`.
    changed: BTreeSet<ServiceKey>,
    /// The removals that are held until they are allowed.
    held: Vec<Op>,
    /// Why the agent ignores the group's permission for removals, or none if it
    /// ignores no permission.
    doubt: Option<Doubt>,
    health: Health,
    /// The probe rates that the loop last sent to the prober.
    rates: Rates,
    unreadable: Vec<DirectorException>,
    /// Whether objects wait for room in a budget.
    waits_for_room: bool,
    /// The last logged problems of objects.
    complaints: Said<Line>,
    /// The last logged unusual conditions of this host.
    oddities: Said<Line>,
    /// Limits the log lines about the objects of each namespace.
    ration: Ration,
    state: State,
    /// The back-off for opening edges again after an error.
    retry: Retry,
    trouble: Option<Trouble>,
    /// The kinds that were not listed at the last report, if any.
    told_unlisted: Option<Trouble>,
    /// The strongest [`Reason`] that came up since the last round.
    reason: Reason,
    /// When the last round ended, or none before the first round.
    acted: Option<Duration>,
}

impl Loop {
    /// Returns a loop that has received no event yet. `standings` is the
    /// servers' health as the previous run stored it.
    pub fn new(
        name: String,
        group: String,
        clock: Clock,
        mut world: World,
        recorder: Recorder,
        standings: Memory,
    ) -> Self {
        let tee = |kind| Tee::new(kind, recorder.clone());
        Self {
            services: tee(Kind::VirtualService),
            servers: tee(Kind::RealServer),
            groups: tee(Kind::DirectorGroup),
            checkpoint_trouble: None,
            manifest_problems: Vec::new(),
            restored: false,
            name,
            group,
            clock,
            started: (world.uptime)(),
            kernel: None,
            links: None,
            journal: Err(NoJournal(String::new())),
            objects: Objects::default(),
            directors: None,
            liveness: Liveness::default(),
            lacks_any: None,
            asked: Looks::new(),
            caution: Caution::default(),
            absence: Absence::of_new_run(),
            unsaved: Said::default(),
            protection: Protection::new(world.may_hijack),
            world,
            places: Places::default(),
            retention: Retention::default(),
            draining: Draining::default(),
            changed: BTreeSet::new(),
            held: Vec::new(),
            doubt: None,
            health: Health::new(standings),
            rates: Rates::default(),
            unreadable: Vec::new(),
            waits_for_room: false,
            complaints: Said::default(),
            oddities: Said::default(),
            ration: Ration::default(),
            state: State::default(),
            retry: Retry::default(),
            trouble: None,
            told_unlisted: None,
            reason: Reason::Nothing,
            acted: None,
            recorder,
        }
    }

    /// Runs the loop until [`Event::Stop`], or until all senders of events are
    /// gone. Calls `observe` with the loop's findings whenever they may have
    /// changed.
    pub fn run(mut self, events: &Receiver<Event>, observe: &mut dyn FnMut(Observed)) {
        loop {
            if !self.hear(events) {
                return;
            }
            self.world.heartbeat.beat();
            if let Some(observed) = self.act(self.clock.now()) {
                observe(observed);
            }
        }
    }

    /// Runs a round if there is a reason for one. Returns the outcome of the
    /// round, or the trouble that prevented it. Returns none if there is
    /// nothing new to report. Until all kinds of objects have been listed,
    /// rounds remove no entries, and create only entries that the previous run
    /// knew.
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
        if self.health.prober_beat(self.world.prober.age(), now) {
            self.reason = self.reason.max(Reason::Retry);
        }
        let listed = self.objects.is_listed();
        let is_known = listed || self.restored;
        let unlisted = self.unlisted(now);
        if is_known && unlisted != self.told_unlisted {
            self.reason = self.reason.max(Reason::Retry);
        }
        let reason = self.reason(&before, now);
        if reason == Reason::Nothing
            || !is_known
            || self.protection.waits(self.directors.is_some(), now)
        {
            let is_news = unlisted.is_some() && unlisted != self.told_unlisted;
            return is_news.then(|| self.observed(None, now));
        }
        if reason == Reason::Resolve {
            self.resolve(now);
            self.world.heartbeat.beat();
        }
        self.reason = Reason::Nothing;
        let served = self.waits_for_room.then(|| self.served());
        let outcome = match self.round(now) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                self.kernel_failed(&error, &before, now);
                None
            }
        };
        self.tell_trail(outcome.as_ref(), now);
        self.acted = Some(self.clock.now());
        if served.is_some_and(|before| self.served() < before) {
            self.reason = Reason::Resolve;
        }
        if let Some(outcome) = &outcome {
            self.world.pulse.in_force();
            self.log_oddities(outcome, now);
        }
        (listed || unlisted.is_some()).then(|| self.observed(outcome, now))
    }

    /// Returns the kinds of objects that were not listed although the agent has
    /// run for a while.
    fn unlisted(&self, now: Duration) -> Option<Trouble> {
        let kinds = self.objects.unlisted();
        let kinds = kinds.map(|kind| format!("{kind}s"));
        let members = self.directors.is_none();
        let members = members.then(|| "DirectorGroupMembers".to_owned());
        let kinds: Vec<_> = kinds.chain(members).collect();
        let is_late = now >= LISTING_TIME && !kinds.is_empty();
        is_late.then(|| Trouble::NotListed(kinds.join(", ")))
    }

    /// Returns the time since the host's start, at the time `now` of the loop's
    /// clock. The loop's clock stands still while the host is suspended.
    fn uptime(&mut self, now: Duration) -> Duration {
        (self.world.uptime)().max(self.started + now)
    }

    /// Returns how many services and servers this director serves.
    fn served(&self) -> usize {
        let services = &self.state.ours().table.services;
        services.len() + services.values().map(BTreeSet::len).sum::<usize>()
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
