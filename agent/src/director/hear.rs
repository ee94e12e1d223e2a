//! Receives the loop's events and decides how long to wait for the next one.

use std::{
    fmt,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use crds::{Change, Checked, Kind, ObjectKey, Store};
use kube::core::object::HasSpec;
use serde::Serialize;

use super::{LATE_LISTING, LISTING_TIME, Loop, VIP_GRACE, reason::Reason};
use crate::{
    decide::{absence::Absence, desired::service_key, liveness::Liveness},
    disk::checkpoint::{Note, Tee},
    event::Event,
};

/// Changes that arrive within this time of each other share one round.
const QUIET: Duration = Duration::from_millis(20);
/// A round is delayed for at most this long to collect more changes.
const PATIENCE: Duration = Duration::from_millis(500);
/// A round for servers that fail or recover is delayed for at most this long.
const HASTE: Duration = Duration::from_millis(5);
/// The loop runs at least one round in this time, even if nothing changes.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The loop waits for events for at most this long, then wakes to show that it
/// works.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

impl Loop {
    /// Waits for events until the next deadline, but not for long, and handles
    /// all events that arrive close together. Returns false when the loop of the director must
    /// stop.
    pub(super) fn hear(&mut self, events: &Receiver<Event>) -> bool {
        let now = self.clock.now();
        let wait = self.next_deadline(now).saturating_sub(now);
        match events.recv_timeout(wait.min(LONGEST_SLEEP)) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                if wait <= LONGEST_SLEEP {
                    self.reason = self.reason.max(Reason::Retry);
                }
                return true;
            }
            Ok(event) => self.note(event),
        }
        let began = self.clock.now();
        loop {
            // An urgent change is delayed for at most `HASTE`. Until the next
            // round, the kernel may send clients to a server that is down.
            let (quiet, patience) = match self.health.is_urgent() {
                true => (Duration::ZERO, HASTE),
                false => (QUIET, PATIENCE),
            };
            if self.clock.now() >= began + patience {
                return true;
            }
            match events.recv_timeout(quiet) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(event) => self.note(event),
            }
        }
    }

    /// Handles an event and notes whether the event calls for a round.
    pub(super) fn note(&mut self, event: Event) {
        self.reason = self.reason.max(self.take(event));
    }

    fn take(&mut self, event: Event) -> Reason {
        match event {
            Event::VirtualService(change) => {
                if let Change::Delete(key) = &change {
                    self.note_deleted(key);
                }
                let store = &mut self.objects.virtual_services;
                let tee = &mut self.services;
                Reason::Resolve.when(take_change(&mut self.absence, tee, store, change))
            }
            Event::RealServer(change) => {
                let store = &mut self.objects.real_servers;
                let tee = &mut self.servers;
                Reason::Resolve.when(take_change(&mut self.absence, tee, store, change))
            }
            Event::DirectorGroup(change) => {
                let store = &mut self.objects.director_groups;
                let tee = &mut self.groups;
                Reason::Resolve.when(take_change(&mut self.absence, tee, store, change))
            }
            Event::Listing(kind, source) => {
                self.absence.begin(kind, source);
                Reason::Nothing
            }
            Event::Known(known) => {
                for (kind, key, _) in &known.doubted {
                    self.tee(*kind).keep([key.clone()]);
                }
                self.absence.restore(known);
                Reason::Nothing
            }
            Event::Caution(word) => Reason::Retry.when(self.caution.hear(word)),
            Event::Reading(began, reading) => {
                let began = self.clock.at(began);
                let is_old = self.acted.is_some_and(|acted| began < acted);
                Reason::Retry.when(self.state.hint(&reading, is_old))
            }
            Event::Loads(began, loads) => {
                let began = self.clock.at(began);
                self.hear_loads(began, loads)
            }
            Event::Unread => {
                self.state.distrust();
                Reason::Retry
            }
            Event::Restored => {
                self.restored = true;
                Reason::Resolve
            }
            Event::Directors(directors) => {
                self.recorder.note(Note::Directors(directors.clone()));
                let directors = Some(directors);
                let changed = self.directors != directors;
                self.directors = directors;
                Reason::Resolve.when(changed)
            }
            Event::DirectorAddresses(addresses) => {
                let note = Note::DirectorAddresses(addresses.clone());
                self.recorder.note(note);
                Reason::Look.when(self.protection.hear_directors(addresses))
            }
            Event::Lease(director, at, renewal) => {
                let now = self.clock.now();
                let state = |liveness: &Liveness| {
                    (liveness.is_live(&director, now), liveness.is_out(&director))
                };
                let before = state(&self.liveness);
                self.liveness
                    .hear(director.clone(), renewal, self.clock.at(at));
                Reason::Retry.when(state(&self.liveness) != before)
            }
            Event::ApiServers(servers) => {
                self.recorder.note(Note::ApiServers(servers.clone()));
                Reason::Look.when(self.protection.hear_api_servers(servers))
            }
            Event::Probed(probe, tally) => {
                let now = self.clock.steady_wall(self.clock.now());
                Reason::Retry.when(self.health.hear(probe, &tally, now))
            }
            Event::ProbesVoid(why) => {
                self.health.void(why);
                Reason::Retry
            }
            Event::ProbesLate(why) => {
                self.health.late(why);
                Reason::Retry
            }
            Event::Claims(found, verdicts) => {
                self.state.hear_claims(self.clock.at(found), verdicts);
                Reason::Retry
            }
            Event::ClaimsHindered(why) => {
                self.state.hear_hindered(why);
                Reason::Retry
            }
            Event::Checkpoint(trouble) => {
                let changed = self.checkpoint_trouble != trouble;
                self.checkpoint_trouble = trouble;
                Reason::Retry.when(changed)
            }
            Event::ManifestProblems(problems) => {
                self.manifest_problems = problems;
                Reason::Retry
            }
            Event::Links => {
                self.state.links_changed();
                self.protection.look_again();
                Reason::Look
            }
            Event::Stop => Reason::Nothing,
        }
    }

    /// Notes for how long the entries of a deleted service may stay.
    fn note_deleted(&mut self, key: &ObjectKey) {
        let stored = self.objects.virtual_services.get(key);
        if let Some(service) = stored.and_then(|stored| stored.in_force()) {
            let key = service_key(service.id);
            self.retention
                .note_deleted(key, service.removal_grace_period);
        }
    }

    /// Returns the tee for the objects of a kind.
    pub(super) fn tee(&mut self, kind: Kind) -> &mut Tee {
        match kind {
            Kind::VirtualService => &mut self.services,
            Kind::RealServer => &mut self.servers,
            Kind::DirectorGroup => &mut self.groups,
        }
    }

    /// Returns when the loop must wake even if no event arrives. While no round
    /// can run, this function ignores deadlines for work that only a round can
    /// do.
    pub(super) fn next_deadline(&self, now: Duration) -> Duration {
        let state = &self.state;
        let (round, look, protection, removal) = match self.trouble {
            None => (
                state.next_deadline(),
                state.next_look(),
                self.protection.next_deadline(),
                self.retention.next_deadline(),
            ),
            Some(_) => (None, None, None, None),
        };
        let grace = self.is_in_grace(now).then_some(VIP_GRACE);
        let health = match self.trouble {
            None => {
                let at = self.health.next_deadline();
                at.map(|at| self.clock.since_start(at))
            }
            Some(_) => None,
        };
        let retry = self.retry.next_deadline();
        let listing = [LATE_LISTING, LISTING_TIME].into_iter();
        let listing = listing.filter(|time| now < *time).min();
        [
            round, look, protection, removal, health, grace, retry, listing,
        ]
        .into_iter()
        .flatten()
        .fold(now + LONGEST_PAUSE, Duration::min)
    }
}

