//! Decides which entries stay in force although they are no longer wanted. The
//! stage is pure: time is an argument.
//!
//! ```text
//! wanted ───────────────────┐               ┌─▶ in force: wanted plus retained
//! before: ours and in the   ├─▶ Retention ──┤
//!         kernel, checks    │    (memory)   └─▶ held: the removals that wait
//! removals: allowed or not, │
//!         absent objects ───┘
//!
//! no longer wanted ─▶ held, as it was ─▶ grace: no new ─▶ removed
//!                     until allowed      connections
//! ```
//!
//! The retention stage prevents removals that must not happen, by keeping the
//! entries in force. An entry stays in force if it is ours, in the kernel and
//! no longer wanted. Its check, its VIP and its sysctls stay too, and a server
//! keeps its place in the service's order. Later stages plan for a table that
//! includes the kept entries, so they never plan a held removal.
//!
//! A removal that is allowed begins with a grace ([`grace`]). The entries get no
//! new connections, and leave when their clients have finished or when their
//! period is over. If an object is deleted and created again within 10 s
//! ([`departures::GRACE`](crate::decide::departures::GRACE)), its entries never leave the kernel. The entries of the new object
//! keep their connections, their order and the verdicts about their servers.
//!
//! Drains that objects declare ([`crate::decide::drains`]) are followed here too.
//! No removal guard applies to them.

mod doubt;
mod force;
mod grace;
mod leaving;
mod looks;
mod merge;
mod record;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipvs::{ActualTable, Op, Owned, ServiceKey};

use self::{
    force::Kept,
    grace::{Graces, removal},
    leaving::{Leavings, contains, entry, leaving, ops},
    looks::Waits,
};
pub use self::{looks::ClusterLooks, traffic::Traffic};
use crate::decide::{
    absence::{Absence, Cause, Doubtful},
    departures::{Departure, Entry, Place},
    desired::{Desired, Wish},
    drains::{Drains, Known},
    guard::{Count, Guard, WINDOW},
    ours::Remembered,
};

/// Whether entries of ours that are no longer wanted may be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removals {
    /// All entries are retained, because objects that are not known yet may
    /// want them.
    NotYet {
        /// Whether the listing of the objects is late.
        is_late: bool,
    },
    /// The [`crate::decide::guard`] decides how many entries may be removed.
    /// The entries of an object stay while the object's absence is not believed
    /// ([`crate::decide::absence`]).
    Guarded,
    /// All entries are retained, regardless of their number, because
    /// [`crate::decide::caution`] holds their removal.
    Held {
        /// Whether the entries stay held after the reason for the hold is gone.
        lasting: bool,
    },
    /// No removal is held: the administrator allowed the removals.
    Released,
}

/// The state of this director before a decision.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The entries that are ours according to the journal.
    pub ours: &'a Remembered,
    /// The kernel's table as last read.
    pub kernel: &'a ActualTable,
    /// The services whose wanted state or state in the kernel may have changed
    /// since the last call. None means that every service may have changed.
    pub changed: Option<&'a BTreeSet<ServiceKey>>,
    /// The objects that listings left out, with the judgement about their
    /// absence.
    pub absence: &'a Absence,
    /// The looks at the cluster that removals wait for.
    pub looks: ClusterLooks,
    /// The time since the host's start, on which drains and graces run.
    pub uptime: Duration,
    /// What is known of the connections of the entries that leave.
    pub traffic: Traffic<'a>,
}

/// The result of the retention stage.
#[derive(Clone, Debug)]
pub struct Retained {
    /// The wanted state plus the retained entries.
    pub in_force: Wish,
    /// The held removals, which wait because they are not allowed yet. A
    /// removal that waits for a look at the cluster is not among them.
    pub held: Vec<Op>,
    /// The services whose state in force may have changed because of retained
    /// entries. A change of the wanted state alone adds no service to this set.
    pub changed: BTreeSet<ServiceKey>,
    /// The objects whose absence is not believed, or none if this call did not
    /// judge absences. The removals of these objects' entries are held.
    pub doubtful: Option<Doubtful>,
}

