//! Decides each server's weight by its health and the service's policy. The
//! code is pure: it does no I/O.

use std::time::Duration;

use crds::{Availability, BelowMinimum, OnFailure};
use jiff::Timestamp;

use super::{
    ramp,
    server::{Health, ServerState},
};

/// The properties of one server that the policy depends on.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The weight that the administrator gave the server; 0 means drained.
    pub weight: u32,
    /// The health state of the server.
    pub state: &'a ServerState,
    /// Whether the server was in the kernel when its health check began.
    pub was_there: bool,
}

/// How many servers a service has, and how many of them are healthy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// The number of servers that are not drained.
    pub total: usize,
    /// The number of servers that are up and not drained.
    pub healthy: usize,
}

impl Count {
    /// Counts the servers that are not drained, and the healthy servers among
    /// them.
    pub fn of<'a>(servers: impl IntoIterator<Item = Server<'a>>) -> Self {
        let mut count = Self::default();
        for server in servers {
            if server.weight > 0 {
                count.total += 1;
                count.healthy += usize::from(server.state.health() == Health::Up);
            }
        }
        count
    }
}

/// Whether a service is below its minimum of healthy servers. Once below its
/// minimum, a service counts as below until it has recovered. A service does
/// not fall below its minimum while it waits for first verdicts (`is_awaited`).
pub fn is_below(
    availability: &Availability,
    count: Count,
    was_below: bool,
    is_awaited: bool,
) -> bool {
    let Count { total, healthy } = count;
    let has_minimum = healthy >= availability.minimum_of(total);
    if !was_below {
        return !has_minimum && !is_awaited;
    }
    let is_enough = availability
        .recover_above
        .is_none_or(|above| healthy > above.of(total) || healthy == total);
    !(has_minimum && is_enough)
}

/// Returns the server's weight in the kernel, or none if the server should not
/// be in the kernel. Also returns when the weight changes next without a new
/// probe result, if it does.
pub fn weight(
    server: Server<'_>,
    availability: &Availability,
    is_below: bool,
    now: Timestamp,
) -> (Option<u32>, Option<Timestamp>) {
    let is_up = server.state.health() == Health::Up;
    let failed = || match availability.on_failure {
        // The server may have connections. The health check has not shown yet that the server
        // failed.
        _ if server.was_there && server.state.health() == Health::Unknown => (Some(0), None),
        OnFailure::Quiesce => (Some(0), None),
        OnFailure::Remove => (None, None),
    };
    match (is_below, &availability.below) {
        (false, _) if is_up => grown(server, availability, now),
        (true, BelowMinimum::FailOpen) => (Some(server.weight), None),
        // The server is healthy, so its connections may continue.
        (true, BelowMinimum::Reject | BelowMinimum::Sorry(_)) if is_up => (Some(0), None),
        _ => failed(),
    }
}

fn grown(
    server: Server<'_>,
    availability: &Availability,
    now: Timestamp,
) -> (Option<u32>, Option<Timestamp>) {
    let (Some(slow_start), Some(risen)) = (availability.slow_start, server.state.risen()) else {
        return (Some(server.weight), None);
    };
    // If the clock was set back since the server came into service, the slow
    // start begins again.
    let since = Duration::try_from(now.duration_since(risen)).unwrap_or(Duration::ZERO);
    let (weight, next) = ramp::weight(server.weight, since, slow_start);
    let next = next.and_then(|next| risen.checked_add(next).ok());
    (Some(weight), next)
}

#[cfg(test)]
mod tests {
    use crds::{ForwardingRule, Quantity, SorryServer};

    use super::*;
    use crate::event::probed::Tally;
    use crate::fixtures::health::{availability, check};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn state(health: Health) -> ServerState {
        ServerState::remembered(health, at(0), None, 0)
    }

    fn sorry() -> BelowMinimum {
        BelowMinimum::Sorry(SorryServer {
            address: "192.0.2.99".parse().unwrap(),
            port: 80,
            forwarding: ForwardingRule::Nat,
        })
    }

    fn weight_of(health: Health, availability: &Availability, is_below: bool) -> Option<u32> {
        let state = state(health);
        let server = Server {
            weight: 5,
            state: &state,
            was_there: false,
        };
        weight(server, availability, is_below, at(0)).0
    }

