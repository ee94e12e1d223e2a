//! The health of servers, in the loop: what is wanted goes into it, and the
//! table that is to be in the kernel comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipvs::{ServiceKey, WantedTable};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    checkpoint::{Note, Recorder},
    desired::Desired,
    probe::{Order, ProbeId},
    report::HealthReport,
    round::State,
    serving::{Serving, memory::Memory, tally::Tally},
};

/// How servers stand, and the table that comes of it.
pub(super) struct Health {
    pub(super) serving: Serving,
    /// What is to be in the kernel.
    pub(super) table: WantedTable,
    /// Of these services something else is wanted than `serving` knows.
    changed: BTreeSet<ServiceKey>,
    /// Why probes are void, and of how many targets.
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
            changed: BTreeSet::new(),
            void: BTreeMap::new(),
            report: Arc::default(),
            is_report_old: false,
            has_forgotten: false,
        }
    }

    /// Something else is wanted of these services than before.
    pub(super) fn wish_changed(&mut self, services: BTreeSet<ServiceKey>) {
        self.changed.extend(services);
    }

    /// Takes in what the probes of a target came to. Whether there is anything
    /// to do or to tell.
    pub(super) fn hear(&mut self, probe: ProbeId, tally: &Tally, now: Timestamp) -> bool {
        self.serving.hear(probe, tally, now);
        self.is_report_old |= self.serving.take_news();
        self.is_report_old || self.is_urgent()
    }

    /// Why probes are void.
    pub(super) fn void(&mut self, why: BTreeMap<Arc<str>, usize>) {
        self.void = why;
        self.is_report_old = true;
    }

    /// Whether clients are to be sent elsewhere.
    pub(super) fn is_urgent(&self) -> bool {
        self.serving.is_dirty()
    }

    /// When time alone changes something.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.serving.next_deadline()
    }

    /// Brings the table up to date, and has the next round plan what changed in
    /// it. The kernel's part has been read. Once everything that is wanted is
    /// known (`is_listed`), what an earlier life knew of more than that is of
    /// no use any more.
    pub(super) fn settle(
        &mut self,
        desired: &Desired,
        is_listed: bool,
        state: &mut State,
        now: Timestamp,
    ) {
        for key in std::mem::take(&mut self.changed) {
            let wanted = desired.table.get(&key);
            let guarded = desired.guarded.get(&key);
            let wish = guarded.zip(wanted);
            self.serving.wish(key, wish, state.found(&key), now);
            match wanted {
                Some(wanted) => self.table.insert(key, wanted.clone()),
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
            if let Some(wanted) = desired.table.get(key) {
                let settled = self.serving.settle(*key, wanted, now);
                self.table.insert(*key, settled);
            }
        }
        self.is_report_old |= self.serving.take_news();
        state.weights_changed(dirty);
    }

    /// Says what is to be probed, and what is to be remembered.
    pub(super) fn tell(&mut self, recorder: &Recorder, orders: &UnboundedSender<Order>) {
        for order in self.serving.take_orders() {
            // Without a prober there is nothing to be told.
            orders.send(order).unwrap_or_default();
        }
        let notes = self.serving.take_notes();
        if !notes.is_empty() {
            recorder.note(Note::Standings(notes));
        }
    }

    /// What is to be said of it.
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
