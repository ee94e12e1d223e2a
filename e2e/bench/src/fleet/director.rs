//! A simulated director. It watches and reports as an agent does, but has no
//! kernel: each round succeeds at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent::{
    act::Outcome,
    decide::desired::Desired,
    heartbeat::Heartbeat,
    tell::{
        publish::{self, Identity, Sources},
        report::{HealthReport, Observed},
    },
};
use crds::{
    ObjectKey,
    api::{DirectorHealth, UnhealthyServer, WorldDigests},
};
use e2e::cluster::NAMESPACE;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::{Notify, watch as channel},
    task::JoinSet,
    time,
};

use super::{
    table::GROUP,
    tally::Counts,
    watch::{self, Sight},
    world::{Kind, World},
};

/// What all simulated directors share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) world: Arc<World>,
    /// The number of services and destinations that each director has.
    pub(super) entries: (usize, usize),
    /// The number of servers that each director checks.
    pub(super) checked: usize,
    /// The number of services that share the server that fails.
    pub(super) sharing: usize,
    /// The virtual addresses, with the services that need them.
    pub(super) vips: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// The number of directors.
    pub(super) directors: usize,
    /// The heartbeat of all directors' loops.
    pub(super) heartbeat: Heartbeat,
}

/// One simulated director. All clones are the same director.
#[derive(Clone)]
pub(super) struct Director(Arc<Inner>);

struct Inner {
    name: String,
    sight: Sight,
    shared: Arc<Shared>,
    observed: channel::Sender<Option<Observed>>,
    fixed: Fixed,
    unhealthy: Mutex<Vec<UnhealthyServer>>,
    tasks: Mutex<JoinSet<()>>,
}

/// The parts of a director's findings that never change.
struct Fixed {
    outcome: Outcome,
    wishes: Arc<Desired>,
}

impl Director {
    /// Creates a director. The holder has all VIPs.
    pub(super) fn new(
        name: String,
        client: Client,
        counts: Counts,
        shared: Arc<Shared>,
        is_holder: bool,
    ) -> Self {
        let (services, destinations) = shared.entries;
        let held = shared.vips.keys().filter(|_| is_holder);
        let outcome = Outcome {
            services,
            destinations,
            vips: held.map(|vip| (*vip, "eth0".to_owned())).collect(),
            ..Outcome::default()
        };
        let wishes = Desired {
            vips: match is_holder {
                true => shared.vips.clone(),
                false => BTreeMap::new(),
            },
            ..Desired::default()
        };
        Self(Arc::new(Inner {
            name,
            sight: Sight::new(client, counts, shared.world.clone()),
            shared,
            observed: channel::Sender::new(None),
            fixed: Fixed {
                outcome,
                wishes: Arc::new(wishes),
            },
            unhealthy: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Registers the director and renews its Lease, with the agent's own code.
    /// The director reports nothing until [`Director::report`] is called.
    pub(super) fn publish(&self) {
        let identity = Identity {
            name: self.0.name.clone(),
            group: GROUP.to_owned(),
            boot_id: "fleet".to_owned(),
            kernel: "6.1.0".to_owned(),
            lease_namespace: NAMESPACE.to_owned(),
        };
        let shared = self.0.shared.clone();
        let client = self.0.sight.client.clone();
        let observed = self.0.observed.subscribe();
        self.spawn(async move {
            let vanished = Notify::new();
            let (_members, directors) = channel::channel(shared.directors);
            let sources = Sources {
                observed,
                directors,
                vanished: &vanished,
                heartbeat: &shared.heartbeat,
            };
            publish::publish(client, &identity, sources).await;
        });
    }

    /// Starts the director's watches at the given resourceVersions, and reports
    /// what they change.
    pub(super) fn watch(&self, from: [u64; Kind::ALL.len()]) {
        for (kind, version) in Kind::ALL.into_iter().zip(from) {
            self.0.sight.saw(kind, version);
            let this = self.clone();
            self.spawn(async move { watch::follow(&this.0.sight, kind).await });
        }
        let this = self.clone();
        self.spawn(async move {
            loop {
                this.0.sight.changed.notified().await;
                this.report();
            }
        });
    }

    /// Reports the current state if it differs from the last report.
    pub(super) fn report(&self) {
        let world = &self.0.shared.world;
        let digest = |kind| world.digest(kind, self.0.sight.seen(kind)).to_string();
        let used = WorldDigests {
            virtual_services: digest(Kind::VirtualServices),
            real_servers: digest(Kind::RealServers),
            director_groups: digest(Kind::DirectorGroups),
        };
        let health = self.health();
        self.0.observed.send_if_modified(|observed| {
            let is_same = observed.as_ref().is_some_and(|before| {
                before.used.as_ref() == Some(&used) && *before.health == health
            });
            if !is_same {
                *observed = Some(self.observed(used, health));
            }
            !is_same
        });
    }

    /// Finds these servers unhealthy `after` a wait, and all others healthy.
    pub(super) fn find(&self, unhealthy: Vec<UnhealthyServer>, after: Duration) {
        let this = self.clone();
        self.spawn(async move {
            time::sleep(after).await;
            *this.unhealthy() = unhealthy;
            this.report();
        });
    }

    /// Ends the director, as if its host had lost power.
    pub(super) fn die(&self) {
        self.tasks().abort_all();
    }

    /// Returns what the director's watches share.
    pub(super) fn sight(&self) -> &Sight {
        &self.0.sight
    }

    fn observed(&self, used: WorldDigests, health: HealthReport) -> Observed {
        let Fixed { outcome, wishes } = &self.0.fixed;
        Observed {
            at: Timestamp::now(),
            group: GROUP.to_owned(),
            used: Some(used),
            outcome: Some(outcome.clone()),
            trouble: None,
            removals_held: Vec::new(),
            wishes: wishes.clone(),
            unreadable: Vec::new(),
            health: Arc::new(health),
            hold: None,
            doubt: None,
            checkpoint_trouble: None,
            input_problems: Vec::new(),
            protection: Arc::default(),
            drains: Arc::default(),
        }
    }

    fn health(&self) -> HealthReport {
        let unhealthy = self.unhealthy().clone();
        let checked = self.0.shared.checked;
        let failed = unhealthy.len() * self.0.shared.sharing;
        HealthReport {
            found: Some(DirectorHealth {
                checked: crds::api::int32(checked),
                healthy: crds::api::int32(checked - failed),
                unhealthy,
                ..DirectorHealth::default()
            }),
            targets: checked,
            ..HealthReport::default()
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks().spawn(task);
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unhealthy(&self) -> std::sync::MutexGuard<'_, Vec<UnhealthyServer>> {
        self.0
            .unhealthy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
