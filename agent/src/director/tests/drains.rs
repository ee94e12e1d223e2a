//! Tests that declared drains end as declared, whatever happens to the agent.

use super::*;
use crate::host::reading::{Load, Loads};

/// A director that acts only when the test tells it to, on a host whose uptime
/// follows the test's time.
struct Scene {
    agent: Loop,
    world: ModelWorld,
    /// The uptime at the agent's start.
    started: Duration,
    now: Duration,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self::start(ModelWorld::new());
        scene.take(everything());
        scene.act(1);
        scene.world.news();
        scene
    }

    fn start(world: ModelWorld) -> Self {
        let started = world.parts().uptime;
        Self {
            agent: director(&Doors::default(), &world),
            world,
            started,
            now: Duration::ZERO,
        }
    }

    /// Starts another agent on the same host.
    fn restarted(self) -> Self {
        self.world.news();
        Self::start(self.world)
    }

    fn take(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.agent.note(event));
    }

    /// Lets the agent act at a second after its start. Returns what it reports,
    /// if anything.
    fn act(&mut self, second: u64) -> Option<Observed> {
        self.now = Duration::from_secs(second);
        self.world.parts().uptime = self.started + self.now;
        self.agent.reason = self.agent.reason.max(Reason::Retry);
        self.agent.act(self.now)
    }

    /// Lets the reader read `active` connections to server 1 in each service.
    fn load(&mut self, active: u32) {
        let load = Load {
            active,
            ..Load::default()
        };
        let followed = self.agent.world.followed.get();
        let loads: Loads = followed
            .iter()
            .map(|service| {
                let server = crate::fixtures::server(1);
                let key = ipvs::DestinationKey {
                    port: service_port(service),
                    ..server
                };
                (*service, BTreeMap::from([(key, load)]))
            })
            .collect();
        self.agent.note(Event::Loads(Instant::now(), loads));
    }
}

fn service_port(service: &ServiceKey) -> u16 {
    match service {
        ServiceKey::Address { port, .. } => *port,
        ServiceKey::FirewallMark { .. } => 0,
    }
}

/// Returns server 1 in a state, with a drain of 30 s.
fn drained(state: &str, at_end: &str) -> Event {
    drained_server(1, state, at_end)
}

fn drained_server(last: u8, state: &str, at_end: &str) -> Event {
    let mut server = server(last);
    let spec = server.spec.as_mut().expect("it parses");
    let parsed = |word: &str| serde_json::from_value(json!(word)).expect("a known word");
    spec.desired_state = serde_json::from_value(json!(state)).expect("a known word");
    spec.drain = Some(crds::api::Drain {
        timeout_seconds: Some(30),
        at_end: Some(parsed(at_end)),
    });
    server.metadata.generation = Some(2);
    Event::RealServer(Change::Apply(server))
}

fn operations(world: &ModelWorld) -> Vec<String> {
    let news = world.news().into_iter();
    news.filter(|line| line.starts_with('-')).collect()
}

#[test]
fn a_drained_server_gets_weight_0_everywhere_and_its_weight_when_it_is_active_again() {
    let mut scene = Scene::new();
    scene.take([drained("Drained", "Keep")]);
    scene.act(2);
    assert_eq!(
        operations(&scene.world),
        [
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 0",
            "-e -t 192.0.2.10:443 -r 198.51.100.1:443 -m -w 0",
        ]
    );
    for second in [3, 31, 32, 33, 1000] {
        scene.act(second);
        assert_eq!(operations(&scene.world), [""; 0], "after {second} s");
    }
    scene.take([drained("Active", "Keep")]);
    scene.act(1001);
    assert_eq!(
        operations(&scene.world),
        [
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "-e -t 192.0.2.10:443 -r 198.51.100.1:443 -m -w 1",
        ]
    );
    let observed = scene.act(1002).expect("a report");
    assert_eq!(observed.drains.exact(), [], "nothing is drained");
}

