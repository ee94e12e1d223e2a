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
//! no longer wanted ─▶ held, as it was ─▶ grace: 10 s, servers ─▶ removed
//!                     until allowed      with weight 0
//! ```
//!
//! The retention stage prevents removals that must not happen, by keeping the
//! entries in force. An entry stays in force if it is ours, in the kernel and
//! no longer wanted. Its check, its VIP and its sysctls stay too, and a server
//! keeps its place in the service's order. Later stages plan for a table that
//! includes the kept entries, so they never plan a held removal.
//!
//! A removal that is allowed begins with a grace ([`GRACE`]). If an object is
//! deleted and created again within the grace, its entries never leave the
//! kernel. The entries of the new object keep their connections, their order
//! and the verdicts about their servers.

mod grace;
mod leaving;
mod looks;
mod merge;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crds::Kind;
use ipvs::{ActualTable, DestinationConfig, DestinationKey, Op, Owned, ServiceKey};

pub use self::{grace::GRACE, looks::ClusterLooks};
use self::{
    grace::{Entry, Graces},
    leaving::{Leaving, Leavings, contains, entry, leaving, ops},
    looks::Waits,
};
use crate::decide::{
    absence::{Absence, Cause, Doubtful},
    desired::{Desired, Wish},
    drains::{Begun, Drains, Known},
    guard::{Count, Guard, is_most},
    idle::Place,
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
    /// The time since the host's start, on which drains run.
    pub uptime: Duration,
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

/// The part of a service that is retained.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Kept {
    /// The whole service, and every server of ours in it.
    Service,
    /// Servers of a service that is still wanted, in the kernel's order. If
    /// the configuration of a server is none, `merge::keep` chooses it.
    Servers(Vec<(DestinationKey, Option<DestinationConfig>)>),
}

/// The state that the retention stage keeps between calls.
#[derive(Debug)]
pub struct Retention {
    drains: Drains,
    /// When the next drain ends connections.
    drain_ends: Option<Duration>,
    /// The servers that stay drained, although the wanted state is older and
    /// does not say so.
    recorded: BTreeSet<Place>,
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

impl Retention {
    /// Returns a retention stage that has seen no entries yet. Entries whose
    /// removal is allowed stay for `grace`, usually [`GRACE`].
    pub fn new(grace: Duration) -> Self {
        Self {
            drains: Drains::default(),
            drain_ends: None,
            recorded: BTreeSet::new(),
            guard: Guard::default(),
            graces: Graces::new(grace),
            waits: Waits::default(),
            leaving: BTreeMap::new(),
            retained: BTreeMap::new(),
            wanted: Arc::default(),
            in_force: Arc::default(),
        }
    }

    /// Returns the services that the round at `now` removes because their grace
    /// ends.
    pub fn ending(&self, now: Duration) -> impl Iterator<Item = ServiceKey> {
        self.graces.ending(now)
    }

    /// Returns when the next entry may be removed, because its grace or a drain
    /// ends.
    pub fn next_deadline(&self) -> Option<Duration> {
        let ends = [self.graces.next_deadline(), self.drain_ends];
        ends.into_iter().flatten().min()
    }

    /// Returns the drains that objects declare.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// Takes the drains that the journal knows.
    pub fn restore_drains(&mut self, begun: &Begun) {
        self.drains.restore(begun);
    }

