//! Tests a start from the checkpoint, before any input has answered.

use super::*;

/// Returns the events that restore all objects from a checkpoint, before any
/// input has answered.
fn restored() -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    for service in [service(80, "wrr", 1), service(443, "wrr", 1)] {
        events.push(Event::VirtualService(Change::Apply(service)));
    }
    for last in [1, 2] {
        events.push(Event::RealServer(Change::Apply(server(last))));
    }
    events.push(Event::DirectorGroup(Change::Apply(group(None))));
    events.push(Event::Restored);
    events
}

/// Returns a director that has received the given events and acted once.
fn acting(world: &ModelWorld, events: impl IntoIterator<Item = Event>) -> Loop {
    let mut agent = director(&Doors::default(), world);
    events.into_iter().for_each(|event| agent.note(event));
    let observed = agent.act(Duration::from_secs(1));
    assert!(observed.is_none(), "nothing is reported before an answer");
    agent
}

#[test]
fn what_the_previous_run_knew_is_made_before_any_answer_and_not_reported() {
    let world = ModelWorld::new();
    let mut agent = acting(&world, restored());
    assert_eq!(world.table().len(), 6, "two services with two servers each");
    assert_eq!(
        world.interfaces_with(ip(VIP)),
        [""; 0],
        "another director may have the VIP by now"
    );
    assert_eq!(agent.next_deadline(Duration::from_secs(1)), VIP_GRACE);
    agent.reason = Reason::Retry;
    assert!(agent.act(VIP_GRACE).is_none());
    assert_eq!(
        world.interfaces_with(ip(VIP)),
        ["eth0"],
        "no input answers, so the VIP is ours"
    );
    world.news();
    everything().into_iter().for_each(|event| agent.note(event));
    let observed = agent.act(Duration::from_secs(6)).expect("now it is known");
    assert!(observed.used.is_some());
    assert_eq!(world.news(), [""; 0], "there is nothing left to do");
}

#[test]
fn what_another_process_made_since_is_not_taken_for_what_the_previous_run_knew() {
    let world = ModelWorld::new();
    let theirs = kernel_service("sed", &[(1, 9)]);
    let table = [(tcp(VIP, 80), theirs)];
    world.parts().kernel.table = table.clone().into();
    let mut agent = acting(&world, restored());
    let found = world.parts().kernel.table[&tcp(VIP, 80)].clone();
    assert_eq!(found, table[0].1, "it is left as it is");

    let answers = [
        services([service(443, "wrr", 1)]),
        servers([server(1)]),
        groups([group(None)]),
    ];
    answers
        .into_iter()
        .flatten()
        .for_each(|event| agent.note(event));
    agent.act(Duration::from_secs(2)).expect("now it is known");
    let found = world.parts().kernel.table[&tcp(VIP, 80)].clone();
    assert_eq!(found, table[0].1, "it is not wanted, and not ours");
    let ours = "-A -t 192.0.2.10:443 -s wrr".to_owned();
    assert!(world.table().contains(&ours), "all is known and done");
}

#[test]
fn before_every_input_has_answered_nothing_is_removed() {
    let running = started_with_everything();
    let world = running.world.clone();
    running.stop();
    let before = world.table().len();

    let only_one = [
        directors(&["a"]),
        Event::VirtualService(Change::Apply(service(80, "rr", 2))),
        Event::DirectorGroup(Change::Apply(group(Some("b")))),
        Event::Restored,
    ];
    let mut agent = acting(&world, only_one);
    let table = world.table();
    assert!(table.contains(&"-A -t 192.0.2.10:80 -s rr".to_owned()));
    assert_eq!(table.len(), before, "what was there still is: {table:#?}");
    assert_eq!(
        world.interfaces_with(ip(VIP)),
        ["eth0"],
        "the VIP is still there too"
    );

    // Once all inputs have answered, entries that no listed object wants are
    // removed.
    let answers = [
        services([service(80, "rr", 2)]),
        servers([server(1)]),
        groups([group(Some("b"))]),
    ];
    answers
        .into_iter()
        .flatten()
        .for_each(|event| agent.note(event));
    agent.act(Duration::from_secs(2)).expect("now it is known");
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:80 -s rr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1"
        ]
    );
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "b may be dead");
    for event in [
        directors(&["a", "b"]),
        lease("b", "12:00:00"),
        lease("b", "12:00:10"),
    ] {
        agent.note(event);
    }
    agent.act(Duration::from_secs(3)).expect("b is live");
    assert_eq!(world.interfaces_with(ip(VIP)), [""; 0]);
}