#[test]
fn a_drain_needs_the_two_sysctls_that_end_what_clients_are_bound_to() {
    let mut scene = Scene::new();
    let read = |scene: &Scene| {
        let names = ["expire_nodest_conn", "expire_quiescent_template"];
        let sysctls = &scene.world.parts().sysctls;
        names.map(|name| sysctls[&format!("net.ipv4.vs.{name}")].clone())
    };
    assert_eq!(read(&scene), ["0", "0"], "nothing needs them");
    scene.take([drained("Drained", "Keep")]);
    scene.act(2);
    assert_eq!(read(&scene), ["1", "1"]);
    scene.take([drained("Active", "Keep")]);
    scene.act(3);
    assert_eq!(read(&scene), ["0", "0"], "they are restored");
}

#[test]
fn a_drain_that_disconnects_removes_the_server_at_its_end() {
    let mut scene = Scene::new();
    scene.take([drained("Drained", "Disconnect")]);
    scene.act(2);
    operations(&scene.world);
    let deadline = scene.agent.next_deadline(scene.now);
    assert!(
        deadline <= Duration::from_secs(32),
        "it wakes: {deadline:?}"
    );
    scene.act(31);
    assert_eq!(operations(&scene.world), [""; 0]);
    scene.act(32);
    let left = [
        "-d -t 192.0.2.10:80 -r 198.51.100.1:80",
        "-d -t 192.0.2.10:443 -r 198.51.100.1:443",
    ];
    assert_eq!(operations(&scene.world), left);
    scene.act(100);
    assert_eq!(operations(&scene.world), [""; 0], "it stays away");
    scene.take([drained("Active", "Disconnect")]);
    scene.act(101);
    let back = [
        "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
        "-a -t 192.0.2.10:443 -r 198.51.100.1:443 -m -w 1",
    ];
    let found = operations(&scene.world);
    let found: Vec<_> = found.iter().filter(|line| line.starts_with("-a")).collect();
    assert_eq!(found, back.iter().collect::<Vec<_>>());
}

#[test]
fn a_restart_moves_no_end() {
    let mut scene = Scene::new();
    scene.take([drained("Drained", "Disconnect")]);
    scene.act(2);
    scene.act(12);
    let mut scene = scene.restarted();
    scene.take(everything());
    scene.take([drained("Drained", "Disconnect")]);
    scene.act(1);
    assert_eq!(
        operations(&scene.world),
        [""; 0],
        "a restart writes nothing"
    );
    scene.act(19);
    assert_eq!(operations(&scene.world), [""; 0]);
    scene.act(20);
    assert_eq!(
        operations(&scene.world).len(),
        2,
        "30 s after its beginning"
    );
}

/// Returns the events that restore the objects of the previous run, with server
/// 1 as given.
fn restored(server_1: Event) -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    for service in [service(80, "wrr", 1), service(443, "wrr", 1)] {
        events.push(Event::VirtualService(Change::Apply(service)));
    }
    events.push(server_1);
    events.push(Event::RealServer(Change::Apply(server(2))));
    events.push(Event::DirectorGroup(Change::Apply(group(None))));
    events.push(Event::Restored);
    events
}

#[test]
fn without_an_api_server_a_drain_of_the_previous_run_ends_half_a_minute_later_at_most() {
    let mut scene = Scene::new();
    scene.take([drained("Drained", "Disconnect")]);
    scene.act(2);
    let mut scene = scene.restarted();
    scene.take(restored(drained("Drained", "Disconnect")));
    for second in [1, 20] {
        scene.act(second);
        assert_eq!(operations(&scene.world), [""; 0], "after {second} s");
    }
    scene.act(29);
    assert_eq!(
        operations(&scene.world),
        [""; 0],
        "a listing may still come"
    );
    let deadline = scene.agent.next_deadline(scene.now);
    assert!(deadline <= LATE_LISTING, "it wakes: {deadline:?}");
    scene.act(30);
    assert_eq!(operations(&scene.world).len(), 2, "it is late");

    let mut scene = scene.restarted();
    scene.take(restored(drained("Drained", "Disconnect")));
    scene.act(1);
    assert_eq!(
        operations(&scene.world),
        [""; 0],
        "what has left stays away"
    );
}

