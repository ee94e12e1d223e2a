//! Reads the installed definition of Directors, which may be older than this
//! agent.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{api::Director, condition, installed::Installed};
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Api, Client, CustomResourceExt as _};
use serde_json::Value;
use tokio::time::{self, Instant};

/// How long the agent waits for the definition. Without an answer, the agent
/// writes its report as it is. A write has more time than this.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// How often an older definition is read again, because it may be upgraded.
const AGAIN: Duration = Duration::from_secs(30);
/// How often an agent that may not read the definition tries it again.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// The installed definition of Directors.
pub(super) struct Definition {
    definitions: Api<CustomResourceDefinition>,
    /// What this agent's own definition knows.
    own: Installed,
    known: Mutex<Known>,
}

/// What the agent knows of the installed definition.
struct Known {
    /// The definition, or `None` if the agent has not read it, or may not.
    installed: Option<Installed>,
    /// What the definition refuses of this agent's reports.
    lacks: BTreeSet<String>,
    /// The time of the next look. Without a time, the agent looks again only if
    /// the API server refuses a status.
    next: Option<Instant>,
}

impl Definition {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            definitions: Api::all(client.clone()),
            own: Installed::own(Director::crd_name()),
            known: Mutex::new(Known {
                installed: None,
                lacks: BTreeSet::new(),
                next: Some(Instant::now()),
            }),
        }
    }

    /// Returns the time of the next look, if one is planned.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.known().next
    }

    /// Reads the definition at the start, and again and again until it has all
    /// fields of this agent's reports.
    pub(super) async fn look(&self) {
        let next = self.next_look();
        if next.is_some_and(|at| at <= Instant::now()) {
            self.read().await;
        }
    }

    /// Reads the definition, because the API server refuses a status. Returns
    /// whether the definition is another one than before.
    pub(super) async fn read(&self) -> bool {
        let name = Director::crd_name();
        self.known().next = Some(Instant::now() + AGAIN);
        let found = time::timeout(ANSWER_TIME, self.definitions.get_opt(name)).await;
        let mut known = self.known();
        let installed = match found {
            Ok(Ok(found)) => found.as_ref().map(Installed::of),
            // The chart of an earlier release does not allow it. What was read
            // before may no longer be true.
            Ok(Err(kube::Error::Api(answer))) if answer.code == 403 => {
                known.next = Some(Instant::now() + FORBIDDEN);
                None
            }
            Ok(Err(error)) => {
                tracing::debug!("cannot read CustomResourceDefinition {name}: {error}");
                return false;
            }
            Err(_) => return false,
        };
        let lacks = installed.as_ref();
        let lacks = lacks.map(|installed| installed.lacks(&self.own));
        if lacks.as_ref().is_some_and(BTreeSet::is_empty) {
            known.next = None;
        }
        let is_other = installed != known.installed;
        known.lacks = lacks.unwrap_or_default();
        known.installed = installed;
        is_other
    }

    /// Removes from a status what the installed definition does not know.
    pub(super) fn cut(&self, status: &mut Value) {
        let known = self.known();
        if let Some(installed) = known.installed.as_ref().filter(|_| !known.lacks.is_empty()) {
            installed.cut(status);
        }
    }

    /// Returns the condition DefinitionOlder, or `None` if the agent does not know
    /// the installed definition.
    pub(super) fn condition(&self, generation: i64) -> Option<Condition> {
        let known = self.known();
        let installed = known.installed.as_ref()?;
        let lacks = known.lacks.iter().map(String::as_str);
        Some(match known.lacks.is_empty() {
            true => condition::definition_not_older(generation),
            false => condition::definition_older(lacks, installed.schema, generation),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No panic can leave it half-written, so a poisoned lock can still be
        // used.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
