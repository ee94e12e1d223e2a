//! What is behind a watch: the cluster, and the custom resource definition of
//! the kind. Both are looked at when objects came in a listing or were deleted,
//! and what was found is sent before the objects: a definition is terminating
//! before the first of its objects goes, and an API server that returns an
//! empty list is asked for its cluster. [`crate::decide::caution`] decides.
//!
//! They are also looked at when the connection was lost. Afterwards an API
//! server with an emptied etcd may be behind the same address, and a watch that
//! goes on there at its old position hears nothing until the new server has
//! counted that far.
//!
//! This costs one or two small requests per listing, and one for all deletions
//! that come together. For the API server of a fleet that is cheaper than two
//! more watches by each agent, and there is no race between those and the
//! objects' own watch.

use std::{collections::BTreeSet, future::Future, sync::mpsc::Sender, time::Duration};

use crds::advice::with_sources;
use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, core::PartialObjectMeta, runtime::watcher};
use tokio::time::{self, Instant};

use crate::{
    event::{
        Event,
        origin::{Answer, Definition, Word},
    },
    said::Said,
};

/// The namespace whose UID identifies the cluster: every cluster has it, and it
/// is never made again.
const CLUSTER: &str = "kube-system";
/// How long to wait for the answer to a request.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long to wait before asking again after a request without an answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long after a failure of the watch the cluster is looked at, and how
/// often until it answers.
const RECHECK: Duration = Duration::from_secs(10);

/// The result of a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// What was new is sent.
    Done,
    /// The objects that are known are another cluster's: everything must be
    /// listed anew.
    Moved,
    /// The loop has ended, and hears nothing.
    Unheard,
}

/// Looks at what is behind one kind's objects when they change.
pub(super) struct Origin {
    namespaces: Api<Namespace>,
    definitions: Api<CustomResourceDefinition>,
    /// The name of the kind's definition.
    name: &'static str,
    /// The cluster whose objects are known.
    cluster: Option<String>,
    /// The UID of the definition that the last listing was of.
    listed: Option<String>,
    /// Whether removals wait for what is found.
    owed: bool,
    /// When there is something to look at again.
    due: Option<Instant>,
    said: Said,
}

impl Origin {
    pub(super) fn new(client: Client, name: &'static str) -> Self {
        Self {
            namespaces: Api::all(client.clone()),
            definitions: Api::all(client),
            name,
            cluster: None,
            listed: None,
            owed: false,
            due: None,
            said: Said::default(),
        }
    }

    /// Waits until there is something to look at again.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Looks, if one of these steps of the watch gives a reason.
    pub(super) async fn before<K>(
        &mut self,
        steps: &[watcher::Result<watcher::Event<K>>],
        events: &Sender<Event>,
    ) -> Look {
        let listed = steps
            .iter()
            .any(|step| matches!(step, Ok(watcher::Event::InitDone)));
        let less = steps
            .iter()
            .any(|step| matches!(step, Ok(watcher::Event::Delete(_))));
        let unknown = steps
            .iter()
            .any(|step| matches!(step, Err(error) if is_unknown_kind(error)));
        if !(listed || less || unknown) {
            if self.due.is_none() && steps.iter().any(Result::is_err) {
                self.due = Some(Instant::now() + RECHECK);
            }
            return Look::Done;
        }
        if listed {
            self.listed = None;
        }
        self.owed = true;
        self.look(events).await
    }

