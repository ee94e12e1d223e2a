//! Compares an object's wanted status with its published status, and rates how
//! much the difference matters.

use crds::{
    api::{DirectorGroupStatus, VirtualServiceStatus},
    condition::{self, kind, reason},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::status::Status;

/// How much the difference between two statuses matters, and therefore how soon
/// the new status is published.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Difference {
    /// The statuses are equal, except for times.
    None,
    /// Only numbers or names of directors differ, and every condition keeps its
    /// meaning. When a director dies, the status of every service of its group
    /// gets a soft difference. These statuses must not all be patched at once.
    /// The difference is also soft if the condition Ready becomes Unknown only
    /// because a director's status has no room for all reports.
    Soft,
    /// The condition Ready was True and becomes Unknown, because no director has
    /// found out a server's health yet. Often it is True again after seconds.
    Brief,
    /// A reason, a generation, the message of a failure, or a count differs. A
    /// changed count of directors is only a soft difference, unless it counts
    /// the directors that find a server unhealthy.
    Plain,
    /// A condition's status differs, or the condition is new.
    Flip,
}

impl Status {
    /// How this status differs from the published status. Conditions that only
    /// the published status has are ignored, because another writer owns these
    /// conditions.
    pub fn difference(&self, published: Option<&Self>) -> Difference {
        let conditions = published.map_or(&[][..], Self::conditions);
        let of_conditions = self
            .conditions()
            .iter()
            .map(|new| of_condition(condition::find(conditions, &new.type_), new))
            .max()
            .unwrap_or(Difference::None);
        // Counts that change together with a brief difference change once more
        // when it ends.
        if of_conditions == Difference::Brief && self.unhealthy_on() == 0 {
            return Difference::Brief;
        }
        let difference = of_conditions.max(self.difference_of_counts(published));
        // The message of an unhealthy server says which directors do not reach
        // the server, and why. Users need such news soon, so the difference is
        // not soft.
        if difference == Difference::Soft && self.unhealthy_on() > 0 {
            return Difference::Plain;
        }
        difference
    }

    fn difference_of_counts(&self, published: Option<&Self>) -> Difference {
        let (is_same, is_plain) = match (self, published) {
            (Self::VirtualService(new), Some(Self::VirtualService(old))) => (
                new.real_servers == old.real_servers
                    && new.directors == old.directors
                    && is_same_holder(self, published),
                servers_in_and_out(new) != servers_in_and_out(old)
                    || is_other_holder(self, published),
            ),
            (Self::RealServer(new), Some(Self::RealServer(old))) => (
                new.virtual_services == old.virtual_services
                    && new.directors == old.directors
                    && new.in_force == old.in_force
                    && new.state == old.state,
                is_other_state(new.state.as_deref(), old.state.as_deref())
                    || new.virtual_services != old.virtual_services
                    || new.in_force != old.in_force
                    || self.unhealthy_on() != published.map_or(0, Self::unhealthy_on),
            ),
            (Self::DirectorGroup(new), Some(Self::DirectorGroup(old))) => {
                let counts = |of: &DirectorGroupStatus| {
                    let live = (of.live_directors, of.programmed_directors);
                    (of.directors, live, of.holding_removals, of.virtual_services)
                };
                let is_same = counts(new) == counts(old) && is_same_holder(self, published);
                (is_same, !is_same)
            }
            (Self::Director(_), _) => (true, false),
            _ => (false, true),
        };
        match (is_same, is_plain) {
            (true, _) => Difference::None,
            (false, false) => Difference::Soft,
            (false, true) => Difference::Plain,
        }
    }
}

/// Whether the same directors hold the virtual addresses, apart from times.
fn is_same_holder(new: &Status, published: Option<&Status>) -> bool {
    match (new.holder(), published.and_then(Status::holder)) {
        (Some(new), Some(old)) => new.is_same(old),
        (new, old) => new.is_none() && old.is_none(),
    }
}

/// Whether another director holds the VIP of a service. While directors use a
/// change one after another, the holders are known one after another too. So a
/// name that comes or goes is no news then: a status has no name if several
/// directors hold the VIP, or none.
fn is_other_holder(new: &Status, published: Option<&Status>) -> bool {
    match (name_of_holder(Some(new)), name_of_holder(published)) {
        (Some(new), Some(old)) => new != old,
        (None, None) => false,
        _ => {
            let programmed = condition::find(new.conditions(), kind::PROGRAMMED);
            programmed.is_none_or(|programmed| programmed.reason != reason::PROGRAMMING)
        }
    }
}

fn name_of_holder(of: Option<&Status>) -> Option<&str> {
    of?.holder()?.director_name.as_deref()
}

/// Returns the number of a service's servers, and how many of these servers are
/// known to be out of service.
fn servers_in_and_out(status: &VirtualServiceStatus) -> Option<(i32, i32)> {
    let counts = status.real_servers.as_ref()?;
    let may_serve = counts.healthy + counts.unknown.unwrap_or_default();
    Some((counts.selected, counts.selected - may_serve))
}

