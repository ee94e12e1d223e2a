//! Tests objects that a listing leaves out. The agent removes the entries of
//! such objects only if it believes the listing. A small table is no reason to
//! believe a listing.

use super::*;
use crate::{
    decide::{absence::Missing, caution::Hold, retain::Retention},
    disk::checkpoint::{Checkpoint, Note},
    event::origin::{Doubt, Folder, Known, Source},
};

const S1: Duration = Duration::from_secs(1);

/// Returns a service with a resourceVersion, as the API server lists it.
fn service_at(port: i32, version: u64) -> Loose<VirtualService> {
    let mut service = service(port, "wrr", 1);
    service.metadata.resource_version = Some(version.to_string());
    service
}

/// Returns the listings of services on `ports` and of two servers, from one
/// source.
fn listings(source: &Source, ports: impl IntoIterator<Item = i32>) -> Vec<Event> {
    let of = |kind| Event::Listing(kind, source.clone());
    let mut events = vec![directors(&["a"]), of(Kind::VirtualService)];
    events.extend(services(
        ports.into_iter().map(|port| service(port, "wrr", 1)),
    ));
    events.push(of(Kind::RealServer));
    events.extend(servers([server(1), server(2)]));
    events.push(of(Kind::DirectorGroup));
    events.extend(groups([group(None)]));
    events
}

/// Returns a director that knows `count` services. A listing at version 1000
/// contained all services except the last. An event at version 2000 added the
/// last service.
fn settled(world: &ModelWorld, count: i32) -> Loop {
    let mut agent = director(&Doors::default(), world);
    hear(&mut agent, listings(&Source::Version(1000), 1..count));
    let made = Change::Apply(service_at(count, 2000));
    hear(&mut agent, [Event::VirtualService(made)]);
    let observed = agent.act(Duration::ZERO).expect("all is known");
    assert_eq!(services_of(&observed), usize::try_from(count).expect("few"));
    world.news();
    agent
}

fn hear(agent: &mut Loop, events: impl IntoIterator<Item = Event>) {
    events.into_iter().for_each(|event| agent.note(event));
}

/// Sends events to the director, and forces the director to run a round.
fn act(agent: &mut Loop, events: impl IntoIterator<Item = Event>) -> Observed {
    hear(agent, events);
    agent.note(Event::Unread);
    agent.act(S1).expect("there is news")
}

fn services_of(observed: &Observed) -> usize {
    observed.outcome.as_ref().expect("a round").services
}

fn delete(port: i32) -> Event {
    let key = ObjectKey::of(&service(port, "wrr", 1));
    Event::VirtualService(Change::Delete(key))
}

/// Returns the group with removals allowed for ten minutes.
fn released() -> Event {
    let mut group = group(None);
    let spec = group.spec.as_mut().expect("it parses");
    let until = crate::fixtures::NOON + Duration::from_secs(600);
    spec.removals = Some(crds::api::Removals {
        allow_until: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(until)),
    });
    group.metadata.generation = Some(2);
    Event::DirectorGroup(Change::Apply(group))
}

#[track_caller]
fn assert_held(observed: &Observed, world: &ModelWorld, doubt: &Doubt, objects: usize) {
    let doubt = doubt.clone();
    let missing = Missing {
        doubt,
        went_back: 0,
        objects,
    };
    let hold = Some(Hold::Missing(missing));
    assert_eq!(observed.hold, hold, "{:?}", observed.outcome);
    assert_eq!(observed.removals_held.len(), objects);
    assert_eq!(world.news(), [""; 0], "nothing was written");
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "the VIP stays");
}

