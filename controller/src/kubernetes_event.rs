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
    ration::LeftOut,
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

/// The reason of the Event that reports a new holder of a virtual address.
const VIP_MOVED: &str = "VipMoved";
/// The reason of the Event that stands for others.
const LEFT_OUT: &str = "EventsLeftOut";

/// Returns the Events about a status that was just written: one for each
/// condition that changed in a way that is worth an Event, and one for a virtual
/// address that another director holds now. For a RealServer that stays Ready,
/// an Event reports that more or fewer directors find the server unhealthy.
///
/// Each change makes at most one Event. A condition makes no Event if Ready
/// repeats its message. Ready of a Director makes none, because the condition
/// that it repeats makes one.
pub fn of_letter(letter: &Letter) -> Vec<KubernetesEvent> {
    let subject = letter.id.subject;
    let published = letter.published.as_ref();
    let about = reference(subject, &letter.id.key, &letter.uid);
    let new = letter.status.conditions();
    let ready = condition::find(new, kind::READY).filter(|_| subject != Subject::Director);
    let is_told = |condition: &Condition| match (&*condition.type_, ready) {
        (kind::READY, told) => told.is_some(),
        (_, Some(ready)) => condition.message != ready.message,
        (_, None) => true,
    };
    let mut events: Vec<_> = new
        .iter()
        .filter(|condition| is_told(condition))
        .filter(|condition| {
            let old = published.and_then(|old| condition::find(old.conditions(), &condition.type_));
            is_news(old, condition) && is_worth_saying(condition)
        })
        .map(|condition| KubernetesEvent {
            event: event(condition),
            about: about.clone(),
            is_minor: false,
        })
        .collect();
    events.extend(published.and_then(|old| moved(old, &letter.status, about.clone())));
    if events.is_empty()
        && let Some(ready) = condition::find(new, kind::READY)
    {
        let old = published.zip(Some(&letter.status));
        events.extend(old.and_then(|(old, new)| unhealthy_elsewhere(old, new, ready, about)));
    }
    events
}

/// Returns the Event that gives the number of Events that a namespace could not
/// make.
pub fn of_left_out(left_out: LeftOut) -> KubernetesEvent {
    let LeftOut { count, about, .. } = left_out;
    let objects = match &about.namespace {
        Some(namespace) => format!("ivs,irs -n {namespace}"),
        None => "idg,idir".to_owned(),
    };
    KubernetesEvent {
        event: Event {
            type_: EventType::Normal,
            reason: LEFT_OUT.to_owned(),
            note: Some(format!(
                "{count} more changes of conditions made no Event, because there were too many: \
                 kubectl get {objects}"
            )),
            action: LEFT_OUT.to_owned(),
            secondary: None,
        },
        about,
        is_minor: false,
    }
}

/// Returns the Event about virtual addresses that moved from one director to
/// another.
fn moved(old: &Status, new: &Status, about: ObjectReference) -> Option<KubernetesEvent> {
    let holder = |of: &Status| of.holder()?.director_name.clone();
    let (before, now) = (holder(old)?, holder(new)?);
    let what = match new {
        Status::DirectorGroup(_) => "The group's virtual addresses",
        _ => "The virtual address",
    };
    let event = Event {
        type_: EventType::Normal,
        reason: VIP_MOVED.to_owned(),
        note: Some(format!(
            "{what} moved from director {before} to director {now}"
        )),
        action: VIP_MOVED.to_owned(),
        secondary: None,
    };
    (before != now).then_some(KubernetesEvent {
        event,
        about,
        is_minor: true,
    })
}

/// A change of a condition that a Director's agent writes. The change appears
/// in no [`Letter`] of the controller.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFlip {
    director: ObjectKey,
    uid: String,
    says: Condition,
}

impl AgentFlip {
    /// Returns the changed conditions between two versions of a Director.
    pub fn between(
        director: &ObjectKey,
        uid: &str,
        before: &[Condition],
        after: &[Condition],
    ) -> Vec<Self> {
        let changed = after
            .iter()
            .filter(|new| condition::WRITTEN_BY_AGENTS.contains(&&*new.type_))
            .filter(|new| is_news(condition::find(before, &new.type_), new));
        let flip = |says: &Condition| Self {
            director: director.clone(),
            uid: uid.to_owned(),
            says: says.clone(),
        };
        changed.map(flip).collect()
    }

    /// Returns the Event that reports the changed condition.
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
        type_: if condition::needs_attention(of) {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: of.reason.clone(),
        note: Some(note),
        action: of.type_.clone(),
        secondary: None,
    }
}

/// Whether a condition changed in a way that users should see. If a condition
/// keeps needing attention, a change of its reason counts too. After an edit,
/// the reason is Programming at first. If the kernel then refuses the edit, only
/// the reason changes, and users must see this change. That a new object is
/// accepted, for example, is no news: only Ready tells that it works.
fn is_news(old: Option<&Condition>, new: &Condition) -> bool {
    match old.filter(|old| old.reason != reason::PENDING) {
        None => new.type_ == kind::READY || condition::needs_attention(new),
        Some(old) => {
            old.status != new.status
                || (condition::needs_attention(new) && old.reason != new.reason)
        }
    }
}

