//! The health of servers, in the loop: what is wanted goes into it, and the
//! table that is to be in the kernel comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipvs::{Destinations, Op, ServiceKey, WantedService, WantedTable};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    checkpoint::{Note, Recorder},
    desired::{Desired, Guarded},
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
    /// How what is wanted no more is to be there, while its removal is held.
    pub(super) leaving: WantedTable,
    /// What is wanted no more and may be held: it goes on being checked.
    kept: BTreeMap<ServiceKey, Kept>,
    /// Of these services something else is wanted than `serving` knows.
    changed: BTreeSet<ServiceKey>,
    /// Why probes are void, and of how many targets.
    void: BTreeMap<Arc<str>, usize>,
    report: Arc<HealthReport>,
    is_report_old: bool,
    /// The last round was planned with servers that it removed.
    is_round_due: bool,
    has_forgotten: bool,
}

/// A service that is wanted no more, or of which servers are.
struct Kept {
    guarded: Arc<Guarded>,
    service: WantedService,
}

impl Health {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            serving: Serving::remember(memory),
            table: WantedTable::new(),
            leaving: WantedTable::new(),
            kept: BTreeMap::new(),
            changed: BTreeSet::new(),
            void: BTreeMap::new(),
            report: Arc::default(),
            is_report_old: false,
            is_round_due: false,
            has_forgotten: false,
        }
    }

    /// Something else is wanted of these services than before.
    pub(super) fn wish_changed(
        &mut self,
        services: BTreeSet<ServiceKey>,
        before: &Desired,
        after: &Desired,
    ) {
        for key in &services {
            if let (Some(guarded), Some(service)) = (before.guarded.get(key), before.table.get(key))
            {
                let kept = self.kept.entry(*key).or_insert_with(|| Kept {
                    guarded: guarded.clone(),
                    service: WantedService {
                        config: service.config.clone(),
                        destinations: Destinations::default(),
                    },
                });
                kept.service.destinations.extend(&service.destinations);
            }
            let Some(kept) = self.kept.get_mut(key) else {
                continue;
            };
            if let Some(wanted) = after.table.get(key) {
                let kept = &mut kept.service.destinations;
                kept.retain(|server, _| !wanted.destinations.contains_key(server));
            }
            let is_wanted = after.table.contains_key(key);
            let is_checked = after.guarded.contains_key(key);
            if is_wanted && (!is_checked || kept.service.destinations.is_empty()) {
                self.kept.remove(key);
            }
        }
        self.changed.extend(services);
        // Another object may want the same.
        self.is_report_old = true;
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

    /// Whether another round is to follow the last one at once.
    pub(super) fn is_round_due(&self) -> bool {
        self.is_round_due
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
        self.is_round_due = false;
        self.take_wishes(desired, state, now);
        if is_listed && !self.has_forgotten {
            self.serving.forget_the_rest();
            self.has_forgotten = true;
        }
        self.serving.pass(now);
        self.weigh(desired, state, now);
    }

    /// What is wanted no more, and whose removal is not held, is checked no
    /// more.
    pub(super) fn keep_held(
        &mut self,
        held: &[Op],
        desired: &Desired,
        state: &mut State,
        now: Timestamp,
    ) {
        if self.kept.is_empty() {
            return;
        }
        let entry = |op: &Op| (op.service(), op.destination());
        let held: BTreeSet<_> = held.iter().map(entry).collect();
        let changed = &mut self.changed;
        self.kept.retain(|key, kept| {
            if held.contains(&(*key, None)) {
                return true;
            }
            let servers = &mut kept.service.destinations;
            let before = servers.len();
            servers.retain(|server, _| held.contains(&(*key, Some(*server))));
            if servers.len() < before || servers.is_empty() {
                changed.insert(*key);
            }
            !servers.is_empty()
        });
        self.take_wishes(desired, state, now);
        self.is_round_due |= self.serving.is_dirty();
        self.weigh(desired, state, now);
    }

    fn take_wishes(&mut self, desired: &Desired, state: &State, now: Timestamp) {
        for key in std::mem::take(&mut self.changed) {
            let (wanted, kept) = (desired.table.get(&key), self.kept.get(&key));
            let guarded = match wanted {
                Some(_) => desired.guarded.get(&key),
                None => kept.map(|kept| &kept.guarded),
            };
            let whole = whole(wanted, kept);
            let wish = guarded.zip(whole.as_ref());
            self.serving.wish(key, wish, state.found(&key), now);
            match wanted {
                Some(wanted) => self.table.insert(key, wanted.clone()),
                None => self.table.remove(&key),
            };
            self.leaving.remove(&key);
        }
    }

    fn weigh(&mut self, desired: &Desired, state: &mut State, now: Timestamp) {
        let dirty = self.serving.take_dirty();
        for key in &dirty {
            let (wanted, kept) = (desired.table.get(key), self.kept.get(key));
            let Some(whole) = whole(wanted, kept) else {
                continue;
            };
            let mut settled = self.serving.settle(*key, &whole, now);
            if let Some(kept) = kept {
                let (config, kept) = (settled.config.clone(), &kept.service.destinations);
                let leaving = settled.destinations.iter();
                let is_leaving = |server| wanted.is_none() || kept.contains_key(server);
                let leaving = leaving.filter(|(server, _)| is_leaving(*server));
                let destinations = leaving.map(|(server, config)| (*server, *config)).collect();
                settled
                    .destinations
                    .retain(|server, _| !kept.contains_key(server));
                let leaving = WantedService {
                    config,
                    destinations,
                };
                self.leaving.insert(*key, leaving);
            }
            if wanted.is_some() {
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

/// What is wanted of a service, and what is kept of it.
fn whole(wanted: Option<&WantedService>, kept: Option<&Kept>) -> Option<WantedService> {
    let kept = kept.map(|kept| &kept.service);
    let mut whole = wanted.or(kept)?.clone();
    if let (Some(_), Some(kept)) = (wanted, kept) {
        whole.destinations.extend(&kept.destinations);
    }
    Some(whole)
}