/// The state that the retention stage keeps between calls.
#[derive(Debug)]
pub struct Retention {
    drains: Drains,
    /// When the next entry may be removed.
    deadline: Option<Duration>,
    /// The uptime at the time 0 of the caller's clock.
    skew: Duration,
    /// The longest time for which an entry stays after its removal was allowed.
    longest: Duration,
    /// The servers that stay drained, although the wanted state is older and
    /// does not say so.
    recorded: BTreeSet<Place>,
    /// The periods of services as of their deletion, which the wanted state may
    /// never have had.
    last_periods: BTreeMap<ServiceKey, Duration>,
    guard: Guard,
    graces: Graces,
    waits: Waits,
    /// The entries that were no longer wanted at the last call, retained or
    /// not.
    leaving: Leavings,
    /// The entries of `leaving` that were retained at the last call.
    retained: BTreeMap<ServiceKey, Kept>,
    /// The wanted state (`wanted`) and the state in force (`in_force`) of the
    /// last call.
    wanted: Arc<Desired>,
    in_force: Arc<Desired>,
}

/// A retention stage that has seen no entries yet.
impl Default for Retention {
    fn default() -> Self {
        Self::staying_for(Duration::MAX)
    }
}

impl Retention {
    /// Returns a retention stage for which each allowed removal is due at once.
    pub fn immediate() -> Self {
        Self::staying_for(Duration::ZERO)
    }

    fn staying_for(longest: Duration) -> Self {
        Self {
            drains: Drains::default(),
            deadline: None,
            skew: Duration::ZERO,
            longest,
            recorded: BTreeSet::new(),
            last_periods: BTreeMap::new(),
            guard: Guard::default(),
            graces: Graces::default(),
            waits: Waits::default(),
            leaving: BTreeMap::new(),
            retained: BTreeMap::new(),
            wanted: Arc::default(),
            in_force: Arc::default(),
        }
    }

    /// Returns the services that the round at `now` may remove because their
    /// grace ends.
    pub fn ending(&self, now: Duration) -> impl Iterator<Item = ServiceKey> {
        self.graces.ending(now + self.skew)
    }

    /// Returns when the next entry may be removed, because its grace or a drain
    /// ends.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether an entry may be removed at `now` because its clients have
    /// finished.
    pub fn is_any_freed(&self, before: Before<'_>) -> bool {
        let is_free = |entry: &Entry| before.is_free(entry);
        self.graces.is_any_over(is_free, before.uptime)
    }

    /// Returns the services with drained servers or with entries in their grace,
    /// whose connections must be read.
    pub fn followed(&self) -> BTreeSet<ServiceKey> {
        let drained = self.drains.running().map(|((service, _), ..)| *service);
        let going = self.graces.running().map(|((service, _), _)| *service);
        drained.chain(going).collect()
    }

    /// Notes the period of a service whose object is being deleted. If the object
    /// was edited just before, no wanted state has had this period.
    pub fn note_deleted(&mut self, service: ServiceKey, period: Duration) {
        self.last_periods.insert(service, period);
    }

