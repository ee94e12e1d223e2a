//! Runs a director on its thread, and builds the objects that tests send to it.

use super::*;

pub(super) const VIP: &str = "192.0.2.10";
/// The time after which a waiting test fails.
pub(super) const PATIENCE_OF_TESTS: Duration = Duration::from_secs(20);

/// Counts how often the director opened the journal (`opened`) and the kernel
/// (`kernel_opened`). The next `kernel_fails` attempts to open the kernel fail.
#[derive(Clone, Default)]
pub(super) struct Doors {
    pub(super) opened: Arc<AtomicUsize>,
    pub(super) kernel_opened: Arc<AtomicUsize>,
    pub(super) kernel_fails: Arc<AtomicUsize>,
    /// The channel that receives the orders to the prober, or none if the test
    /// needs no probes.
    pub(super) orders: Option<UnboundedSender<Order>>,
    /// Whether services may take the host's own traffic.
    pub(super) may_hijack: bool,
}

impl Doors {
    pub(super) fn world(&self, world: &ModelWorld) -> World {
        let doors = self.clone();
        let (kernel, links, journal) = (world.clone(), world.clone(), world.clone());
        World {
            kernel: Box::new(move || {
                doors.kernel_opened.fetch_add(1, SeqCst);
                let fails = doors.kernel_fails.load(SeqCst);
                if fails > 0 {
                    doors.kernel_fails.store(fails - 1, SeqCst);
                    return Err(ipvs::Error::NoIpvs);
                }
                Ok(Box::new(kernel.clone()))
            }),
            links: Box::new(move || Ok(Box::new(links.clone()))),
            sysctls: Box::new(world.clone()),
            segments: Box::new(world.clone()),
            leases: Some(Box::new(world.clone())),
            sockets: Box::new(world.clone()),
            heartbeat: Heartbeat::default(),
            trail: Trail::nowhere(),
            prober: Heartbeat::default(),
            pulse: Pulse::default(),
            may_hijack: self.may_hijack,
            surroundings: Box::new(world.clone()),
            uptime: Box::new({
                let world = world.clone();
                move || world.parts().uptime
            }),
            followed: Followed::default(),
            daytime: Box::new({
                let world = world.clone();
                move || world.parts().daytime
            }),
            orders: self.orders.clone().unwrap_or_else(|| unbounded_channel().0),
            journal: Box::new({
                let opened = self.opened.clone();
                move || {
                    opened.fetch_add(1, SeqCst);
                    let remembered = journal.parts().disk.remembered();
                    Ok((Box::new(journal.clone()), remembered))
                }
            }),
        }
    }
}

/// Returns a director that removes entries without a grace, so that most tests
/// need not wait.
pub(super) fn director(doors: &Doors, world: &ModelWorld) -> Loop {
    let mut director = patient_director(doors, world);
    director.retention = Retention::immediate();
    director
}

/// Returns a director that delays removals, as in production.
pub(super) fn patient_director(doors: &Doors, world: &ModelWorld) -> Loop {
    let (name, group) = ("a".to_owned(), "default".to_owned());
    let (recorder, _) = Recorder::new();
    let (clock, world) = (Clock::start(), doors.world(world));
    Loop::new(name, group, clock, world, recorder, Memory::default())
}

/// A director that runs on its thread.
pub(super) struct Running {
    pub(super) world: ModelWorld,
    pub(super) doors: Doors,
    pub(super) events: Sender<Event>,
    pub(super) observed: Receiver<Observed>,
    pub(super) thread: JoinHandle<()>,
}

impl Running {
    pub(super) fn start(world: ModelWorld) -> Self {
        Self::with_doors(world, Doors::default())
    }

    pub(super) fn with_doors(world: ModelWorld, doors: Doors) -> Self {
        let (events, heard) = mpsc::channel();
        let (observe, observed) = mpsc::channel();
        let (doors_of_thread, world_of_thread) = (doors.clone(), world.clone());
        let thread = thread::spawn(move || {
            director(&doors_of_thread, &world_of_thread).run(&heard, &mut |found| {
                // Sending fails if the test has dropped its end of the channel.
                let _ = observe.send(found);
            });
        });
        Self {
            world,
            doors,
            events,
            observed,
            thread,
        }
    }

