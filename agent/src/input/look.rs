//! Looks at the source of the objects: the cluster, and the
//! CustomResourceDefinitions (CRDs) of the kinds. One task makes all looks of an
//! agent. The watches ask for a look after each listing and after the deletion
//! of an object, and pass the objects on without waiting for the answer. Before
//! the objects, a watch sends the number of the look to the loop. Additions then
//! take effect at once, and removals wait for the look. So before the loop acts
//! on the first deleted object, it learns that a CRD is terminating. Even if a
//! listing is empty, the loop learns which cluster returned the listing.
//! [`crate::decide::caution`] decides whether removals must wait longer.
//!
//! The task also looks after a watch lost its connection to the API server. When
//! the agent is connected again, the API server's etcd may be empty or restored
//! from an older backup. After a restore of etcd, the watch's resourceVersion may
//! be higher than the API server's current resourceVersion. The watch then
//! receives no events. The task therefore also asks for the current
//! resourceVersion ([`super::version`]). If the resourceVersion has decreased,
//! the agent lists all objects again.
//!
//! A look costs four small requests. When many objects are deleted one after
//! another, all kinds share looks, with growing pauses between ([`plan`]). Instead of
//! these looks, each agent could watch the cluster and the CRDs. But two more
//! watches per agent would put more load on the API server. The events of these
//! watches could also arrive later than the events of the objects.

mod kind;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    mem,
    sync::{Mutex, MutexGuard, PoisonError, mpsc::Sender},
};

use crds::{
    Kind,
    advice::with_sources,
    api::{DirectorGroup, RealServer, VirtualService},
};
use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource,
    core::{DynamicObject, PartialObjectMeta},
    runtime::watcher::{self, Event as Step},
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use self::{
    kind::Watched,
    plan::{Begun, Plan, Why},
};
use super::version::{self, ANSWER_TIME, Highest};
use crate::{
    event::{
        Event,
        origin::{Answer, Definition, Source, Word},
    },
    said::Said,
};

/// The namespace whose UID identifies the cluster. Every cluster has the
/// namespace kube-system, which keeps its UID as long as the cluster exists.
const CLUSTER: &str = "kube-system";

/// Looks at the cluster and the CustomResourceDefinitions when the watches ask
/// for it.
pub(super) struct Looker {
    client: Client,
    state: Mutex<State>,
    /// Notified after a look was planned.
    planned: Notify,
    /// Notified when all objects must be listed again.
    moved: Notify,
}

/// What the watches and the looking task share.
struct State {
    plan: Plan,
    kinds: BTreeMap<Kind, Watched>,
    /// The UID of the cluster that the known objects are from.
    cluster: Option<String>,
    said: Said,
}

/// The loop has ended and receives no more events.
struct Unheard;

/// The API server's answers to the requests of a look.
struct Answers {
    cluster: Answer<String>,
    definitions: Vec<(Kind, Answer<Found>)>,
}

/// A CustomResourceDefinition as the API server returned it, if it exists.
type Found = Option<PartialObjectMeta<CustomResourceDefinition>>;

impl Looker {
    /// Returns a looker that has made no look yet.
    pub(super) fn new(client: Client) -> Self {
        let kinds = [
            (Kind::VirtualService, Watched::of::<VirtualService>()),
            (Kind::RealServer, Watched::of::<RealServer>()),
            (Kind::DirectorGroup, Watched::of::<DirectorGroup>()),
        ];
        Self {
            client,
            state: Mutex::new(State {
                plan: Plan::new(),
                kinds: kinds.into(),
                cluster: None,
                said: Said::default(),
            }),
            planned: Notify::new(),
            moved: Notify::new(),
        }
    }

    /// Waits until all objects must be listed again: the known objects are from
    /// another cluster, or the cluster was restored to an older state.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Notes that a watch of `kind` begins with a new listing.
    pub(super) fn begin(&self, kind: Kind) {
        self.state().watched(kind).begin();
    }

