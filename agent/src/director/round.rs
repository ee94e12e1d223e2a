//! One round of the loop, stage by stage.

use std::{collections::BTreeSet, time::Duration};

use crds::{AddressRule, CheckedGroup, resolve_for};
use ipvs::OnConflict;

use super::{LATE_LISTING, Loop, VIP_GRACE, edges::edges, protect::Suspects};
use crate::{
    act::{self, Outcome, retry::Subject},
    decide::{
        absence::Object,
        caution::Hold,
        desired::{Addresses, Ours, Wish, changed_services, desired, on_conflict, timeouts},
        permission::Permission,
        places::Ground,
        retain::{Before, Removals, Traffic},
        sysctls::Tuning,
    },
    disk::{checkpoint::Note, journal::NoJournal},
    probe::target::{Order, Rates},
    tell::report::{complaints, unreadable},
};

impl Loop {
    /// Computes the state that the objects want.
    pub(super) fn resolve(&mut self, now: Duration) {
        let ours = Ours {
            owned: &self.state.ours().table,
            wanted: self.protection.wanted(),
        };
        let resolved = resolve_for(&self.objects, &ours);
        self.set_rates();
        let wanted = desired(&resolved, &self.group);
        self.unreadable = unreadable(&self.objects, &resolved, &self.group);
        self.waits_for_room = !resolved.waiting.is_empty();
        if self.objects.is_listed() {
            let complaints = complaints(&self.objects, &resolved, &self.group);
            let ration = &mut self.ration;
            self.complaints.warn_within(ration, complaints, now);
        }
        let changed = changed_services(self.protection.wanted(), &wanted);
        self.state.wish_changed(changed.iter().copied());
        // A server that is already in the kernel keeps serving until its first
        // probe results. To find such servers, the next round reads each
        // changed service that has a health check and is not ours.
        let checked = changed.iter();
        let checked = checked.filter(|key| wanted.checks.contains_key(key));
        self.state.look_at_strangers(checked.copied());
        self.changed.extend(changed);
        self.protection.want(wanted);
    }

    /// Sends the group's budgets for probes to the prober, if they have
    /// changed.
    fn set_rates(&mut self) {
        let Some(group) = self.in_force() else {
            return;
        };
        let rates = Rates::from(&group.budgets);
        if rates != self.rates {
            // Sending fails only if there is no prober to receive the order.
            let order = Order::Rates(rates.clone());
            self.world.orders.send(order).unwrap_or_default();
            self.rates = rates;
        }
    }