/// Passes a change of an object to the store and the checkpoint. Records which
/// objects a listing leaves out or alters. Returns whether the change affects a
/// part of the object that the agent uses.
fn take_change<C>(
    absence: &mut Absence,
    tee: &mut Tee,
    store: &mut Store<C>,
    change: Change<C::Object>,
) -> bool
where
    C: Checked,
    <C::Object as HasSpec>::Spec: fmt::Debug + Serialize,
{
    let kind = tee.kind();
    match change {
        Change::Item(object) => {
            absence.list(kind, number(object.metadata.resource_version.as_deref()));
            tee.change(store, Change::Item(object))
        }
        Change::Listed => {
            // No DirectorGroup counts as left out of a listing, because the
            // agent keeps using the spec of a deleted DirectorGroup. No spec of
            // a DirectorGroup removes entries, not even an older one.
            let (left_out, altered): (Vec<_>, Vec<_>) = match C::KEPT_WHEN_GONE {
                true => Default::default(),
                false => (
                    store.left_out().cloned().collect(),
                    store.altered().cloned().collect(),
                ),
            };
            tee.keep(left_out.iter().cloned());
            let is_used = tee.change(store, Change::Listed);
            absence.end(kind, left_out, altered, |key| store.get(key).is_some());
            is_used
        }
        Change::Apply(object) => {
            let key = ObjectKey::of_metadata(&object.metadata);
            let version = number(object.metadata.resource_version.as_deref());
            let is_used = tee.change(store, Change::Apply(object));
            absence.apply(kind, &key, version, is_used);
            is_used
        }
        Change::Delete(key) => {
            absence.forget(kind, &key);
            tee.change(store, Change::Delete(key))
        }
        Change::Listing => tee.change(store, Change::Listing),
    }
}

/// Returns a resourceVersion as a number. Since Kubernetes 1.35, every
/// resourceVersion is a number (KEP-5504). Before 1.35, a resourceVersion is a
/// number if the API server stores its objects in etcd.
fn number(version: Option<&str>) -> Option<u64> {
    version.and_then(|version| version.parse().ok())
}
