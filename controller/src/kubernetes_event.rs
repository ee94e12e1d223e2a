//! Kubernetes Events about changed conditions. `kubectl describe` shows these
//! Events, and so does `kubectl events`.

use crds::{
    ObjectKey, advice,
    api::{Director, DirectorGroup, RealServer, VirtualService},
    condition::{self, kind, reason},
};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Resource,
    runtime::events::{Event, EventType},
};

use crate::{
    outbox::Letter,
    status::{Status, Subject},
};

/// The longest note of an Event, in bytes. A longer text is cut off, and the
/// mark `…` is appended. An API server accepts notes of at most 1024 bytes.
const LONGEST_NOTE: usize = 1000;

/// A Kubernetes Event and the object that it is about.
pub struct KubernetesEvent {
    /// The Event to create.
    pub event: Event,
    /// The object that the Event is about.
    pub about: ObjectReference,
    /// Whether the Event is minor: all other Events have priority over minor
    /// Events.
    pub is_minor: bool,
}

/// Returns the Event about a status that was just written, if the status
/// changed in a way that is worth an Event. The Event reports a change of the
/// object's main condition, such as Ready. For a RealServer that stays Ready,
/// the Event reports that more or fewer directors find the server unhealthy.
pub fn of_letter(letter: &Letter) -> Option<KubernetesEvent> {
    let subject = letter.id.subject;
    let kind = match subject {
        Subject::VirtualService | Subject::RealServer => kind::READY,
        Subject::DirectorGroup => kind::ACCEPTED,
        Subject::Director => kind::ALIVE,
    };
    let published = letter.published.as_ref();
    let old = published.and_then(|old| condition::find(old.conditions(), kind));
    let new = condition::find(letter.status.conditions(), kind)?;
    let about = reference(subject, &letter.id.key, &letter.uid);
    if !is_news(old, new) {
        return unhealthy_elsewhere(published?, &letter.status, new, about);
    }
    is_worth_saying(subject, new).then(|| KubernetesEvent {
        event: event(new),
        about,
        is_minor: false,
    })
}

/// A change of a Director's condition ProbesWorking. The Director's agent
/// writes this condition, so the change appears in no [`Letter`] of the
/// controller.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFlip {
    director: ObjectKey,
    uid: String,
    says: Condition,
}

impl AgentFlip {
    /// Returns the change of the condition ProbesWorking between two versions of
    /// a Director, if any.
    pub fn between(
        director: &ObjectKey,
        uid: &str,
        before: &[Condition],
        after: &[Condition],
    ) -> Option<Self> {
        let fails = |condition: &Condition| condition.status == "False";
        let old = condition::find(before, kind::PROBES_WORKING);
        let new = condition::find(after, kind::PROBES_WORKING)?;
        (fails(new) != old.is_some_and(fails)).then(|| Self {
            director: director.clone(),
            uid: uid.to_owned(),
            says: new.clone(),
        })
    }

    /// Returns the Event that reports the changed condition ProbesWorking.
    pub fn event(&self) -> KubernetesEvent {
        KubernetesEvent {
            event: event(&self.says),
            about: reference(Subject::Director, &self.director, &self.uid),
            is_minor: false,
        }
    }
}

/// Returns the Event about a change in the number of directors that find a
/// Ready server unhealthy. Returns no Event if the number of directors that
/// check the server changed too.
fn unhealthy_elsewhere(
    old: &Status,
    new: &Status,
    ready: &Condition,
    about: ObjectReference,
) -> Option<KubernetesEvent> {
    let (Status::RealServer(before), Status::RealServer(after)) = (old, new) else {
        return None;
    };
    let (before, after) = (before.directors.as_ref()?, after.directors.as_ref()?);
    if ready.status != "True"
        || before.checking != after.checking
        || before.unhealthy == after.unhealthy
    {
        return None;
    }
    let mut event = event(ready);
    if after.unhealthy > before.unhealthy {
        event.type_ = EventType::Warning;
        reason::UNHEALTHY.clone_into(&mut event.reason);
    }
    Some(KubernetesEvent {
        event,
        about,
        is_minor: true,
    })
}

fn event(of: &Condition) -> Event {
    let note = advice::shortened(of.message.clone(), LONGEST_NOTE);
    Event {
        type_: if of.status == "True" {
            EventType::Normal
        } else {
            EventType::Warning
        },
        reason: of.reason.clone(),
        note: Some(note),
        action: of.type_.clone(),
        secondary: None,
    }
}

/// Whether a condition changed in a way that users should see. If a condition
/// stays False, a change of its reason counts too. After an edit, the reason is
/// Programming at first. If the kernel then refuses the edit, only the reason
/// changes, and users must see this change.
fn is_news(old: Option<&Condition>, new: &Condition) -> bool {
    old.is_none_or(|old| {
        old.status != new.status || (new.status == "False" && old.reason != new.reason)
    })
}

