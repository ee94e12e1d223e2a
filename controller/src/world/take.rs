//! From a watch's event to a change of the store of its kind.

use std::collections::BTreeMap;

use crds::{Change, Checked, Digest, ObjectKey, Store, Stored};
use kube::{
    core::object::{HasSpec, HasStatus},
    runtime::watcher,
};

use crate::{
    event::Observed,
    history::{Novelty, Step},
    status::{Id, Status, Subject},
};

/// What an event changed in a store: nothing that is used, one object, or any
/// number of them.
pub(super) enum Took {
    Nothing,
    One(Box<Changed>),
    All,
}

/// One object before and after.
pub(super) struct Changed {
    pub(super) key: ObjectKey,
    pub(super) before: Option<Seen>,
    pub(super) after: Option<Seen>,
}

/// What decides over the state of the world, of one object.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) group: Option<String>,
    uid: String,
    generation: i64,
    digest: Digest,
}

impl Changed {
    /// The change as each group sees it: an object that changes its group
    /// leaves one and comes to the other.
    pub(super) fn by_group(&self) -> Vec<(String, Self)> {
        let group = |seen: &Option<Seen>| {
            let seen = seen.as_ref();
            seen.map(|seen| seen.group.clone().unwrap_or_default())
        };
        let part = |before: &Option<Seen>, after: &Option<Seen>| Self {
            key: self.key.clone(),
            before: before.clone(),
            after: after.clone(),
        };
        match (group(&self.before), group(&self.after)) {
            (Some(from), Some(to)) if from != to => vec![
                (from, part(&self.before, &None)),
                (to, part(&None, &self.after)),
            ],
            (Some(group), _) | (None, Some(group)) => {
                vec![(group, part(&self.before, &self.after))]
            }
            (None, None) => Vec::new(),
        }
    }

    /// The change as the history takes it.
    pub(super) fn step(&self) -> Step<'_> {
        let digest = |seen: &Option<Seen>| seen.as_ref().map(|seen| seen.digest);
        Step {
            object: &self.key,
            // An object that is not there changes nothing.
            difference: digest(&self.before).unwrap_or_default()
                ^ digest(&self.after).unwrap_or_default(),
            novelty: match (&self.before, &self.after) {
                (_, None) => Novelty::Gone,
                (Some(before), Some(after))
                    if before.uid == after.uid && before.generation >= after.generation =>
                {
                    Novelty::Known
                }
                (_, Some(_)) => Novelty::New,
            },
        }
    }
}

/// What is published about the objects of one kind.
pub(super) struct Shown<'a, S> {
    pub(super) all: &'a mut BTreeMap<Id, Status>,
    pub(super) subject: Subject,
    pub(super) wrap: fn(S) -> Status,
}

impl<S: Default> Shown<'_, S> {
    fn set(&mut self, key: &ObjectKey, status: Option<S>) {
        let id = Id {
            subject: self.subject,
            key: key.clone(),
        };
        self.all.insert(id, (self.wrap)(status.unwrap_or_default()));
    }

    fn retain(&mut self, is_there: impl Fn(&ObjectKey) -> bool) {
        self.all
            .retain(|id, _| id.subject != self.subject || is_there(&id.key));
    }
}

/// Takes one event in.
pub(super) fn take<C, K>(
    store: &mut Store<C>,
    shown: &mut Shown<'_, K::Status>,
    event: watcher::Event<Observed<K>>,
) -> Took
where
    C: Checked<Object = K>,
    K: HasSpec<Spec: std::fmt::Debug>
        + HasStatus<Status: Default>
        + kube::Resource<DynamicType = ()>,
{
    let (key, change) = match event {
        watcher::Event::Init => {
            store.change(Change::Listing);
            return Took::Nothing;
        }
        watcher::Event::InitApply(object) => {
            shown.set(&ObjectKey::of(&object.object), object.status);
            store.change(Change::Item(object.object));
            return Took::Nothing;
        }
        watcher::Event::InitDone => {
            store.change(Change::Listed);
            shown.retain(|key| store.get(key).is_some());
            return Took::All;
        }
        watcher::Event::Apply(object) => {
            let key = ObjectKey::of(&object.object);
            shown.set(&key, object.status);
            (key, Change::Apply(object.object))
        }
        watcher::Event::Delete(object) => {
            let key = ObjectKey::of(&object.object);
            shown.all.remove(&Id {
                subject: shown.subject,
                key: key.clone(),
            });
            (key.clone(), Change::Delete(key))
        }
    };
    let state = |stored: &Stored<C>| Seen {
        group: stored.group.clone(),
        uid: stored.uid.clone(),
        generation: stored.generation,
        digest: stored.digest,
    };
    let before = store.get(&key).map(state);
    if !store.change(change) {
        return Took::Nothing;
    }
    let after = store.get(&key).map(state);
    Took::One(Box::new(Changed { key, before, after }))
}
