//! Says since when an object waits, and makes an error of a wait that takes too
//! long. This module reads no clock: callers pass the times.

use std::{collections::BTreeMap, time::Duration};

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
    /// The time that users are told.
    pub clock: Timestamp,
}

/// The objects that wait.
#[derive(Clone, Debug, Default)]
pub struct Waits(BTreeMap<Id, Wait>);

/// The wait of one object.
#[derive(Clone, Debug)]
struct Wait {
    of: Cause,
    since: Timestamp,
    /// When the wait takes too long.
    late_at: Time,
}

/// What an object waits for. A wait for something else begins anew.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Cause {
    reason: String,
    generation: Option<i64>,
    /// The states that the directors must use, for a VirtualService.
    need: Option<Positions>,
}

impl Waits {
    /// Takes the waits of the objects in `scope` out, so that a pass over them
    /// can put those back that go on.
    pub fn take(&mut self, scope: &Scope) -> Self {
        match scope.ids() {
            None => std::mem::take(self),
            Some(ids) => Self(ids.filter_map(|id| self.0.remove_entry(&id)).collect()),
        }
    }

    /// Notes what an object waits for according to its wanted `status`, and
    /// adds since when to the status. `before` are the waits before this pass.
    /// If the object waited too long, the status says so.
    pub fn note(
        &mut self,
        id: &Id,
        status: &mut Status,
        published: Option<&Status>,
        before: &Self,
        facts: &mut Facts<'_>,
    ) {
        let mut conditions = status.conditions_mut().iter_mut();
        let Some(first) = conditions.find(|condition| is_waiting(condition)) else {
            return;
        };
        let cause = Cause {
            reason: first.reason.clone(),
            generation: first.observed_generation,
            need: facts
                .needs
                .get(&id.key)
                .map(|need| need.since)
                .filter(|_| id.subject == Subject::VirtualService),
        };
        let wait = match before.0.get(id) {
            Some(wait) if wait.of == cause => wait.clone(),
            known => {
                let since = match known {
                    // A controller that was just started does not know the
                    // wait, but may have published its beginning before.
                    None => published_since(first, published),
                    Some(_) => None,
                };
                let since = since.unwrap_or(facts.moment.clock);
                let waited = facts.moment.clock.duration_since(since);
                let waited = Duration::try_from(waited).unwrap_or_default();
                let patience = facts.patience(&first.reason, &id.key.namespace);
                Wait {
                    of: cause,
                    since,
                    late_at: facts.moment.now + patience.saturating_sub(waited),
                }
            }
        };
        let is_late = wait.late_at <= facts.moment.now;
        for condition in status.conditions_mut() {
            if is_waiting(condition) {
                condition::say_how_long(condition, wait.since, is_late);
            }
        }
        self.0.insert(id.clone(), wait);
    }

    /// Returns the objects whose wait became too long after `from`, and until
    /// `now`.
    pub fn late(&self, from: Time, now: Time) -> impl Iterator<Item = &Id> {
        let waits = self.0.iter();
        waits
            .filter(move |(_, wait)| from < wait.late_at && wait.late_at <= now)
            .map(|(id, _)| id)
    }

    /// The earliest time after `now` at which a wait becomes too long.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let deadlines = self.0.values().map(|wait| wait.late_at);
        deadlines.filter(|late_at| *late_at > now).min()
    }
}

/// What decides how long an object may wait.
#[derive(Debug)]
pub struct Facts<'a> {
    moment: Moment,
    resolved: &'a Resolved,
    needs: &'a BTreeMap<ObjectKey, Need>,
    /// The longest time that the first results of a health check take, by
    /// namespace. `None` until an object waits for such results.
    first_results: Option<BTreeMap<&'a str, Duration>>,
}

impl<'a> Facts<'a> {
    /// Creates the facts of one pass.
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
    let waits = is_waiting(published) || published.reason == reason::PROGRESS_DEADLINE_EXCEEDED;
    let is_same = waits && published.observed_generation == condition.observed_generation;
    is_same.then_some(published.last_transition_time.0)
}