#[test]
fn an_older_list_takes_nothing_away_until_it_is_released() {
    for count in [1, 3, 10] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, count);
        // The etcd backup is from before the creation of the last service.
        let restored = listings(&Source::Version(1500), 1..count);
        let observed = act(&mut agent, restored);
        let older = Doubt::Older {
            known: 2000,
            found: 1500,
        };
        assert_held(&observed, &world, &older, 1);

        // A newer listing that still lacks the service does not release the
        // held removal.
        let observed = act(&mut agent, listings(&Source::Version(3000), 1..count));
        assert_held(&observed, &world, &older, 1);

        let observed = act(&mut agent, [released()]);
        let left = usize::try_from(count - 1).expect("few");
        assert_eq!(
            (observed.hold.as_ref(), services_of(&observed)),
            (None, left)
        );
        assert_eq!(observed.removals_held, []);
    }
}

#[test]
fn a_newer_list_takes_at_most_half_of_the_table_away() {
    for (count, left, is_held) in [
        (1, 0, true),
        (2, 1, false),
        (3, 1, true),
        (10, 5, false),
        (10, 4, true),
    ] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, count);
        let observed = act(&mut agent, listings(&Source::Version(2001), 1..=left));
        let missing = usize::try_from(count - left).expect("few");
        match is_held {
            true => assert_held(&observed, &world, &Doubt::MostMissing, missing),
            false => {
                assert_eq!(
                    (observed.hold.as_ref(), observed.removals_held.len()),
                    (None, 0)
                );
                assert_eq!(services_of(&observed), usize::try_from(left).expect("few"));
            }
        }
    }
}

#[test]
fn servers_that_a_list_leaves_out_stay_if_they_are_most() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, 2);
    let begin = Event::Listing(Kind::RealServer, Source::Version(1001));
    let observed = act(&mut agent, [begin].into_iter().chain(servers([])));
    assert_eq!(observed.removals_held.len(), 4, "two of each service");
    assert_eq!(world.news(), [""; 0], "nothing was written");
    let observed = act(&mut agent, servers([server(1), server(2)]));
    assert_eq!(
        (observed.hold.as_ref(), observed.removals_held.len()),
        (None, 0)
    );
    assert_eq!(world.news(), [""; 0], "nothing was lost");
}

#[test]
fn what_is_deleted_by_an_event_goes_be_it_the_only_service_or_the_last_of_three() {
    for count in [1, 3] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, count);
        for port in 1..=count {
            let observed = act(&mut agent, [delete(port)]);
            let left = usize::try_from(count - port).expect("few");
            assert_eq!(
                (observed.hold.as_ref(), services_of(&observed)),
                (None, left)
            );
        }
        assert_eq!(world.table(), [""; 0]);
    }
}

#[test]
fn an_event_removes_its_object_also_while_others_are_held() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, 3);
    let observed = act(&mut agent, listings(&Source::Version(1500), 1..3));
    assert_eq!(observed.removals_held.len(), 1);
    let observed = act(&mut agent, [delete(1)]);
    assert_eq!(
        (observed.removals_held.len(), services_of(&observed)),
        (1, 2)
    );
    // The object whose removal is held comes back and is then deleted.
    let observed = act(
        &mut agent,
        [Event::VirtualService(Change::Apply(service_at(3, 1501)))],
    );
    assert_eq!(
        (observed.hold.as_ref(), observed.removals_held.len()),
        (None, 0)
    );
    let observed = act(&mut agent, [delete(3)]);
    assert_eq!((observed.hold.as_ref(), services_of(&observed)), (None, 1));
}

#[test]
fn what_an_older_list_has_is_made_and_edited() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, 2);
    let begin = Event::Listing(Kind::VirtualService, Source::Version(1500));
    let listed = services([service(1, "rr", 2), service(9, "wrr", 1)]);
    let observed = act(&mut agent, [begin].into_iter().chain(listed));
    assert_eq!(observed.removals_held.len(), 1, "service 2 is missing");
    let table = world.table();
    for line in [
        "-A -t 192.0.2.10:1 -s rr",
        "-A -t 192.0.2.10:2 -s wrr",
        "-A -t 192.0.2.10:9 -s wrr",
    ] {
        assert!(table.contains(&line.to_owned()), "{line} in {table:#?}");
    }
}