    #[test]
    fn each_policy_gives_each_server_its_weight() {
        let remove = |availability| Availability {
            on_failure: OnFailure::Remove,
            ..availability
        };
        let below = |below| Availability {
            below,
            ..availability()
        };
        let quiesced = Some(0);
        for (what, availability, is_below, up, down) in [
            ("Quiesce", availability(), false, Some(5), quiesced),
            ("Remove", remove(availability()), false, Some(5), None),
            ("FailOpen", availability(), true, Some(5), Some(5)),
            (
                "FailOpen, Remove",
                remove(availability()),
                true,
                Some(5),
                Some(5),
            ),
            (
                "Reject",
                below(BelowMinimum::Reject),
                true,
                quiesced,
                quiesced,
            ),
            (
                "Reject, Remove",
                remove(below(BelowMinimum::Reject)),
                true,
                quiesced,
                None,
            ),
            ("SorryServer", below(sorry()), true, quiesced, quiesced),
        ] {
            for (health, expected) in [
                (Health::Up, up),
                (Health::Down, down),
                (Health::Unknown, down),
            ] {
                let found = weight_of(health, &availability, is_below);
                assert_eq!(found, expected, "{what}: {health:?}");
            }
        }
    }

    #[test]
    fn a_drained_server_stays_drained_when_everything_fails() {
        let state = state(Health::Down);
        let server = Server {
            weight: 0,
            state: &state,
            was_there: false,
        };
        assert_eq!(weight(server, &availability(), true, at(0)).0, Some(0));
        assert_eq!(Count::of([server]), Count::default(), "nor is it counted");
    }

    #[test]
    fn without_a_minimum_not_one_healthy_server_is_too_few() {
        let count = |healthy| Count { total: 3, healthy };
        assert!(is_below(&availability(), count(0), false, false));
        assert!(!is_below(&availability(), count(1), false, false));
        assert!(
            !is_below(&availability(), count(1), true, false),
            "and one is enough to recover"
        );
    }

    #[test]
    fn it_does_not_begin_while_first_verdicts_are_awaited_and_does_not_end_for_them() {
        let count = Count {
            total: 3,
            healthy: 0,
        };
        assert!(!is_below(&availability(), count, false, true));
        assert!(is_below(&availability(), count, true, true));
    }

    #[test]
    fn recovery_takes_more_than_the_minimum_where_that_is_said() {
        let rule = Availability {
            minimum: Some(Quantity::Count(2)),
            recover_above: Some(Quantity::Percent(50)),
            ..availability()
        };
        let mut is_now = false;
        let seen: Vec<_> = [4, 3, 2, 1, 2, 3, 2, 1, 4]
            .into_iter()
            .map(|healthy| {
                is_now = is_below(&rule, Count { total: 4, healthy }, is_now, false);
                is_now
            })
            .collect();
        assert_eq!(
            seen,
            [false, false, false, true, true, false, false, true, false],
            "2 are half of 4, not more"
        );
    }

    #[test]
    fn all_healthy_is_recovered_however_high_the_bar() {
        let rule = Availability {
            minimum: Some(Quantity::Count(2)),
            recover_above: Some(Quantity::Count(10)),
            ..availability()
        };
        let count = |healthy| Count { total: 3, healthy };
        assert!(is_below(&rule, count(2), true, false));
        assert!(!is_below(&rule, count(3), true, false));
    }

    #[test]
    fn a_minimum_that_cannot_be_reached_is_missed_for_good() {
        let rule = Availability {
            minimum: Some(Quantity::Count(5)),
            ..availability()
        };
        let count = Count {
            total: 3,
            healthy: 3,
        };
        assert!(is_below(&rule, count, false, false));
        assert!(is_below(&rule, count, true, false));
    }

    #[test]
    fn a_server_that_rose_grows_and_one_that_was_there_does_not() {
        let slow = Availability {
            slow_start: Some(Duration::from_secs(50)),
            ..availability()
        };
        let there = state(Health::Up);
        let server = |state| Server {
            weight: 5,
            state,
            was_there: true,
        };
        assert_eq!(weight(server(&there), &slow, false, at(0)), (Some(5), None));

        let mut rose = state(Health::Unknown);
        let tally = Tally {
            successes: 1,
            failures: 0,
            is_flapping: false,
            why: None,
        };
        let check = check();
        rose.hear(&tally, &check, at(0));
        assert_eq!(
            weight(server(&rose), &slow, false, at(0)),
            (Some(1), Some(at(10)))
        );
        assert_eq!(
            weight(server(&rose), &slow, false, at(25)),
            (Some(3), Some(at(30)))
        );
        assert_eq!(weight(server(&rose), &slow, false, at(50)), (Some(5), None));
    }
}
