//! Applies the events from the watch of one kind of object.

use std::fmt::Debug;

use crds::{
    Change, Checked, Digest, Kind, ObjectKey, Objects, Store, Stored,
    check::{CheckedGroup, CheckedServer, CheckedService},
};
use kube::{
    core::object::{HasSpec, HasStatus},
    runtime::watcher,
};

use crate::{
    event::Observed,
    history::{History, Novelty, Step},
    status::{Id, Status, Subject},
    world::World,
};

/// A kind whose objects [`World`] stores. Each of the three kinds implements
/// the trait's functions in its own way.
pub(super) trait Watched:
    Checked<Object: HasSpec<Spec: Debug> + HasStatus<Status: Default>>
{
    const KIND: Kind;

    fn store(objects: &mut Objects) -> &mut Store<Self>;

    fn status(published: <Self::Object as HasStatus>::Status) -> Status;

    /// Adds the change of one object to the history.
    fn changed(history: &mut History, change: &Changed);

    /// Adds a new listing to the history.
    fn listed(history: &mut History, store: &Store<Self>);
}

impl Watched for CheckedService {
    const KIND: Kind = Kind::VirtualService;

    fn store(objects: &mut Objects) -> &mut Store<Self> {
        &mut objects.virtual_services
    }

    fn status(published: crds::api::VirtualServiceStatus) -> Status {
        Status::VirtualService(published)
    }

    fn changed(history: &mut History, change: &Changed) {
        for (group, change) in change.by_group() {
            history.virtual_service_changed(&group, change.step());
        }
    }

    fn listed(history: &mut History, store: &Store<Self>) {
        let services = store.iter().map(|(key, stored)| {
            let group = stored.group.as_deref().unwrap_or_default();
            (group, key, stored.digest)
        });
        history.virtual_services_listed(services);
    }
}

impl Watched for CheckedServer {
    const KIND: Kind = Kind::RealServer;

    fn store(objects: &mut Objects) -> &mut Store<Self> {
        &mut objects.real_servers
    }

    fn status(published: crds::api::RealServerStatus) -> Status {
        Status::RealServer(published)
    }

    fn changed(history: &mut History, change: &Changed) {
        history.real_server_changed(change.step());
    }

    fn listed(history: &mut History, store: &Store<Self>) {
        let servers = store.iter();
        history.real_servers_listed(servers.map(|(key, stored)| (&key.namespace, stored.digest)));
    }
}

impl Watched for CheckedGroup {
    const KIND: Kind = Kind::DirectorGroup;

    fn store(objects: &mut Objects) -> &mut Store<Self> {
        &mut objects.director_groups
    }

    fn status(published: crds::api::DirectorGroupStatus) -> Status {
        Status::DirectorGroup(published)
    }

    fn changed(history: &mut History, change: &Changed) {
        history.director_group_changed(change.step());
    }

    fn listed(history: &mut History, store: &Store<Self>) {
        history.director_groups_listed(
            store
                .iter()
                .map(|(key, stored)| (&*key.name, stored.digest)),
        );
    }
}

impl World {
    /// Applies an event from the watch of one kind of object.
    pub(super) fn take<C: Watched>(&mut self, event: watcher::Event<Observed<C::Object>>) {
        self.resolve_before::<C>(&event);
        let subject = Subject::from(C::KIND);
        let id = |key: &ObjectKey| Id {
            subject,
            key: key.clone(),
        };
        let store = C::store(&mut self.objects);
        let (key, change) = match event {
            watcher::Event::Init => {
                store.change(Change::Listing);
                return;
            }
            watcher::Event::InitApply(Observed { object, status }) => {
                let status = C::status(status.unwrap_or_default());
                self.published.insert(id(&ObjectKey::of(&object)), status);
                store.change(Change::Item(object));
                return;
            }
            watcher::Event::InitDone => {
                store.change(Change::Listed);
                self.published
                    .retain(|id, _| id.subject != subject || store.get(&id.key).is_some());
                C::listed(&mut self.history, store);
                self.has_new_states = true;
                self.relisted.insert(C::KIND);
                self.unresolved = true;
                return;
            }
            watcher::Event::Apply(Observed { object, status }) => {
                let key = ObjectKey::of(&object);
                let status = C::status(status.unwrap_or_default());
                self.published.insert(id(&key), status);
                self.stale.add(id(&key));
                (key, Change::Apply(object))
            }
            watcher::Event::Delete(Observed { object, .. }) => {
                let key = ObjectKey::of(&object);
                self.published.remove(&id(&key));
                (key.clone(), Change::Delete(key))
            }
        };
        let before = store.get(&key).map(ObjectState::of);
        if !store.change(change) {
            return;
        }
        let after = store.get(&key).map(ObjectState::of);
        let changed = Changed { key, before, after };
        C::changed(&mut self.history, &changed);
        self.has_new_states = true;
        self.touched.insert((C::KIND, changed.key));
        self.unresolved = true;
    }

    /// Resolves the objects now if `event` could undo a change that is not
    /// resolved yet. The second change of an object can undo the first,
    /// although directors may have used the state between the two changes. So
    /// an object's first change is resolved before its second change. A new
    /// listing counts as a change of every object of its kind.
    fn resolve_before<C: Watched>(&mut self, event: &watcher::Event<Observed<C::Object>>) {
        let twice = match event {
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
                let object = (C::KIND, ObjectKey::of(&object.object));
                self.relisted.contains(&C::KIND) || self.touched.contains(&object)
            }
            watcher::Event::InitDone => true,
            watcher::Event::Init | watcher::Event::InitApply(_) => false,
        };
        if twice {
            self.resolve();
        }
    }
}

/// One object before and after a change.
pub(super) struct Changed {
    key: ObjectKey,
    before: Option<ObjectState>,
    after: Option<ObjectState>,
}

/// The fields of an object that [`History`] needs.
#[derive(Clone)]
struct ObjectState {
    group: Option<String>,
    uid: String,
    generation: i64,
    digest: Digest,
}

impl ObjectState {
    fn of<C>(stored: &Stored<C>) -> Self {
        Self {
            group: stored.group.clone(),
            uid: stored.uid.clone(),
            generation: stored.generation,
            digest: stored.digest,
        }
    }
}

impl Changed {
    /// Returns the name of each affected group, and the group's part of the
    /// change. An object that moves to another group leaves its old group and
    /// enters the new one.
    fn by_group(&self) -> Vec<(String, Self)> {
        let group = |seen: &Option<ObjectState>| {
            let seen = seen.as_ref();
            seen.map(|seen| seen.group.clone().unwrap_or_default())
        };
        let part = |before: &Option<ObjectState>, after: &Option<ObjectState>| Self {
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

    /// Returns the change in the form that [`History`] needs.
    fn step(&self) -> Step<'_> {
        let digest = |seen: &Option<ObjectState>| seen.as_ref().map(|seen| seen.digest);
        Step {
            object: &self.key,
            // An object that does not exist has the default digest, which does
            // not change the XOR.
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