#[test]
fn a_folder_that_is_empty_or_another_one_takes_nothing_away_until_it_is_released() {
    let folder = |inode, is_empty| {
        Source::Folder(Folder {
            device: 1,
            inode,
            is_empty,
        })
    };
    for count in [1, 3, 10] {
        for (found, left, doubt) in [
            (folder(1, true), 0, Doubt::EmptyFolder),
            (folder(2, false), count - 1, Doubt::OtherFolder),
        ] {
            let world = ModelWorld::new();
            let mut agent = director(&Doors::default(), &world);
            act(&mut agent, listings(&folder(1, false), 1..=count));
            world.news();
            let observed = act(&mut agent, listings(&found, 1..=left));
            let missing = usize::try_from(count - left).expect("few");
            let objects = observed.removals_held.len();
            assert_eq!(objects, missing, "{found:?}");
            assert_held(&observed, &world, &doubt, missing);
            let observed = act(&mut agent, [released()]);
            let left = usize::try_from(left).expect("few");
            assert_eq!(
                (observed.hold.as_ref(), services_of(&observed)),
                (None, left)
            );
        }
    }
}

/// Runs a director with the checkpoint in `folder`. The director receives the
/// restored events, then `events`. `is_hasty` says whether `events` come before
/// the first round. Returns the director's findings.
fn run(
    state: &std::path::Path,
    world: &ModelWorld,
    events: Vec<Event>,
    is_hasty: bool,
) -> Observed {
    let (checkpoint, restored) = Checkpoint::open(state);
    let restored = restored.expect("a folder of our own");
    let (recorder, notes) = Recorder::new();
    let writer = checkpoint.record(notes, |_| ()).expect("a thread");
    let (name, group) = ("a".to_owned(), "default".to_owned());
    let edges = Doors::default().world(world);
    let mut agent = Loop::new(
        name,
        group,
        Clock::start(),
        edges,
        recorder.clone(),
        Memory::default(),
    );
    agent.retention = Retention::immediate();
    hear(
        &mut agent,
        restored.events.into_iter().chain([Event::Restored]),
    );
    if !is_hasty {
        agent.act(Duration::ZERO);
    }
    let observed = act(&mut agent, events);
    recorder.note(Note::End);
    writer.join().expect("the writer does not panic");
    observed
}

#[test]
fn a_restart_changes_nothing_about_what_is_believed() {
    for is_hasty in [false, true] {
        let state = tempfile::tempdir().expect("a folder");
        let world = ModelWorld::new();
        let run = |events| run(state.path(), &world, events, is_hasty);
        let version = |version| Source::Version(version);
        let observed = run(listings(&version(1000), 1..=3));
        assert_eq!(services_of(&observed), 3);
        world.news();

        // The API server's etcd was restored while the agent did not run.
        let observed = run(listings(&version(900), 1..=2));
        assert_eq!(observed.removals_held.len(), 1, "hasty: {is_hasty}");
        // The agent restarts again. By now, the restored etcd has higher
        // resourceVersions than the lost etcd had.
        let observed = run(listings(&version(5000), 1..=2));
        assert_eq!(observed.removals_held.len(), 1, "hasty: {is_hasty}");
        let hold = observed.hold.expect("it is held").to_string();
        assert!(hold.contains("not seen being deleted"), "{hold}");
        assert_eq!(world.news(), [""; 0], "hasty: {is_hasty}");
        // The missing object is listed again, and then deleted while the agent
        // does not run.
        let observed = run(listings(&version(5001), 1..=3));
        assert_eq!(
            (observed.hold.as_ref(), observed.removals_held.len()),
            (None, 0)
        );
        let observed = run(listings(&version(5002), 1..=2));
        assert_eq!((observed.hold.as_ref(), services_of(&observed)), (None, 2));
        // The last two objects are deleted while the agent does not run.
        let observed = run(listings(&version(5003), 0..0));
        assert_eq!(observed.removals_held.len(), 2, "hasty: {is_hasty}");
        let mut events = listings(&version(5004), 0..0);
        events.push(released());
        let observed = run(events);
        assert_eq!((observed.hold.as_ref(), services_of(&observed)), (None, 0));
        // The removals were allowed, so the checkpoint no longer contains the
        // deleted objects.
        let (_, restored) = Checkpoint::open(state.path());
        let restored = restored.expect("a folder of our own");
        let is_service = |event: &Event| matches!(event, Event::VirtualService(_));
        assert!(!restored.events.iter().any(is_service));
    }
}

