use super::*;
use crate::{
    fixtures,
    probe::{Order, ProbeId},
    serving::tally::Tally,
};
use tokio::sync::mpsc::UnboundedReceiver;

fn checked(port: i32, availability: serde_json::Value) -> Loose<VirtualService> {
    let mut service = service(port, "wrr", 1);
    let spec = service.spec.as_mut().expect("it parses");
    spec.health_check = serde_json::from_value(json!({"tcpSocket": {"port": 80}})).unwrap();
    if !availability.is_null() {
        spec.availability = serde_json::from_value(availability).unwrap();
    }
    service
}

fn sorry(minimum: i32) -> serde_json::Value {
    json!({"minimumHealthy": minimum, "belowMinimum": {"action": "SorryServer", "sorryServer": {"address": "192.0.2.99", "port": 80}}})
}

struct Sync {
    agent: Director,
    world: ModelWorld,
    orders: UnboundedReceiver<Order>,
    ids: BTreeMap<String, ProbeId>,
    stopped: usize,
}

fn sync(events: impl IntoIterator<Item = Event>) -> Sync {
    let (orders, ordered) = unbounded_channel();
    let doors = Doors {
        orders: Some(orders),
        ..Doors::default()
    };
    let world = ModelWorld::new();
    let mut agent = director(&doors, &world);
    events.into_iter().for_each(|event| agent.take(event));
    Sync {
        agent,
        world,
        orders: ordered,
        ids: BTreeMap::new(),
        stopped: 0,
    }
}

impl Sync {
    fn act(&mut self, second: u64) {
        self.agent.act(Duration::from_secs(second));
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Start(id, target) => {
                    self.ids.insert(target.address.ip().to_string(), id);
                }
                Order::Stop(_) => self.stopped += 1,
            }
        }
    }
    fn verdict(&mut self, last: u8, is_good: bool) {
        let tally = Tally {
            successes: if is_good { 2 } else { 0 },
            failures: if is_good { 0 } else { 3 },
            is_flapping: false,
            why: (!is_good).then(|| "no".into()),
        };
        let id = self.ids[&format!("198.51.100.{last}")];
        self.agent.take(Event::Probed(id, tally));
    }
}

fn listed(all: Vec<Loose<VirtualService>>, count: u8) -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    events.extend(services(all));
    events.extend(servers((1..=count).map(server)));
    events.extend(groups([group(None)]));
    events
}

#[test]
fn spin_in_trouble() {
    let mut s = sync(listed(vec![checked(80, json!(null))], 1));
    s.act(1);
    s.world.parts().kernel.broken = Some(fixtures::broken);
    s.agent.state.distrust();
    s.agent.due = true;
    let at = Duration::from_secs(20);
    s.agent.act(at);
    assert!(s.agent.trouble.is_some());
    assert!(
        s.agent.next_deadline(at) > at,
        "{:?}",
        s.agent.next_deadline(at)
    );
}

#[test]
fn last_healthy_server_deleted() {
    let mut s = sync(listed(vec![checked(80, json!(null))], 2));
    s.act(1);
    s.verdict(1, true);
    s.verdict(2, false);
    s.act(2);
    s.world.news();
    s.agent
        .take(Event::RealServer(Change::Delete(ObjectKey::new(
            "shop", "web1",
        ))));
    s.act(3);
    let news = s.world.news();
    let next = s.agent.next_deadline(Duration::from_secs(3));
    s.act(4);
    assert!(
        next <= Duration::from_secs(3),
        "{news:?} next {next:?} table {:?}",
        s.world.table()
    );
}

#[test]
fn sorry_of_held_service() {
    let all = (1..=20)
        .map(|port| checked(8000 + port, sorry(1)))
        .collect();
    let mut s = sync(listed(all, 1));
    s.act(1);
    s.verdict(1, false);
    s.act(2);
    let is_sorry = |row: &String| row.contains("192.0.2.99:80 -m -w 1");
    assert_eq!(
        s.world.table().iter().filter(|row| is_sorry(row)).count(),
        20
    );
    services([])
        .into_iter()
        .for_each(|event| s.agent.take(event));
    s.act(3);
    assert_eq!(
        s.world.table().iter().filter(|row| is_sorry(row)).count(),
        20,
        "{:?}",
        &s.world.table()[..3]
    );
}