/// Whether a changed condition is worth an Event. Steps that every object goes
/// through are not worth an Event.
fn is_worth_saying(changed: &Condition) -> bool {
    changed.status != "Unknown"
        && changed.reason != reason::PROGRAMMING
        && changed.reason != reason::NOT_SELECTED
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
        api::{DirectorException, VipHolder, VirtualServiceStatus},
        condition::Release,
    };
    use k8s_openapi::jiff::Timestamp;

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

    /// Returns the only Event about a status, if there is one.
    fn only(letter: &Letter) -> Option<KubernetesEvent> {
        let mut events = of_letter(letter);
        assert!(events.len() < 2, "one change makes at most one Event");
        events.pop()
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
        let said = only(&letter(Some(works.clone()), broken.clone())).unwrap();
        assert_eq!(said.event.reason, "NoDirectors");
        assert_eq!(said.event.type_, EventType::Warning);
        assert_eq!(said.about.kind.as_deref(), Some("VirtualService"));
        let said = only(&letter(Some(broken.clone()), works)).unwrap();
        assert_eq!(said.event.type_, EventType::Normal);
        assert!(only(&letter(Some(broken.clone()), broken)).is_none());
    }

    #[test]
    fn waiting_for_a_director_is_not_worth_an_event() {
        let works = ready(condition::programmed(2, 1));
        let waits = ready(condition::programming(["a"], 2));
        assert!(only(&letter(Some(works), waits)).is_none());
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
            let notice = only(&letter).map(|made| made.event.reason);
            assert_eq!(notice.as_deref(), said, "{letter:?}");
        }
    }

    #[test]
    fn a_note_has_a_length_that_an_api_server_takes() {
        let mut long = ready(condition::no_directors("default", 1));
        long.message = "ö".repeat(2000);
        let note = only(&letter(None, long)).unwrap().event.note.unwrap();
        assert!(note.len() <= 1024, "{}", note.len());
    }

    fn reasons(old: &[Condition], new: &[Condition]) -> Vec<String> {
        let status = |conditions: &[Condition]| {
            Status::VirtualService(VirtualServiceStatus {
                conditions: conditions.to_vec(),
                ..VirtualServiceStatus::default()
            })
        };
        let letter = Letter {
            status: status(new),
            published: Some(status(old)),
            ..letter(None, condition::accepted(1))
        };
        let events = of_letter(&letter).into_iter();
        events.map(|made| made.event.reason).collect()
    }

    #[test]
    fn a_condition_makes_an_event_unless_ready_says_the_same() {
        let works = condition::programmed(2, 1);
        let before = [condition::accepted(1), works.clone(), ready(works.clone())];
        let refused = condition::not_accepted(
            &Rejection {
                reason: reason::INVALID,
                message: "spec.vip".to_owned(),
            },
            2,
        );
        let older = Condition {
            message: "On 2 directors, in an earlier version".to_owned(),
            ..works.clone()
        };
        let now = [refused.clone(), older, ready(refused)];
        assert_eq!(reasons(&before, &now), ["Invalid"]);
        assert_eq!(reasons(&now, &before), ["Accepted", "Programmed"]);
        let new = [condition::pending(kind::ACCEPTED, 1)];
        assert_eq!(
            reasons(&new, &before),
            ["Programmed"],
            "that a new object is accepted is no news"
        );
    }

    #[test]
    fn a_vip_that_moved_makes_an_event_and_one_that_many_hold_makes_none() {
        let held = |name, directors| {
            Status::VirtualService(VirtualServiceStatus {
                vip: Some(VipHolder::new(name, directors)),
                ..VirtualServiceStatus::default()
            })
        };
        for (old, new, note) in [
            (
                held(Some("lb-1"), 1),
                held(Some("lb-2"), 1),
                Some("The virtual address moved from director lb-1 to director lb-2"),
            ),
            (held(Some("lb-1"), 1), held(Some("lb-1"), 1), None),
            (held(None, 3), held(None, 2), None),
            (held(Some("lb-1"), 1), held(None, 0), None),
        ] {
            let letter = Letter {
                status: new,
                published: Some(old),
                ..letter(None, condition::accepted(1))
            };
            let said = only(&letter).map(|made| made.event.note.unwrap());
            assert_eq!(said.as_deref(), note, "{letter:?}");
        }
    }

    #[test]
    fn removals_that_are_held_and_released_make_a_warning_and_then_a_normal_event() {
        let held = condition::removals_held(
            ["-D -t 192.0.2.1:80"],
            Release {
                group: "edge",
                now: Timestamp::UNIX_EPOCH,
            },
            1,
        );
        let none = condition::no_removals_held(1);
        let made = |before: &[Condition], after: &[Condition]| {
            let flips = AgentFlip::between(&ObjectKey::cluster("lb-1"), "u", before, after);
            let events = flips.iter().map(|flip| flip.event().event);
            let events = events.map(|event| format!("{:?} {}", event.type_, event.reason));
            events.collect::<Vec<_>>()
        };
        let (held, none) = ([held], [none]);
        assert_eq!(made(&[], &none), [""; 0]);
        assert_eq!(made(&none, &held), ["Warning TooManyRemovals"]);
        assert_eq!(made(&held, &held), [""; 0]);
        assert_eq!(made(&held, &none), ["Normal NothingHeld"]);
    }
}