    /// Returns the drains that objects declare.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// Decides which entries that are no longer `wanted` stay in force.
    ///
    /// An entry is retained only if the journal records it as ours *and* the
    /// kernel has it. An entry that another process deleted in the meantime is
    /// not created again.
    pub fn retain(
        &mut self,
        wanted: Wish,
        before: Before<'_>,
        removals: Removals,
        now: Duration,
    ) -> Retained {
        self.skew = before.uptime.saturating_sub(now);
        let is_early = matches!(removals, Removals::NotYet { .. });
        let ended = self.follow_drains(&wanted.desired, before, removals);
        self.find_leaving(&wanted.desired, before, is_early);
        let waiting = self.waiting(before, removals);
        let mut doubtful = None;
        // Entries that stay held even if their number is within the budget.
        let barred = match removals {
            Removals::NotYet { .. } | Removals::Held { .. } => self.leaving.clone(),
            Removals::Guarded => {
                let doubted = self.doubted(before);
                // A listing is judged once its cluster is known.
                let is_known = !before.looks.awaits_listing();
                doubtful = is_known.then(|| self.objects_of(&doubted));
                doubted
            }
            Removals::Released => Leavings::new(),
        };
        // Before all objects are known, the removals that the previous run
        // allowed go on.
        if !is_early {
            self.graces.stop_if(|entry| contains(&barred, entry));
        }
        let mut pending = self.not_begun();
        pending.retain(|op| !contains(&barred, &entry(op)) && !waiting.contains(&entry(op)));
        let are_allowed = match removals {
            Removals::NotYet { .. } => false,
            Removals::Held { lasting } => {
                if lasting {
                    self.guard.hold(&ops(&self.leaving));
                }
                false
            }
            Removals::Guarded | Removals::Released => {
                let is_released = removals == Removals::Released;
                // In most rounds no entry leaves, so the entries need not be counted.
                let (going, left) = match pending.is_empty() {
                    true => <(Count, Count)>::default(),
                    false => (self.going(before.uptime), self.left(&before.ours.table)),
                };
                !self.guard.holds(&pending, going, left, is_released, now)
            }
        };
        if are_allowed {
            self.begin_graces(&pending, &wanted.desired, before);
        }
        let graces = &self.graces;
        let leaving = &self.leaving;
        self.last_periods
            .retain(|key, _| leaving.contains_key(key) && !graces.has_begun(&(*key, None)));
        let desired = &wanted.desired;
        let longest = self.longest;
        self.graces.set_periods(|(service, server)| {
            let is_kept = server.is_some() && desired.table.contains_key(service);
            is_kept.then(|| desired.period(service).min(longest))
        });
        if removals != (Removals::NotYet { is_late: false }) {
            for (since, op) in self
                .graces
                .end(|entry| before.is_free(entry), before.uptime)
            {
                self.guard.count(&op, since.saturating_sub(self.skew), now);
            }
        }
        self.deadline = self.next_end(before.uptime, removals).map(|end| now + end);
        let mut changed = self.put_in_force(&wanted.desired, before);
        changed.extend(ended);
        let mut in_force = Wish {
            desired: self.in_force.clone(),
            ..wanted
        };
        if is_early {
            in_force.keep_all_of(before.ours);
        }
        Retained {
            in_force,
            // Before all objects are known, an administrator cannot allow a
            // removal. So no removal is reported as held.
            held: match removals {
                Removals::NotYet { .. } => Vec::new(),
                _ => {
                    let mut held = self.not_begun();
                    held.retain(|op| !waiting.contains(&entry(op)));
                    held
                }
            },
            changed,
            doubtful,
        }
    }

    /// Returns the entries whose removal waits for a look at the cluster.
    /// Removals that are held or released do not depend on a look.
    fn waiting(&mut self, before: Before<'_>, removals: Removals) -> BTreeSet<Entry> {
        let looks = before.looks;
        if matches!(removals, Removals::NotYet { .. }) {
            // Objects may not be listed yet. The removals wait for the looks
            // that follow the listings.
            self.waits.clear();
            return BTreeSet::new();
        }
        self.waits.note(ops(&self.leaving).iter().map(entry), looks);
        if removals != Removals::Guarded || !looks.awaits_any() {
            return BTreeSet::new();
        }
        let unjudged = match looks.awaits_listing() {
            true => self.part(before.absence, |cause| cause == Cause::Unjudged),
            false => Leavings::new(),
        };
        let not_begun = self.not_begun();
        let waiting = not_begun.iter().map(entry);
        waiting
            .filter(|entry| self.waits.has(entry, looks) || contains(&unjudged, entry))
            .collect()
    }

