use std::time::Duration;

use crds::{Availability, HealthCheck, OnFailure, Probe, Quantity};
use ipvs::ActualService;

use super::{server::Health, *};
use crate::fixtures::health::{availability, check};
use crate::fixtures::{config, server, tcp, weight};
use crate::probe::tally::{Results, Verdict};

mod drained;
mod future;
mod namespaces;
mod property;
mod report;
mod scene;
mod sorry;

use self::scene::{Scene, at, check_policy};

const WEIGHT: u32 = 10;

#[test]
fn a_check_on_a_live_service_changes_nothing_before_a_verdict() {
    let mut scene = Scene::new(2).served();
    scene.wish();
    assert_eq!(scene.writes, 0, "both stay as they are");
    assert_eq!(scene.probe("--"), "10 10");
    assert_eq!(scene.probe("+-"), "10 10");
    assert_eq!(scene.probe("+-"), "10 0", "the third failure is a verdict");
    assert_eq!(scene.probe("++"), "10 0");
    assert_eq!(scene.probe("++"), "10 10", "and so is the second success");
}

#[test]
fn a_new_service_waits_for_first_verdicts_and_then_serves_with_what_is_up() {
    let mut scene = Scene::new(3);
    scene.wish();
    assert_eq!(scene.weights(), "0 0 0", "no server is known to be up");
    assert_eq!(scene.probe("+.-"), "10 0 0");
    assert_eq!(scene.probe(".+."), "10 10 0");
}

#[test]
fn where_no_server_of_a_new_service_is_known_to_be_up_it_fails_open() {
    let mut scene = Scene::new(2);
    scene.wish();
    assert_eq!(scene.probe("-."), "0 0", "one verdict is awaited");
    assert_eq!(scene.probe("--"), "10 10", "now both are known to fail");
    let mut silent = Scene::new(2);
    silent.wish();
    assert_eq!(
        silent.wait(7),
        "10 10",
        "the service waits for a verdict at most a period and a timeout"
    );
}

#[test]
fn a_server_that_joins_waits_for_its_first_success_and_the_others_serve() {
    let mut scene = Scene::new(2).served();
    scene.wish();
    scene.wanted.destinations.insert(server(3), weight(5));
    scene.wish();
    assert_eq!(scene.weights(), "10 10 0");
    assert_eq!(scene.probe("..+"), "10 10 5");
}

#[test]
fn editing_a_check_keeps_how_servers_stand() {
    let mut scene = Scene::new(2).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+-");
    }
    assert_eq!(scene.weights(), "10 0");
    scene.policy = check_policy(availability(), "another path");
    scene.wish();
    assert_eq!(scene.weights(), "10 0", "the edit changes no verdict");
    assert_eq!(
        scene.probe("-+"),
        "10 0",
        "and each server must earn its verdict again"
    );
    assert_eq!(scene.probe("-+"), "10 10");
    assert_eq!(scene.probe("-+"), "0 10");
}

#[test]
fn a_failed_server_is_taken_out_where_the_policy_says_so() {
    let mut scene = Scene::with(
        2,
        Availability {
            on_failure: OnFailure::Remove,
            ..availability()
        },
    )
    .served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+-");
    }
    assert_eq!(scene.weights(), "10 x");
    assert_eq!(scene.restart(), "10 x", "a restart does not put it back");
    scene.probe("++");
    assert_eq!(scene.probe("++"), "10 10");
}

#[test]
fn a_restart_with_servers_down_changes_nothing() {
    let mut scene = Scene::new(4).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+--+");
    }
    assert_eq!(scene.weights(), "10 0 0 10");
    let writes = scene.writes;
    scene.restart();
    for _ in 0..5 {
        scene.probe("+--+");
    }
    assert_eq!(
        scene.writes, writes,
        "nothing was written in the second run"
    );
    let health = scene.serving.services[&scene.key].count();
    assert_eq!(health.healthy, 2);
}

#[test]
fn a_run_that_ended_before_it_wrote_down_what_it_did_costs_nothing() {
    for before in ["++++", "+-++"] {
        let mut scene = Scene::new(4).served();
        scene.wish();
        scene.probe("++++");
        for _ in 0..2 {
            scene.probe(before);
        }
        // The health rows on disk are older than the kernel's table.
        let rows = scene.rows.clone();
        for _ in 0..3 {
            scene.probe("+--+");
        }
        assert_eq!(scene.weights(), "10 0 0 10");
        let writes = scene.writes;
        assert_eq!(scene.restart_with(&rows), "10 0 0 10", "{before}");
        for _ in 0..5 {
            scene.probe("+--+");
        }
        assert_eq!(scene.writes, writes, "nothing was written");
        scene.probe("++++");
        assert_eq!(scene.probe("++++"), "10 10 10 10", "and they come back");
    }
}

