//! Finds the renewals of the directors' Leases, which are in two namespaces.
//!
//! Agents renew their Leases in
//! [`DIRECTORS_NAMESPACE`](crds::api::DIRECTORS_NAMESPACE). Agents of earlier
//! versions renew their Leases in the controller's own namespace, where old
//! Leases stay after an upgrade. The newest renewal that the controller sees in
//! either namespace counts. Version 0.2 reads only the directors' namespace, so
//! this module goes with version 0.2.

use std::collections::{BTreeMap, BTreeSet};

use crds::api::REPORT_REFUSED;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{ResourceExt, runtime::watcher};

use crate::liveness::{Liveness, Renewal, Time};

/// A namespace that has Leases of directors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// The namespace in which agents renew their Leases.
    Directors,
    /// The controller's own namespace, which agents of earlier versions use.
    Controller,
}

const PLACES: [Place; 2] = [Place::Directors, Place::Controller];

/// The Leases in both namespaces. This type reads no clock: callers pass the
/// time as `now`.
#[derive(Debug, Default)]
pub struct Renewals {
    directors: Leases,
    controller: Leases,
    /// The namespace of the newest renewal of each director.
    newest: BTreeMap<String, Place>,
}

/// The Leases in one namespace.
#[derive(Debug, Default)]
struct Leases {
    renewals: BTreeMap<String, Renewal>,
    /// The names in a listing that has not ended yet.
    listing: BTreeSet<String>,
    is_listed: bool,
    /// Whether the watch has failed and shown nothing since.
    is_blind: bool,
}

impl Renewals {
    /// Whether the Leases of both namespaces have been listed. Before that,
    /// `Liveness` learns of no Lease.
    pub fn is_listed(&self) -> bool {
        PLACES.iter().all(|place| self.leases(*place).is_listed)
    }

    /// Passes an event of a watch on to `liveness`, as if all Leases were in one
    /// namespace.
    pub fn take(
        &mut self,
        place: Place,
        event: watcher::Event<Lease>,
        liveness: &mut Liveness,
        now: Time,
    ) {
        // The start of a listing does not prove that the API server answers.
        if !matches!(event, watcher::Event::Init) {
            self.leases_mut(place).is_blind = false;
        }
        liveness.set_partly_blind(self.is_blind());
        match event {
            watcher::Event::Init => self.leases_mut(place).listing.clear(),
            watcher::Event::InitApply(lease) => {
                let name = lease.name_any();
                self.leases_mut(place).listing.insert(name.clone());
                self.seen(place, name, renewal(&lease), liveness, now);
            }
            watcher::Event::InitDone => self.listed(place, liveness, now),
            watcher::Event::Apply(lease) => {
                self.seen(place, lease.name_any(), renewal(&lease), liveness, now);
            }
            watcher::Event::Delete(lease) => {
                self.gone(place, &lease.name_any(), liveness, now);
            }
        }
    }

    /// Records that the watch of a namespace failed. Until that watch works
    /// again, no director dies, because its renewals may be in that namespace.
    pub fn blind(&mut self, place: Place, liveness: &mut Liveness, now: Time) {
        self.leases_mut(place).is_blind = true;
        liveness.blind(now);
    }

    fn is_blind(&self) -> bool {
        PLACES.iter().any(|place| self.leases(*place).is_blind)
    }

    fn seen(
        &mut self,
        place: Place,
        name: String,
        renewal: Renewal,
        liveness: &mut Liveness,
        now: Time,
    ) {
        let is_started = self.is_listed();
        let leases = self.leases_mut(place);
        // As in `Liveness`: a Lease in the first listing may be old.
        let is_renewed = renewal.renew_time.is_some()
            && match leases.renewals.get(&name) {
                Some(before) => before.renew_time != renewal.renew_time,
                None => leases.is_listed,
            };
        leases.renewals.insert(name.clone(), renewal.clone());
        if is_started && (is_renewed || self.newest.get(&name) == Some(&place)) {
            liveness.lease(&name, renewal, now);
            self.newest.insert(name, place);
        }
    }

    fn gone(&mut self, place: Place, name: &str, liveness: &mut Liveness, now: Time) {
        self.leases_mut(place).renewals.remove(name);
        // A Lease that is left in the other namespace is no renewal. It counts
        // again when it is renewed.
        if self.newest.get(name) == Some(&place) {
            self.newest.remove(name);
            liveness.lease_gone(name, now);
        }
    }

    fn listed(&mut self, place: Place, liveness: &mut Liveness, now: Time) {
        let was_started = self.is_listed();
        let leases = self.leases_mut(place);
        leases.is_listed = true;
        let there = std::mem::take(&mut leases.listing);
        let gone = leases.renewals.keys();
        let gone: Vec<String> = gone
            .filter(|name| !there.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.gone(place, &name, liveness, now);
        }
        if !self.is_listed() {
            return;
        }
        if !was_started {
            self.start(liveness, now);
        }
        liveness.leases_listed(self.newest.keys().map(String::as_str), now);
    }

    /// Passes on what the first listings show. Of two Leases of one director,
    /// the one with the later renewTime counts: the director's own clock wrote
    /// both.
    fn start(&mut self, liveness: &mut Liveness, now: Time) {
        let names = PLACES.map(|place| self.leases(place).renewals.keys());
        let names: BTreeSet<String> = names.into_iter().flatten().cloned().collect();
        for name in names {
            let time = |place| self.leases(place).renewals.get(&name).map(time_of);
            let place = match time(Place::Controller) > time(Place::Directors) {
                true => Place::Controller,
                false => Place::Directors,
            };
            self.newest.insert(name, place);
        }
        for (name, place) in &self.newest {
            if let Some(renewal) = self.leases(*place).renewals.get(name) {
                liveness.lease(name, renewal.clone(), now);
            }
        }
    }

    fn leases(&self, place: Place) -> &Leases {
        match place {
            Place::Directors => &self.directors,
            Place::Controller => &self.controller,
        }
    }

    fn leases_mut(&mut self, place: Place) -> &mut Leases {
        match place {
            Place::Directors => &mut self.directors,
            Place::Controller => &mut self.controller,
        }
    }
}

fn renewal(lease: &Lease) -> Renewal {
    let spec = lease.spec.as_ref();
    Renewal {
        renew_time: spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0.to_string()),
        duration: spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Time::from_secs),
        refused: lease.annotations().get(REPORT_REFUSED).cloned(),
    }
}

fn time_of(renewal: &Renewal) -> Option<Timestamp> {
    renewal.renew_time.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests;
