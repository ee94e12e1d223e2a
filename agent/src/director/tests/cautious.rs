//! Tests that the agent holds all removals after the cluster changed or a
//! custom resource definition was deleted. The group can allow the removals.

use jiff::Timestamp;

use super::*;
use crate::{
    decide::{
        caution::Hold,
        permission::{ApiServerTime, Daytime, Doubt},
    },
    event::origin::{Answer, Definition, Word},
    fixtures::NOON,
};

const MINUTE: Duration = Duration::from_secs(60);
const SERVICES: &str = "ipvsvirtualservices.ipvs.dev";

fn cluster(uid: &str) -> Event {
    Event::Caution(Word::Cluster(Answer::Is(uid.to_owned())))
}

fn definition(how: Definition) -> Event {
    Event::Caution(Word::Definition(SERVICES, Answer::Is(how)))
}

/// Returns the group with removals allowed for ten minutes.
fn released(holder: Option<&str>) -> Event {
    released_until(holder, NOON + 10 * MINUTE)
}

fn released_until(holder: Option<&str>, until: Timestamp) -> Event {
    let mut group = group(holder);
    let spec = group.spec.as_mut().expect("it parses");
    spec.removals = Some(crds::api::Removals {
        allow_until: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(until)),
    });
    group.metadata.generation = Some(until.as_second());
    Event::DirectorGroup(Change::Apply(group))
}

/// Returns a director of cluster a whose kernel has every wanted entry.
fn settled(world: &ModelWorld) -> Loop {
    let mut agent = director(&Doors::default(), world);
    agent.note(cluster("a"));
    agent.note(definition(Definition::Stands));
    everything().into_iter().for_each(|event| agent.note(event));
    let observed = agent.act(Duration::ZERO).expect("all is known");
    assert_eq!(observed.hold, None);
    assert_eq!(world.table().len(), 6);
    world.news();
    agent
}

fn act(agent: &mut Loop, events: impl IntoIterator<Item = Event>) -> Observed {
    events.into_iter().for_each(|event| agent.note(event));
    agent.act(Duration::from_secs(1)).expect("there is news")
}

fn held(observed: &Observed) -> usize {
    assert!(observed.outcome.is_some(), "there was a round");
    observed.removals_held.len()
}

#[test]
fn another_cluster_takes_nothing_away_and_its_own_is_made() {
    let world = ModelWorld::new();
    settled(&world);
    let mut agent = director(&Doors::default(), &world);
    agent.note(cluster("b"));
    let mut events = vec![directors(&["a"])];
    events.extend(services([service(8080, "rr", 1)]));
    events.extend(servers([]));
    // In cluster b, director z holds the VIPs.
    events.extend(groups([group(Some("z"))]));
    let observed = act(&mut agent, events);
    let (was, is) = ("a".to_owned(), "b".to_owned());
    assert_eq!(observed.hold, Some(Hold::OtherCluster { was, is }));
    assert_eq!(held(&observed), 2, "{:?}", observed.outcome);
    assert_eq!(world.table().len(), 7, "and the new service is made");
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "the VIP stays");

    let observed = act(&mut agent, [released(Some("z"))]);
    assert_eq!((observed.hold.as_ref(), held(&observed)), (None, 0));
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "z may be dead");
    let alive = [lease("z", "12:00:00"), lease("z", "12:00:10")];
    act(
        &mut agent,
        [directors(&["a", "z"])].into_iter().chain(alive),
    );
    assert_eq!(world.table(), ["-A -t 192.0.2.10:8080 -s rr"]);
    assert_eq!(world.interfaces_with(ip(VIP)), [""; 0]);
    let remembered = world.parts().disk.cluster.clone();
    assert_eq!(
        remembered.as_deref(),
        Some("b"),
        "the other cluster is ours now"
    );
}

#[test]
fn when_its_own_cluster_is_back_it_finds_everything_as_it_was() {
    let world = ModelWorld::new();
    settled(&world);
    let mut wrong = director(&Doors::default(), &world);
    wrong.note(cluster("b"));
    wrong.note(directors(&["a"]));
    let empty = [services([]), servers([]), groups([group(None)])];
    assert_eq!(held(&act(&mut wrong, empty.into_iter().flatten())), 2);
    let mut right = director(&Doors::default(), &world);
    right.note(cluster("a"));
    let observed = act(&mut right, everything());
    assert_eq!((observed.hold.as_ref(), held(&observed)), (None, 0));
    assert_eq!(
        world.news(),
        [""; 0],
        "nothing was written for either cluster"
    );
}

