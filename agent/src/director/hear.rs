//! Receives the loop's events and decides how long to wait for the next one.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use super::{Loop, VIP_GRACE, reason::Reason};
use crate::{decide::liveness::Liveness, disk::checkpoint::Note, event::Event};

/// Changes that come within this time of each other share one round.
const QUIET: Duration = Duration::from_millis(20);
/// A round is delayed for at most this long to collect more changes.
const PATIENCE: Duration = Duration::from_millis(500);
/// A round for servers that fail or recover is delayed for at most this long.
const HASTE: Duration = Duration::from_millis(5);
/// The loop wakes at least this often.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Loop {
    /// Waits for events until the next deadline, and handles all events that
    /// come close together. Returns false when the loop must stop.
    pub(super) fn hear(&mut self, events: &Receiver<Event>) -> bool {
        let now = self.clock.now();
        let wait = self.next_deadline(now).saturating_sub(now);
        match events.recv_timeout(wait) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                self.reason = self.reason.max(Reason::Retry);
                return true;
            }
            Ok(event) => self.note(event),
        }
        let began = self.clock.now();
        loop {
            // Urgent changes wait less, because meanwhile clients are sent to a
            // server that is down.
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
                let store = &mut self.objects.virtual_services;
                Reason::Resolve.when(self.services.change(store, change))
            }
            Event::RealServer(change) => {
                let store = &mut self.objects.real_servers;
                Reason::Resolve.when(self.servers.change(store, change))
            }
            Event::DirectorGroup(change) => {
                let store = &mut self.objects.director_groups;
                Reason::Resolve.when(self.groups.change(store, change))
            }
            Event::Caution(word) => Reason::Retry.when(self.caution.hear(word)),
            Event::Reading(began, reading) => {
                let began = self.clock.at(began);
                let is_old = self.acted.is_some_and(|acted| began < acted);
                Reason::Retry.when(self.state.hint(&reading, is_old))
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
                let now = self.clock.wall(self.clock.now());
                Reason::Retry.when(self.health.hear(probe, &tally, now))
            }
            Event::ProbesVoid(why) => {
                self.health.void(why);
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
            Event::Links => {
                self.state.links_changed();
                self.protection.look_again();
                Reason::Look
            }
            Event::Stop => Reason::Nothing,
        }
    }

    /// Returns when the loop must wake even if no event comes. While no round
    /// can run, deadlines that need a round are left out.
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
        [round, look, protection, removal, health, grace, retry]
            .into_iter()
            .flatten()
            .fold(now + LONGEST_SLEEP, Duration::min)
    }
}
