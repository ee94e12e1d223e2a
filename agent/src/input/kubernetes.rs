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
    Change, Kind, Loose, ObjectKey, advice,
    api::{DirectorGroup, DirectorGroupMember, RealServer, VirtualService},
};
use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject, object::HasSpec},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

use super::{look::Looker, membership::Membership, version};
use crate::{event::Event, pauses::Pauses, said::Said};

/// The maximum number of events of a watch that are handled in one batch.
const CHUNK: usize = 256;
/// How many seconds a watch lasts before it is opened again. If the connection
/// of a watch is dead, the agent notices this soon after the watch should have
/// ended.
pub const SILENCE: u32 = 50;
/// The longest pause before the agent repeats a listing that had no
/// resourceVersion, without the random part.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A director's group, and what the publisher learns about its members.
pub struct Group<'a> {
    /// The name of the DirectorGroup.
    pub name: &'a str,
    /// The name of the director.
    pub me: &'a str,
    /// Notified after the director's own DirectorGroupMember was deleted.
    pub vanished: &'a Notify,
    /// The number of directors in the group.
    pub directors: &'a watch::Sender<usize>,
}

/// Watches all objects that a director of `group` needs, without end. While the
/// API server does not answer, the watches send no events, so the host does not
/// change. All watches start again if another cluster answers at the API server's
/// address, or if the cluster returns to an older state.
pub async fn watch(client: Client, group: Group<'_>, events: Sender<Event>) {
    let looker = Looker::new(client.clone());
    let watches = async {
        loop {
            tokio::select! {
                () = everything(&client, &group, &events, &looker) => return,
                () = looker.moved() => {
                    tracing::warn!(
                        "another cluster answers at the same address, or an older state of the \
                         same cluster: listing all objects again"
                    );
                }
            }
        }
    };
    tokio::select! {
        () = watches => {}
        () = looker.run(&events) => {}
    }
}

async fn everything(client: &Client, group: &Group<'_>, events: &Sender<Event>, looker: &Looker) {
    let name = group.name;
    let watched = watcher::Config::default().timeout(SILENCE);
    let of_group = watched
        .clone()
        .fields(&format!("spec.directorGroupName={name}"));
    let own_group = watched.clone().fields(&format!("metadata.name={name}"));
    let objects = Objects {
        client,
        events,
        looker,
    };
    tokio::join!(
        objects.watch::<VirtualService>(Kind::VirtualService, of_group, Event::VirtualService),
        objects.watch::<RealServer>(Kind::RealServer, watched, Event::RealServer),
        objects.watch::<DirectorGroup>(Kind::DirectorGroup, own_group, Event::DirectorGroup),
        members(client.clone(), group, events),
    );
}

/// The state that the watches of objects share.
struct Objects<'a> {
    client: &'a Client,
    events: &'a Sender<Event>,
    looker: &'a Looker,
}

/// The reason why a watch ended.
enum End {
    /// The loop has ended and receives no more events.
    Unheard,
    /// The API server listed objects, but the list had no resourceVersion.
    Undated,
}

