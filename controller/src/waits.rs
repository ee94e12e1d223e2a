//! Says since when an object waits, and makes an error of a wait that takes too
//! long. This module reads no clock: callers pass the times.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{
    ObjectKey, Resolved,
    condition::{self, reason},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    history::Positions,
    liveness::Time,
    need::Need,
    scope::Scope,
    status::{Id, Status, Subject},
};

/// How long an object may wait. The directors of a large fleet report at
/// intervals of seconds, so a wait of less than minutes is no sign of a fault.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The reasons of conditions that are normally over soon.
const WAITING: [&str; 3] = [reason::PROGRAMMING, reason::CHECKING, reason::VIP_PROBING];

/// The time of a pass by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time that decides how long objects have waited.
    pub now: Time,
    /// The wall clock's time, which statuses show.
    pub clock: Timestamp,
}

/// The objects that wait.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    waits: BTreeMap<Id, Wait>,
    /// When each wait becomes too long, until then. Renewals of Leases come all
    /// the time, so no renewal may look at every wait.
    deadlines: BTreeSet<(Time, Id)>,
}

/// The wait of one object.
#[derive(Clone, Debug)]
struct Wait {
    of: Cause,
    since: Timestamp,
    /// When this process noticed the wait, and how long the object had waited
    /// then.
    noticed: (Time, Duration),
    /// When the wait becomes too long.
    late_at: Time,
}

/// What an object waits for. A wait for something else begins anew.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Cause {
    uid: String,
    reason: String,
    generation: Option<i64>,
    /// The states that the directors must use, for a VirtualService.
    need: Option<Positions>,
}

impl Waits {
    /// Takes the waits of the objects in `scope` out. A pass over these objects
    /// notes those that go on.
    pub fn take(&mut self, scope: &Scope) -> Self {
        let Some(ids) = scope.ids() else {
            return std::mem::take(self);
        };
        let mut taken = Self::default();
        for id in ids {
            if let Some(wait) = self.waits.remove(&id) {
                self.deadlines.remove(&(wait.late_at, id.clone()));
                taken.waits.insert(id, wait);
            }
        }
        taken
    }

    /// Notes what an object waits for according to its wanted `status`, and
    /// adds since when to the status. `before` are the waits before this pass.
    /// If the object waited too long, the status says so.
    pub fn note(
        &mut self,
        object: Object<'_>,
        status: &mut Status,
        before: &Self,
        limits: &mut Limits<'_>,
    ) {
        let id = object.id;
        let mut conditions = status.conditions().iter();
        let Some(first) = conditions.find(|condition| is_waiting(condition)) else {
            return;
        };
        let is_service = id.subject == Subject::VirtualService;
        let need = limits.needs.get(&id.key).filter(|_| is_service);
        let cause = Cause {
            uid: object.uid.to_owned(),
            reason: first.reason.clone(),
            generation: first.observed_generation,
            need: need.map(|need| need.since),
        };
        let Moment { now, clock } = limits.moment;
        let (since, noticed) = match before.waits.get(id) {
            Some(wait) if wait.of == cause => (wait.since, wait.noticed),
            Some(_) => (clock, (now, Duration::ZERO)),
            // Another controller may have published the wait before this one
            // began to lead.
            None => {
                let since = published_since(first, object.published).unwrap_or(clock);
                let waited = Duration::try_from(clock.duration_since(since));
                (since, (now, waited.unwrap_or_default()))
            }
        };
        let patience = limits.patience(&first.reason, &id.key.namespace);
        let late_at = noticed.0 + patience.saturating_sub(noticed.1);
        for condition in status.conditions_mut() {
            if is_waiting(condition) {
                condition::say_how_long(condition, since, late_at <= now);
            }
        }
        if late_at > now {
            self.deadlines.insert((late_at, id.clone()));
        }
        let wait = Wait {
            of: cause,
            since,
            noticed,
            late_at,
        };
        self.waits.insert(id.clone(), wait);
    }

    /// Returns the objects whose wait became too long since the last call.
    pub fn late(&mut self, now: Time) -> Vec<Id> {
        let mut late = Vec::new();
        while let Some((late_at, _)) = self.deadlines.first()
            && *late_at <= now
        {
            late.extend(self.deadlines.pop_first().map(|(_, id)| id));
        }
        late
    }

    /// The time at which the next wait becomes too long.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(late_at, _)| *late_at)
    }
}

/// An object that may wait.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// The object's kind, namespace and name.
    pub id: &'a Id,
    /// The object's uid.
    pub uid: &'a str,
    /// The status that the object has now, if any.
    pub published: Option<&'a Status>,
}

/// What decides how long an object may wait.
#[derive(Debug)]
pub struct Limits<'a> {
    moment: Moment,
    resolved: &'a Resolved,
    needs: &'a BTreeMap<ObjectKey, Need>,
    /// The longest time that the first results of a health check take, by
    /// namespace. `None` until an object waits for such results.
    first_results: Option<BTreeMap<&'a str, Duration>>,
}

impl<'a> Limits<'a> {
    /// Creates the limits of one pass.
    pub const fn new(
        moment: Moment,
        resolved: &'a Resolved,
        needs: &'a BTreeMap<ObjectKey, Need>,
    ) -> Self {
        Self {
            moment,
            resolved,
            needs,
            first_results: None,
        }
    }

    /// Returns how long an object may wait. Results of a health check may take
    /// as long as the slowest check of the namespace.
    fn patience(&mut self, reason: &str, namespace: &str) -> Duration {
        if reason != reason::CHECKING {
            return PATIENCE;
        }
        let resolved = self.resolved;
        let slowest = self.first_results.get_or_insert_with(|| {
            let mut slowest: BTreeMap<&str, Duration> = BTreeMap::new();
            for (key, service) in &resolved.services {
                if let Some(check) = &service.health_check {
                    let probes = check.failure_threshold.max(check.success_threshold);
                    let longest = slowest.entry(&key.namespace).or_default();
                    *longest = (*longest).max((check.period + check.timeout) * probes);
                }
            }
            slowest
        });
        PATIENCE + slowest.get(namespace).copied().unwrap_or_default()
    }
}

fn is_waiting(condition: &Condition) -> bool {
    WAITING.contains(&&*condition.reason)
}

/// Returns since when a condition waits according to its published form.
fn published_since(condition: &Condition, published: Option<&Status>) -> Option<Timestamp> {
    let published = condition::find(published?.conditions(), &condition.type_)?;
    let waits = published.reason == condition.reason
        || published.reason == reason::PROGRESS_DEADLINE_EXCEEDED;
    let is_same = waits && published.observed_generation == condition.observed_generation;
    condition::waiting_since(published).filter(|_| is_same)
}