#[test]
fn a_drain_that_the_previous_run_had_no_time_to_store_goes_on_until_the_listing() {
    let mut scene = Scene::new();
    scene.take([drained("Drained", "Keep")]);
    scene.act(2);
    let mut scene = scene.restarted();
    scene.take(restored(Event::RealServer(Change::Apply(server(1)))));
    scene.act(1);
    assert_eq!(operations(&scene.world), [""; 0], "no weight comes back");
    scene.take(everything());
    scene.act(2);
    assert_eq!(operations(&scene.world).len(), 2, "it is no longer drained");
}

#[test]
fn a_journal_that_cannot_be_written_delays_no_drain() {
    let mut scene = Scene::new();
    scene.world.parts().disk_broken = true;
    scene.take([drained("Drained", "Keep")]);
    scene.act(2);
    assert_eq!(operations(&scene.world).len(), 2, "the weights are 0");
    scene.world.parts().disk_broken = false;
    scene.act(3);
    assert_eq!(scene.world.parts().disk.drains.drains.len(), 2);
}

#[test]
fn the_connections_that_are_left_are_reported_over_all_services() {
    let mut scene = Scene::new();
    scene.take([drained("Drained", "Keep")]);
    let observed = scene.act(2).expect("a report");
    let of = |observed: &Observed| -> Vec<_> {
        let drains = observed.drains.exact();
        let each = drains.into_iter().map(|drain| {
            let server = drain.real_server.to_string();
            let lasts = drain.until.0.duration_since(drain.since.0).as_secs();
            (server, drain.connections, drain.drained, lasts)
        });
        each.collect()
    };
    let web1 = "shop/web1".to_owned();
    assert_eq!(
        of(&observed),
        [(web1.clone(), 0, false, 30)],
        "nothing was read"
    );
    scene.load(7);
    let observed = scene.act(4).expect("a report");
    assert_eq!(of(&observed), [(web1, 14, false, 30)]);
    let services = scene.agent.world.followed.get();
    assert_eq!(services.len(), 2, "the reader reads both services");
    scene.take([drained("Active", "Keep")]);
    scene.act(5);
    assert_eq!(scene.agent.world.followed.get().len(), 0);
}

#[test]
fn the_last_period_of_a_service_counts_even_if_it_is_deleted_in_the_same_moment() {
    let world = ModelWorld::new();
    let mut agent = patient_director(&Doors::default(), &world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.act(Duration::ZERO).expect("all is known");
    operations(&world);
    let mut edited = service(80, "wrr", 2);
    let spec = edited.spec.as_mut().expect("it parses");
    spec.removal_grace_period_seconds = Some(0);
    let key = ObjectKey::of(&edited);
    agent.note(Event::VirtualService(Change::Apply(edited)));
    agent.note(Event::VirtualService(Change::Delete(key)));
    agent.act(Duration::from_secs(1)).expect("a round");
    assert_eq!(operations(&world), ["-D -t 192.0.2.10:80"]);
}

#[test]
fn a_thousand_servers_are_drained_in_one_batch_and_with_one_record_in_the_journal() {
    let mut scene = Scene::start(ModelWorld::new());
    let mut events = vec![directors(&["a"])];
    events.extend(services((80..90).map(|port| service(port, "wrr", 1))));
    events.extend(servers((1..=100).map(server)));
    events.extend(groups([group(None)]));
    scene.take(events);
    scene.act(1);
    scene.world.news();
    let batches = scene.world.parts().batches;
    let records = scene.world.parts().records;
    scene.take((1..=100).map(|last| drained_server(last, "Drained", "Keep")));
    scene.act(2);
    assert_eq!(
        operations(&scene.world).len(),
        1000,
        "each server in each service"
    );
    for second in 3..10 {
        scene.act(second);
    }
    assert_eq!(operations(&scene.world), [""; 0]);
    let parts = scene.world.parts();
    assert_eq!(parts.batches - batches, 1, "batches of operations");
    assert_eq!(parts.records - records, 1, "records in the journal");
}