#[test]
fn a_lost_state_changes_nothing() {
    let mut scene = Scene::new(4).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+--+");
    }
    let writes = scene.writes;
    assert_eq!(scene.restart_with(&BTreeMap::new()), "10 0 0 10");
    for _ in 0..5 {
        scene.probe("+--+");
    }
    assert_eq!(scene.writes, writes, "nothing was written");
}

#[test]
fn a_restart_in_fail_open_serves_on() {
    let mut scene = Scene::new(2).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("--");
    }
    assert_eq!(scene.weights(), "10 10", "all have failed");
    let writes = scene.writes;
    scene.restart();
    for _ in 0..5 {
        scene.probe("--");
    }
    assert_eq!(scene.writes, writes, "nothing was written");
    scene.probe("+-");
    assert_eq!(scene.probe("+-"), "10 0", "one is known to be up");
}

#[test]
fn after_a_reboot_servers_are_as_they_were_known() {
    let mut scene = Scene::new(3).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+-+");
    }
    scene.kernel = None;
    scene.is_ours = false;
    assert_eq!(scene.restart(), "10 0 10");
}

#[test]
fn a_server_behind_many_services_is_probed_once() {
    let mut serving = Serving::default();
    let scene = Scene::new(20);
    let found = Found {
        service: None,
        is_ours: false,
    };
    for port in 1..=50 {
        let wish = Some((&scene.policy, &scene.wanted));
        serving.wish(tcp("192.0.2.10", port), wish, found, at(0));
    }
    let orders = serving.take_orders();
    assert_eq!(orders.len(), 20, "20 servers behind 50 services");
    for port in 1..=49 {
        serving.wish(tcp("192.0.2.10", port), None, found, at(0));
    }
    assert_eq!(serving.take_orders().len(), 0, "one service needs them all");
    serving.wish(tcp("192.0.2.10", 50), None, found, at(0));
    let stopped = serving.take_orders();
    assert_eq!(stopped.len(), 20, "no service needs them");
    assert!(
        stopped.iter().all(|order| matches!(order, Order::Stop(_))),
        "{stopped:?}"
    );
}

#[test]
fn a_service_that_joins_a_probed_server_hears_at_once_what_is_known() {
    let mut scene = Scene::new(1);
    scene.wish();
    scene.probe("+");
    let found = Found {
        service: None,
        is_ours: false,
    };
    let other = tcp("192.0.2.11", 80);
    let wish = Some((&scene.policy, &scene.wanted));
    scene.serving.wish(other, wish, found, at(scene.second));
    let weighed = scene.serving.weigh(other, &scene.wanted, at(scene.second));
    assert_eq!(weighed.destinations[0].weight, WEIGHT);
}

#[test]
fn a_weight_grows_after_recovery_and_goes_on_growing_after_a_restart() {
    let mut scene = Scene::with(
        2,
        Availability {
            slow_start: Some(Duration::from_secs(100)),
            ..availability()
        },
    )
    .served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("+-");
    }
    scene.probe("++");
    assert_eq!(scene.probe("++"), "10 1");
    assert_eq!(scene.wait(10), "10 2");
    assert_eq!(scene.wait(25), "10 4");
    let deadline = scene
        .serving
        .next_deadline()
        .expect("the weight is still growing");
    assert_eq!(deadline, at(scene.second + 5));
    assert_eq!(scene.restart(), "10 4", "a restart does not begin again");
    assert_eq!(scene.wait(100), "10 10");
    assert_eq!(
        scene.serving.next_deadline(),
        None,
        "nothing more to wait for"
    );
}

#[test]
fn a_server_that_was_served_in_fail_open_does_not_start_slowly() {
    let mut scene = Scene::with(
        2,
        Availability {
            slow_start: Some(Duration::from_secs(100)),
            ..availability()
        },
    )
    .served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("--");
    }
    assert_eq!(scene.weights(), "10 10");
    scene.probe("+-");
    assert_eq!(scene.probe("+-"), "10 0");
}

