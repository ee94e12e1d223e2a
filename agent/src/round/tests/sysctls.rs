//! The sysctls that services with a health check need.

use std::sync::Arc;

use super::*;
use crate::{
    desired::Guarded,
    fixtures::health::{availability, check},
};

const NAMES: [&str; 2] = [
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
];

/// A service with a health check.
fn checked() -> Desired {
    let mut desired = wish(&[]);
    let guarded = Guarded {
        check: Arc::new(check()),
        availability: availability(),
        sorry: None,
    };
    let key = tcp("192.0.2.10", 80);
    desired.guarded.insert(key, Arc::new(guarded));
    desired
}

fn values(world: &ModelWorld) -> [String; 2] {
    NAMES.map(|name| world.parts().sysctls[name].clone())
}

#[test]
fn they_are_set_for_a_check_and_come_back_without() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&wish(&[]));
    assert_eq!(world.news(), [""; 0], "nobody needs them");
    agent.round(&checked());
    assert_eq!(values(&world), ["1", "1"]);
    world.news();

    let mut next = Agent::start(&world);
    next.round(&checked());
    assert_eq!(world.news(), [""; 0], "a restart sets nothing");
    next.round(&wish(&[]));
    assert_eq!(values(&world), ["0", "0"], "as they were found");
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn one_that_was_so_before_is_not_ours_and_stays() {
    let world = ModelWorld::new();
    world.parts().sysctls.insert(NAMES[0].into(), "1".into());
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    agent.round(&wish(&[]));
    assert_eq!(values(&world), ["1", "0"]);
}

#[test]
fn one_that_somebody_sets_back_is_put_right_and_counted() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    world.parts().sysctls.insert(NAMES[1].into(), "0".into());
    agent.state.distrust();
    let outcome = agent.round(&checked());
    assert_eq!(values(&world), ["1", "1"]);
    assert_eq!(outcome.repairs.count, 1);
}

#[test]
fn whenever_it_dies_what_was_there_before_is_not_forgotten() {
    for calls in 0..12 {
        let world = ModelWorld::new();
        world.parts().life = Some(calls);
        let _ = Agent::start(&world).try_round(&checked(), Holding::Take);
        world.parts().life = None;
        let mut next = Agent::start(&world);
        next.round(&checked());
        assert_eq!(values(&world), ["1", "1"], "after {calls} calls");
        next.round(&wish(&[]));
        assert_eq!(values(&world), ["0", "0"], "after {calls} calls");
    }
}

#[test]
fn where_they_cannot_be_set_it_is_said_and_the_rest_goes_on() {
    let world = ModelWorld::new();
    world.parts().sysctls.clear();
    let mut agent = Agent::start(&world);
    let mut desired = wish(&[(tcp("192.0.2.10", 80), "wrr", &[(1, 1)])]);
    desired.guarded = checked().guarded;
    let outcome = agent.round(&desired);
    let message = &outcome.failures[&Subject::Sysctls];
    assert!(message.contains(NAMES[0]), "{message}");
    assert!(message.contains("--sysctl-dir"), "{message}");
    assert_eq!(world.table().len(), 2, "the table is as it is to be");
}