#[test]
fn a_lost_checkpoint_does_not_make_an_empty_list_true() {
    let world = ModelWorld::new();
    settled(&world, 3);
    let mut agent = director(&Doors::default(), &world);
    let observed = act(&mut agent, listings(&Source::Version(3000), 0..0));
    assert_eq!(observed.removals_held.len(), 3);
    assert_eq!(world.news(), [""; 0], "nothing was written");
    let hold = observed.hold.expect("it is held").to_string();
    assert!(hold.contains("more than half"), "{hold}");
    let observed = act(&mut agent, [released()]);
    assert_eq!((observed.hold.as_ref(), services_of(&observed)), (None, 0));
}

#[test]
fn versions_of_the_previous_run_are_compared_with_the_first_list() {
    let world = ModelWorld::new();
    settled(&world, 3);
    let mut agent = director(&Doors::default(), &world);
    let known = Known {
        sources: [(Kind::VirtualService, Source::Version(2000))].into(),
        ..Known::default()
    };
    let restored =
        (1..=3).map(|port| Event::VirtualService(Change::Apply(service(port, "wrr", 1))));
    hear(&mut agent, restored);
    hear(&mut agent, [Event::Known(known), Event::Restored]);
    let observed = act(&mut agent, listings(&Source::Version(1999), 1..=2));
    assert_eq!(observed.removals_held.len(), 1);
    assert_eq!(world.news(), [""; 0], "nothing was written");
}

/// Returns listings in which one object has an older version than a [`settled`]
/// director knows.
fn gone_back(kind: Kind, source: &Source) -> Vec<Event> {
    let mut older = service(1, "wrr", 1);
    let mut moved = server(2);
    match kind {
        Kind::VirtualService => {
            let spec = older.spec.as_mut().expect("it parses");
            let selector = json!({"matchLabels": {"app": "older"}});
            spec.real_server_selector = serde_json::from_value(selector).expect("a selector");
        }
        _ => moved.metadata.labels = None,
    }
    let of = |kind| Event::Listing(kind, source.clone());
    let mut events = vec![of(Kind::VirtualService)];
    events.extend(services([older, service(2, "wrr", 1)]));
    events.push(of(Kind::RealServer));
    events.extend(servers([server(1), moved]));
    events
}

#[test]
fn an_older_version_of_an_object_takes_nothing_away_until_it_is_released() {
    for kind in [Kind::VirtualService, Kind::RealServer] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, 2);
        let older = gone_back(kind, &Source::Version(900));
        let observed = act(&mut agent, older);
        assert_eq!(observed.removals_held.len(), 2, "{kind}: two entries leave");
        let why = observed.hold.expect("it is held").to_string();
        let part = "1 object went back to an older version";
        assert!(why.contains(part), "{kind}: {why}");
        assert_eq!(world.news(), [""; 0], "{kind}: nothing was written");

        let again = gone_back(kind, &Source::Version(900));
        let observed = act(&mut agent, again);
        assert_eq!(observed.removals_held.len(), 2, "{kind}: they stay held");

        let observed = act(&mut agent, [released()]);
        assert_eq!((observed.hold, observed.removals_held), (None, vec![]));
    }
}

#[test]
fn a_newer_version_of_an_object_in_a_list_is_an_edit() {
    for kind in [Kind::VirtualService, Kind::RealServer] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, 2);
        let observed = act(&mut agent, gone_back(kind, &Source::Version(3000)));
        let (hold, held) = (observed.hold, observed.removals_held);
        assert_eq!((hold, held), (None, vec![]), "{kind}");
    }
}
