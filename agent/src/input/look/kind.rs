//! What the agent knows about the watch of one kind of objects.

use kube::{
    CustomResourceExt, Resource,
    core::ApiResource,
    runtime::watcher::{self, Event as Step},
};

use super::{super::version::Highest, Found};
use crate::event::origin::{Answer, Definition, Source};

/// The watch of one kind, and the kind's CustomResourceDefinition.
pub(super) struct Watched {
    /// The name of the kind's CustomResourceDefinition.
    pub(super) name: &'static str,
    pub(super) resource: ApiResource,
    /// The highest resourceVersion that the watch has seen.
    pub(super) highest: Highest,
    /// Whether the watch has failed since its resourceVersion was compared with
    /// the API server's current one.
    pub(super) has_failed: bool,
    /// Whether a listing was completed, and the definition was not read since.
    is_listed: bool,
    /// The UID of the definition at the time of the last listing.
    definition: Option<String>,
    /// Whether the loop last heard that the definition stands.
    stood: bool,
}

impl Watched {
    /// Returns a watch of `K` that has not begun.
    pub(super) fn of<K>() -> Self
    where
        K: Resource<DynamicType = ()> + CustomResourceExt,
    {
        Self {
            name: K::crd_name(),
            resource: ApiResource::erase::<K>(&()),
            highest: Highest::default(),
            has_failed: false,
            is_listed: false,
            definition: None,
            stood: false,
        }
    }

    /// Notes that the watch begins with a new listing.
    pub(super) fn begin(&mut self) {
        self.highest = Highest::default();
        self.has_failed = false;
    }

    /// Notes a step of the watch, and the resourceVersion before its listing.
    pub(super) fn saw<K: Resource>(
        &mut self,
        step: &watcher::Result<Step<K>>,
        source: Option<&Source>,
    ) {
        self.highest.saw(step);
        if let Some(source) = source {
            self.highest.heard(source);
        }
        self.has_failed |= step.is_err();
        self.is_listed |= matches!(step, Ok(Step::InitDone));
    }

    /// Returns whether a listing was completed since the definition was last
    /// read. A look that begins now reads the definition.
    pub(super) fn take_listed(&mut self) -> bool {
        std::mem::take(&mut self.is_listed)
    }

    /// Notes the answer to a look. `is_listed` says whether a listing was
    /// completed before the look began. Returns what the loop must hear, with
    /// the name of the definition.
    pub(super) fn hear(
        &mut self,
        answer: Answer<Found>,
        is_listed: bool,
    ) -> Vec<(&'static str, Answer<Definition>)> {
        let name = self.name;
        let uid = match answer {
            Answer::Is(Some(found)) if found.metadata.deletion_timestamp.is_some() => {
                Err(Answer::Is(Definition::Terminating))
            }
            Answer::Is(Some(found)) => Ok(found.metadata.uid),
            Answer::Is(None) => Err(Answer::Is(Definition::Missing)),
            Answer::None(why) => Err(Answer::None(format!(
                "cannot read CustomResourceDefinition {name}: {why}"
            ))),
            Answer::NotAllowed => Err(Answer::NotAllowed),
        };
        let before = self.definition.as_ref();
        let heard = match uid {
            Err(answer) => {
                // The listing still waits for an answer about its definition.
                self.is_listed |= is_listed;
                self.stood &= matches!(answer, Answer::None(_));
                return vec![(name, answer)];
            }
            Ok(uid) => {
                let is_same = before.is_none_or(|before| uid.as_ref() == Some(before));
                let was_unnoticed = self.stood && !is_same;
                self.stood = is_listed || is_same;
                if is_listed {
                    self.definition = uid;
                }
                match (is_listed, is_same) {
                    // The objects of the deleted definition are no longer
                    // known, but the loop has not heard of its deletion.
                    (true, false) if was_unnoticed => {
                        vec![Definition::Replaced, Definition::Stands]
                    }
                    (true, _) | (_, true) => vec![Definition::Stands],
                    (false, false) => vec![Definition::Replaced],
                }
            }
        };
        let heard = heard.into_iter();
        heard.map(|how| (name, Answer::Is(how))).collect()
    }
}
