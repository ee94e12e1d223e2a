//! What the journal stores of drains and of entries that leave.

use std::time::Duration;

use crds::ObjectKey;

use super::Retention;
use crate::decide::departures::{Departure, Place, Record};

impl Retention {
    /// Takes what the journal knows.
    pub fn restore(&mut self, record: &Record) {
        self.drains.restore(&record.drains);
        self.graces.restore(&record.departures);
    }

    /// Returns what the journal must store, if it lacks a change.
    pub fn unsaved(&self) -> Option<Record> {
        let is_unsaved = self.graces.is_unsaved() || self.drains.is_unsaved();
        let departures = self.graces.begun();
        is_unsaved.then(|| Record {
            drains: self.drains.begun().clone(),
            departures: departures
                .map(|(entry, departure)| (*entry, departure))
                .collect(),
        })
    }

    /// Returns our servers that wait for their clients to finish, because they or
    /// their services leave. Only servers whose objects are known are returned.
    pub fn departing(
        &self,
        uptime: Duration,
    ) -> impl Iterator<Item = (Place, &ObjectKey, Departure)> {
        let running = self.graces.running();
        let draining = running.filter(move |(entry, _)| self.graces.is_draining(entry, uptime));
        draining.flat_map(move |((service, server), departure)| {
            let of_service = || self.in_force.table.get(service);
            let all = of_service().filter(|_| server.is_none());
            let all = all
                .into_iter()
                .flat_map(|of| of.destinations.keys().copied());
            server.iter().copied().chain(all).filter_map(move |server| {
                let place = (*service, server);
                let object = self.in_force.servers.get(&place)?;
                Some((place, object, departure))
            })
        })
    }

    /// Notes that the journal has stored what [`Self::unsaved`] returned.
    pub fn saved(&mut self) {
        self.drains.saved();
        self.graces.saved();
    }
}
