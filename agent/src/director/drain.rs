//! Follows the servers that are drained or leave: stores since when, and reports
//! the connections that are left.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use crds::{ObjectKey, api::DrainCause};
use jiff::{SignedDuration, Timestamp};

use super::{Loop, reason::Reason};
use crate::{
    decide::{
        departures::{Departure, Place},
        idle::Idle,
        retain::{Before, Traffic},
    },
    host::reading::Loads,
    tell::report::{DrainReport, Drained, ServerDrain},
};

/// What is known of the connections to servers without new connections.
#[derive(Default)]
pub(super) struct Draining {
    pub(super) idle: Idle,
    pub(super) report: Arc<DrainReport>,
}

impl Loop {
    /// Tells the reader which services have servers that are drained or leave,
    /// and updates the report about these servers.
    pub(super) fn follow_drains(&mut self, now: Duration) {
        let services = self.retention.followed();
        if services != *self.world.followed.get() {
            self.world.followed.set(services);
        }
        self.report_drains(now);
    }

    /// Takes a reading of the connections in the followed services.
    pub(super) fn hear_loads(&mut self, began: Duration, loads: Loads) -> Reason {
        self.draining.idle.hear(began, loads);
        let before = self.draining.report.clone();
        let now = self.clock.now();
        self.report_drains(now);
        let is_news = self.draining.report != before || self.is_any_freed(now);
        Reason::Retry.when(is_news)
    }

    /// Whether an entry may leave now because its clients have finished.
    fn is_any_freed(&mut self, now: Duration) -> bool {
        let uptime = self.uptime(now);
        let Some(kernel) = self.state.believed() else {
            return false;
        };
        self.retention.is_any_freed(Before {
            ours: self.state.ours(),
            kernel,
            changed: None,
            absence: &self.absence,
            looks: self.caution.looks(),
            uptime,
            traffic: Traffic::Read {
                idle: &self.draining.idle,
                serving: self.health.serving(),
            },
        })
    }

    fn report_drains(&mut self, now: Duration) {
        let uptime = self.uptime(now);
        let wall = self.clock.steady_wall(now);
        let idle = &self.draining.idle;
        let drain = |place: &Place, since: Duration, period: Duration| {
            let since = before(wall, uptime.saturating_sub(since));
            ServerDrain {
                left: idle.left(place),
                is_idle: idle.is_idle(place),
                since,
                until: after(since, period),
            }
        };
        let mut servers: BTreeMap<Drained, ServerDrain> = BTreeMap::new();
        let mut add =
            |server: &ObjectKey, cause, drain| match servers.entry((server.clone(), cause)) {
                Entry::Vacant(new) => _ = new.insert(drain),
                Entry::Occupied(mut known) => known.get_mut().add(&drain),
            };
        let drains = self.retention.drains();
        for (place, rule, since) in drains.running() {
            if let Some(server) = drains.server(place) {
                add(
                    server,
                    DrainCause::Drained,
                    drain(place, since, rule.timeout),
                );
            }
        }
        for (place, server, Departure { since, period }) in self.retention.departing(uptime) {
            let drain = drain(&place, since, period);
            if drain.is_idle != Some(true) {
                add(server, DrainCause::Leaving, drain);
            }
        }
        let report = self.draining.report.next(servers, now);
        if report != *self.draining.report {
            self.draining.report = Arc::new(report);
        }
    }

    /// Records in the journal when drains began and which entries leave. If
    /// writing fails, the next round tries again.
    pub(super) fn save_drains(&mut self) {
        let (Some(record), Ok(journal)) = (self.retention.unsaved(), &mut self.journal) else {
            return;
        };
        match journal.remember_drains(&record) {
            Ok(()) => self.retention.saved(),
            Err(error) => self.unsaved.warn([error.to_string()]),
        }
    }
}

/// Returns the full second that is `ago` before a time.
fn before(time: Timestamp, ago: Duration) -> Timestamp {
    let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
    let time = time.saturating_sub(ago).expect("it saturates");
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn after(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.saturating_add(by).expect("it saturates")
}
