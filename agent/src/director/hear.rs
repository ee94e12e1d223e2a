//! What the loop hears, and for how long it waits for it.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use super::{Director, VIP_GRACE};
use crate::{checkpoint::Note, event::Event};

/// Changes that come within this time of each other make one round.
const QUIET: Duration = Duration::from_millis(20);
/// But a round is not put off for longer than this.
const PATIENCE: Duration = Duration::from_millis(500);
/// And one for servers that fail or come back for no longer than this.
const HASTE: Duration = Duration::from_millis(5);
/// The loop wakes at least this often.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Director {
    /// Waits for events until the next deadline, and takes in all that come
    /// close together. False when it is time to stop.
    pub(super) fn hear(&mut self, events: &Receiver<Event>) -> bool {
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
        let began = self.clock.now();
        loop {
            // Clients are sent to a server that is down meanwhile.
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
                Ok(event) => self.take(event),
            }
        }
    }

    pub(super) fn take(&mut self, event: Event) {
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
            Event::DirectorAddresses(addresses) => {
                let note = Note::DirectorAddresses(addresses.clone());
                self.recorder.note(note);
                self.due |= self.protection.hear_directors(addresses);
                false
            }
            Event::ApiServers(servers) => {
                self.recorder.note(Note::ApiServers(servers.clone()));
                self.due |= self.protection.hear_api_servers(servers);
                false
            }
            Event::Probed(probe, tally) => {
                let now = self.clock.wall(self.clock.now());
                self.due |= self.health.hear(probe, &tally, now);
                false
            }
            Event::ProbesVoid(why) => {
                self.health.void(why);
                self.due = true;
                false
            }
            Event::Claims(found, verdicts) => {
                self.state.hear_claims(found, verdicts);
                self.due = true;
                false
            }
            Event::ClaimsHindered(why) => {
                self.state.hear_hindered(why);
                self.due = true;
                false
            }
            Event::Links => {
                self.state.links_changed();
                self.protection.look_again();
                self.due = true;
                false
            }
            Event::Stop => false,
        };
    }

    /// When there is something to do without an event. Without rounds nothing
    /// that waits for one is due.
    pub(super) fn next_deadline(&self, now: Duration) -> Duration {
        let state = &self.state;
        let (round, look, protection) = match self.trouble {
            None => (
                state.next_deadline(),
                state.next_look(),
                self.protection.next_deadline(),
            ),
            Some(_) => (None, None, None),
        };
        let grace = self.is_in_grace(now).then_some(VIP_GRACE);
        let health = match self.trouble {
            None if self.health.is_round_due() => Some(now),
            None => {
                let at = self.health.next_deadline();
                at.map(|at| self.clock.since_start(at))
            }
            Some(_) => None,
        };
        let retry = self.retry.next_deadline();
        [round, look, protection, health, grace, retry]
            .into_iter()
            .flatten()
            .fold(now + LONGEST_SLEEP, Duration::min)
    }
}