    /// Begins and ends the drains that the wanted state declares. Returns the
    /// services in which a drain ends.
    fn follow_drains(
        &mut self,
        wanted: &Arc<Desired>,
        before: Before<'_>,
        removals: Removals,
    ) -> BTreeSet<ServiceKey> {
        let known = match removals {
            Removals::NotYet { is_late: false } => Known::Restored,
            Removals::NotYet { is_late: true } => Known::Unlisted,
            _ => Known::All,
        };
        let is_there = |(service, server): &Place| {
            let found = before.kernel.get(service);
            found.is_some_and(|found| found.destinations.contains_key(server))
        };
        self.drains.follow(wanted, known, is_there, before.uptime)
    }

    /// Returns the time until the next entry may be removed.
    fn next_end(&self, uptime: Duration, removals: Removals) -> Option<Duration> {
        let grace = self.graces.next_deadline(uptime);
        let grace = grace.map(|end| end.saturating_sub(uptime));
        let ends = [self.drains.next_end(uptime), grace].into_iter().flatten();
        // While the listing may still come, what is over ends later.
        let waits = removals == (Removals::NotYet { is_late: false });
        ends.filter(|end| !waits || !end.is_zero()).min()
    }

    fn find_leaving(&mut self, wanted: &Desired, before: Before<'_>, is_early: bool) {
        let ours = &before.ours.table.services;
        let keys: BTreeSet<_> = match before.changed {
            Some(changed) => changed.iter().chain(self.leaving.keys()).copied().collect(),
            None => ours.keys().chain(self.leaving.keys()).copied().collect(),
        };
        for key in keys {
            match leaving(&key, wanted, before) {
                Some(leaving) => self.leaving.insert(key, leaving),
                None => self.leaving.remove(&key),
            };
        }
        let leaving = &self.leaving;
        if !is_early {
            self.graces.forget_unless(|entry| contains(leaving, entry));
        }
    }

    /// Returns the removals of leaving entries that were not allowed yet.
    fn not_begun(&self) -> Vec<Op> {
        let mut removals = ops(&self.leaving);
        removals.retain(|op| !self.graces.has_begun(&entry(op)));
        removals
    }

    /// Counts the entries whose removal was allowed a short time ago and that are
    /// in their grace.
    fn going(&self, uptime: Duration) -> Count {
        let running = self.graces.running();
        let recent = running.filter(|(_, departure)| uptime < departure.since + WINDOW);
        Count::of(&recent.map(|(entry, _)| removal(entry)).collect::<Vec<_>>())
    }

    /// Counts our entries, except those whose removal was allowed.
    fn left(&self, owned: &Owned) -> Count {
        let mut left = Count::owned(owned);
        for (entry, _) in self.graces.begun() {
            let op = removal(entry);
            match op.destination() {
                Some(_) => left.destinations = left.destinations.saturating_sub(1),
                None => {
                    let servers = owned.services.get(&op.service());
                    let servers = servers.map_or(0, BTreeSet::len);
                    left.services = left.services.saturating_sub(1);
                    left.destinations = left.destinations.saturating_sub(servers);
                }
            }
        }
        left
    }

    fn begin_graces(&mut self, allowed: &[Op], wanted: &Desired, before: Before<'_>) {
        let Before { kernel, uptime, .. } = before;
        for op in allowed {
            let service = op.service();
            // Of a service that is no longer wanted, the last spec counts.
            let period = match wanted.table.contains_key(&service) {
                true => wanted.period(&service),
                false => {
                    let last = self.last_periods.get(&service).copied();
                    last.unwrap_or_else(|| self.in_force.period(&service))
                }
            };
            let departure = Departure {
                since: uptime,
                period: period.min(self.longest),
            };
            let before = op.destination().and_then(|server| {
                let known = self.in_force.table.get(&service);
                let known = known.and_then(|service| service.destinations.get(&server));
                let found = || kernel.get(&service)?.destinations.get(&server);
                known.or_else(found).copied()
            });
            self.graces.begin(entry(op), before, departure);
        }
    }
}

#[cfg(test)]
mod tests;