impl Objects<'_> {
    /// Watches the objects of one kind until the loop has ended.
    async fn watch<K>(
        &self,
        kind: Kind,
        config: watcher::Config,
        event: impl Fn(Change<K>) -> Event,
    ) where
        K: Resource<DynamicType = ()> + HasSpec + Clone + Debug + Send + 'static,
        Loose<K>: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
        <K as HasSpec>::Spec: Debug,
    {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        while let End::Undated = self.follow(kind, &config, &event, &mut pauses).await {
            tracing::warn!(
                "the API server listed its {kind}s, but did not say at which resourceVersion: \
                 listing them again"
            );
            time::sleep(pauses.next()).await;
        }
    }

    /// Lists the objects of one kind, and watches them.
    async fn follow<K>(
        &self,
        kind: Kind,
        config: &watcher::Config,
        event: &impl Fn(Change<K>) -> Event,
        pauses: &mut Pauses,
    ) -> End
    where
        K: Resource<DynamicType = ()> + HasSpec + Clone + Debug + Send + 'static,
        Loose<K>: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
        <K as HasSpec>::Spec: Debug,
    {
        let events = self.events;
        let name = K::kind(&());
        let api = Api::<Loose<K>>::all(self.client.clone());
        // The agent does not use an object's managed fields. The managed fields
        // are several times as large as the rest of the object.
        let stream = watcher(api.clone(), config.clone())
            .default_backoff()
            .modify(|object| object.metadata.managed_fields = None);
        // The combinator `then` asks the watcher for the next step only after
        // the closure for this step has finished. So the agent knows the
        // current resourceVersion before the watcher requests the listing.
        let stream = stream.then(|step| async {
            let source = match &step {
                Ok(watcher::Event::Init) => version::current(&api).await,
                _ => None,
            };
            (step, source)
        });
        let mut stream = pin!(stream.ready_chunks(CHUNK));
        let mut away = Away::default();
        let mut is_dated = false;
        self.looker.begin(kind);
        while let Some(steps) = stream.next().await {
            if let Some(word) = self.looker.before(kind, &steps)
                && events.send(Event::Caution(word)).is_err()
            {
                return End::Unheard;
            }
            for (step, source) in steps {
                let step = match step {
                    Ok(step) => step,
                    Err(error) => {
                        away.failed(&name, &error);
                        continue;
                    }
                };
                away.saw(&name, &step);
                match &step {
                    watcher::Event::Init => is_dated = source.is_some(),
                    // Without the resourceVersion, the agent cannot tell how
                    // old the listing is. An old listing may lack objects that
                    // exist, so the agent lists the objects again.
                    watcher::Event::InitDone if !is_dated => return End::Undated,
                    watcher::Event::InitDone => pauses.reset(),
                    _ => {}
                }
                let source = source.map(|source| Event::Listing(kind, source));
                for event in source.into_iter().chain([event(change(step))]) {
                    if events.send(event).is_err() {
                        return End::Unheard;
                    }
                }
            }
        }
        End::Unheard
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
async fn members(client: Client, group: &Group<'_>, events: &Sender<Event>) {
    let Group { name, me, .. } = group;
    let kind = DirectorGroupMember::kind(&());
    let resource = ApiResource::erase::<DirectorGroupMember>(&());
    let api = Api::<DynamicObject>::all_with(client, &resource);
    let of_group = watcher::Config::default()
        .timeout(SILENCE)
        .fields(&format!("spec.directorGroupName={name}"));
    let mut stream = pin!(watcher(api, of_group).default_backoff());
    let mut away = Away::default();
    let mut membership = Membership::new(name, me);
    let mut sent = Sent::default();
    let start = Instant::now();
    loop {
        let deadline = membership.next_deadline(start.elapsed());
        let step = tokio::select! {
            step = stream.next() => step,
            () = sleep_until(deadline.map(|deadline| start + deadline)) => {
                tell(&membership, start.elapsed(), &mut sent, events, group.directors);
                continue;
            }
        };
        match step {
            Some(Ok(step)) => {
                away.saw(&kind, &step);
                if membership.see(step, start.elapsed()) {
                    group.vanished.notify_one();
                }
            }
            Some(Err(error)) => away.failed(&kind, &error),
            None => return,
        }
        tell(
            &membership,
            start.elapsed(),
            &mut sent,
            events,
            group.directors,
        );
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What the loop received last: the directors' names, and their addresses.
#[derive(Default)]
struct Sent {
    names: Option<BTreeSet<String>>,
    addresses: Option<BTreeMap<String, BTreeSet<IpAddr>>>,
}

fn tell(
    membership: &Membership,
    now: Duration,
    sent: &mut Sent,
    events: &Sender<Event>,
    directors: &watch::Sender<usize>,
) {
    // Sending fails when the loop has ended. The addresses are sent before the
    // names: when the loop learns a director's name, it already knows the
    // director's addresses.
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
        directors.send_replace(names.len());
        sent.names = Some(names.clone());
    }
}

/// Logs one line when the API server stops answering, and one line when it
/// answers again.
#[derive(Default)]
struct Away {
    said: Said,
}

impl Away {
    fn failed(&mut self, kind: &str, error: &watcher::Error) {
        self.said.warn([explain(kind, error)]);
    }

    fn saw<K>(&mut self, kind: &str, step: &watcher::Event<K>) {
        // The watcher returns the step `Init` before it requests the listing.
        // So `Init` does not show that the API server answers.
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
