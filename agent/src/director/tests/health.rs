//! Tests how the loop handles the health of servers.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::{
    event::probed::{ProbeId, Tally},
    probe::target::{Order, Target},
};

/// A director that runs on its thread. The test acts as the prober: it receives
/// the orders and sends the verdicts.
struct Scene {
    running: Running,
    orders: UnboundedReceiver<Order>,
    targets: BTreeMap<SocketAddr, ProbeId>,
}

impl Scene {
    /// Starts a director with the given services and number of servers. Each
    /// service of the director has a health check.
    fn of(services_: impl IntoIterator<Item = Loose<VirtualService>>, servers_: u8) -> Self {
        let (orders, ordered) = unbounded_channel();
        let doors = Doors {
            orders: Some(orders),
            ..Doors::default()
        };
        let mut events = vec![directors(&["a"])];
        events.extend(services(services_));
        events.extend(servers((1..=servers_).map(server)));
        events.extend(groups([group(None)]));
        let running = Running::with_doors(ModelWorld::new(), doors);
        running.send(events);
        Self {
            running,
            orders: ordered,
            targets: BTreeMap::new(),
        }
    }

    fn target(&mut self, last: u8) -> ProbeId {
        let address: SocketAddr = format!("198.51.100.{last}:80").parse().unwrap();
        loop {
            if let Some(id) = self.targets.get(&address) {
                return *id;
            }
            match self.orders.blocking_recv().expect("the director lives") {
                Order::Start(id, target) => {
                    let Target { address, .. } = *target;
                    self.targets.insert(address, id);
                }
                Order::Stop(id) => self.targets.retain(|_, known| *known != id),
                Order::Rates(_) => {}
            }
        }
    }

    /// Sends a verdict about a server to the director.
    fn verdict(&mut self, last: u8, is_good: bool) {
        let tally = Tally {
            successes: if is_good { 2 } else { 0 },
            failures: if is_good { 0 } else { 3 },
            is_flapping: false,
            why: (!is_good).then(|| "connection refused".into()),
        };
        let id = self.target(last);
        self.running.send([Event::Probed(id, tally)]);
    }

    fn until_table(&self, what: &str, rows: &[&str]) {
        let world = self.running.world.clone();
        self.running.until(what, |_| world.table() == rows);
    }
}

pub(super) fn checked(port: i32) -> Loose<VirtualService> {
    let mut service = service(port, "wrr", 1);
    let spec = service.spec.as_mut().expect("it parses");
    spec.health_check = serde_json::from_value(json!({"tcpSocket": {"port": 80}})).unwrap();
    service
}

#[test]
fn a_verdict_changes_a_weight_and_is_reported() {
    let mut scene = Scene::of([checked(80)], 2);
    scene.verdict(1, true);
    scene.verdict(2, true);
    let up = [
        "-A -t 192.0.2.10:80 -s wrr",
        "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
        "-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 1",
    ];
    scene.until_table("both to be served", &up);
    scene.running.world.news();
    scene.verdict(2, false);
    let health = |observed: &Observed| {
        let found = observed.health.found.clone()?;
        (found.healthy == 1).then_some(found)
    };
    let observed = scene
        .running
        .until("one to be down", |observed| health(observed).is_some());
    let found = health(&observed).expect("as waited for");
    assert_eq!(
        scene.running.world.news(),
        ["-e -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 0"],
        "one write, and nothing to the disk"
    );
    assert_eq!(found.unhealthy[0].real_server.to_string(), "shop/web2");
    assert_eq!(found.unhealthy[0].message, "connection refused");
    let [service] = &found.unhealthy[0].virtual_services[..] else {
        panic!("one service is named: {found:?}");
    };
    assert_eq!(service.to_string(), "shop/web80");
}

#[test]
fn what_checks_take_out_is_not_held_however_much_it_is() {
    let remove = |port: i32| {
        let mut service = checked(port);
        let spec = service.spec.as_mut().expect("it parses");
        spec.availability = serde_json::from_value(json!({"onFailure": "Remove"})).unwrap();
        service
    };
    let mut scene = Scene::of((1..=20).map(|port| remove(8000 + port)), 2);
    scene.verdict(1, true);
    scene.verdict(2, true);
    let world = scene.running.world.clone();
    let entries = |count: usize| move |_: &Observed| world.table().len() == count;
    scene
        .running
        .until("all servers to be served", entries.clone()(60));
    scene.verdict(2, false);
    let observed = scene
        .running
        .until("one server to be out of all services", entries(40));
    assert_eq!(
        observed.removals_held,
        [],
        "20 of 40 destinations were taken out"
    );
}

#[test]
fn what_is_held_goes_on_being_checked() {
    let mut scene = Scene::of((1..=20).map(|port| checked(8000 + port)), 2);
    scene.verdict(1, true);
    scene.verdict(2, true);
    let world = scene.running.world.clone();
    scene.running.until("all servers to be served", |_| {
        let table = world.table();
        table.len() == 60 && !table.iter().any(|row| row.ends_with("-w 0"))
    });
    scene.running.send(services([]));
    scene.running.until("the removal to be held", |observed| {
        observed.removals_held.len() == 20
    });
    world.news();
    scene.verdict(2, false);
    scene.running.until("it to get no connections", |_| {
        let rows = world.table();
        let quiesced = rows.iter().filter(|row| row.ends_with("-w 0"));
        quiesced.count() == 20
    });
    scene.verdict(2, true);
    scene.running.until("it to be back", |_| {
        !world.table().iter().any(|row| row.ends_with("-w 0"))
    });
    assert_eq!(world.table().len(), 60, "and nothing was removed");
}

#[test]
fn void_and_late_probes_are_reported_and_change_nothing() {
    let mut scene = Scene::of([checked(80)], 1);
    scene.verdict(1, true);
    let world = scene.running.world.clone();
    scene
        .running
        .until("it to be served", |_| world.table()[1].ends_with("-w 1"));
    world.news();
    let why: Arc<str> = "no file descriptor is free".into();
    let void = BTreeMap::from([(why, 1)]);
    scene.running.send([Event::ProbesVoid(void.clone())]);
    scene
        .running
        .until("it to be reported", |observed| observed.health.void == void);
    let late = BTreeMap::from([("namespace shop wants more".into(), 1)]);
    scene.running.send([Event::ProbesLate(late.clone())]);
    scene
        .running
        .until("it to be reported", |observed| observed.health.late == late);
    assert_eq!(world.news(), [""; 0]);
}