    /// Notes that the journal has stored the drains.
    pub fn drains_saved(&mut self) {
        self.drains.saved();
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
        let ended = self.follow_drains(&wanted.desired, before, removals, now);
        self.find_leaving(&wanted.desired, before);
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
        self.graces.stop_if(|entry| contains(&barred, entry));
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
                    false => (self.going(), self.left(&before.ours.table)),
                };
                !self.guard.holds(&pending, going, left, is_released, now)
            }
        };
        if are_allowed {
            self.begin_graces(&pending, before.kernel, now);
        }
        for (since, op) in self.graces.end(now) {
            self.guard.count(&op, since);
        }
        let mut changed = self.put_in_force(&wanted.desired, before);
        changed.extend(ended);
        let mut in_force = Wish {
            desired: self.in_force.clone(),
            ..wanted
        };
        if matches!(removals, Removals::NotYet { .. }) {
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

    /// Returns the leaving entries whose objects are absent and not believed to
    /// be deleted.
    fn doubted(&self, before: Before<'_>) -> Leavings {
        if self.leaving.is_empty() {
            return Leavings::new();
        }
        let absence = before.absence;
        let listed = self.part(absence, |cause| cause != Cause::Certain);
        let is_most = is_most(&ops(&listed), Count::owned(&before.ours.table));
        self.part(absence, |cause| {
            cause == Cause::Doubted || is_most && cause == Cause::Unjudged
        })
    }

    /// Returns the leaving entries for which `is_one` is true. The argument of
    /// `is_one` says why an entry is no longer wanted.
    fn part(&self, absence: &Absence, is_one: impl Fn(Cause) -> bool) -> Leavings {
        let of_server = |key: &ServiceKey, server: &DestinationKey| {
            let object = self.in_force.servers.get(&(*key, *server));
            let cause = absence.cause(Kind::RealServer, object);
            // The older version of a service may not select all of its servers.
            let service = self.in_force.services.get(key);
            let has_gone_back =
                |service| absence.cause(Kind::VirtualService, Some(service)) == Cause::Doubted;
            is_one(match cause {
                Cause::Certain if service.is_some_and(has_gone_back) => Cause::Doubted,
                cause => cause,
            })
        };
        let parts = self.leaving.iter().filter_map(|(key, leaving)| {
            let part = match leaving {
                Leaving::Service => {
                    let object = self.in_force.services.get(key);
                    let is_part = is_one(absence.cause(Kind::VirtualService, object));
                    is_part.then_some(Leaving::Service)?
                }
                Leaving::Servers(servers) => {
                    let servers = servers.iter().filter(|server| of_server(key, server));
                    let servers: Vec<_> = servers.copied().collect();
                    (!servers.is_empty()).then_some(Leaving::Servers(servers))?
                }
            };
            Some((*key, part))
        });
        parts.collect()
    }

    /// Returns the objects that wanted the leaving entries. The servers of a
    /// leaving service count as part of the service.
    fn objects_of(&self, leaving: &Leavings) -> Doubtful {
        let mut found = Doubtful::default();
        let known = &self.in_force;
        for (key, leaving) in leaving {
            let mut servers: Vec<_> = Vec::new();
            match leaving {
                Leaving::Service => {
                    match known.services.get(key) {
                        Some(service) => {
                            let object = (Kind::VirtualService, service.clone());
                            found.objects.insert(object);
                        }
                        None => found.has_orphans = true,
                    }
                    let service = known.table.get(key);
                    let keys = service.map(|service| service.destinations.keys());
                    servers.extend(keys.into_iter().flatten().copied());
                }
                Leaving::Servers(leaving) => {
                    let is_orphan = |server| !known.servers.contains_key(&(*key, server));
                    found.has_orphans |= leaving.iter().copied().any(is_orphan);
                    let service = known.services.get(key);
                    let service = service.map(|service| (Kind::VirtualService, service.clone()));
                    found.objects.extend(service);
                    servers.extend(leaving);
                }
            }
            for server in servers {
                if let Some(object) = known.servers.get(&(*key, server)) {
                    found.objects.insert((Kind::RealServer, object.clone()));
                }
            }
        }
        found
    }

    /// Begins and ends the drains that the wanted state declares. Returns the
    /// services in which a drain ends.
    fn follow_drains(
        &mut self,
        wanted: &Arc<Desired>,
        before: Before<'_>,
        removals: Removals,
        now: Duration,
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
        let ended = self.drains.follow(wanted, known, is_there, before.uptime);
        let end = self.drains.next_end(before.uptime);
        // While the listing may still come, a drain that is over ends later.
        let end = end.filter(|end| known != Known::Restored || !end.is_zero());
        self.drain_ends = end.map(|end| now + end);
        ended
    }

    fn find_leaving(&mut self, wanted: &Desired, before: Before<'_>) {
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
        self.graces.forget_unless(|entry| contains(leaving, entry));
    }

    /// Returns the removals of leaving entries that were not allowed yet.
    fn not_begun(&self) -> Vec<Op> {
        let mut removals = ops(&self.leaving);
        removals.retain(|op| !self.graces.has_begun(&entry(op)));
        removals
    }

    /// Counts the entries that are in their grace.
    fn going(&self) -> Count {
        Count::of(&self.graces.running().collect::<Vec<_>>())
    }

    /// Counts our entries, except those whose removal was allowed.
    fn left(&self, owned: &Owned) -> Count {
        let mut left = Count::owned(owned);
        for op in self.graces.begun() {
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

    fn begin_graces(&mut self, allowed: &[Op], kernel: &ActualTable, now: Duration) {
        for op in allowed {
            let before = op.destination().and_then(|server| {
                let known = self.in_force.table.get(&op.service());
                let known = known.and_then(|service| service.destinations.get(&server));
                let found = || kernel.get(&op.service())?.destinations.get(&server);
                known.or_else(found).copied()
            });
            self.graces.begin(entry(op), before, now);
        }
    }

    /// Returns the retained entries: the held entries, unchanged, and the
    /// entries in their grace.
    fn kept(&self) -> BTreeMap<ServiceKey, Kept> {
        let kept = |(key, leaving): (&ServiceKey, &Leaving)| match leaving {
            Leaving::Service => {
                let stays = !self.graces.is_over(&(*key, None));
                stays.then_some((*key, Kept::Service))
            }
            Leaving::Servers(servers) => {
                let kept = servers.iter().filter_map(|server| {
                    let entry = (*key, Some(*server));
                    if self.graces.is_over(&entry) {
                        return None;
                    }
                    let mut config = self.graces.before(&entry);
                    if let (Some(config), true) = (&mut config, self.graces.has_begun(&entry)) {
                        config.weight = 0;
                    }
                    Some((*server, config))
                });
                let kept: Vec<_> = kept.collect();
                (!kept.is_empty()).then_some((*key, Kept::Servers(kept)))
            }
        };
        self.leaving.iter().filter_map(kept).collect()
    }

    /// Builds the state in force from the wanted state. Returns the services
    /// whose retained entries are new or changed.
    fn put_in_force(&mut self, wanted: &Arc<Desired>, before: Before<'_>) -> BTreeSet<ServiceKey> {
        let retained = self.kept();
        let may_differ = |key| before.changed.is_none_or(|changed| changed.contains(key));
        let recorded = self.drains.as_recorded();
        let recorded = recorded.filter(|(key, server)| wanted.has_destination(key, server));
        let recorded: BTreeSet<_> = recorded.copied().collect();
        let is_same = Arc::ptr_eq(wanted, &self.wanted)
            && retained == self.retained
            && recorded == self.recorded
            && !retained.keys().any(may_differ);
        if is_same {
            return BTreeSet::new();
        }
        let changed = retained.keys().chain(self.retained.keys());
        let drained = recorded.iter().chain(&self.recorded);
        let changed = changed.chain(drained.map(|(service, _)| service));
        let changed = changed.copied().collect();
        self.in_force = match retained.is_empty() && recorded.is_empty() {
            true => wanted.clone(),
            false => {
                let mut in_force = Desired::clone(wanted);
                for place in &recorded {
                    in_force.quiesce(place);
                }
                for (key, kept) in &retained {
                    let found = before.kernel.get(key).expect("it is in the kernel");
                    let ours = &before.ours.table;
                    let servers = found.destinations.keys();
                    let servers: Vec<_> = match kept {
                        Kept::Service => servers
                            .filter(|server| ours.destination(key, server))
                            .map(|server| (*server, None))
                            .collect(),
                        Kept::Servers(servers) => servers.clone(),
                    };
                    merge::keep(&mut in_force, key, &servers, found, &self.in_force);
                }
                Arc::new(in_force)
            }
        };
        self.retained = retained;
        self.recorded = recorded;
        self.wanted = wanted.clone();
        changed
    }
}

#[cfg(test)]
mod tests;
