//! One round in the loop, stage by stage.

use std::{collections::BTreeSet, time::Duration};

use crds::{AddressRule, CheckedGroup, resolve};
use ipvs::OnConflict;

use super::{Loop, VIP_GRACE, edges::edges};
use crate::{
    act::{self, Outcome, retry::Subject},
    decide::{
        addresses::{Holding, holding},
        desired::{Addresses, Wish, changed_services, desired, on_conflict, timeouts},
        retain::{Before, Removals},
        sysctls::Tuning,
    },
    disk::journal::NoJournal,
    tell::report::{complaints, unreadable},
};

impl Loop {
    /// Works out what the objects want.
    pub(super) fn resolve(&mut self) {
        let resolved = resolve(&self.objects);
        let wanted = desired(&resolved, &self.group);
        self.unreadable = unreadable(&self.objects, &resolved, &self.group);
        if self.objects.is_listed() {
            let complaints = complaints(&self.objects, &resolved, &self.group);
            self.complaints.warn(complaints);
        }
        let changed = changed_services(self.protection.wanted(), &wanted);
        self.state.wish_changed(changed.iter().copied());
        // A server that the kernel already serves need not wait for a verdict.
        let checked = changed.iter();
        let checked = checked.filter(|key| wanted.checks.contains_key(key));
        self.state.look_at_strangers(checked.copied());
        self.changed.extend(changed);
        self.protection.want(wanted);
    }

    /// Makes the host what is wanted. Returns none if an edge that is needed is
    /// not open.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(super) fn round(&mut self, now: Duration) -> Result<Option<Outcome>, ipvs::Error> {
        let suspects = self.suspects(now);
        let (is_listed, wall) = (self.objects.is_listed(), self.clock.wall(now));
        let (removals, wish) = (self.removals(now), self.wish(now));
        let Some(mut edges) = edges(
            &mut self.kernel,
            &mut self.links,
            &mut self.journal,
            &mut self.world,
        ) else {
            return Ok(None);
        };
        act::read(&mut self.state, &mut edges, wish.timeouts, now)?;

        if let Some(suspects) = suspects {
            let found = |key: &_| self.state.found(key).service;
            let refused = self.protection.judge(&suspects, found, now);
            self.changed.extend(refused);
            self.health.names_changed();
        }
        let wish = Wish {
            desired: self.protection.desired().clone(),
            ..wish
        };
        self.state.in_force_changed(self.changed.iter().copied());
        self.retention.acknowledge(self.state.removed(), now);
        let before = Before {
            ours: self.state.ours(),
            kernel: self.state.believed().expect("it was read just now"),
            changed: self.state.dirty(),
        };
        let retained = self.retention.retain(wish, before, removals, now);
        self.held = retained.held;
        let wish = retained.in_force;
        self.state
            .in_force_changed(retained.changed.iter().copied());
        self.changed.extend(retained.changed);
        let changed = std::mem::take(&mut self.changed);
        self.health
            .weigh(&wish.desired, changed, is_listed, &mut self.state, wall);

        let outcome = act::run(&mut self.state, &mut edges, &wish, &self.health.table, now);
        self.health.tell(&self.recorder, &self.world.orders);
        let mut outcome = outcome?;
        self.retry.succeeded(Subject::Kernel);
        if let Err(NoJournal(why)) = &self.journal {
            outcome.failures.insert(Subject::Journal, why.clone());
        }
        if outcome.failures.contains_key(&Subject::Links) {
            // An error of the socket ends its connection.
            self.links = None;
        }
        if !is_listed {
            // The strangers' entries are in no object's way yet.
            outcome.left.clear();
        }
        Ok(Some(outcome))
    }

    /// Returns what the group wants of this host.
    fn wish(&self, now: Duration) -> Wish {
        let group = self.in_force();
        let rule = group.map_or(AddressRule::default(), |group| group.addresses.clone());
        // For a group that was never accepted, the most careful policy is
        // assumed. What the previous run knew may be another program's by now,
        // and would be removed with the wish if it was adopted.
        let listed = group.filter(|_| self.objects.is_listed());
        Wish {
            desired: self.protection.desired().clone(),
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

    /// Returns the group as it was last accepted.
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
        self.save_cluster();
        removals
    }

    /// Makes the journal record which cluster this director's table comes from.
    /// If the disk refuses, the next round tries again.
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

    pub(super) fn is_in_grace(&self, now: Duration) -> bool {
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
}
