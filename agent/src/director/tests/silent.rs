//! Tests what the loop reports if another part of the agent, or the API server,
//! is silent.

use super::*;
use crate::{director::tests::health::checked, heartbeat::Heartbeat};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Passes on events, and runs a round if there is a reason for one.
fn after(
    agent: &mut Loop,
    events: impl IntoIterator<Item = Event>,
    now: Duration,
) -> Option<Observed> {
    events.into_iter().for_each(|event| agent.note(event));
    agent.act(now)
}

#[test]
fn a_kind_that_is_never_listed_is_told_by_its_name_and_the_rest_with_it() {
    let mut agent = director(&Doors::default(), &ModelWorld::new());
    let restored = [
        directors(&["a"]),
        Event::VirtualService(Change::Apply(service(80, "wrr", 1))),
        Event::RealServer(Change::Apply(server(1))),
        Event::DirectorGroup(Change::Apply(group(None))),
        Event::Restored,
    ];
    let listed = services([service(80, "wrr", 1)]).into_iter();
    let listed = listed.chain(groups([group(None)]));
    let events = restored.into_iter().chain(listed);
    let early = after(&mut agent, events, s(10));
    assert!(early.is_none(), "the listing may only be slow");

    let late = after(&mut agent, [], s(60)).or_else(|| after(&mut agent, [Event::Links], s(61)));
    let late = late.expect("a report");
    assert_eq!(
        late.trouble,
        Some(Trouble::NotListed("RealServers".to_owned()))
    );
    let outcome = late.outcome.expect("rounds go on");
    assert_eq!((outcome.services, outcome.destinations), (1, 1));
    assert_eq!(outcome.vips[&ip(VIP)], "eth0");

    let whole = after(&mut agent, servers([server(1)]), s(70)).expect("a report");
    assert_eq!(whole.trouble, None);
}

#[test]
fn an_agent_that_never_knew_anything_says_once_what_it_waits_for() {
    let mut agent = director(&Doors::default(), &ModelWorld::new());
    assert!(after(&mut agent, [], s(59)).is_none());
    let told = after(&mut agent, groups([group(None)]), s(60)).expect("a report");
    let kinds = "VirtualServices, RealServers, DirectorGroupMembers";
    assert_eq!(told.trouble, Some(Trouble::NotListed(kinds.to_owned())));
    assert!(told.outcome.is_none());
    assert!(
        after(&mut agent, [], s(61)).is_none(),
        "one report is enough"
    );
    let told = after(&mut agent, [directors(&["a"])], s(62)).expect("another report");
    let kinds = "VirtualServices, RealServers";
    assert_eq!(told.trouble, Some(Trouble::NotListed(kinds.to_owned())));
}

#[test]
fn a_prober_that_hangs_is_told_and_so_is_its_return() {
    let prober = Heartbeat::aged(s(30));
    let (recorder, _) = Recorder::new();
    let world = World {
        prober: prober.clone(),
        ..Doors::default().world(&ModelWorld::new())
    };
    let (name, group_name) = ("a".to_owned(), "default".to_owned());
    let clock = Clock::start();
    let mut agent = Loop::new(name, group_name, clock, world, recorder, Memory::default());
    let mut events = vec![directors(&["a"])];
    events.extend(services([checked(80)]));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group(None)]));
    let first = after(&mut agent, events, s(1)).expect("a report");
    assert_eq!(
        first.health.void,
        BTreeMap::new(),
        "the process may only have been paused"
    );
    let hangs = after(&mut agent, [], s(2)).expect("a report");
    let void: Vec<_> = hangs.health.void.iter().collect();
    let [(why, targets)] = *void else {
        panic!("one reason: {void:?}");
    };
    assert!(why.contains("the thread that makes probes"), "{why}");
    assert_eq!(*targets, 2);
    prober.beat();
    let works = after(&mut agent, [], s(3)).expect("a report");
    assert_eq!(works.health.void, BTreeMap::new());
}