    /// Notes steps of the watch of `kind`, each with the resourceVersion before
    /// its listing, and plans a look if a step requires one. Returns what the
    /// loop must hear before the steps.
    pub(super) fn before<K: Resource>(
        &self,
        kind: Kind,
        steps: &[(watcher::Result<Step<K>>, Option<Source>)],
    ) -> Option<Word> {
        let mut state = self.state();
        let watched = state.watched(kind);
        for (step, source) in steps {
            watched.saw(step, source.as_ref());
        }
        let any = |is_one: fn(&watcher::Result<Step<K>>) -> bool| {
            steps.iter().any(|(step, _)| is_one(step))
        };
        let is_listing = any(|step| matches!(step, Ok(Step::InitDone)));
        let is_deletion = any(|step| matches!(step, Ok(Step::Delete(_))));
        let is_unknown = any(|step| matches!(step, Err(error) if is_unknown_kind(error)));
        let (plan, now) = (&mut state.plan, Instant::now());
        let mut word = None;
        if is_listing || is_deletion || is_unknown {
            let why = match is_listing {
                true => Why::Listing,
                false => Why::Deletion,
            };
            let look = plan.ask(why, now);
            let is_awaited = is_listing || is_deletion;
            word = is_awaited.then_some(Word::Awaited { look, is_listing });
        } else if any(Result::is_err) {
            plan.watch_failed(now);
        }
        drop(state);
        self.planned.notify_one();
        word
    }

    /// Makes the planned looks, one at a time, until the loop has ended.
    pub(super) async fn run(&self, events: &Sender<Event>) {
        loop {
            self.due().await;
            if let Err(Unheard) = self.look(events).await {
                return;
            }
        }
    }

    /// Waits until the next look is due.
    async fn due(&self) {
        loop {
            let next = self.state().plan.next();
            let planned = self.planned.notified();
            match next {
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! {
                    () = time::sleep_until(at) => return,
                    () = planned => {}
                },
                None => planned.await,
            }
        }
    }

