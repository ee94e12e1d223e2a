//! Follows the servers that are drained: stores when their drains began, and
//! reports the connections that are left.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use crds::ObjectKey;
use jiff::{SignedDuration, Timestamp};

use super::{Loop, reason::Reason};
use crate::{
    decide::idle::Idle,
    host::reading::Loads,
    tell::report::{DrainReport, ServerDrain},
};

/// What is known of the drained servers' connections.
#[derive(Default)]
pub(super) struct Draining {
    idle: Idle,
    pub(super) report: Arc<DrainReport>,
}

impl Loop {
    /// Tells the reader which services have drained servers, and updates the
    /// report about these servers.
    pub(super) fn follow_drains(&mut self, now: Duration) {
        let running = self.retention.drains().running();
        let services = running.map(|((service, _), _, _)| *service).collect();
        if services != *self.world.followed.get() {
            self.world.followed.set(services);
        }
        self.report_drains(now);
    }

    /// Takes a reading of the drained servers' connections.
    pub(super) fn hear_loads(&mut self, began: Duration, loads: Loads) -> Reason {
        self.draining.idle.hear(began, loads);
        let before = self.draining.report.clone();
        self.report_drains(self.clock.now());
        Reason::Retry.when(self.draining.report != before)
    }

    fn report_drains(&mut self, now: Duration) {
        let uptime = (self.world.uptime)();
        let wall = self.clock.steady_wall(now);
        let mut servers: BTreeMap<ObjectKey, ServerDrain> = BTreeMap::new();
        let drains = self.retention.drains();
        for (place, rule, since) in drains.running() {
            let Some(server) = drains.server(place) else {
                continue;
            };
            let since = before(wall, uptime.saturating_sub(since));
            let drain = ServerDrain {
                left: self.draining.idle.left(place),
                is_idle: self.draining.idle.is_idle(place),
                since,
                until: after(since, rule.timeout),
            };
            match servers.entry(server.clone()) {
                Entry::Vacant(new) => {
                    new.insert(drain);
                }
                Entry::Occupied(mut known) => known.get_mut().add(&drain),
            }
        }
        let report = self.draining.report.next(servers, now);
        if report != *self.draining.report {
            self.draining.report = Arc::new(report);
        }
    }

    /// Records in the journal when drains began. If writing fails, the next
    /// round tries again.
    pub(super) fn save_drains(&mut self) {
        let (Some(begun), Ok(journal)) = (self.retention.drains().unsaved(), &mut self.journal)
        else {
            return;
        };
        match journal.remember_drains(begun) {
            Ok(()) => self.retention.drains_saved(),
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