    pub(super) fn send(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.events.send(event).expect("the loop runs");
        }
    }

    pub(super) fn until(&self, what: &str, mut is: impl FnMut(&Observed) -> bool) -> Observed {
        loop {
            match self.observed.recv_timeout(PATIENCE_OF_TESTS) {
                Ok(observed) if is(&observed) => return observed,
                Ok(_) => {}
                Err(error) => panic!("waited for {what}: {error}"),
            }
        }
    }

    /// Waits for a round without failures, and returns the loop's findings.
    pub(super) fn programmed(&self, services: usize, destinations: usize) -> Observed {
        let what = format!("{services} services, {destinations} destinations");
        self.until(&what, |observed| {
            observed.outcome.as_ref().is_some_and(|outcome| {
                outcome.failures.is_empty()
                    && (outcome.services, outcome.destinations) == (services, destinations)
            })
        })
    }

    pub(super) fn trouble(&self) -> Trouble {
        let observed = self.until("trouble", |observed| observed.trouble.is_some());
        observed.trouble.expect("it was waited for")
    }

    pub(super) fn stop(self) {
        self.send([Event::Stop]);
        self.thread.join().expect("the loop ends well");
    }
}

pub(super) fn service(port: i32, scheduler: &str, generation: i64) -> Loose<VirtualService> {
    service_at(VIP, port, scheduler, generation)
}

pub(super) fn service_at(
    vip: &str,
    port: i32,
    scheduler: &str,
    generation: i64,
) -> Loose<VirtualService> {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("web{port}"), "namespace": "shop",
            "uid": format!("service{port}"), "generation": generation,
        },
        "spec": {
            "vip": {"address": vip, "port": port},
            "scheduler": scheduler,
            "forwarding": {"method": "NAT"},
            "realServerSelector": {"matchLabels": {"app": "web"}},
        },
    }))
    .expect("an envelope that parses")
}

pub(super) fn server(last: u8) -> Loose<RealServer> {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("web{last}"), "namespace": "shop", "labels": {"app": "web"},
            "uid": format!("server{last}"), "generation": 1,
        },
        "spec": {"address": format!("198.51.100.{last}")},
    }))
    .expect("an envelope that parses")
}

pub(super) fn group(holder: Option<&str>) -> Loose<DirectorGroup> {
    serde_json::from_value(json!({
        "metadata": {"name": "default", "uid": "group", "generation": 1},
        "spec": {
            "addresses": {"holder": holder},
            "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0", "::/0"]}],
        },
    }))
    .expect("an envelope that parses")
}

pub(super) fn services(all: impl IntoIterator<Item = Loose<VirtualService>>) -> Vec<Event> {
    let items = all.into_iter().map(Change::Item);
    let changes = [Change::Listing].into_iter().chain(items);
    let changes = changes.chain([Change::Listed]);
    changes.map(Event::VirtualService).collect()
}

pub(super) fn servers(all: impl IntoIterator<Item = Loose<RealServer>>) -> Vec<Event> {
    let items = all.into_iter().map(Change::Item);
    let changes = [Change::Listing].into_iter().chain(items);
    let changes = changes.chain([Change::Listed]);
    changes.map(Event::RealServer).collect()
}

pub(super) fn groups(all: impl IntoIterator<Item = Loose<DirectorGroup>>) -> Vec<Event> {
    let items = all.into_iter().map(Change::Item);
    let changes = [Change::Listing].into_iter().chain(items);
    let changes = changes.chain([Change::Listed]);
    changes.map(Event::DirectorGroup).collect()
}

pub(super) fn directors(names: &[&str]) -> Event {
    Event::Directors(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Returns the event that reports a director's Lease with the renewal time
/// `renewal`. The Lease was read just now.
pub(super) fn lease(director: &str, renewal: &str) -> Event {
    let (director, renewal) = (director.to_owned(), Some(renewal.to_owned()));
    Event::Lease(director, Instant::now(), renewal)
}

/// Lets the reader find no connection in the services that it follows.
pub(super) fn read_no_connections(agent: &mut Loop) {
    let followed = agent.world.followed.get();
    let loads = followed.iter().map(|service| (*service, BTreeMap::new()));
    agent.note(Event::Loads(Instant::now(), loads.collect()));
}

/// Returns the events for two services with two servers, and for one director
/// that holds the VIP.
pub(super) fn everything() -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    events.extend(services([service(80, "wrr", 1), service(443, "wrr", 1)]));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group(None)]));
    events
}

pub(super) fn started_with_everything() -> Running {
    let running = Running::start(ModelWorld::new());
    running.send(everything());
    running.programmed(2, 4);
    running.until_held();
    running.world.news();
    running
}

impl Running {
    /// Checks that the VIP is on its interface after the last observed round.
    pub(super) fn until_held(&self) {
        assert_eq!(self.world.interfaces_with(ip(VIP)), ["eth0"]);
    }
}
