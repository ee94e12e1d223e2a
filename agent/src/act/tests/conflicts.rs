//! Tests of wanted entries that other programs have already created.

use super::*;
use ipvs::ActualService;

use crate::{fixtures::weight, host::reading::Reading};

fn leaving(world: &ModelWorld) -> Agent {
    Agent {
        on_conflict: OnConflict::Leave,
        ..Agent::start(world)
    }
}

fn theirs(world: &ModelWorld, scheduler: &str, servers: &[(u8, u32)]) {
    let found = service(scheduler, servers);
    world.parts().kernel.table.insert(tcp(WEB, 80), found);
}

#[test]
fn a_strangers_service_that_differs_is_left_and_reported_and_our_vip_is_not_added_to_it() {
    let world = ModelWorld::new();
    theirs(&world, "sed", &[(9, 9)]);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = leaving(&world);
    let outcome = agent.round(&ours);
    assert_eq!(
        world.news(),
        [""; 0],
        "no service, server or VIP is written"
    );
    assert_eq!(outcome.left, [(tcp(WEB, 80), None)]);
    assert_eq!((outcome.services, outcome.vips.len()), (0, 0));

    // The stranger removes its service.
    world.parts().kernel.table.clear();
    let table = world.parts().kernel.table.clone();
    assert!(agent.state.hint(&Reading::Table(table), false));
    let outcome = agent.round(&ours);
    assert_eq!(outcome.left, []);
    assert_eq!(outcome.vips.len(), 1);
    assert_eq!(world.table().len(), 2);
    assert_eq!(outcome.repairs.count, 0, "it never was ours");
}

#[test]
fn a_strangers_server_that_differs_is_left_and_one_that_does_not_is_ours() {
    let world = ModelWorld::new();
    theirs(&world, "wrr", &[(1, 1), (2, 9)]);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2), (3, 3)])]);
    let mut agent = leaving(&world);
    let outcome = agent.round(&ours);
    assert_eq!(outcome.left, [(tcp(WEB, 80), Some(server(2)))]);
    assert_eq!(outcome.destinations, 2);
    let found = world.parts().kernel.table[&tcp(WEB, 80)].destinations[&server(2)];
    assert_eq!(found, weight(9), "it is as they made it");
    world.news();

    // The group's policy for strangers' entries changes to `Adopt`.
    agent.on_conflict = OnConflict::Adopt;
    let outcome = agent.round(&ours);
    assert_eq!(outcome.left, []);
    assert_eq!(
        world.news(),
        ["settle", "-e -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 2",]
    );
}

#[test]
fn an_adopted_service_is_given_back_with_the_strangers_server_in_it() {
    let world = ModelWorld::new();
    theirs(&world, "wrr", &[(1, 1), (9, 9)]);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]);
    let mut agent = Agent::start(&world);
    agent.round(&ours);
    // A stranger adds a server after the agent has read the service.
    let added = service("wrr", &[(8, 8)]).destinations;
    let change = |found: &mut ActualService| found.destinations.extend(added);
    let key = tcp(WEB, 80);
    world.parts().kernel.table.entry(key).and_modify(change);
    world.news();

    // The journal records that the service was adopted.
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&wish(&[]));
    assert_eq!(
        world.news(),
        [
            "- 192.0.2.10 eth0",
            "-d -t 192.0.2.10:80 -r 198.51.100.1:80",
            "-d -t 192.0.2.10:80 -r 198.51.100.2:80",
            "settle",
        ]
    );
    assert_eq!((outcome.services, outcome.destinations), (0, 0));
    agent.state.distrust();
    agent.round(&wish(&[]));
    assert_eq!(world.news(), [""; 0], "it is the stranger's again");
}

#[test]
fn a_server_that_a_stranger_adds_before_the_service_goes_stays() {
    let world = ModelWorld::new();
    theirs(&world, "wrr", &[(1, 1)]);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = settled(&world, &ours);
    let added = service("wrr", &[(1, 1), (9, 9)]);
    world.parts().kernel.table.insert(tcp(WEB, 80), added);
    agent.round(&wish(&[]));
    let left = world.parts().kernel.table[&tcp(WEB, 80)]
        .destinations
        .clone();
    assert_eq!(left, service("wrr", &[(9, 9)]).destinations);
}

#[test]
fn a_server_that_a_stranger_adds_while_the_removal_waits_stays() {
    let world = ModelWorld::new();
    theirs(&world, "wrr", &[(1, 1)]);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = settled(&world, &ours);
    // The VIP cannot be removed at first, so the service stays.
    world.parts().links_broken = true;
    agent.round(&wish(&[]));
    let added = service("wrr", &[(1, 1), (9, 9)]);
    world.parts().kernel.table.insert(tcp(WEB, 80), added);
    world.parts().links_broken = false;
    agent.round_when_due(&wish(&[]));
    let left = world.parts().kernel.table[&tcp(WEB, 80)]
        .destinations
        .clone();
    assert_eq!(left, service("wrr", &[(9, 9)]).destinations);
}

#[test]
fn what_is_ours_is_put_right_whatever_the_policy() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = settled(&world, &ours);
    agent.on_conflict = OnConflict::Leave;
    theirs(&world, "sed", &[(1, 9)]);
    agent.state.distrust();
    let outcome = agent.round(&ours);
    assert_eq!(outcome.left, []);
    assert_eq!(outcome.repairs.count, 2);
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
        ]
    );
}

#[test]
fn an_unwanted_order_is_reported_if_the_scheduler_depends_on_it() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "mh", &[(2, 1)])]));
    let both = wish(&[(tcp(WEB, 80), "mh", &[(1, 1), (2, 1)])]);
    let outcome = agent.round(&both);
    assert_eq!(outcome.misordered, [tcp(WEB, 80)].into());
    let outcome = agent.round(&wish(&[(tcp(WEB, 80), "mh", &[(2, 1), (1, 1)])]));
    assert_eq!(outcome.misordered, [].into(), "now that is the wanted one");
}