#[test]
fn adopted_while_running() {
    let mut s = sync(listed(vec![], 2));
    s.act(1);
    s.world
        .parts()
        .kernel
        .table
        .insert(tcp(VIP, 80), kernel_service("wrr", &[(1, 1), (2, 1)]));
    s.agent.take(Event::VirtualService(Change::Apply(checked(
        80,
        json!(null),
    ))));
    s.act(2);
    s.agent.due = true;
    s.act(3);
    let news = s.world.news();
    assert!(!news.iter().any(|row| row.ends_with("-w 0")), "{news:?}");
}

#[test]
fn report_names_who_is_there() {
    let mut s = sync(listed(vec![checked(80, json!(null))], 2));
    s.act(1);
    s.verdict(1, false);
    s.verdict(2, true);
    s.act(2);
    let mut renamed = server(1);
    renamed.metadata.name = Some("new1".to_owned());
    renamed.metadata.uid = Some("new1".to_owned());
    s.agent
        .take(Event::RealServer(Change::Delete(ObjectKey::new(
            "shop", "web1",
        ))));
    s.agent.take(Event::RealServer(Change::Apply(renamed)));
    let observed = s.agent.act(Duration::from_secs(3)).expect("a round");
    let found = observed.health.found.clone().expect("checks");
    assert_eq!(found.unhealthy[0].real_server, "shop/new1");
}

#[test]
fn checks_end_while_not_everything_is_listed() {
    let mut events = vec![directors(&["a"])];
    events.extend(
        (1..=20)
            .map(|port| Event::VirtualService(Change::Apply(checked(8000 + port, json!(null))))),
    );
    events.extend([1, 2].map(|last| Event::RealServer(Change::Apply(server(last)))));
    events.push(Event::DirectorGroup(Change::Apply(group(None))));
    events.push(Event::Restored);
    let mut s = sync(events);
    s.act(1);
    assert_eq!(s.world.table().len(), 60);
    services([])
        .into_iter()
        .for_each(|event| s.agent.take(event));
    s.act(2);
    servers([server(1), server(2)])
        .into_iter()
        .for_each(|event| s.agent.take(event));
    groups([group(None)])
        .into_iter()
        .for_each(|event| s.agent.take(event));
    s.act(3);
    assert_eq!(s.world.table().len(), 60, "held");
    assert_eq!(s.stopped, 0, "held, and checked no more");
}

#[test]
fn held_server_of_an_earlier_life() {
    // Guard holds 20 removals; restart; another server of the same services is unwanted.
    let all: Vec<_> = (1..=20)
        .map(|port| checked(8000 + port, json!(null)))
        .collect();
    let mut s = sync(listed(all.clone(), 4));
    s.act(1);
    for last in 1..=4 {
        s.verdict(last, true);
    }
    s.act(2);
    let world = s.world.clone();
    s.agent
        .take(Event::RealServer(Change::Delete(ObjectKey::new(
            "shop", "web4",
        ))));
    s.agent
        .take(Event::RealServer(Change::Delete(ObjectKey::new(
            "shop", "web3",
        ))));
    s.act(3);
    let held = world.table().len();
    assert_eq!(held, 100, "held");
    // Another life.
    let (orders, ordered) = unbounded_channel();
    let doors = Doors {
        orders: Some(orders),
        ..Doors::default()
    };
    let mut agent = director(&doors, &world);
    listed(all, 2)
        .into_iter()
        .for_each(|event| agent.take(event));
    let mut s = Sync {
        agent,
        world: world.clone(),
        orders: ordered,
        ids: BTreeMap::new(),
        stopped: 0,
    };
    s.act(1);
    world.news();
    for last in 1..=2 {
        s.verdict(last, true);
    }
    s.act(2);
    s.agent
        .take(Event::RealServer(Change::Delete(ObjectKey::new(
            "shop", "web2",
        ))));
    s.act(3);
    assert_eq!(world.table().len(), 100, "still held");
    let news = world.news();
    assert!(
        !news.iter().any(|row| row.ends_with("-w 0")),
        "{:?}",
        &news[..3.min(news.len())]
    );
}
