//! A scene for tests: one run of the agent's health logic, with a model kernel
//! that accepts every change.

use ipvs::ActualService;

use super::*;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

pub(super) fn check_policy(availability: Availability, path: &str) -> Arc<CheckPolicy> {
    let probe = Probe::Tcp {
        send: path.to_owned(),
        expect: String::new(),
    };
    Arc::new(CheckPolicy {
        check: Arc::new(HealthCheck { probe, ..check() }),
        namespace: "shop".into(),
        quotable: Default::default(),
        availability,
        sorry: None,
        quiesce_only: Default::default(),
        drained: Default::default(),
    })
}

/// One run of the agent's health logic, with a model kernel that accepts every
/// change.
pub(super) struct Scene {
    pub(super) serving: Serving,
    pub(super) key: ServiceKey,
    pub(super) wanted: WantedService,
    pub(super) policy: Arc<CheckPolicy>,
    pub(super) kernel: Option<ActualService>,
    pub(super) is_ours: bool,
    pub(super) results: BTreeMap<ProbeId, Results>,
    pub(super) targets: BTreeMap<SocketAddr, ProbeId>,
    pub(super) rows: BTreeMap<String, String>,
    pub(super) second: i64,
    pub(super) writes: usize,
}

impl Scene {
    pub(super) fn new(servers: u8) -> Self {
        Self::with(servers, availability())
    }

    pub(super) fn with(servers: u8, availability: Availability) -> Self {
        let servers = (1..=servers).map(|last| (server(last), weight(WEIGHT)));
        Self {
            serving: Serving::default(),
            key: tcp("192.0.2.10", 80),
            wanted: WantedService {
                config: config("wrr"),
                destinations: servers.collect(),
            },
            policy: check_policy(availability, ""),
            kernel: None,
            is_ours: false,
            results: BTreeMap::new(),
            targets: BTreeMap::new(),
            rows: BTreeMap::new(),
            second: 0,
            writes: 0,
        }
    }

    /// Makes the kernel serve all servers before their health check begins.
    pub(super) fn served(mut self) -> Self {
        self.kernel = Some(ActualService {
            config: self.wanted.config.clone(),
            destinations: self.wanted.destinations.clone(),
        });
        self.is_ours = true;
        self
    }

    pub(super) fn wish(&mut self) {
        let found = Found {
            service: self.kernel.as_ref(),
            is_ours: self.is_ours,
        };
        let wish = Some((&self.policy, &self.wanted));
        self.serving.wish(self.key, wish, found, at(self.second));
        self.act();
    }

    pub(super) fn act(&mut self) {
        self.serving.pass(at(self.second));
        for key in self.serving.take_dirty() {
            let weighed = self.serving.weigh(key, &self.wanted, at(self.second));
            let destinations = weighed.destinations;
            let before = self.kernel.as_ref().map(|found| &found.destinations);
            self.writes += usize::from(before != Some(&destinations));
            self.is_ours = true;
            self.kernel = Some(ActualService {
                config: weighed.config,
                destinations,
            });
        }
        for order in self.serving.take_orders() {
            match order {
                Order::Start(id, target) => {
                    self.results.insert(id, Results::new(2, 3));
                    self.targets.insert(target.address, id);
                }
                Order::Stop(id) => {
                    self.results.remove(&id);
                }
                Order::Rates(_) => {}
            }
        }
        for (key, row) in self.serving.take_notes() {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Lets one period of the health check pass, and returns the servers' new
    /// weights. Each character of `results` is the result of one server's
    /// probe. `+` is a success, `-` is a failure, and `.` means no result.
    pub(super) fn probe(&mut self, results: &str) -> String {
        self.second += 5;
        for (server, result) in self.wanted.destinations.clone().keys().zip(results.chars()) {
            let verdict = match result {
                '+' => Verdict::Success,
                '-' => Verdict::Failure("connection refused".into()),
                _ => continue,
            };
            let id = self.targets[&SocketAddr::new(server.address, server.port)];
            let Some(results) = self.results.get_mut(&id) else {
                continue;
            };
            if let Some(tally) = results.note(verdict) {
                self.serving.hear(id, &tally, at(self.second));
            }
        }
        self.act();
        self.weights()
    }

    pub(super) fn wait(&mut self, seconds: i64) -> String {
        self.second += seconds;
        self.act();
        self.weights()
    }

    /// Returns the servers' weights in the kernel; `x` stands for a server that
    /// the kernel does not have.
    pub(super) fn weights(&self) -> String {
        let kernel = self.kernel.as_ref().expect("something was weighed");
        let weights: Vec<_> = self
            .wanted
            .destinations
            .keys()
            .map(|server| match kernel.destinations.get(server) {
                Some(found) => found.weight.to_string(),
                None => "x".to_owned(),
            })
            .collect();
        weights.join(" ")
    }

    /// Restarts the agent with the servers' health that the previous run wrote
    /// to disk. Returns the servers' weights.
    pub(super) fn restart(&mut self) -> String {
        let rows = self.rows.clone();
        self.restart_with(&rows)
    }

    pub(super) fn restart_with(&mut self, rows: &BTreeMap<String, String>) -> String {
        let mut memory = Memory::default();
        for (key, row) in rows {
            memory.remember(key, row).expect("its own rows");
        }
        self.rows.clone_from(rows);
        self.serving = Serving::remember(memory);
        self.results.clear();
        self.targets.clear();
        self.wish();
        self.weights()
    }
}
