//! Tests of the kernel's timeouts of connections.

use super::*;

const WANTED: Timeouts = Timeouts {
    tcp: 7200,
    tcp_fin: 0,
    udp: 60,
};

fn agent(world: &ModelWorld, timeouts: Timeouts) -> Agent {
    Agent {
        timeouts,
        ..Agent::start(world)
    }
}

#[test]
fn those_that_are_wanted_are_set_and_what_was_there_before_comes_back() {
    let world = ModelWorld::new();
    let mut agent = agent(&world, WANTED);
    agent.round(&wish(&[]));
    assert_eq!(
        world.news(),
        ["settle", "--set 7200 0 60"],
        "what was found is remembered before"
    );
    agent.round(&wish(&[]));
    assert_eq!(world.news(), [""; 0]);

    let mut next = timeouts::agent(&world, WANTED);
    next.round(&wish(&[]));
    assert_eq!(world.news(), [""; 0], "a restart sets nothing");

    next.timeouts.udp = 0;
    next.round(&wish(&[]));
    assert_eq!(world.news(), ["--set 0 0 300", "settle"]);
    next.timeouts.tcp = 0;
    next.round(&wish(&[]));
    assert_eq!(world.news(), ["--set 900 0 0", "settle"]);
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn without_a_wish_they_are_left_alone() {
    let world = ModelWorld::new();
    world.parts().kernel.timeouts.tcp = 1;
    let mut agent = agent(&world, Timeouts::default());
    agent.round(&wish(&[]));
    agent.state.distrust();
    agent.round(&wish(&[]));
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn whenever_it_dies_what_was_there_before_is_not_forgotten() {
    for calls in 0..10 {
        let world = ModelWorld::new();
        world.parts().life = Some(calls);
        let _ = agent(&world, WANTED).try_round(&wish(&[]), Holding::Take);
        world.parts().life = None;
        let mut next = agent(&world, WANTED);
        next.round(&wish(&[]));
        assert_eq!(world.parts().kernel.timeouts.tcp, 7200);
        world.parts().life = Some(calls);
        next.timeouts = Timeouts::default();
        let _ = next.try_round(&wish(&[]), Holding::Take);
        world.parts().life = None;
        agent(&world, Timeouts::default()).round(&wish(&[]));
        let timeouts = world.parts().kernel.timeouts;
        let before = ModelWorld::new().parts().kernel.timeouts;
        assert_eq!(timeouts, before, "after {calls} calls");
    }
}

#[test]
fn a_disk_that_cannot_remember_them_leaves_them_as_they_are() {
    let world = ModelWorld::new();
    world.parts().disk_broken = true;
    let mut agent = agent(&world, WANTED);
    let outcome = agent.round(&wish(&[]));
    assert!(outcome.failures.contains_key(&Subject::Journal));
    assert_eq!(world.news(), [""; 0]);
    world.parts().disk_broken = false;
    agent.round_when_due(&wish(&[]));
    assert_eq!(world.news(), ["settle", "--set 7200 0 60"]);
}

#[test]
fn what_another_process_sets_is_put_right_and_counted() {
    let world = ModelWorld::new();
    let mut agent = agent(&world, WANTED);
    agent.round(&wish(&[]));
    world.news();
    world.parts().kernel.timeouts.udp = 5;
    world.parts().kernel.timeouts.tcp_fin = 5;
    agent.state.distrust();
    let outcome = agent.round(&wish(&[]));
    assert_eq!(
        world.news(),
        ["--set 0 0 60"],
        "the others are left as they are"
    );
    assert_eq!(outcome.repairs.latest, ["--set 0 0 60"]);
}
