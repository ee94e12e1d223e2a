//! Tests how the loop handles the health of servers, step by step and without
//! its thread.

use tokio::sync::mpsc::UnboundedReceiver;

use super::{health::checked, *};
use crate::{
    event::probed::{ProbeId, Tally},
    fixtures,
    probe::target::Order,
};

/// A director that acts only when the test tells it to.
struct Steps {
    agent: Loop,
    world: ModelWorld,
    orders: UnboundedReceiver<Order>,
    ids: BTreeMap<String, ProbeId>,
    stopped: usize,
}

impl Steps {
    fn new(world: ModelWorld, events: impl IntoIterator<Item = Event>) -> Self {
        let (orders, ordered) = unbounded_channel();
        let doors = Doors {
            orders: Some(orders),
            ..Doors::default()
        };
        let mut steps = Self {
            agent: director(&doors, &world),
            world,
            orders: ordered,
            ids: BTreeMap::new(),
            stopped: 0,
        };
        steps.take(events);
        steps
    }

    fn take(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.agent.note(event));
    }

    fn act(&mut self, second: u64) -> Option<Observed> {
        let observed = self.agent.act(Duration::from_secs(second));
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Start(id, target) => {
                    self.ids.insert(target.address.ip().to_string(), id);
                }
                Order::Stop(_) => self.stopped += 1,
                Order::Rates(_) => {}
            }
        }
        observed
    }

    /// Sends a verdict about a server to the director.
    fn verdict(&mut self, last: u8, is_good: bool) {
        let tally = Tally {
            successes: if is_good { 2 } else { 0 },
            failures: if is_good { 0 } else { 3 },
            is_flapping: false,
            why: (!is_good).then(|| "connection refused".into()),
        };
        let id = self.ids[&format!("198.51.100.{last}")];
        self.take([Event::Probed(id, tally)]);
    }

    fn delete_server(&mut self, last: u8) {
        let key = ObjectKey::new("shop", format!("web{last}").as_str());
        self.take([Event::RealServer(Change::Delete(key))]);
    }

    fn rows_with(&self, part: &str) -> usize {
        let rows = self.world.table();
        rows.iter().filter(|row| row.contains(part)).count()
    }
}

fn with(port: i32, availability: serde_json::Value) -> Loose<VirtualService> {
    let mut service = checked(port);
    let spec = service.spec.as_mut().expect("it parses");
    spec.availability = serde_json::from_value(availability).expect("an availability");
    service
}

/// Returns a service whose sorry server 192.0.2.99 serves while fewer than
/// `minimum` servers are healthy.
fn with_sorry_server(port: i32, minimum: i32) -> Loose<VirtualService> {
    let sorry = json!({"address": "192.0.2.99", "port": 80});
    let below = json!({"action": "SorryServer", "sorryServer": sorry});
    with(
        port,
        json!({"minimumHealthy": minimum, "belowMinimum": below}),
    )
}

fn listed(all: Vec<Loose<VirtualService>>, count: u8) -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    events.extend(services(all));
    events.extend(servers((1..=count).map(server)));
    events.extend(groups([group(None)]));
    events
}

fn twenty() -> Vec<Loose<VirtualService>> {
    (8001..=8020).map(checked).collect()
}

#[test]
fn while_no_round_can_run_nothing_is_due() {
    let mut steps = Steps::new(ModelWorld::new(), listed(vec![checked(80)], 1));
    steps.act(1);
    steps.world.parts().kernel.broken = Some(fixtures::broken);
    steps.take([Event::Unread]);
    let now = Duration::from_secs(20);
    steps.agent.act(now);
    assert!(steps.agent.trouble.is_some(), "the kernel does not answer");
    assert!(
        steps.agent.next_deadline(now) > now,
        "a deadline in the past would keep the loop awake"
    );
}

#[test]
fn when_the_last_healthy_server_is_deleted_the_others_serve_at_once() {
    let mut steps = Steps::new(ModelWorld::new(), listed(vec![checked(80)], 2));
    steps.act(1);
    steps.verdict(1, true);
    steps.verdict(2, false);
    steps.act(2);
    assert_eq!(steps.rows_with("-w 0"), 1);
    steps.delete_server(1);
    steps.act(3);
    assert_eq!(steps.rows_with("-w 0"), 0, "the service fails open");
}

#[test]
fn a_service_that_is_held_keeps_its_sorry_server() {
    let all = (8001..=8020).map(|port| with_sorry_server(port, 1));
    let mut steps = Steps::new(ModelWorld::new(), listed(all.collect(), 1));
    steps.act(1);
    steps.verdict(1, false);
    steps.act(2);
    assert_eq!(steps.rows_with("192.0.2.99:80 -m -w 1"), 20);
    steps.take(services([]));
    steps.act(3);
    assert_eq!(steps.rows_with("192.0.2.99:80 -m -w 1"), 20, "all are held");
}