    /// Brings the host to its wanted state, stage by stage. The caller must
    /// have opened the loop's edges.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    pub(super) fn round(&mut self, now: Duration) -> Result<Outcome, ipvs::Error> {
        let suspects = self.suspects(now);
        self.ask_for_leases();
        self.read(now)?;
        self.world.heartbeat.beat();
        self.protect(suspects, now);
        self.leave_out(now);
        let in_force = self.retain(now);
        self.weigh(&in_force, now);
        self.world.heartbeat.beat();
        let made = self.make(&in_force, now);
        self.health.tell(&self.recorder, &self.world.orders);
        Ok(self.complete(made?))
    }

    /// Reads the kernel's table. No other stage of a round reads the table.
    fn read(&mut self, now: Duration) -> Result<(), ipvs::Error> {
        let timeouts = self.in_force().map(timeouts);
        self.state.look_at_adopted(self.retention.ending(now));
        let mut edges = edges(
            &mut self.kernel,
            &mut self.links,
            &mut self.journal,
            &mut self.world,
        );
        act::read(&mut self.state, &mut edges, timeouts, now)
    }

    /// Removes from the wanted state the services and servers that would take
    /// the host's own traffic.
    fn protect(&mut self, suspects: Option<Suspects>, now: Duration) {
        if let Some(suspects) = suspects {
            let is_released = self.is_released();
            let stands = |service: &_, server: Option<&_>| self.state.stands(service, server);
            let refused = self.protection.judge(&suspects, stands, is_released, now);
            self.changed.extend(refused);
            self.health.names_changed();
            self.save_refused();
        }
        self.state.in_force_changed(self.changed.iter().copied());
    }

    /// Removes from the wanted state the new services whose address cannot be
    /// on this host.
    fn leave_out(&mut self, now: Duration) {
        let group = self.in_force();
        let ground = Ground {
            rule: group.map_or(AddressRule::default(), |group| group.addresses.clone()),
            holding: self.holding(now),
            interfaces: self.protection.interfaces(),
        };
        let is_ours = |key: &_| self.state.ours().table.service(key);
        let wanted = self.protection.desired();
        let changed = self.places.judge(wanted, ground, is_ours);
        self.state.in_force_changed(changed.iter().copied());
        self.changed.extend(changed);
    }

    /// Keeps in force the entries that must not be removed yet.
    fn retain(&mut self, now: Duration) -> Wish {
        let removals = self.removals(now);
        let mut wanted = self.wish(now);
        wanted.addresses.is_released = removals == Removals::Released;
        let uptime = self.uptime(now);
        let before = Before {
            ours: self.state.ours(),
            kernel: self.state.believed().expect("the kernel was read"),
            changed: self.state.dirty(),
            absence: &self.absence,
            looks: self.caution.looks(),
            uptime,
            traffic: Traffic::Read {
                idle: &self.draining.idle,
                serving: self.health.serving(),
            },
        };
        let retained = self.retention.retain(wanted, before, removals, now);
        let believed = match &retained.doubtful {
            _ if removals == Removals::Released => self.absence.release(),
            Some(doubtful) => self.absence.judge(doubtful),
            None => Vec::new(),
        };
        self.believe(believed);
        self.held = retained.held;
        let changed = retained.changed.iter().copied();
        self.state.in_force_changed(changed);
        self.changed.extend(retained.changed);
        self.save_drains();
        self.follow_drains(now);
        retained.in_force
    }

    /// Forgets the objects that the agent now believes to be deleted. Stores in
    /// the checkpoint what the agent knows about listings, for the next run.
    fn believe(&mut self, absent: Vec<Object>) {
        for (kind, key) in absent {
            self.tee(kind).forget(key);
        }
        if let Some(known) = self.absence.unsaved() {
            self.recorder.note(Note::Listings(known));
        }
    }

    /// Gives each server the weight that its health allows.
    fn weigh(&mut self, in_force: &Wish, now: Duration) {
        let changed = std::mem::take(&mut self.changed);
        let (is_listed, wall) = (self.objects.is_listed(), self.clock.steady_wall(now));
        let desired = &in_force.desired;
        let drains = self.retention.drains();
        self.health
            .weigh(desired, changed, drains, is_listed, &mut self.state, wall);
    }

    /// Plans and runs the operations that bring the host to the state in force.
    fn make(&mut self, in_force: &Wish, now: Duration) -> Result<Outcome, ipvs::Error> {
        let mut edges = edges(
            &mut self.kernel,
            &mut self.links,
            &mut self.journal,
            &mut self.world,
        );
        let table = &self.health.table;
        act::run(&mut self.state, &mut edges, in_force, table, now)
    }

    /// Adds the loop's own findings to the outcome of the round.
    fn complete(&mut self, mut outcome: Outcome) -> Outcome {
        self.retry.succeeded(Subject::Kernel);
        if let Err(NoJournal(why)) = &self.journal {
            outcome.failures.insert(Subject::Journal, why.clone());
        }
        if outcome.failures.contains_key(&Subject::Links) {
            // After an error of the netlink socket, the connection must be
            // opened again.
            self.links = None;
        }
        outcome.missing.extend(self.places.missing());
        if !self.objects.is_listed() {
            // Until all objects are listed, the agent cannot know whether an
            // entry of another program conflicts with an object.
            outcome.left.clear();
        }
        outcome
    }

    /// Returns the wanted state of this host, from the objects and the group.
    fn wish(&self, now: Duration) -> Wish {
        let group = self.in_force();
        let rule = group.map_or(AddressRule::default(), |group| group.addresses.clone());
        // The agent leaves entries of other programs alone until it has
        // accepted the group and listed all objects. Before all objects are
        // listed, the agent could adopt an entry for an object that no longer
        // exists. The agent would later remove the adopted entry, although the
        // entry may belong to another program.
        let listed = group.filter(|_| self.objects.is_listed());
        Wish {
            desired: self.places.desired().clone(),
            addresses: Addresses {
                rule,
                holding: self.holding(now),
                ..Addresses::default()
            },
            on_conflict: listed.map_or(OnConflict::Leave, on_conflict),
            timeouts: group.map(timeouts),
            tuning: group.map(Tuning::from),
            kept_sysctls: BTreeSet::new(),
        }
    }

    /// Returns the last accepted version of the director's DirectorGroup.
    pub(super) fn in_force(&self) -> Option<&CheckedGroup> {
        let group = self.objects.group(&self.group);
        group.and_then(|group| group.in_force())
    }

    /// Returns the state of the group's permission for removals: absent, given
    /// or doubtful.
    fn permission(&mut self) -> Permission {
        let group = self.in_force();
        let until = group.and_then(|group| group.removals_allowed_until);
        Permission::of(until, (self.world.daytime)())
    }

    /// Whether all objects are listed and the group permits every removal.
    pub(super) fn is_released(&mut self) -> bool {
        self.objects.is_listed() && self.permission() == Permission::Given
    }

    fn removals(&mut self, now: Duration) -> Removals {
        if !self.objects.is_listed() {
            return Removals::NotYet {
                is_late: now >= LATE_LISTING,
            };
        }
        let permission = self.permission();
        let removals = self.caution.judge(permission == Permission::Given);
        self.doubt = permission.doubt();
        self.save_cluster();
        removals
    }

    /// Records in the journal which cluster this director's table comes from.
    /// If writing fails, the next round tries again.
    fn save_cluster(&mut self) {
        let (Some(cluster), Ok(journal)) = (self.caution.unsaved(), &mut self.journal) else {
            return;
        };
        match journal.remember_cluster(cluster) {
            Ok(()) => {
                tracing::info!("this director's table now comes from the cluster {cluster}");
                self.caution.saved();
                self.unsaved.clear();
            }
            Err(error) => self.unsaved.warn([error.to_string()]),
        }
    }

    /// Records in the journal which entries were refused. If writing fails, the
    /// next round tries again.
    fn save_refused(&mut self) {
        let (Some(refused), Ok(journal)) = (self.protection.unsaved(), &mut self.journal) else {
            return;
        };
        match journal.remember_refused(&refused) {
            Ok(()) => self.protection.saved(),
            Err(error) => self.unsaved.warn([error.to_string()]),
        }
    }

    /// Returns why the agent holds even a single removal, or none if it has no
    /// such reason.
    pub(super) fn hold(&self) -> Option<Hold> {
        let missing = || self.absence.missing().map(Hold::Missing);
        self.caution.hold().or_else(missing)
    }

    pub(super) fn is_in_grace(&self, now: Duration) -> bool {
        self.restored && !self.objects.is_listed() && now < VIP_GRACE
    }
}
