//! Tests what the audit trail records of rounds: each write with its cause and
//! its objects.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{health::checked, *};
use crate::{
    decide::departures::GRACE,
    event::probed::{ProbeId, Tally},
    fixtures::weight,
    probe::target::Order,
    trail::{
        book::{Book, News},
        record::Record,
        round::Round,
    },
};

/// A director with its trail.
struct Scene {
    world: ModelWorld,
    agent: Loop,
    rounds: Receiver<Round>,
    book: Book,
    orders: UnboundedReceiver<Order>,
}

impl Scene {
    /// Starts a director. `book` is what earlier runs recorded.
    fn start(world: &ModelWorld, book: Book) -> Self {
        let (orders, ordered) = unbounded_channel();
        let doors = Doors {
            orders: Some(orders),
            ..Doors::default()
        };
        let mut agent = patient_director(&doors, world);
        let (trail, rounds) = Trail::channel();
        agent.world.trail = trail;
        Self {
            world: world.clone(),
            agent,
            rounds,
            book,
            orders: ordered,
        }
    }

    /// Starts a director with one service and two servers, and runs its first
    /// round.
    fn with_service(service: Loose<VirtualService>) -> Self {
        let mut scene = Self::start(&ModelWorld::new(), Book::default());
        scene.list(service);
        scene.act(Duration::ZERO);
        scene
    }

    fn list(&mut self, service: Loose<VirtualService>) {
        let mut events = vec![directors(&["a"])];
        events.extend(services([service]));
        events.extend(servers([server(1), server(2)]));
        events.extend(groups([group(None)]));
        events.into_iter().for_each(|event| self.agent.note(event));
    }

    fn act(&mut self, now: Duration) {
        self.agent.note(Event::Links);
        self.agent.act(now);
    }

    /// Returns the news of the trail since the last call.
    fn news(&mut self) -> Vec<News> {
        let rounds = self.rounds.try_iter();
        rounds.map(|round| self.book.hear(round)).collect()
    }

    /// Returns the records since the last call, as `edit shop/web80@1: -A …`.
    fn told(&mut self) -> Vec<String> {
        let news = self.news().into_iter();
        let records = news.flat_map(|news| match news {
            News::Records(records) => records,
            News::Snapshot { writes, .. } => panic!("a snapshot for {writes} writes"),
        });
        records.map(|record| spelled(&record)).collect()
    }

    fn edit(&mut self, object: Loose<VirtualService>) {
        self.agent
            .note(Event::VirtualService(Change::Apply(object)));
    }

    /// Sends a verdict about the probes of every server.
    fn verdict(&mut self, is_good: bool) {
        let tally = Tally {
            successes: if is_good { 2 } else { 0 },
            failures: if is_good { 0 } else { 3 },
            is_flapping: false,
            why: (!is_good).then(|| "connection refused".into()),
        };
        for id in self.targets() {
            self.agent.note(Event::Probed(id, tally.clone()));
        }
    }

    fn targets(&mut self) -> Vec<ProbeId> {
        let mut targets = Vec::new();
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Start(id, _) = order {
                targets.push(id);
            }
        }
        targets
    }

    /// Sets a server's weight, as another process does.
    fn meddle(&mut self, new: u32) {
        let mut parts = self.world.parts();
        let service = parts.kernel.table.values_mut().next();
        let destinations = &mut service.expect("a service").destinations;
        destinations[0] = weight(new);
    }

    /// Makes the agent read the whole table.
    fn look(&mut self, now: Duration) {
        self.agent.note(Event::Unread);
        self.act(now);
    }
}

fn spelled(record: &Record) -> String {
    let objects = &record.objects;
    let object = objects.real_server.as_ref();
    let object = object.or(objects.virtual_service.as_ref());
    let object = object.map(|object| format!(" {object}@{}", object.generation));
    let hand = if record.written { "" } else { " by others" };
    format!(
        "{}{hand}{}: {}",
        record.cause.name(),
        object.unwrap_or_default(),
        record.what()
    )
}

#[test]
fn a_first_round_records_each_write_with_its_object_and_generation() {
    let mut scene = Scene::with_service(service(80, "wrr", 3));
    assert_eq!(
        scene.told(),
        [
            "edit shop/web80@3: -A -t 192.0.2.10:80 -s wrr",
            "edit shop/web1@1: -a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "edit shop/web2@1: -a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 1",
            "edit: ip address add 192.0.2.10 dev eth0",
        ]
    );
    scene.act(Duration::from_secs(1));
    assert_eq!(
        scene.told(),
        [""; 0],
        "a round that writes nothing adds nothing"
    );
}

#[test]
fn an_edit_is_recorded_with_the_value_before() {
    let mut scene = Scene::with_service(service(80, "wrr", 1));
    scene.told();
    scene.edit(service(80, "rr", 2));
    scene.act(Duration::from_secs(1));
    assert_eq!(
        scene.told(),
        ["edit shop/web80@2: -E -t 192.0.2.10:80 -s rr (was -s wrr)"]
    );
}

