//! Tests of entries that leave while they have connections.

use std::collections::BTreeMap;

use super::{graces::*, *};
use crate::{
    decide::{desired::PERIOD, serving::Found},
    event::probed::Tally,
    host::reading::Load,
    probe::target::Order,
};

/// The connections to servers, by the last byte of their addresses.
type Connections<'a> = &'a [(u8, Load)];

/// An established connection.
const ONE: Load = Load {
    active: 1,
    inactive: 0,
    persistent: 0,
    packets: 0,
};
/// A closed connection of which the kernel still knows.
const CLOSED: Load = Load {
    active: 0,
    inactive: 1,
    persistent: 0,
    packets: 0,
};
/// A client that is bound to the server.
const BOUND: Load = Load {
    active: 0,
    inactive: 0,
    persistent: 1,
    packets: 0,
};

impl Scene {
    /// Lets the reader read the connections of the service.
    fn read(&mut self, connections: Connections<'_>) {
        let servers = connections.iter();
        let servers = servers.map(|(last, load)| (server(*last), *load));
        let loads = BTreeMap::from([(tcp(WEB, 80), servers.collect())]);
        self.idle.get_or_insert_default().hear(self.now, loads);
    }

    /// Decides at a second, and applies the state in force. Returns the
    /// operations.
    fn step(&mut self, second: u64, wanted: &Desired) -> Vec<String> {
        let Retained { in_force, held, .. } = self.at(s(second), wanted);
        assert_eq!(held, [], "nothing is held after {second} s");
        self.apply(&in_force)
    }
}

const GONE: &str = "-d -t 192.0.2.10:80 -r 198.51.100.1:80";

#[test]
fn a_server_stays_without_new_connections_until_the_kernel_knows_none() {
    for load in [ONE, CLOSED, BOUND] {
        let (before, after) = (web(&[(1, 5), (2, 5)]), web(&[(2, 5)]));
        let mut scene = served(&before);
        scene.read(&[(1, load), (2, ONE)]);
        assert_eq!(
            scene.step(1, &after),
            ["-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 0"]
        );
        for second in [10, 11, 12, 200] {
            assert_eq!(scene.step(second, &after), [""; 0], "after {second} s");
        }
        assert_eq!(scene.retention.next_deadline(), Some(s(301)));
        scene.read(&[(2, ONE)]);
        assert_eq!(scene.step(202, &after), [GONE], "{load:?}");
    }
}

#[test]
fn a_server_leaves_with_its_connections_when_its_services_period_is_over() {
    for (seconds, end) in [(300, 301), (60, 61), (5, 6), (0, 1)] {
        let with_period = |mut desired: Desired| {
            if seconds != PERIOD.as_secs() {
                desired.periods.insert(tcp(WEB, 80), s(seconds));
            }
            desired
        };
        let mut scene = served(&with_period(web(&[(1, 5), (2, 5)])));
        let after = with_period(web(&[(2, 5)]));
        scene.read(&[(1, ONE)]);
        let mut operations = Vec::new();
        for second in (1..=end).filter(|second| [1, end - 1, end].contains(second)) {
            operations = scene.step(second, &after);
            let is_gone = operations.contains(&GONE.to_owned());
            assert_eq!(
                is_gone,
                second == end,
                "period {seconds} s, after {second} s"
            );
        }
        assert!(operations.contains(&GONE.to_owned()));
    }
}

#[test]
fn an_edit_of_the_period_counts_for_servers_that_are_leaving() {
    let mut after = web(&[(2, 5)]);
    let mut scene = served(&web(&[(1, 5), (2, 5)]));
    scene.read(&[(1, ONE)]);
    scene.step(1, &after);
    scene.step(30, &after);
    after.periods.insert(tcp(WEB, 80), s(40));
    assert_eq!(scene.step(40, &after), [""; 0]);
    assert_eq!(scene.step(41, &after), [GONE]);
}

#[test]
fn a_deleted_service_serves_for_ten_seconds_and_then_refuses_new_connections() {
    let mut scene = served(&web(&[(1, 5), (2, 7)]));
    scene.read(&[(1, ONE)]);
    for second in [1, 10] {
        assert_eq!(scene.step(second, &wish(&[])), [""; 0], "after {second} s");
    }
    let Retained { in_force, .. } = scene.at(s(11), &wish(&[]));
    assert!(
        in_force.desired.vips.contains_key(&ip(WEB)),
        "its VIP stays"
    );
    assert!(in_force.desired.is_draining, "for the sysctls");
    assert_eq!(
        scene.apply(&in_force),
        [
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 0",
            "-e -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 0",
        ]
    );
    assert_eq!(scene.step(200, &wish(&[])), [""; 0]);
    scene.read(&[]);
    assert_eq!(scene.step(201, &wish(&[])), ["-D -t 192.0.2.10:80"]);
}

#[test]
fn the_sorry_server_of_a_deleted_service_gets_no_new_connections_either() {
    let mut scene = served(&checked(&[(1, 5)]));
    scene.read(&[(1, ONE)]);
    for (second, expected) in [(1, false), (10, false), (11, true)] {
        let Retained { in_force, .. } = scene.at(s(second), &wish(&[]));
        let policy = &in_force.desired.checks[&tcp(WEB, 80)];
        let is_drained = policy.drained.contains(&server(99));
        assert_eq!(is_drained, expected, "after {second} s");
    }
}