/// Whether a changed condition is worth an Event. Steps that every object goes
/// through are not worth an Event.
fn is_worth_saying(subject: Subject, changed: &Condition) -> bool {
    match (subject, changed.status.as_str()) {
        (_, "Unknown") => false,
        (Subject::DirectorGroup, "True") => false,
        _ => changed.reason != reason::PROGRAMMING && changed.reason != reason::NOT_SELECTED,
    }
}

fn reference(subject: Subject, key: &ObjectKey, uid: &str) -> ObjectReference {
    let (api_version, kind) = match subject {
        Subject::VirtualService => (VirtualService::api_version(&()), VirtualService::kind(&())),
        Subject::RealServer => (RealServer::api_version(&()), RealServer::kind(&())),
        Subject::DirectorGroup => (DirectorGroup::api_version(&()), DirectorGroup::kind(&())),
        Subject::Director => (Director::api_version(&()), Director::kind(&())),
    };
    ObjectReference {
        api_version: Some(api_version.into_owned()),
        kind: Some(kind.into_owned()),
        name: Some(key.name.to_string()),
        namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use crds::{
        ObjectKey, Rejection,
        api::{DirectorException, VirtualServiceStatus},
    };

    use super::*;
    use crate::{difference::Difference, status::Id};

    fn letter(old: Option<Condition>, new: Condition) -> Letter {
        let status = |condition| {
            Status::VirtualService(VirtualServiceStatus {
                conditions: vec![condition],
                ..VirtualServiceStatus::default()
            })
        };
        Letter {
            id: Id {
                subject: Subject::VirtualService,
                key: ObjectKey::new("shop", "web"),
            },
            uid: "u".to_owned(),
            status: status(new),
            published: old.map(status),
            difference: Difference::Flip,
        }
    }

    fn ready(of: Condition) -> Condition {
        Condition {
            type_: kind::READY.to_owned(),
            ..of
        }
    }

    #[test]
    fn a_flip_of_ready_is_said_once() {
        let works = ready(condition::programmed(2, 1));
        let broken = ready(condition::no_directors("default", 1));
        let said = of_letter(&letter(Some(works.clone()), broken.clone())).unwrap();
        assert_eq!(said.event.reason, "NoDirectors");
        assert_eq!(said.event.type_, EventType::Warning);
        assert_eq!(said.about.kind.as_deref(), Some("VirtualService"));
        let said = of_letter(&letter(Some(broken.clone()), works)).unwrap();
        assert_eq!(said.event.type_, EventType::Normal);
        assert!(of_letter(&letter(Some(broken.clone()), broken)).is_none());
    }

    #[test]
    fn waiting_for_a_director_is_not_worth_an_event() {
        let works = ready(condition::programmed(2, 1));
        let waits = ready(condition::programming(["a"], 2));
        assert!(of_letter(&letter(Some(works), waits)).is_none());
    }

    fn refused_by_the_kernel() -> Condition {
        let why = DirectorException {
            virtual_service: ObjectKey::new("shop", "web"),
            real_server: None,
            reason: reason::KERNEL_REFUSED.to_owned(),
            message: "no such scheduler".to_owned(),
        };
        condition::not_programmed("d1", &why, 0, 2)
    }

    #[test]
    fn a_failure_for_another_reason_is_said_and_once() {
        let key = ObjectKey::new("shop", "web");
        let duplicate = Rejection {
            reason: reason::DUPLICATE_SERVER,
            message: "an older one has this address".to_owned(),
        };
        let not_selected = condition::server_ready(0, None, [], 1);
        let refused = condition::server_ready(0, None, [(&key, &duplicate)], 1);
        for (old, new, said) in [
            (
                condition::programming(["d1"], 2),
                refused_by_the_kernel(),
                Some(reason::KERNEL_REFUSED),
            ),
            (not_selected, refused, Some(reason::DUPLICATE_SERVER)),
            (refused_by_the_kernel(), refused_by_the_kernel(), None),
            (
                refused_by_the_kernel(),
                condition::programming(["d1"], 3),
                None,
            ),
            (
                condition::programmed(1, 1),
                Condition {
                    reason: "Other".to_owned(),
                    ..condition::programmed(1, 1)
                },
                None,
            ),
        ] {
            let letter = letter(Some(ready(old)), ready(new));
            let notice = of_letter(&letter).map(|made| made.event.reason);
            assert_eq!(notice.as_deref(), said, "{letter:?}");
        }
    }

    #[test]
    fn a_note_has_a_length_that_an_api_server_takes() {
        let mut long = ready(condition::no_directors("default", 1));
        long.message = "ö".repeat(2000);
        let note = of_letter(&letter(None, long)).unwrap().event.note.unwrap();
        assert!(note.len() <= 1024, "{}", note.len());
    }
}
