//! From a watch's event to a change of the store of its kind.

use std::collections::BTreeMap;

use crds::{Change, Checked, Digest, ObjectKey, Store, Stored};
use kube::{
    core::object::{HasSpec, HasStatus},
    runtime::watcher,
};

use crate::{
    event::Observed,
    status::{Id, Status, Subject},
};

/// What an event changed in a store: nothing that is used, one object (its
/// group and digest before and after), or any number of them.
pub(super) enum Took {
    Nothing,
    One {
        key: ObjectKey,
        before: Option<(Option<String>, Digest)>,
        after: Option<(Option<String>, Digest)>,
    },
    All,
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
    let state = |stored: &Stored<C>| (stored.group.clone(), stored.digest);
    let before = store.get(&key).map(state);
    if !store.change(change) {
        return Took::Nothing;
    }
    let after = store.get(&key).map(state);
    Took::One { key, before, after }
}

/// Of an object that is not there, the one that changes nothing.
pub(super) fn digest(state: &Option<(Option<String>, Digest)>) -> Digest {
    state
        .as_ref()
        .map_or_else(Digest::default, |(_, digest)| *digest)
}