#[test]
fn the_last_period_of_a_deleted_service_counts() {
    let mut before = web(&[(1, 5)]);
    before.periods.insert(tcp(WEB, 80), s(30));
    let mut scene = served(&before);
    scene.read(&[(1, ONE)]);
    scene.step(1, &wish(&[]));
    scene.step(11, &wish(&[]));
    assert_eq!(scene.step(30, &wish(&[])), [""; 0]);
    assert_eq!(scene.step(31, &wish(&[])), ["-D -t 192.0.2.10:80"]);
}

#[test]
fn whoever_makes_the_same_service_takes_it_over_in_place() {
    let mut scene = served(&web(&[(1, 5)]));
    scene.read(&[(1, ONE)]);
    scene.step(1, &wish(&[]));
    scene.step(11, &wish(&[]));
    let other = web(&[(2, 5)]);
    assert_eq!(
        scene.step(12, &other),
        ["-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 5"],
        "the old server keeps its connections"
    );
    scene.read(&[(2, ONE)]);
    assert_eq!(scene.step(22, &other), [GONE]);
}

#[test]
fn a_server_that_comes_back_has_its_weight_and_its_connections() {
    let before = web(&[(1, 5), (2, 5)]);
    let mut scene = served(&before);
    scene.read(&[(1, ONE)]);
    scene.step(1, &web(&[(2, 5)]));
    scene.step(100, &web(&[(2, 5)]));
    let back = ["-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 5"];
    assert_eq!(scene.step(101, &before), back);
    assert_eq!(scene.step(400, &before), [""; 0]);
}

#[test]
fn the_connections_of_a_server_that_is_down_are_not_waited_for() {
    let (before, after) = (checked(&[(1, 5), (2, 5)]), checked(&[(2, 5)]));
    let mut scene = served(&before);
    scene.read(&[(1, ONE)]);
    let key = tcp(WEB, 80);
    let wanted = &before.table[&key];
    let found = Found {
        service: None,
        is_ours: false,
    };
    let now = crate::fixtures::NOON;
    let wish = Some((&before.checks[&key], wanted));
    scene.serving.wish(key, wish, found, now);
    let failed = Tally {
        successes: 0,
        failures: 3,
        is_flapping: false,
        why: Some("connection refused".into()),
    };
    for order in scene.serving.take_orders() {
        if let Order::Start(probe, target) = order
            && target.address.ip() == server(1).address
        {
            scene.serving.hear(probe, &failed, now);
        }
    }
    scene.step(1, &after);
    assert_eq!(scene.step(10, &after), [""; 0]);
    assert_eq!(scene.step(11, &after), [GONE]);
}

#[test]
fn while_connections_were_not_read_none_is_taken_for_finished() {
    let (before, after) = (web(&[(1, 5), (2, 5)]), web(&[(2, 5)]));
    let mut scene = served(&before);
    scene.idle = Some(Idle::default());
    scene.step(1, &after);
    assert_eq!(scene.step(300, &after), [""; 0]);
    assert_eq!(scene.step(301, &after), [GONE]);
}

#[test]
fn a_restart_moves_no_end_and_begins_no_grace_again() {
    let (before, after) = (web(&[(1, 5), (2, 5)]), web(&[(2, 5)]));
    let mut scene = served(&before);
    scene.read(&[(1, ONE)]);
    scene.step(1, &after);
    let record = scene.retention.unsaved().expect("a grace has begun");
    let restarted = |scene: &mut Scene| {
        scene.retention = Retention::default();
        scene.retention.restore(&record);
    };

    restarted(&mut scene);
    scene.now = s(100);
    // What the previous run stored is older than the deletion.
    let early = Removals::NotYet { is_late: false };
    let Retained { in_force, .. } = scene.retain(&before, early);
    assert_eq!(scene.apply(&in_force), [""; 0], "the weight stays 0");
    assert_eq!(scene.step(300, &after), [""; 0]);
    assert_eq!(scene.retention.unsaved(), None);
    assert_eq!(scene.step(301, &after), [GONE]);
}

#[test]
fn without_a_listing_what_the_previous_run_allowed_leaves_when_the_listing_is_late() {
    let (before, after) = (web(&[(1, 5), (2, 5)]), web(&[(2, 5)]));
    let mut scene = served(&before);
    scene.read(&[(1, ONE)]);
    scene.step(1, &after);
    let record = scene.retention.unsaved().expect("a grace has begun");
    scene.retention = Retention::default();
    scene.retention.restore(&record);
    scene.now = s(400);
    for (is_late, expected) in [(false, vec![]), (true, vec![GONE])] {
        let Retained { in_force, .. } = scene.retain(&after, Removals::NotYet { is_late });
        assert_eq!(scene.apply(&in_force), expected);
    }
}

#[test]
fn servers_that_began_to_leave_long_ago_do_not_count_for_the_guard() {
    let many =
        |servers: std::ops::Range<u8>| web(&servers.map(|last| (last, 1)).collect::<Vec<_>>());
    let mut scene = served(&many(1..31));
    let all: Vec<_> = (1..31).map(|last| (last, ONE)).collect();
    scene.read(&all);
    assert_eq!(scene.at(s(1), &many(11..31)).held, [], "ten may leave");
    assert_eq!(scene.at(s(60), &many(12..31)).held.len(), 1, "and no more");
    assert_eq!(scene.at(s(60), &many(11..31)).held, []);
    assert_eq!(scene.at(s(61), &many(12..31)).held, [], "a minute later");
}
