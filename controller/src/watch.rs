//! The controller's watches, which deliver all objects.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use crds::api::{DIRECTORS_NAMESPACE, DirectorGroup, RealServer, VirtualService};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet, time};
use tracing::info;

use crate::{
    event::{Event, Observed, ObservedDirector},
    trouble::{self, Complaints},
};

/// The largest number of watch events that wait for the main loop.
const WAITING_EVENTS: usize = 1024;

/// How many seconds a watch lasts before it is opened again. If a watch shows
/// no event and does not end for five more seconds, its connection is
/// considered dead. The watch is then opened again. The controller therefore
/// notices a hanging connection after [`SILENCE`] plus five seconds.
pub const SILENCE: u32 = 50;

/// How many seconds the watch of Leases lasts. A leader must see its own
/// renewals. So this watch is shorter than the other watches, and the
/// controller notices a hanging connection sooner.
const SILENCE_OF_LEASES: u32 = 20;

/// Starts all watches. `lease_namespace` is the namespace of the leader's
/// Lease. Until version 0.2, directors' Leases in that namespace count too. The
/// watches run until the receiver or `tasks` is dropped.
pub fn start(
    client: &Client,
    lease_namespace: &str,
    complaints: &Complaints,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(WAITING_EVENTS);
    let all = Watches {
        events,
        complaints: complaints.clone(),
    };
    tasks.spawn(all.clone().watch(
        "ipvsvirtualservices",
        Api::<Observed<VirtualService>>::all(client.clone()),
        Event::VirtualServices,
        None,
        SILENCE,
    ));
    tasks.spawn(all.clone().watch(
        "realservers",
        Api::<Observed<RealServer>>::all(client.clone()),
        Event::RealServers,
        None,
        SILENCE,
    ));
    tasks.spawn(all.clone().watch(
        "directorgroups",
        Api::<Observed<DirectorGroup>>::all(client.clone()),
        Event::DirectorGroups,
        None,
        SILENCE,
    ));
    tasks.spawn(all.clone().watch(
        "directors",
        Api::<ObservedDirector>::all(client.clone()),
        Event::Directors,
        None,
        SILENCE,
    ));
    tasks.spawn(all.clone().watch(
        "leases",
        Api::<Lease>::namespaced(client.clone(), lease_namespace),
        Event::Leases,
        Some(|| Event::LeasesUnseen),
        SILENCE_OF_LEASES,
    ));
    tasks.spawn(all.watch(
        "leases",
        Api::<Lease>::namespaced(client.clone(), DIRECTORS_NAMESPACE),
        Event::DirectorLeases,
        Some(|| Event::DirectorLeasesUnseen),
        SILENCE_OF_LEASES,
    ));
    receiver
}

#[derive(Clone)]
struct Watches {
    events: mpsc::Sender<Event>,
    complaints: Complaints,
}

impl Watches {
    async fn watch<K>(
        self,
        plural: &'static str,
        api: Api<K>,
        event: fn(watcher::Event<K>) -> Event,
        unseen: Option<fn() -> Event>,
        silence: u32,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let open = || -> BoxStream<'static, _> {
            let config = watcher::Config::default().timeout(silence);
            let stream = watcher(api.clone(), config);
            stream.backoff(WatchBackoff::default()).boxed()
        };
        let mut stream = open();
        let mut pauses = WatchBackoff::default();
        let mut failed = false;
        while let Some(item) = stream.next().await {
            let sent = match item {
                Ok(seen) => {
                    // The start of a listing does not prove that the API server
                    // answers.
                    if !matches!(seen, watcher::Event::Init) && std::mem::take(&mut failed) {
                        info!("watching {plural} again");
                    }
                    self.events.send(event(seen)).await
                }
                Err(error) => {
                    if let Some(complaint) = trouble::of_watch(plural, &error) {
                        failed = true;
                        self.complaints.warn(&complaint);
                    }
                    match unseen {
                        Some(unseen) => {
                            let sent = self.events.send(unseen()).await;
                            // A watch that goes on shows nothing until an
                            // object changes. A new listing shows at once that
                            // the watch works again.
                            if let Some(pause) = pauses.next() {
                                time::sleep(pause).await;
                            }
                            stream = open();
                            sent
                        }
                        None => Ok(()),
                    }
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// How long a watch waits after a failure: half a second at first, then twice
/// as long after each failure, up to ten seconds. After a minute without a
/// failure, the pause starts again at half a second.
#[derive(Debug, Default)]
struct WatchBackoff {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > Duration::from_secs(60))
        {
            self.failures = 0;
        }
        self.last = Some(now);
        let pause = Duration::from_millis(500) * 2_u32.pow(self.failures.min(5));
        self.failures += 1;
        Some(pause.min(Duration::from_secs(10)))
    }
}

impl Backoff for WatchBackoff {
    /// Does nothing. The kube crate calls `reset` when a listing begins, but
    /// the listing may still fail. Only a minute without a failure resets the
    /// pause.
    fn reset(&mut self) {}
}
