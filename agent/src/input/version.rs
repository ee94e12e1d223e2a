//! Finds out how new a listing of the API server is.
//!
//! `kube::runtime::watcher` does not return the resourceVersion of its
//! listings. To learn the resourceVersion, the agent lists one object of the
//! same kind *before* each listing, and waits for the answer. Both requests ask
//! for the most recent state, so the listing is at least as new as the first
//! answer. Even if etcd is restored, the agent therefore never overestimates
//! how new a listing is. A request after the listing would be unsafe. If etcd
//! was restored in between, the answer may have a higher resourceVersion than
//! the listing.

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Resource,
    api::ListParams,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::time;

use crate::event::origin::Source;

/// The maximum wait for the API server's answer to a request.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Returns the current resourceVersion of the objects of one kind, or `None` if
/// the API server does not answer in time.
pub(super) async fn current<K>(api: &Api<K>) -> Option<Source>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let one = ListParams::default().limit(1);
    let listed = time::timeout(ANSWER_TIME, api.list_metadata(&one)).await;
    let version = listed.ok()?.ok()?.metadata.resource_version?;
    Some(match version.parse() {
        Ok(number) => Source::Version(number),
        Err(_) => Source::Unordered(version),
    })
}

/// The highest resourceVersion that the agent has seen in one watch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Highest(Option<u64>);

impl Highest {
    /// Notes the resourceVersion in a step of the watch.
    pub(super) fn saw<K: Resource>(&mut self, step: &watcher::Result<Event<K>>) {
        if let Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) = step {
            let version = object.meta().resource_version.as_deref();
            self.raise(version.and_then(|version| version.parse().ok()));
        }
    }

    /// Notes the resourceVersion that a request before a listing returned.
    pub(super) fn heard(&mut self, source: &Source) {
        if let Source::Version(version) = source {
            self.raise(Some(*version));
        }
    }

    /// Whether the API server's current resourceVersion is lower than the
    /// highest resourceVersion of the watch. A lower resourceVersion means that
    /// etcd was restored from an older backup.
    pub(super) fn is_above(&self, current: &Source) -> bool {
        match current {
            Source::Version(current) => self.0.is_some_and(|highest| highest > *current),
            Source::Unordered(_) | Source::Folder(_) => false,
        }
    }

    fn raise(&mut self, version: Option<u64>) {
        self.0 = self.0.max(version);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn at(version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn a_server_that_went_back_is_found_by_its_version() {
        let mut highest = Highest::default();
        let is_above = |highest: &Highest, version| highest.is_above(&Source::Version(version));
        assert!(!is_above(&highest, 1), "nothing was seen yet");
        highest.heard(&Source::Version(10));
        assert!(!is_above(&highest, 10), "nothing has happened since");
        assert!(is_above(&highest, 9));
        for step in [
            Event::InitApply(at("12")),
            Event::Delete(at("20")),
            Event::Apply(at("15")),
            Event::Apply(at("of another kind")),
        ] {
            highest.saw(&Ok(step));
        }
        assert!(is_above(&highest, 19));
        assert!(!is_above(&highest, 20));
        let unordered = Source::Unordered("x".to_owned());
        assert!(!highest.is_above(&unordered), "it cannot be compared");
    }
}