#[test]
fn objects_that_go_with_their_definition_stay_until_they_are_back() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let gone = ObjectKey::of(&service(80, "wrr", 1));
    let gone = Event::VirtualService(Change::Delete(gone));
    let observed = act(&mut agent, [definition(Definition::Terminating), gone]);
    let hold = Hold::Definition(SERVICES, Definition::Terminating);
    assert_eq!((observed.hold.as_ref(), held(&observed)), (Some(&hold), 1));

    // A definition that was created again has no objects at first, although
    // nobody meant to delete objects.
    let empty = services([]).into_iter();
    let observed = act(
        &mut agent,
        [definition(Definition::Stands)].into_iter().chain(empty),
    );
    assert_eq!((observed.hold.as_ref(), held(&observed)), (None, 2));
    let observed = act(
        &mut agent,
        services([service(80, "wrr", 1), service(443, "wrr", 1)]),
    );
    assert_eq!(held(&observed), 0);
    assert_eq!(world.news(), [""; 0], "nothing was lost");
}

#[test]
fn a_cluster_that_the_disk_did_not_take_is_remembered_once_it_does() {
    let world = ModelWorld::new();
    let mut agent = director(&Doors::default(), &world);
    agent.note(cluster("a"));
    world.parts().disk_broken = true;
    act(&mut agent, everything());
    assert_eq!(world.parts().disk.cluster, None);
    world.parts().disk_broken = false;
    agent.note(Event::Unread);
    agent.act(Duration::from_secs(60)).expect("a round");
    assert_eq!(world.parts().disk.cluster.as_deref(), Some("a"));
    world.news();
    agent.note(Event::Unread);
    agent.act(Duration::from_secs(61)).expect("a round");
    assert_eq!(world.news(), [""; 0], "the cluster is written only once");
}

/// Returns a director that holds all removals. The custom resource definition
/// of the services is being deleted.
fn holding(world: &ModelWorld) -> Loop {
    let mut agent = settled(world);
    let gone = services([]);
    let events = [definition(Definition::Terminating)]
        .into_iter()
        .chain(gone);
    assert_eq!(held(&act(&mut agent, events)), 2);
    agent
}

/// Makes the agent run a round although nothing has happened.
fn another_round(agent: &mut Loop) -> Observed {
    act(agent, [Event::Unread])
}

#[test]
fn a_permission_that_ends_more_than_a_day_ahead_releases_nothing_and_is_reported() {
    let world = ModelWorld::new();
    let mut agent = holding(&world);
    let until = "2100-01-01T00:00:00Z".parse().expect("a time");
    let observed = act(&mut agent, [released_until(None, until)]);
    assert_eq!(held(&observed), 2);
    assert_eq!(observed.doubt, Some(Doubt::TooFarAhead(until)));
    assert_eq!(world.news(), [""; 0]);

    let observed = act(&mut agent, [released(None)]);
    assert_eq!((held(&observed), observed.doubt), (0, None));
    assert!(world.table().is_empty());
}

#[test]
fn a_clock_that_was_wrong_at_the_start_releases_nothing_until_it_is_right() {
    let world = ModelWorld::new();
    let there = ApiServerTime::Is(NOON);
    let set = |here, api_server| world.parts().daytime = Daytime { here, api_server };
    let years = Duration::from_secs(20 * 365 * 24 * 60 * 60);
    // The machine has no battery-backed clock, so it starts with a time in the
    // past. According to that clock, an ended permission is still valid.
    set(NOON - years, there);
    let mut agent = holding(&world);
    let ended = released_until(None, NOON - 60 * MINUTE);
    let observed = act(&mut agent, [ended]);
    assert_eq!((held(&observed), observed.doubt), (2, Some(Doubt::Behind)));

    set(NOON - years, ApiServerTime::Unknown);
    let observed = another_round(&mut agent);
    assert_eq!((held(&observed), observed.doubt), (2, Some(Doubt::NoDate)));

    set(NOON, there);
    let observed = another_round(&mut agent);
    assert_eq!((held(&observed), observed.doubt), (2, None), "it has ended");
    assert_eq!(world.news(), [""; 0]);

    // A valid permission takes effect as soon as the clock is correct.
    set(NOON + 2 * MINUTE, there);
    let observed = act(&mut agent, [released(None)]);
    assert_eq!((held(&observed), observed.doubt), (2, Some(Doubt::Ahead)));
    set(NOON + MINUTE / 2, there);
    let observed = another_round(&mut agent);
    assert_eq!((held(&observed), observed.doubt), (0, None));
}

#[test]
fn without_an_api_server_the_hosts_clock_is_believed() {
    let world = ModelWorld::new();
    let mut agent = holding(&world);
    world.parts().daytime.api_server = ApiServerTime::NoApiServer;
    let observed = act(&mut agent, [released(None)]);
    assert_eq!((held(&observed), observed.doubt), (0, None));
}

#[test]
fn what_is_observed_has_the_time_of_day_as_it_is_then() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let corrected = NOON + 60 * MINUTE;
    world.parts().daytime.here = corrected;
    assert_eq!(another_round(&mut agent).at, corrected);
}