/// Whether a server begins or ends to be drained, or the number of its
/// connections is known for the first time.
fn is_other_state(new: Option<&str>, old: Option<&str>) -> bool {
    let is_counted = |state: &str| state.contains('(');
    match (new, old) {
        (Some(new), Some(old)) => {
            let (phase, before) = (phase(new), phase(old));
            phase != before || is_counted(new) && !is_counted(old)
        }
        (new, old) => new != old,
    }
}

/// Returns a server's state without the number of connections.
fn phase(state: &str) -> &str {
    state.split_once(' ').map_or(state, |(phase, _)| phase)
}

fn of_condition(old: Option<&Condition>, new: &Condition) -> Difference {
    let Some(old) = old else {
        return Difference::Flip;
    };
    // Ready can become Unknown only because a director's status has no room for
    // all its reports. This change is soft: see [`Difference::Soft`].
    let lost = new.reason == reason::MORE_TO_REPORT && old.reason == reason::READY;
    if lost {
        return Difference::Soft;
    }
    let is_same_generation = old.observed_generation == new.observed_generation;
    if new.reason == reason::CHECKING && old.reason == reason::READY && is_same_generation {
        return Difference::Brief;
    }
    if old.status != new.status {
        return Difference::Flip;
    }
    if old.reason != new.reason || !is_same_generation {
        return Difference::Plain;
    }
    if old.message == new.message {
        return Difference::None;
    }
    // If a condition is True or waits, only counts and directors' names change
    // in its message. Any other message says what to do, and a user may be
    // waiting for this advice.
    let waits = [reason::PROGRAMMING, reason::PROGRESS_DEADLINE_EXCEEDED];
    let only_counts = new.status == "True" || waits.contains(&&*new.reason);
    match new.type_.as_str() {
        kind::PROGRAMMED | kind::READY if only_counts => Difference::Soft,
        // Only counts and directors' names change. How much is left is a number
        // for people, who look now and then.
        kind::DRAINED => Difference::Soft,
        _ => Difference::Plain,
    }
}

#[cfg(test)]
mod tests {
    use crds::{
        api::{
            CheckingDirectors, DirectorCounts, RealServerCounts, RealServerStatus, ServerInForce,
            VipHolder,
        },
        condition::{ExpectedHolder, ServerHealth, Sight},
    };
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(conditions: Vec<Condition>) -> Status {
        Status::VirtualService(VirtualServiceStatus {
            conditions,
            ..VirtualServiceStatus::default()
        })
    }

    fn not_held(address: &str) -> Condition {
        condition::vip_not_held(address, "edge", ExpectedHolder::NotLive("lb-1", None), 1)
    }

    fn programmed() -> Status {
        status(vec![condition::programmed(2, 1)])
    }

    #[test]
    fn a_status_that_differs_in_times_alone_does_not_differ() {
        let published = programmed().dated(None, at(5));
        assert_ne!(published, programmed());
        assert_eq!(programmed().difference(Some(&published)), Difference::None);
    }

    #[test]
    fn conditions_of_others_are_no_difference() {
        let published = Status::Director(vec![
            condition::director_programmed(1, 1, 1),
            condition::alive(1),
        ]);
        let wanted = Status::Director(vec![condition::alive(1)]);
        assert_eq!(wanted.difference(Some(&published)), Difference::None);
    }

    #[test]
    fn differences_matter_more_or_less() {
        let counts = |healthy, live: i32| {
            Status::VirtualService(VirtualServiceStatus {
                conditions: vec![condition::programmed(2, 1)],
                real_servers: Some(RealServerCounts {
                    healthy,
                    ..RealServerCounts::default()
                }),
                directors: Some(DirectorCounts {
                    live,
                    ..DirectorCounts::default()
                }),
                vip: None,
            })
        };
        let programming = condition::programming(["c"], 1);
        let held_by = |name: Option<&str>, programmed: &Condition| {
            Status::VirtualService(VirtualServiceStatus {
                conditions: vec![programmed.clone()],
                vip: Some(VipHolder::new(name, if name.is_some() { 1 } else { 2 })),
                ..VirtualServiceStatus::default()
            })
        };
        for (old, new, difference) in [
            (None, programmed(), Difference::Flip),
            (Some(status(vec![])), programmed(), Difference::Flip),
            (
                Some(status(vec![condition::programming(["a"], 1)])),
                programmed(),
                Difference::Flip,
            ),
            (
                Some(status(vec![condition::programmed(2, 0)])),
                programmed(),
                Difference::Plain,
            ),
            (
                Some(status(vec![condition::no_directors("default", 1)])),
                status(vec![condition::programming(["a"], 1)]),
                Difference::Plain,
            ),
            (
                Some(status(vec![condition::resolved_refs(1, 1)])),
                status(vec![condition::resolved_refs(2, 1)]),
                Difference::Plain,
            ),
            (
                Some(status(vec![condition::programmed(1, 1)])),
                programmed(),
                Difference::Soft,
            ),
            (
                Some(status(vec![condition::programming(["a", "b"], 1)])),
                status(vec![condition::programming(["b"], 1)]),
                Difference::Soft,
            ),
            (
                Some(status(vec![not_held("10.0.0.1")])),
                status(vec![not_held("10.0.0.2")]),
                Difference::Plain,
            ),
            (
                Some(held_by(Some("a"), &programming)),
                held_by(None, &programming),
                Difference::Soft,
            ),
            (
                Some(held_by(Some("a"), &programming)),
                held_by(Some("b"), &programming),
                Difference::Plain,
            ),
            (
                Some(held_by(Some("a"), &condition::programmed(2, 1))),
                held_by(None, &condition::programmed(2, 1)),
                Difference::Plain,
            ),
            (Some(counts(1, 2)), counts(1, 1), Difference::Soft),
            (Some(counts(1, 2)), counts(2, 1), Difference::Plain),
            (Some(counts(1, 2)), counts(1, 2), Difference::None),
        ] {
            assert_eq!(new.difference(old.as_ref()), difference, "{old:?} {new:?}");
        }
    }

