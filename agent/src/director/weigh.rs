//! The health of servers, in the loop: what is in force goes in, and the same
//! table with the weights of servers in service comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipvs::{ServiceKey, WantedTable};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    act::State,
    decide::{
        desired::Desired,
        serving::{Serving, memory::Memory},
    },
    disk::checkpoint::{Note, Recorder},
    event::probed::{ProbeId, Tally},
    probe::target::Order,
    tell::report::HealthReport,
};

/// The health of servers, and the table that results from it.
pub(super) struct Health {
    serving: Serving,
    /// What is in force, with the weights that the health of servers leaves
    /// them.
    pub(super) table: WantedTable,
    /// Why probes are void, each with the number of targets.
    void: BTreeMap<Arc<str>, usize>,
    report: Arc<HealthReport>,
    is_report_old: bool,
    has_forgotten: bool,
}

impl Health {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            serving: Serving::remember(memory),
            table: WantedTable::new(),
            void: BTreeMap::new(),
            report: Arc::default(),
            is_report_old: false,
            has_forgotten: false,
        }
    }

    /// Records the tally of a target's probes. Returns whether there is
    /// anything to do or to report.
    pub(super) fn hear(&mut self, probe: ProbeId, tally: &Tally, now: Timestamp) -> bool {
        self.serving.hear(probe, tally, now);
        self.take_news();
        self.is_report_old || self.is_urgent()
    }

    /// Logs what happened to servers and services.
    fn take_news(&mut self) {
        self.is_report_old |= self.serving.take_is_report_old();
        for news in self.serving.take_news() {
            match news.is_bad() {
                true => tracing::warn!("{news}"),
                false => tracing::info!("{news}"),
            }
        }
    }

    /// Notes that other objects than before may want the same.
    pub(super) fn names_changed(&mut self) {
        self.is_report_old = true;
    }

    /// Sets why probes are void.
    pub(super) fn void(&mut self, why: BTreeMap<Arc<str>, usize>) {
        self.void = why;
        self.is_report_old = true;
    }

    /// Whether clients must be sent to other servers.
    pub(super) fn is_urgent(&self) -> bool {
        self.serving.is_dirty()
    }

    /// Returns when the next change is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.serving.next_deadline()
    }

    /// Brings the table up to date with what is `in_force` now, which differs
    /// from before in the services that `changed`, and makes the round plan
    /// what changed in it. The kernel has been read. Once everything that is
    /// wanted is known (`is_listed`), what the previous run knew of other
    /// services is forgotten.
    pub(super) fn weigh(
        &mut self,
        in_force: &Desired,
        changed: BTreeSet<ServiceKey>,
        is_listed: bool,
        state: &mut State,
        now: Timestamp,
    ) {
        for key in changed {
            let service = in_force.table.get(&key);
            let checked = in_force.checks.get(&key).zip(service);
            self.serving.wish(key, checked, state.found(&key), now);
            match service {
                Some(service) => self.table.insert(key, service.clone()),
                None => self.table.remove(&key),
            };
        }
        if is_listed && !self.has_forgotten {
            self.serving.forget_the_rest();
            self.has_forgotten = true;
        }
        self.serving.pass(now);
        let dirty = self.serving.take_dirty();
        for key in &dirty {
            if let Some(service) = in_force.table.get(key) {
                let weighed = self.serving.weigh(*key, service, now);
                self.table.insert(*key, weighed);
            }
        }
        self.take_news();
        state.weights_changed(dirty);
    }

    /// Passes on what will be probed and remembered.
    pub(super) fn tell(&mut self, recorder: &Recorder, orders: &UnboundedSender<Order>) {
        for order in self.serving.take_orders() {
            // Without a prober the orders are not needed.
            orders.send(order).unwrap_or_default();
        }
        let notes = self.serving.take_notes();
        if !notes.is_empty() {
            recorder.note(Note::Standings(notes));
        }
    }

    /// Returns what to report about the health of servers.
    pub(super) fn report(&mut self, desired: &Desired) -> Arc<HealthReport> {
        if std::mem::take(&mut self.is_report_old) {
            self.report = Arc::new(HealthReport {
                found: self.serving.report(desired),
                targets: self.serving.targets(),
                void: self.void.clone(),
            });
        }
        self.report.clone()
    }
}