    /// Looks, and sends what is found. Without an answer, nothing is sent
    /// unless removals wait for it.
    pub(super) async fn look(&mut self, events: &Sender<Event>) -> Look {
        let (cluster, definition) = tokio::join!(
            answer(self.namespaces.get_metadata_opt(CLUSTER)),
            answer(self.definitions.get_metadata_opt(self.name)),
        );
        let (cluster, definition) = (
            self.unless_it_was_allowed(cluster),
            self.unless_it_was_allowed(definition),
        );
        let cluster = match cluster {
            Answer::Is(Some(found)) => uid(found).map_or_else(nameless, Answer::Is),
            Answer::Is(None) => Answer::None(format!("there is no namespace {CLUSTER} so far")),
            Answer::None(why) => Answer::None(format!("cannot read namespace {CLUSTER}: {why}")),
            Answer::NotAllowed => Answer::NotAllowed,
        };
        let name = self.name;
        let definition = match definition {
            Answer::Is(found) => Answer::Is(self.judge(found)),
            Answer::None(why) => Answer::None(format!(
                "cannot read CustomResourceDefinition {name}: {why}"
            )),
            Answer::NotAllowed => Answer::NotAllowed,
        };
        let is_open = matches!(cluster, Answer::None(_)) || matches!(definition, Answer::None(_));
        if is_open && !self.owed {
            self.due = Some(Instant::now() + RECHECK);
            return Look::Done;
        }
        self.say(&cluster, &definition);
        self.owed = is_open;
        self.due = is_open.then(|| Instant::now() + RETRY);
        let mut look = Look::Done;
        if let Answer::Is(found) = &cluster {
            let before = self.cluster.replace(found.clone());
            if before.is_some() && before != self.cluster {
                look = Look::Moved;
            }
        }
        for word in [Word::Cluster(cluster), Word::Definition(name, definition)] {
            if events.send(Event::Caution(word)).is_err() {
                return Look::Unheard;
            }
        }
        look
    }

    /// An agent that was allowed to look once, and now is not, will be allowed
    /// again: an API server that just started has not read its rules yet, and
    /// one that lost everything gets the chart's again.
    fn unless_it_was_allowed<T>(&self, answer: Answer<T>) -> Answer<T> {
        match answer {
            Answer::NotAllowed if self.cluster.is_some() => {
                Answer::None("no longer allowed to".to_owned())
            }
            answer => answer,
        }
    }

    fn judge(&mut self, found: Option<PartialObjectMeta<CustomResourceDefinition>>) -> Definition {
        let Some(found) = found else {
            return Definition::Missing;
        };
        if found.metadata.deletion_timestamp.is_some() {
            return Definition::Terminating;
        }
        let uid = found.metadata.uid;
        match &self.listed {
            Some(_) if self.listed != uid => Definition::Replaced,
            _ => {
                self.listed = uid;
                Definition::Stands
            }
        }
    }

    /// Logs once what keeps the agent from knowing.
    fn say(&mut self, cluster: &Answer<String>, definition: &Answer<Definition>) {
        let message = match (cluster, definition) {
            (Answer::None(why), _) | (_, Answer::None(why)) => {
                Some(format!("{why}. Nothing is removed until it is known"))
            }
            (Answer::NotAllowed, _) | (_, Answer::NotAllowed) => Some(format!(
                "not allowed to read namespace {CLUSTER} and CustomResourceDefinition {}: how much \
                 is removed is limited, but neither another cluster nor a deleted definition is \
                 recognised; upgrade the chart's RBAC",
                self.name
            )),
            _ => None,
        };
        self.said.warn(message.into_iter().collect::<BTreeSet<_>>());
    }
}

fn uid(found: PartialObjectMeta<Namespace>) -> Option<String> {
    found.metadata.uid
}

fn nameless() -> Answer<String> {
    Answer::None(format!("namespace {CLUSTER} has no UID"))
}

async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Answer<T> {
    match time::timeout(ANSWER_TIME, request).await {
        Ok(Ok(found)) => Answer::Is(found),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Answer::NotAllowed,
        Ok(Err(error)) => Answer::None(with_sources(&error)),
        Err(_) => Answer::None("no answer in time".to_owned()),
    }
}

/// Whether an API server answers that it does not know the kind at all.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(source)
    | watcher::Error::WatchStartFailed(source)
    | watcher::Error::WatchFailed(source)) = error
    else {
        return false;
    };
    matches!(source, kube::Error::Api(status) if status.code == 404)
}
