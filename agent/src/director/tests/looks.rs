//! Tests that removals wait for a look at the cluster, and nothing else does.

use super::*;
use crate::{
    decide::caution::Hold,
    event::origin::{Answer, Definition, Source, Word},
};

const SERVERS: &str = "realservers.ipvs.dev";

fn awaited(look: u64) -> Event {
    let is_listing = false;
    Event::Caution(Word::Awaited { look, is_listing })
}

fn awaited_by_listing(look: u64) -> Event {
    let is_listing = true;
    Event::Caution(Word::Awaited { look, is_listing })
}

fn ended(look: u64) -> Event {
    Event::Caution(Word::Ended(look))
}

fn cluster(uid: &str) -> Event {
    Event::Caution(Word::Cluster(Answer::Is(uid.to_owned())))
}

fn definition(how: Definition) -> Event {
    Event::Caution(Word::Definition(SERVERS, Answer::Is(how)))
}

fn deleted(last: u8) -> Event {
    Event::RealServer(Change::Delete(ObjectKey::of(&server(last))))
}

fn deleted_service(port: i32) -> Event {
    let key = ObjectKey::of(&service(port, "wrr", 1));
    Event::VirtualService(Change::Delete(key))
}

/// Returns a director of cluster a whose kernel has every wanted entry.
fn settled(world: &ModelWorld) -> Loop {
    let mut agent = director(&Doors::default(), world);
    agent.retention = Retention::default();
    agent.note(cluster("a"));
    agent.note(definition(Definition::Stands));
    everything().into_iter().for_each(|event| agent.note(event));
    agent.act(Duration::ZERO).expect("all is known");
    world.news();
    agent
}

/// Sends events to the director, and runs a round at the given second.
fn act(agent: &mut Loop, second: u64, events: impl IntoIterator<Item = Event>) -> Observed {
    events.into_iter().for_each(|event| agent.note(event));
    read_no_connections(agent);
    agent.note(Event::Unread);
    agent
        .act(Duration::from_secs(second))
        .expect("there is news")
}

#[track_caller]
fn assert_nothing_is_held(observed: &Observed) {
    assert_eq!(observed.hold, None);
    assert_eq!(observed.removals_held, []);
}

#[test]
fn a_deleted_server_keeps_its_weight_until_the_look_has_ended_and_no_one_notices() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let observed = act(&mut agent, 1, [awaited(1), deleted(1)]);
    assert_nothing_is_held(&observed);
    assert_eq!(world.news(), [""; 0], "the removal waits");

    agent.note(cluster("a"));
    agent.note(definition(Definition::Stands));
    assert_eq!(agent.reason, Reason::Nothing, "nothing has changed");
    agent.note(ended(1));
    assert_eq!(agent.reason, Reason::Retry, "the removal may begin");
    assert_nothing_is_held(&agent.act(Duration::from_secs(2)).expect("a round"));
    let gone = |verb: &str, weight: &str| {
        [80, 443].map(|port| format!("{verb} -t 192.0.2.10:{port} -r 198.51.100.1:{port}{weight}"))
    };
    assert_eq!(world.news(), gone("-e", " -m -w 0"));
    act(&mut agent, 12, []);
    let news = world.news();
    assert!(news.starts_with(&gone("-d", "")), "{news:?}");
}

#[test]
fn additions_do_not_wait_for_a_look() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let new = Event::VirtualService(Change::Apply(service(8080, "rr", 1)));
    let observed = act(&mut agent, 1, [awaited(1), deleted_service(80), new]);
    assert_nothing_is_held(&observed);
    let news = world.news();
    assert!(news.contains(&"-A -t 192.0.2.10:8080 -s rr".to_owned()));
    assert!(!news.iter().any(|line| line.starts_with("-D")), "{news:?}");
}