#[test]
fn a_server_that_fails_and_recovers_is_recorded_with_the_cause_health() {
    let mut scene = Scene::with_service(checked(80));
    scene.told();
    scene.verdict(true);
    scene.act(Duration::from_secs(1));
    assert_eq!(
        scene.told(),
        [
            "health shop/web1@1: -e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1 (was -m -w 0)",
            "health shop/web2@1: -e -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 1 (was -m -w 0)",
        ],
    );
}

#[test]
fn a_repair_is_recorded_as_drift_with_what_the_other_process_made() {
    let mut scene = Scene::with_service(service(80, "wrr", 1));
    scene.told();
    scene.meddle(7);
    scene.look(Duration::from_secs(1));
    assert_eq!(
        scene.told(),
        ["drift shop/web1@1: -e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1 (was -m -w 7)"]
    );
}

#[test]
fn a_delayed_removal_is_recorded_as_an_edit_first_and_as_guard_at_its_end() {
    let mut scene = Scene::with_service(service(80, "wrr", 1));
    scene.told();
    let key = ObjectKey::new("shop", "web1");
    scene.agent.note(Event::RealServer(Change::Delete(key)));
    scene.act(Duration::from_secs(1));
    read_no_connections(&mut scene.agent);
    scene.act(Duration::from_secs(1) + GRACE);
    assert_eq!(
        scene.told(),
        [
            "edit shop/web1@1: -e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 0 (was -m -w 1)",
            "guard shop/web1@1: -d -t 192.0.2.10:80 -r 198.51.100.1:80 (was -m -w 0)",
        ]
    );
}

#[test]
fn a_start_records_what_changed_while_no_agent_ran() {
    let mut scene = Scene::with_service(service(80, "wrr", 1));
    scene.told();
    let world = scene.world.clone();
    scene.meddle(7);
    let mut again = Scene::start(&world, Book::new(scene.book.ours.clone()));
    again.list(service(80, "wrr", 1));
    again.act(Duration::ZERO);
    assert_eq!(
        again.told(),
        ["found shop/web1@1: -e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1 (was -m -w 7)"]
    );
}

#[test]
fn a_start_with_a_trail_that_was_lost_records_what_it_found() {
    let mut scene = Scene::with_service(service(80, "wrr", 1));
    scene.told();
    let mut again = Scene::start(&scene.world.clone(), Book::default());
    again.list(service(80, "wrr", 1));
    again.act(Duration::ZERO);
    assert_eq!(
        again.told(),
        [
            "found by others shop/web80@1: -A -t 192.0.2.10:80 -s wrr",
            "found by others shop/web1@1: -a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "found by others shop/web2@1: -a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 1",
            "found by others: ip address add 192.0.2.10 dev eth0",
        ]
    );
    assert_eq!(again.book.ours, scene.book.ours, "both know the same");
}

#[test]
fn rounds_that_found_no_room_in_the_channel_are_made_good_by_the_next_that_does() {
    let mut scene = Scene::with_service(service(80, "wrr", 1));
    for generation in 2..200 {
        let scheduler = if generation % 2 == 0 { "rr" } else { "wrr" };
        scene.edit(service(80, scheduler, generation));
        scene.act(Duration::from_secs(generation.unsigned_abs()));
    }
    assert!(scene.agent.world.trail.is_behind(), "rounds were left out");
    scene.news();
    scene.edit(service(80, "lc", 200));
    scene.act(Duration::from_secs(300));
    scene.news();
    let table = scene.book.ours.table();
    let told: Vec<_> = table.iter().map(Op::to_string).collect();
    assert_eq!(
        told,
        scene.world.table(),
        "the trail knows the kernel's table"
    );
}

#[test]
fn a_round_of_more_than_a_thousand_writes_is_one_snapshot() {
    let mut scene = Scene::start(&ModelWorld::new(), Book::default());
    let mut events = vec![directors(&["a"])];
    events.extend(services((1..=400).map(|port| service(port, "wrr", 1))));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group(None)]));
    events.into_iter().for_each(|event| scene.agent.note(event));
    scene.act(Duration::ZERO);
    let news = scene.news();
    let [News::Snapshot { writes, cause }] = news.as_slice() else {
        panic!("one snapshot was expected: {news:?}");
    };
    assert!(*writes > 1000, "{writes} writes");
    assert_eq!(cause.name(), "edit");
    assert_eq!(scene.book.ours.counts(), (400, 800));
}

#[test]
fn a_round_tells_only_the_addresses_that_changed() {
    let mut scene = Scene::start(&ModelWorld::new(), Book::default());
    let of = |last: i32| service_at(&format!("192.0.2.{last}"), last, "wrr", 1);
    let mut events = vec![directors(&["a"])];
    events.extend(services((10..50).map(of)));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group(None)]));
    events.into_iter().for_each(|event| scene.agent.note(event));
    scene.act(Duration::ZERO);
    scene.news();
    assert_eq!(scene.book.ours.addresses.len(), 40);
    scene.edit(of(50));
    scene.act(Duration::from_secs(1));
    let mut told = Vec::new();
    for round in scene.rounds.try_iter() {
        let host = round.host.as_ref();
        told.extend(host.map(|host| host.addresses.clone()));
        scene.book.hear(round);
    }
    let eth0 = Some("eth0".to_owned());
    assert_eq!(told, [[(ip("192.0.2.50"), eth0)].into()]);
    assert_eq!(scene.book.ours.addresses.len(), 41);
}