#[test]
fn a_rise_that_is_forgotten_is_forgotten_on_the_disk_too() {
    let mut scene = Scene::with(
        2,
        Availability {
            slow_start: Some(Duration::from_secs(100)),
            ..availability()
        },
    )
    .served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("--");
    }
    scene.probe("+-");
    assert_eq!(scene.probe("+-"), "10 0");
    scene.wait(5);
    assert_eq!(scene.restart(), "10 0");
}

/// Returns the weights of the two servers of a new service. Another service
/// already probes both servers, with the given `results`. The kernel already
/// has the new service, with the weights `in_kernel`.
fn weights_of_one_that_joins(results: &str, in_kernel: [u32; 2]) -> Vec<u32> {
    let mut scene = Scene::new(2).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe(results);
    }
    let other = tcp("192.0.2.11", 80);
    let destinations = [1, 2].map(server).into_iter().zip(in_kernel.map(weight));
    let kernel = ActualService {
        config: scene.wanted.config.clone(),
        destinations: destinations.collect(),
    };
    let found = Found {
        service: Some(&kernel),
        is_ours: true,
    };
    let wish = Some((&scene.policy, &scene.wanted));
    scene.serving.wish(other, wish, found, at(scene.second));
    let weighed = scene.serving.weigh(other, &scene.wanted, at(scene.second));
    let weights = weighed.destinations.values();
    weights.map(|config| config.weight).collect()
}

#[test]
fn what_is_known_of_a_target_is_a_verdict_for_a_live_service_that_joins_it() {
    assert_eq!(weights_of_one_that_joins("+-", [10, 10]), [10, 0]);
    assert_eq!(weights_of_one_that_joins("++", [10, 0]), [10, 10]);
}

#[test]
fn a_server_behind_two_ports_is_pinged_once() {
    let mut scene = Scene::new(1);
    let policy = Arc::get_mut(&mut scene.policy).expect("no clone of the policy exists");
    let mut check = (*policy.check).clone();
    check.probe = Probe::Icmp;
    policy.check = Arc::new(check);
    let second = DestinationKey {
        port: 443,
        ..server(1)
    };
    scene.wanted.destinations.insert(second, weight(WEIGHT));
    let found = Found {
        service: None,
        is_ours: false,
    };
    let wish = Some((&scene.policy, &scene.wanted));
    scene.serving.wish(scene.key, wish, found, at(0));
    assert_eq!(scene.serving.take_orders().len(), 1);
}

#[test]
fn what_is_no_longer_checked_is_forgotten() {
    let mut scene = Scene::new(2).served();
    scene.wish();
    scene.probe("+-");
    assert!(!scene.rows.is_empty());
    scene.wanted.destinations.shift_remove(&server(2));
    scene.wish();
    let left = scene.rows.len();
    assert_eq!(left, 1, "{:?}", scene.rows);
    let found = Found {
        service: scene.kernel.as_ref(),
        is_ours: true,
    };
    let key = scene.key;
    scene.serving.wish(key, None, found, at(scene.second));
    scene.act();
    assert!(scene.rows.is_empty(), "{:?}", scene.rows);
    assert_eq!(scene.results.len(), 0, "and nothing is probed");
}

/// The health rows that the agent remembers are older than the server's
/// failure.
#[test]
fn a_service_below_its_minimum_does_not_recover_by_what_is_remembered() {
    let mut scene = Scene::with(
        4,
        Availability {
            minimum: Some(Quantity::Count(3)),
            below: BelowMinimum::Reject,
            ..availability()
        },
    );
    let drain = |scene: &mut Scene, server: usize, weight: u32| {
        let (_, config) = scene.wanted.destinations.get_index_mut(server).unwrap();
        config.weight = weight;
        scene.wish();
    };
    scene.wish();
    assert_eq!(scene.probe("++++"), "10 10 10 10");
    drain(&mut scene, 0, 0);
    drain(&mut scene, 2, 0);
    assert_eq!(
        scene.weights(),
        "0 0 0 0",
        "two are fewer than the minimum of three"
    );
    let old = scene.rows.clone();
    for _ in 0..3 {
        scene.probe("+-++");
    }
    drain(&mut scene, 0, WEIGHT);
    assert_eq!(
        scene.restart_with(&old),
        "0 0 0 0",
        "no probe result has come yet"
    );
    assert_eq!(
        scene.probe("+..+"),
        "0 0 0 0",
        "one server has no result yet"
    );
    assert_eq!(
        scene.probe("++++"),
        "10 10 0 10",
        "all three are seen to be up"
    );
}