#[test]
fn a_definition_that_is_terminating_holds_the_first_deletion_that_waited() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    act(&mut agent, 1, [awaited(1), deleted(1)]);
    let terminating = [definition(Definition::Terminating), ended(1)];
    let observed = act(&mut agent, 2, terminating);
    let hold = Hold::Definition(SERVERS, Definition::Terminating);
    assert_eq!(observed.hold, Some(hold));
    assert_eq!(observed.removals_held.len(), 2, "one in each service");
    act(&mut agent, 60, []);
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn a_definition_that_was_replaced_in_the_meantime_holds_what_it_deleted() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    act(&mut agent, 1, [awaited(1), deleted(1)]);
    let words = [
        definition(Definition::Replaced),
        definition(Definition::Stands),
        ended(1),
    ];
    let observed = act(&mut agent, 2, words);
    assert_eq!(observed.removals_held.len(), 2, "one in each service");
    let observed = act(&mut agent, 60, []);
    assert_eq!(observed.removals_held.len(), 2, "until they are released");
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn later_deletions_do_not_delay_a_removal_that_has_begun() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    act(&mut agent, 1, [awaited(1), deleted_service(80), ended(1)]);
    // Deletions follow all the time, so a look is always awaited.
    for second in 2..=11 {
        let look = second;
        let events = [awaited(look), deleted_service(443), ended(look - 1)];
        assert_nothing_is_held(&act(&mut agent, second, events));
    }
    let news = world.news();
    let goes = |line: &&String| line.starts_with("-D -t");
    let gone: Vec<_> = news.iter().filter(goes).collect();
    assert_eq!(gone, ["-D -t 192.0.2.10:80"], "{news:?}");
}

#[test]
fn a_look_without_an_answer_holds_and_is_reported() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    act(&mut agent, 1, [awaited(1), deleted(1)]);
    let why = "cannot read namespace kube-system: no answer in time".to_owned();
    let silent = Event::Caution(Word::Cluster(Answer::None(why.clone())));
    let observed = act(&mut agent, 11, [silent, ended(1)]);
    assert_eq!(observed.hold, Some(Hold::Unknown(why)));
    assert_eq!(observed.removals_held.len(), 2);
    assert_eq!(world.news(), [""; 0]);
    let observed = act(&mut agent, 12, [cluster("a"), ended(2)]);
    assert_nothing_is_held(&observed);
    assert!(!world.news().is_empty(), "the removals begin");
}

/// Returns the listings of another cluster: one service, no server, and a group
/// that names another holder. Each listing says that it awaits a look.
fn other_listings() -> Vec<Event> {
    let source = |kind| Event::Listing(kind, Source::Version(9000));
    let mut events = vec![source(Kind::VirtualService), awaited_by_listing(1)];
    events.extend(services([service(8080, "rr", 1)]));
    events.extend([source(Kind::RealServer), awaited_by_listing(2)]);
    events.extend(servers([]));
    events.extend([source(Kind::DirectorGroup), awaited_by_listing(2)]);
    events.extend(groups([group(Some("z"))]));
    events
}

#[test]
fn until_the_cluster_of_a_listing_is_known_its_holder_is_ignored_and_nothing_goes() {
    let world = ModelWorld::new();
    settled(&world);
    let mut agent = director(&Doors::default(), &world);
    agent.note(directors(&["a", "z"]));
    let alive = [lease("z", "12:00:00"), lease("z", "12:00:10")];
    let events = other_listings().into_iter().chain(alive);
    for events in [events.collect(), vec![cluster("b"), ended(1)]] {
        act(&mut agent, 1, events);
        assert_eq!(world.table().len(), 7, "only the new service is made");
        assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "the VIP stays");
    }
    let observed = act(&mut agent, 2, [ended(2)]);
    let hold = observed.hold.expect("all removals are held");
    assert!(matches!(hold, Hold::OtherCluster { .. }), "{hold}");
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "the VIP stays");
}

#[test]
fn objects_that_a_listing_leaves_out_are_judged_after_the_look() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let source = |version| Event::Listing(Kind::RealServer, Source::Version(version));
    act(
        &mut agent,
        1,
        [source(1000)]
            .into_iter()
            .chain(servers([server(1), server(2)])),
    );
    let empty = || {
        [source(2000), awaited_by_listing(1)]
            .into_iter()
            .chain(servers([]))
    };
    assert_nothing_is_held(&act(&mut agent, 2, empty()));
    let observed = act(&mut agent, 3, [ended(1)]);
    assert_eq!(observed.removals_held.len(), 4, "most servers are missing");
    assert!(matches!(observed.hold, Some(Hold::Missing(_))));
    assert_eq!(world.news(), [""; 0]);
}
