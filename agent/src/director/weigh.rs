//! Applies the health of servers to the table in force. Servers that are in
//! service keep their weight. All other servers get weight 0 or leave the
//! table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipvs::{ServiceKey, WantedService, WantedTable};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    act::State,
    decide::{
        desired::Desired,
        drains::Drains,
        serving::{Serving, memory::Memory},
    },
    disk::checkpoint::{Note, Recorder},
    event::probed::{ProbeId, Tally},
    probe::target::Order,
    ration::{Line, Ration},
    tell::report::HealthReport,
};

/// If the last beat of the thread that makes probes is at least this old, the
/// thread hangs.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How long the thread must seem to hang before the agent says so.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Why no target is probed while the thread that makes probes hangs.
const STUCK: &str = "the thread that makes probes has not worked for 30 s; restart the agent if \
                     it does not recover by itself";

/// The health of servers, and the table that results from it.
pub(super) struct Health {
    serving: Serving,
    /// The table in force, with the weights that the servers' health allows.
    pub(super) table: WantedTable,
    /// The reasons why probes failed because of this host, each with the number
    /// of affected targets.
    void: BTreeMap<Arc<str>, usize>,
    /// The reasons why probes begin late, each with the number of affected
    /// targets.
    late: BTreeMap<Arc<str>, usize>,
    /// Whether the thread that makes probes hangs.
    is_prober_stuck: bool,
    /// The first time at which that thread seemed to hang. After a pause of the
    /// whole process, every thread seems to hang for a moment.
    suspected: Option<Duration>,
    report: Arc<HealthReport>,
    is_report_old: bool,
    has_forgotten: bool,
    /// The services whose wanted state changed, for the audit trail.
    changed: BTreeSet<ServiceKey>,
    /// Limits the log lines about the health of servers.
    ration: Ration,
}

impl Health {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            serving: Serving::remember(memory),
            table: WantedTable::new(),
            void: BTreeMap::new(),
            late: BTreeMap::new(),
            is_prober_stuck: false,
            suspected: None,
            report: Arc::default(),
            is_report_old: false,
            has_forgotten: false,
            changed: BTreeSet::new(),
            ration: Ration::default(),
        }
    }

    /// Records the latest probe results of a target. Returns whether the loop
    /// must run a round because of the results.
    pub(super) fn hear(&mut self, probe: ProbeId, tally: &Tally, now: Timestamp) -> bool {
        self.serving.hear(probe, tally, now);
        self.take_news(now);
        self.is_report_old || self.is_urgent()
    }

    /// Logs the news about the health of servers and services.
    fn take_news(&mut self, now: Timestamp) {
        self.is_report_old |= self.serving.take_is_report_old();
        let now = Duration::try_from(now.as_duration()).unwrap_or_default();
        for (namespace, news) in self.serving.take_news() {
            let text = news.to_string();
            let line = Line { namespace, text };
            match (self.ration.take(line, now), news.is_bad()) {
                (Some(text), true) => tracing::warn!("{text}"),
                (Some(text), false) => tracing::info!("{text}"),
                (None, _) => {}
            }
        }
    }

    /// Marks the health report as outdated, because the objects behind the
    /// kernel's entries may have changed.
    pub(super) fn names_changed(&mut self) {
        self.is_report_old = true;
    }

    /// Sets the reasons why probes failed because of this host.
    pub(super) fn void(&mut self, why: BTreeMap<Arc<str>, usize>) {
        self.void = why;
        self.is_report_old = true;
    }

    /// Sets the reasons why probes begin late.
    pub(super) fn late(&mut self, why: BTreeMap<Arc<str>, usize>) {
        self.late = why;
        self.is_report_old = true;
    }

    /// Records the time since the last beat of the thread that makes probes.
    /// Returns whether the thread has begun to hang, or works again.
    pub(super) fn prober_beat(&mut self, age: Duration, now: Duration) -> bool {
        let is_stuck = match age >= LONGEST_SILENCE {
            true => *self.suspected.get_or_insert(now) + SECOND_LOOK <= now,
            false => {
                self.suspected = None;
                false
            }
        };
        if is_stuck == self.is_prober_stuck {
            return false;
        }
        match is_stuck {
            true => tracing::error!("{STUCK}; servers keep their last state"),
            false => tracing::info!("the thread that makes probes works again"),
        }
        self.is_prober_stuck = is_stuck;
        self.is_report_old = true;
        true
    }

    /// Whether a change of health must be written to the kernel without delay.
    pub(super) fn is_urgent(&self) -> bool {
        self.serving.is_dirty()
    }

    /// Returns when the health of a server or service may next change without a
    /// new probe result.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.serving.next_deadline()
    }

    /// Updates `table` to the state `in_force`, with the weights that health
    /// allows. Marks each service whose weights may have changed, so that the
    /// round plans it again. `changed` must contain every service that has
    /// changed in `in_force` since the last call. The caller must have read the
    /// kernel's table before. If `is_listed` is true, all wanted services are
    /// known, so this function forgets the recorded health of unwanted
    /// services. Servers whose drain has ended their connections are left out of
    /// `table`; their checks go on.
    pub(super) fn weigh(
        &mut self,
        in_force: &Desired,
        changed: BTreeSet<ServiceKey>,
        drains: &Drains,
        is_listed: bool,
        state: &mut State,
        now: Timestamp,
    ) {
        let in_kernel = |key: ServiceKey, mut service: WantedService| {
            let destinations = &mut service.destinations;
            destinations.retain(|server, _| !drains.has_ended(&(key, *server)));
            service
        };
        self.changed.extend(&changed);
        for key in changed {
            let service = in_force.table.get(&key);
            let checked = in_force.checks.get(&key).zip(service);
            self.serving.wish(key, checked, state.found(&key), now);
            match service {
                Some(service) => self.table.insert(key, in_kernel(key, service.clone())),
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
                self.table.insert(*key, in_kernel(*key, weighed));
            }
        }
        self.take_news(now);
        self.changed.extend(&dirty);
        state.weights_changed(dirty);
    }

    /// Returns the services whose wanted state changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.changed)
    }

    /// Sends the prober its orders to start and stop probes. Sends changed
    /// health rows to the checkpoint.
    pub(super) fn tell(&mut self, recorder: &Recorder, orders: &UnboundedSender<Order>) {
        for order in self.serving.take_orders() {
            // Sending fails only if there is no prober to receive the orders.
            orders.send(order).unwrap_or_default();
        }
        let notes = self.serving.take_notes();
        if !notes.is_empty() {
            recorder.note(Note::Standings(notes));
        }
    }

    /// Returns the health of servers.
    pub(super) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Returns the report about the health of servers.
    pub(super) fn report(&mut self, desired: &Desired) -> Arc<HealthReport> {
        if std::mem::take(&mut self.is_report_old) {
            self.report = Arc::new(HealthReport {
                found: self.serving.report(desired),
                targets: self.serving.targets(),
                void: match self.is_prober_stuck {
                    true => BTreeMap::from([(STUCK.into(), self.serving.targets())]),
                    false => self.void.clone(),
                },
                late: self.late.clone(),
            });
        }
        self.report.clone()
    }
}
