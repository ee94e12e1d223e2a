//! The watches: the only place where objects come in.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use crds::api::{DirectorGroup, RealServer, VirtualService};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::info;

use crate::{
    event::{Event, Observed, ObservedDirector},
    trouble::{self, Complaints},
};

/// Events that wait for the loop.
const WAITING_EVENTS: usize = 1024;

/// A watch is opened anew after so many seconds. One that says nothing, not
/// even its end, for five more is dead, and is opened anew as well: so long it
/// takes until a connection that hangs is noticed.
pub const SILENCE: u32 = 60;

/// As that, of the Leases: a leader must see its own renewals.
const SILENCE_OF_LEASES: u32 = 20;

/// Starts all watches. They go on until the receiver or `tasks` is dropped.
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
    tasks.spawn(all.watch(
        "leases",
        Api::<Lease>::namespaced(client.clone(), lease_namespace),
        Event::Leases,
        Some(|| Event::LeasesUnseen),
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
        let config = watcher::Config::default().timeout(silence);
        let mut stream: BoxStream<'static, _> = watcher(api, config)
            .backoff(WatchBackoff::default())
            .boxed();
        let mut failed = false;
        while let Some(item) = stream.next().await {
            let sent = match item {
                Ok(seen) => {
                    // A listing that begins has not answered yet.
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
                        Some(unseen) => self.events.send(unseen()).await,
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

/// How long a watch waits after a failure: half a second, twice as long each
/// time up to ten, and half a second again when it has worked for a while.
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
    /// Every listing that begins would count as a success: time alone resets.
    fn reset(&mut self) {}
}