    #[test]
    fn what_is_known_of_health_matters_more_than_what_is_not() {
        let service = |healthy, unknown, ready: Condition| {
            Status::VirtualService(VirtualServiceStatus {
                conditions: vec![ready],
                real_servers: Some(RealServerCounts {
                    selected: 10,
                    healthy,
                    unknown,
                    ..RealServerCounts::default()
                }),
                ..VirtualServiceStatus::default()
            })
        };
        let ready = || Condition {
            type_: kind::READY.to_owned(),
            reason: reason::READY.to_owned(),
            ..condition::programmed(2, 1)
        };
        let lost = || condition::more_below_minimum(["d1"], 1);
        for (old, new, difference) in [
            ((10, None, ready()), (9, None, ready()), Difference::Plain),
            ((10, None, ready()), (3, Some(7), ready()), Difference::Soft),
            ((10, None, ready()), (3, Some(7), lost()), Difference::Soft),
            (
                (10, None, ready()),
                (3, Some(6), ready()),
                Difference::Plain,
            ),
            ((3, Some(7), lost()), (10, None, ready()), Difference::Flip),
        ] {
            let (old, new) = (service(old.0, old.1, old.2), service(new.0, new.1, new.2));
            assert_eq!(new.difference(Some(&old)), difference, "{old:?} {new:?}");
        }
    }

    #[test]
    fn of_a_ready_server_it_matters_where_it_is_unhealthy_and_not_how_many_check_it() {
        let server = |health: &ServerHealth<'_>, unhealthy| {
            Status::RealServer(RealServerStatus {
                conditions: vec![condition::server_ready(1, Some(health), [], 1)],
                virtual_services: Some(1),
                directors: Some(CheckingDirectors {
                    unhealthy,
                    ..health.counts()
                }),
                in_force: None,
                state: None,
            })
        };
        let of_other_service = |status: Status| match status {
            Status::RealServer(status) => Status::RealServer(RealServerStatus {
                in_force: Some(ServerInForce::default()),
                ..status
            }),
            other => other,
        };
        let on = |healthy, waiting: &[&'static str]| {
            let mut health = ServerHealth::default();
            health.healthy(healthy);
            for director in waiting {
                health.unnamed(director, Sight::Waiting);
            }
            health
        };
        for (old, new, difference) in [
            (
                server(&on(2, &[]), 0),
                server(&on(1, &[]), 0),
                Difference::Soft,
            ),
            (
                server(&on(2, &[]), 0),
                server(&on(2, &["d3"]), 0),
                Difference::Soft,
            ),
            (
                server(&on(2, &[]), 0),
                server(&on(2, &[]), 1),
                Difference::Plain,
            ),
            (
                server(&on(2, &[]), 1),
                server(&on(2, &[]), 0),
                Difference::Plain,
            ),
            (
                server(&on(2, &[]), 1),
                server(&on(1, &[]), 1),
                Difference::Plain,
            ),
            (
                server(&on(1, &[]), 0),
                server(&on(0, &["d1"]), 0),
                Difference::Brief,
            ),
            (
                server(&on(1, &[]), 0),
                of_other_service(server(&on(0, &["d1"]), 0)),
                Difference::Brief,
            ),
            (
                server(&on(1, &[]), 0),
                of_other_service(server(&on(1, &[]), 0)),
                Difference::Plain,
            ),
            (
                server(&on(0, &["d1"]), 0),
                server(&on(1, &[]), 0),
                Difference::Flip,
            ),
        ] {
            assert_eq!(new.difference(Some(&old)), difference, "{old:?} {new:?}");
        }
    }
}
