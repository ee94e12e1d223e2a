//! Checks the source of a watch: the cluster, and the CustomResourceDefinition
//! (CRD) of the kind. The agent reads the cluster and the CRD after each
//! listing and after the deletion of an object. The agent first sends the state
//! of the cluster and the CRD to the loop, and then the objects. With this
//! order, the loop learns that a CRD is terminating before it learns of the
//! first deleted object. Even if a listing is empty, the loop learns which
//! cluster returned the listing. [`crate::decide::caution`] decides whether
//! removals must wait.
//!
//! The agent also reads the cluster and the CRD after it lost its connection to
//! the API server. When the agent is connected again, the API server's etcd may
//! be empty or restored from an older backup. After a restore of etcd, the
//! watch's resourceVersion may be higher than the API server's current
//! resourceVersion. The watch then receives no events. The agent therefore also
//! asks for the current resourceVersion ([`super::version`]). If the
//! resourceVersion has decreased, the agent lists all objects again.
//!
//! A check of the cluster and the CRD costs two small requests. The agent makes
//! one check per listing, and one check for all deletions that arrive together.
//! Instead of these checks, each agent could watch the cluster and the CRD. But
//! two more watches per agent would put more load on the API server. The events
//! of these watches could also arrive later than the events of the objects.

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

/// The namespace whose UID identifies the cluster. Every cluster has the
/// namespace kube-system, which keeps its UID as long as the cluster exists.
const CLUSTER: &str = "kube-system";
/// The maximum wait for the API server's answer to a request.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The wait before a request without an answer is repeated.
const RETRY: Duration = Duration::from_secs(1);
/// The wait between a failure of the watch and a check of the cluster. A check
/// without an answer is repeated after the same wait, unless removals wait for
/// the check.
const RECHECK: Duration = Duration::from_secs(10);

/// The result of checking the cluster and the CustomResourceDefinition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// The watch can continue. If the loop needs the result of the check, the
    /// result was sent to the loop.
    Done,
    /// The known objects are from another cluster, or the cluster was restored
    /// to an older state. All objects must therefore be listed again.
    Moved,
    /// The loop has ended and receives no more events.
    Unheard,
}

/// Checks the cluster, and the CustomResourceDefinition of one kind, during the
/// watch of that kind.
pub(super) struct Origin {
    namespaces: Api<Namespace>,
    definitions: Api<CustomResourceDefinition>,
    /// The name of the kind's CustomResourceDefinition.
    name: &'static str,
    /// The UID of the cluster that the known objects are from.
    cluster: Option<String>,
    /// The UID of the kind's CustomResourceDefinition at the time of the last
    /// listing.
    listed: Option<String>,
    /// Whether removals of entries must wait for the next check of the cluster.
    owed: bool,
    /// The time of the next check of the cluster, if a check is planned.
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

    /// Waits until the next check of the cluster is due.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Plans another check of the cluster, because the API server did not
    /// answer a request about its objects.
    pub(super) fn look_again(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + RECHECK);
    }

    /// Checks the cluster and the CustomResourceDefinition if a step of the
    /// watch requires a check.
    pub(super) async fn before<'a, K: 'a>(
        &mut self,
        steps: impl Iterator<Item = &'a watcher::Result<watcher::Event<K>>> + Clone,
        events: &Sender<Event>,
    ) -> Look {
        let listed = steps
            .clone()
            .any(|step| matches!(step, Ok(watcher::Event::InitDone)));
        let less = steps
            .clone()
            .any(|step| matches!(step, Ok(watcher::Event::Delete(_))));
        let unknown = steps
            .clone()
            .any(|step| matches!(step, Err(error) if is_unknown_kind(error)));
        if !(listed || less || unknown) {
            if steps.clone().any(Result::is_err) {
                self.look_again();
            }
            return Look::Done;
        }
        if listed {
            self.listed = None;
        }
        self.owed = true;
        self.look(events).await
    }

    /// Checks the cluster and the CustomResourceDefinition, and sends the
    /// result to the loop. If the API server does not answer, sends a result
    /// only if removals wait for this check.
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
            Answer::Is(None) => Answer::None(format!("there is no namespace {CLUSTER} yet")),
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

    /// Logs the reason why the agent cannot read the cluster or the
    /// CustomResourceDefinition, once for each reason.
    fn say(&mut self, cluster: &Answer<String>, definition: &Answer<Definition>) {
        let message = match (cluster, definition) {
            (Answer::None(why), _) | (_, Answer::None(why)) => Some(format!(
                "{why}. Until the agent can read it, nothing is removed"
            )),
            (Answer::NotAllowed, _) | (_, Answer::NotAllowed) => Some(format!(
                "not allowed to read namespace {CLUSTER} and CustomResourceDefinition {}: the \
                 agent cannot detect another cluster or a deleted definition. If an earlier run \
                 was allowed to, nothing is removed; otherwise removals are only limited in \
                 number. Upgrade the chart's RBAC",
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