    /// Looks at the cluster and the CustomResourceDefinitions, and sends the
    /// result to the loop. If the API server does not answer, sends a result
    /// only if a watch asked for this look.
    async fn look(&self, events: &Sender<Event>) -> Result<(), Unheard> {
        let (look, listed, names, failed) = {
            let mut state = self.state();
            let look = state.plan.begin(Instant::now());
            let kinds = state.kinds.iter_mut();
            let listed: BTreeSet<_> = kinds
                .filter_map(|(kind, watched)| watched.take_listed().then_some(*kind))
                .collect();
            let names: Vec<_> = state
                .kinds
                .iter()
                .map(|(kind, of)| (*kind, of.name))
                .collect();
            let failed = state.take_failed(&self.client);
            (look, listed, names, failed)
        };
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let definitions = Api::<CustomResourceDefinition>::all(self.client.clone());
        let (cluster, definitions, versions) = tokio::join!(
            answer(namespaces.get_metadata_opt(CLUSTER)),
            join_all(names.into_iter().map(async |(kind, name)| {
                (kind, answer(definitions.get_metadata_opt(name)).await)
            })),
            join_all(failed.into_iter().map(async |(kind, api, highest)| {
                let current = version::current(&api).await;
                (kind, current.map(|current| highest.is_above(&current)))
            })),
        );
        let answers = Answers {
            cluster: cluster_of(cluster),
            definitions,
        };
        let (words, has_moved) = self.state().hear(look, &listed, answers, &versions);
        for word in words {
            events
                .send(Event::Caution(word))
                .map_err(|_closed| Unheard)?;
        }
        if has_moved {
            self.moved.notify_one();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No panic can leave the state half-written, so a poisoned lock can
        // still be used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn watched(&mut self, kind: Kind) -> &mut Watched {
        self.kinds.get_mut(&kind).expect("every kind is watched")
    }

    /// Takes the kinds whose watch has failed since the last check of their
    /// resourceVersion, each with the highest known resourceVersion.
    fn take_failed(&mut self, client: &Client) -> Vec<(Kind, Api<DynamicObject>, Highest)> {
        let kinds = self.kinds.iter_mut();
        let failed = kinds.filter_map(|(kind, watched)| {
            let api = || Api::all_with(client.clone(), &watched.resource);
            mem::take(&mut watched.has_failed).then(|| (*kind, api(), watched.highest))
        });
        failed.collect()
    }

    /// Notes the answers to a look. `listed` are the kinds whose listing was
    /// completed before the look began, and `versions` says for each failed
    /// kind whether its resourceVersion has decreased. Returns what the loop
    /// must hear, and whether all objects must be listed again.
    fn hear(
        &mut self,
        look: Begun,
        listed: &BTreeSet<Kind>,
        answers: Answers,
        versions: &[(Kind, Option<bool>)],
    ) -> (Vec<Word>, bool) {
        let cluster = self.unless_it_was_allowed(answers.cluster);
        let mut is_open = matches!(cluster, Answer::None(_));
        let mut definitions = Vec::new();
        for (kind, answer) in answers.definitions {
            let answer = self.unless_it_was_allowed(answer);
            is_open |= matches!(answer, Answer::None(_));
            let is_listed = listed.contains(&kind);
            definitions.extend(self.watched(kind).hear(answer, is_listed));
        }
        let mut has_moved = false;
        for (kind, is_above) in versions {
            self.watched(*kind).has_failed |= is_above.is_none();
            has_moved |= *is_above == Some(true);
        }
        let are_compared = versions.iter().all(|(_, is_above)| is_above.is_some());
        self.plan.end(look, !is_open, are_compared, Instant::now());
        if is_open && !look.is_asked {
            return (Vec::new(), has_moved);
        }
        self.say(&cluster, &definitions);
        if let Answer::Is(found) = &cluster {
            let before = self.cluster.replace(found.clone());
            has_moved |= before.is_some() && before != self.cluster;
        }
        let mut words = vec![Word::Cluster(cluster)];
        let definitions = definitions.into_iter();
        words.extend(definitions.map(|(name, answer)| Word::Definition(name, answer)));
        words.push(Word::Ended(look.number));
        (words, has_moved)
    }

    /// Treats a denied permission as temporary if the agent once had the
    /// permission. An API server that has just started may not have read its
    /// RBAC rules yet. If etcd lost its data, the RBAC rules are missing until
    /// the chart is installed again.
    fn unless_it_was_allowed<T>(&self, answer: Answer<T>) -> Answer<T> {
        match answer {
            Answer::NotAllowed if self.cluster.is_some() => {
                Answer::None("permission was lost".to_owned())
            }
            answer => answer,
        }
    }

    /// Logs the reason why the agent cannot read the cluster or a
    /// CustomResourceDefinition, once for each reason.
    fn say(
        &mut self,
        cluster: &Answer<String>,
        definitions: &[(&'static str, Answer<Definition>)],
    ) {
        let unanswered = definitions
            .iter()
            .find_map(|(_, answer)| answer.unanswered());
        let refused = definitions
            .iter()
            .find(|(_, answer)| *answer == Answer::NotAllowed);
        let message = if let Some(why) = cluster.unanswered().or(unanswered) {
            Some(format!(
                "{why}. Until the agent can read it, nothing is removed"
            ))
        } else if *cluster == Answer::NotAllowed || refused.is_some() {
            Some(format!(
                "not allowed to read namespace {CLUSTER} and our CustomResourceDefinitions: the \
                 agent cannot detect another cluster or a deleted definition. If an earlier run \
                 was allowed to, nothing is removed; otherwise removals are only limited in \
                 number. Upgrade the chart's RBAC"
            ))
        } else {
            None
        };
        self.said.warn(message.into_iter().collect::<BTreeSet<_>>());
    }
}

/// Returns the UID of the cluster, from its namespace kube-system.
fn cluster_of(namespace: Answer<Option<PartialObjectMeta<Namespace>>>) -> Answer<String> {
    match namespace {
        Answer::Is(Some(found)) => match found.metadata.uid {
            Some(uid) => Answer::Is(uid),
            None => Answer::None(format!("namespace {CLUSTER} has no UID")),
        },
        Answer::Is(None) => Answer::None(format!("there is no namespace {CLUSTER} yet")),
        Answer::None(why) => Answer::None(format!("cannot read namespace {CLUSTER}: {why}")),
        Answer::NotAllowed => Answer::NotAllowed,
    }
}

async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Answer<T> {
    match time::timeout(ANSWER_TIME, request).await {
        Ok(Ok(found)) => Answer::Is(found),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Answer::NotAllowed,
        Ok(Err(error)) => Answer::None(with_sources(&error)),
        Err(_) => Answer::None("no answer in time".to_owned()),
    }
}

/// Returns true if the API server answers that it does not know the kind at
/// all.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(source)
    | watcher::Error::WatchStartFailed(source)
    | watcher::Error::WatchFailed(source)) = error
    else {
        return false;
    };
    matches!(source, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests;
