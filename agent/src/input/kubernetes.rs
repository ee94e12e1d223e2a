//! Reads objects from the API server with four watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
    pin::pin,
    sync::mpsc::Sender,
    time::Duration,
};

use crds::{
    Change, Loose, ObjectKey, advice,
    api::{Director, DirectorGroup, RealServer, VirtualService},
};
use futures::StreamExt;
use kube::{
    Api, Client, CustomResourceExt, Resource,
    core::{ApiResource, DynamicObject, object::HasSpec},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::{
    membership::Membership,
    origin::{Look, Origin},
};
use crate::{event::Event, said::Said};

/// The most steps of a watch that are handled together.
const CHUNK: usize = 256;

/// Watches everything that a director of `group` needs, forever. While the API
/// server is away no event is sent, so nothing changes. `vanished` is notified
/// when the Director named `me` was deleted. When another cluster answers at
/// the same address, all watches start again.
pub async fn watch(
    client: Client,
    group: &str,
    me: &str,
    events: Sender<Event>,
    vanished: &Notify,
) {
    loop {
        let moved = Notify::new();
        tokio::select! {
            () = everything(&client, group, me, &events, vanished, &moved) => return,
            () = moved.notified() => {
                tracing::warn!(
                    "another cluster answers at the same address: listing all objects again"
                );
            }
        }
    }
}

async fn everything(
    client: &Client,
    group: &str,
    me: &str,
    events: &Sender<Event>,
    vanished: &Notify,
    moved: &Notify,
) {
    let of_group = watcher::Config::default().fields(&format!("spec.directorGroupName={group}"));
    let own_group = watcher::Config::default().fields(&format!("metadata.name={group}"));
    let all = watcher::Config::default();
    tokio::join!(
        objects::<VirtualService>(client, of_group, events, Event::VirtualService, moved),
        objects::<RealServer>(client, all, events, Event::RealServer, moved),
        objects::<DirectorGroup>(client, own_group, events, Event::DirectorGroup, moved),
        directors(client.clone(), group, me, events, vanished),
    );
}

async fn objects<K>(
    client: &Client,
    config: watcher::Config,
    events: &Sender<Event>,
    event: impl Fn(Change<K>) -> Event,
    moved: &Notify,
) where
    K: Resource<DynamicType = ()> + CustomResourceExt + HasSpec + Clone + Debug + Send + 'static,
    Loose<K>: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    <K as HasSpec>::Spec: Debug,
{
    let kind = K::kind(&());
    let mut origin = Origin::new(client.clone(), K::crd_name());
    let api = Api::<Loose<K>>::all(client.clone());
    // The managed fields of an object are several times its size, and the agent
    // does not use them.
    let stream = watcher(api, config)
        .default_backoff()
        .modify(|object| object.metadata.managed_fields = None);
    let mut stream = pin!(stream.ready_chunks(CHUNK));
    let mut away = Away::default();
    loop {
        let steps = tokio::select! {
            steps = stream.next() => match steps {
                Some(steps) => steps,
                None => return,
            },
            () = origin.due() => Vec::new(),
        };
        let look = match steps.is_empty() {
            true => origin.look(events).await,
            false => origin.before(&steps, events).await,
        };
        match look {
            Look::Done => {}
            Look::Moved => moved.notify_one(),
            Look::Unheard => return,
        }
        for step in steps {
            let change = match step {
                Ok(step) => {
                    away.saw(&kind, &step);
                    change(step)
                }
                Err(error) => {
                    away.failed(&kind, &error);
                    continue;
                }
            };
            if events.send(event(change)).is_err() {
                return;
            }
        }
    }
}

fn change<K>(step: watcher::Event<Loose<K>>) -> Change<K>
where
    K: Resource<DynamicType = ()> + HasSpec,
    Loose<K>: Resource<DynamicType = ()>,
    <K as HasSpec>::Spec: Debug,
{
    match step {
        watcher::Event::Init => Change::Listing,
        watcher::Event::InitApply(object) => Change::Item(object),
        watcher::Event::InitDone => Change::Listed,
        watcher::Event::Apply(object) => Change::Apply(object),
        watcher::Event::Delete(object) => Change::Delete(ObjectKey::of(&object)),
    }
}

/// Sends the names and the addresses of the group's directors whenever they
/// change.
async fn directors(
    client: Client,
    group: &str,
    me: &str,
    events: &Sender<Event>,
    vanished: &Notify,
) {
    let kind = Director::kind(&());
    let resource = ApiResource::erase::<Director>(&());
    let api = Api::<DynamicObject>::all_with(client, &resource);
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut away = Away::default();
    let mut membership = Membership::new(group, me);
    let mut sent = Sent::default();
    let start = Instant::now();
    loop {
        let deadline = membership.next_deadline(start.elapsed());
        let step = tokio::select! {
            step = stream.next() => step,
            () = sleep_until(deadline.map(|deadline| start + deadline)) => {
                tell(&membership, start.elapsed(), &mut sent, events);
                continue;
            }
        };
        match step {
            Some(Ok(step)) => {
                away.saw(&kind, &step);
                if membership.see(step, start.elapsed()) {
                    vanished.notify_one();
                }
            }
            Some(Err(error)) => away.failed(&kind, &error),
            None => return,
        }
        tell(&membership, start.elapsed(), &mut sent, events);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The names and addresses of directors that were last sent to the loop.
#[derive(Default)]
struct Sent {
    names: Option<BTreeSet<String>>,
    addresses: Option<BTreeMap<String, BTreeSet<IpAddr>>>,
}

fn tell(membership: &Membership, now: Duration, sent: &mut Sent, events: &Sender<Event>) {
    // Sending fails when the loop has ended. Addresses are sent first, so that
    // the loop knows the addresses of every director that it knows by name.
    let addresses = membership.addresses(now);
    if let Some(addresses) = &addresses
        && sent.addresses.as_ref() != Some(addresses)
        && events
            .send(Event::DirectorAddresses(addresses.clone()))
            .is_ok()
    {
        sent.addresses = Some(addresses.clone());
    }
    let names = membership.names(now);
    if let Some(names) = &names
        && sent.names.as_ref() != Some(names)
        && events.send(Event::Directors(names.clone())).is_ok()
    {
        sent.names = Some(names.clone());
    }
}

/// Logs one line when the API server stops answering, and one when it answers
/// again.
#[derive(Default)]
struct Away {
    said: Said,
}

impl Away {
    fn failed(&mut self, kind: &str, error: &watcher::Error) {
        self.said.warn([explain(kind, error)]);
    }

    fn saw<K>(&mut self, kind: &str, step: &watcher::Event<K>) {
        // The start of a listing is no answer from the API server yet.
        let answered = !matches!(step, watcher::Event::Init);
        if answered && self.said.clear() {
            tracing::info!("the API server answers requests for {kind}s again");
        }
    }
}

fn explain(kind: &str, error: &watcher::Error) -> String {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        watcher::Error::WatchError(status) => {
            return format!("the watch of {kind}s ended: {}", status.message);
        }
        watcher::Error::NoResourceVersion => {
            return format!("the API server returned {kind}s without a resourceVersion");
        }
    };
    let why = match source {
        kube::Error::Api(status) => match advice::api_error(&format!("watch {kind}s"), status) {
            Some(why) => why,
            None => format!("the watch of {kind}s ended: {}", status.message),
        },
        source => format!("cannot watch {kind}s: {}", advice::with_sources(source)),
    };
    format!("{why}. Trying again; the kernel's table stays as it is")
}