#[test]
fn servers_of_a_service_that_was_made_by_hand_meanwhile_are_up() {
    let mut steps = Steps::new(ModelWorld::new(), listed(vec![], 2));
    steps.act(1);
    let made = kernel_service("wrr", &[(1, 1), (2, 1)]);
    steps.world.parts().kernel.table.insert(tcp(VIP, 80), made);
    steps.take([Event::VirtualService(Change::Apply(checked(80)))]);
    steps.act(2);
    steps.agent.reason = Reason::Retry;
    steps.act(3);
    let news = steps.world.news();
    assert!(!news.iter().any(|row| row.ends_with("-w 0")), "{news:?}");
}

#[test]
fn the_report_names_only_current_objects() {
    let mut steps = Steps::new(ModelWorld::new(), listed(vec![checked(80)], 2));
    steps.act(1);
    steps.verdict(1, false);
    steps.verdict(2, true);
    steps.act(2);
    let mut renamed = server(1);
    renamed.metadata.name = Some("new1".to_owned());
    renamed.metadata.uid = Some("new1".to_owned());
    steps.delete_server(1);
    steps.take([Event::RealServer(Change::Apply(renamed))]);
    let observed = steps.act(3).expect("there is a round");
    let found = observed.health.found.clone().expect("there are checks");
    assert_eq!(found.unhealthy[0].real_server.to_string(), "shop/new1");
}

#[test]
fn checks_go_on_while_not_everything_is_listed() {
    let mut events = vec![directors(&["a"])];
    let all = twenty().into_iter().map(Change::Apply);
    events.extend(all.map(Event::VirtualService));
    events.extend([1, 2].map(|last| Event::RealServer(Change::Apply(server(last)))));
    events.push(Event::DirectorGroup(Change::Apply(group(None))));
    events.push(Event::Restored);
    let mut steps = Steps::new(ModelWorld::new(), events);
    steps.act(1);
    assert_eq!(steps.world.table().len(), 60);
    steps.take(services([]));
    steps.act(2);
    steps.take(servers([server(1), server(2)]));
    steps.take(groups([group(None)]));
    steps.act(3);
    assert_eq!(steps.world.table().len(), 60, "their removal is held");
    assert_eq!(steps.stopped, 0, "and they are checked");
}

#[test]
fn a_held_server_of_an_earlier_run_keeps_its_weight() {
    let mut steps = Steps::new(ModelWorld::new(), listed(twenty(), 4));
    steps.act(1);
    (1..=4).for_each(|last| steps.verdict(last, true));
    steps.act(2);
    steps.delete_server(4);
    steps.delete_server(3);
    steps.act(3);
    assert_eq!(steps.world.table().len(), 100, "their removal is held");

    let mut next = Steps::new(steps.world.clone(), listed(twenty(), 2));
    next.act(1);
    (1..=2).for_each(|last| next.verdict(last, true));
    next.act(2);
    next.world.news();
    next.delete_server(2);
    next.act(3);
    assert_eq!(next.world.table().len(), 100, "all are held");
    let news = next.world.news();
    assert!(!news.iter().any(|row| row.ends_with("-w 0")), "{news:?}");
}

#[test]
fn a_server_that_a_check_removed_is_back_whatever_the_disk_does() {
    let service = with(80, json!({"onFailure": "Remove"}));
    let mut steps = Steps::new(ModelWorld::new(), listed(vec![service], 2));
    steps.act(1);
    steps.verdict(1, true);
    steps.verdict(2, true);
    steps.act(2);
    assert_eq!(steps.rows_with("-r"), 2);
    steps.world.parts().disk_broken = true;
    steps.verdict(2, false);
    steps.act(3);
    assert_eq!(steps.rows_with("-r"), 1);
    steps.verdict(2, true);
    steps.act(4);
    assert_eq!(steps.rows_with("-r"), 2);
}

#[test]
fn the_sorry_server_serves_whatever_the_disk_does() {
    let service = with_sorry_server(80, 2);
    let mut steps = Steps::new(ModelWorld::new(), listed(vec![service], 2));
    steps.act(1);
    steps.verdict(1, true);
    steps.verdict(2, true);
    steps.act(2);
    steps.world.parts().disk_broken = true;
    steps.verdict(2, false);
    steps.act(3);
    assert_eq!(steps.rows_with("192.0.2.99:80 -m -w 1"), 1);
}
