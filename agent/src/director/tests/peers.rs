//! Tests that the director refuses a new service at an address that a program
//! of the host talks to. A service that already serves is not refused.

use std::net::SocketAddr;

use ipvs::Protocol;

use super::{
    protect::{START, act, act_for, agent, listed, refused},
    *,
};
use crate::{decide::refusals::QUIET, host::peers::Peer};

/// Makes a program of the host connect to a port of [`VIP`].
fn connect(world: &ModelWorld, port: u16) {
    world.parts().peers.insert(Peer {
        protocol: Protocol::TCP,
        address: SocketAddr::new(ip(VIP), port),
    });
}

#[test]
fn a_service_that_a_program_of_the_host_talks_to_waits_for_ten_minutes_without_it() {
    let world = ModelWorld::new();
    connect(&world, 80);
    let services = || [service(80, "wrr", 1), service(81, "wrr", 1)];
    let mut agent = agent(&world, listed(services()));
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web80"]);
    assert_eq!(world.parts().kernel.table.len(), 1, "the other one is made");

    world.parts().peers.clear();
    let observed = act_for(&mut agent, START, QUIET - Duration::from_secs(10));
    assert_eq!(refused(&observed), ["shop/web80"]);
    let observed = act_for(&mut agent, START + QUIET, Duration::from_secs(30));
    assert_eq!(refused(&observed), [""; 0]);
    assert_eq!(world.parts().kernel.table.len(), 2);
}

#[test]
fn a_service_of_the_director_may_have_clients_on_its_own_host() {
    let world = ModelWorld::new();
    let mut first = agent(&world, listed([service(80, "wrr", 1)]));
    act(&mut first, START);
    connect(&world, 80);
    let mut again = agent(&world, listed([service(80, "wrr", 1)]));
    let observed = act(&mut again, START);
    assert_eq!(refused(&observed), [""; 0]);
    assert_eq!(observed.protection.notices, [""; 0], "this is nothing odd");
}

#[test]
fn a_new_service_makes_the_clients_of_another_service_nothing_odd() {
    let world = ModelWorld::new();
    let mut agent = agent(&world, listed([service(80, "wrr", 1)]));
    act(&mut agent, START);
    connect(&world, 80);
    agent.note(Event::VirtualService(Change::Apply(service(81, "wrr", 1))));
    let observed = act(&mut agent, START + Duration::from_secs(1));
    assert_eq!(observed.protection.notices, [""; 0]);
    assert_eq!(world.parts().kernel.table.len(), 2);
}

#[test]
fn a_service_that_is_made_again_may_have_clients_on_its_own_host() {
    let world = ModelWorld::new();
    let mut agent = agent(&world, listed([service(80, "wrr", 1)]));
    act(&mut agent, START);
    connect(&world, 80);
    let key = ObjectKey::new("shop", "web80");
    let gone = Event::VirtualService(Change::Delete(key));
    agent.note(gone);
    act(&mut agent, START + Duration::from_secs(1));
    let observed = act_for(&mut agent, START, Duration::from_secs(60));
    assert_eq!(observed.outcome.map(|outcome| outcome.services), Some(0));

    agent.note(Event::VirtualService(Change::Apply(service(80, "wrr", 1))));
    let observed = act(&mut agent, START + Duration::from_secs(120));
    assert_eq!(refused(&observed), [""; 0]);
    assert_eq!(world.parts().kernel.table.len(), 1);
}
