//! Delivers objects to the controller as events, and to a director as changes
//! of its store.

use controller::event::Event;
use crds::{
    Change, ObjectKey, Objects,
    api::{DirectorGroup, RealServer, VirtualService},
};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{GROUPS, SERVERS, SERVICES, State};

pub(super) fn parsed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("the model makes objects that parse")
}

pub(super) fn event(kind: usize, object: &Value, is_there: bool) -> Event {
    macro_rules! event {
        ($event:ident) => {
            if is_there {
                Event::$event(watcher::Event::Apply(parsed(object)))
            } else {
                Event::$event(watcher::Event::Delete(parsed(object)))
            }
        };
    }
    match kind {
        SERVICES => event!(VirtualServices),
        SERVERS => event!(RealServers),
        _ => event!(DirectorGroups),
    }
}

pub(super) fn listing(kind: usize) -> Event {
    match kind {
        SERVICES => Event::VirtualServices(watcher::Event::Init),
        SERVERS => Event::RealServers(watcher::Event::Init),
        _ => Event::DirectorGroups(watcher::Event::Init),
    }
}

pub(super) fn item(kind: usize, object: &Value) -> Event {
    match kind {
        SERVICES => Event::VirtualServices(watcher::Event::InitApply(parsed(object))),
        SERVERS => Event::RealServers(watcher::Event::InitApply(parsed(object))),
        _ => Event::DirectorGroups(watcher::Event::InitApply(parsed(object))),
    }
}

pub(super) fn listed(kind: usize) -> Event {
    match kind {
        SERVICES => Event::VirtualServices(watcher::Event::InitDone),
        SERVERS => Event::RealServers(watcher::Event::InitDone),
        _ => Event::DirectorGroups(watcher::Event::InitDone),
    }
}

/// Delivers one event to a director.
pub(super) fn change(objects: &mut Objects, kind: usize, object: &Value, is_there: bool) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let name = text("name");
    let key = match kind {
        GROUPS => ObjectKey::cluster(name),
        _ => ObjectKey::new(text("namespace"), name),
    };
    match (kind, is_there) {
        (SERVICES, true) => objects
            .virtual_services
            .change(Change::Apply(parsed(object))),
        (SERVERS, true) => objects.real_servers.change(Change::Apply(parsed(object))),
        (_, true) => objects
            .director_groups
            .change(Change::Apply(parsed(object))),
        (SERVICES, false) => objects.virtual_services.change(Change::Delete(key)),
        (SERVERS, false) => objects.real_servers.change(Change::Delete(key)),
        (_, false) => objects.director_groups.change(Change::Delete(key)),
    };
}

/// Delivers a listing to a director.
pub(super) fn list(objects: &mut Objects, kind: usize, state: &State) {
    match kind {
        SERVICES => {
            relist::<VirtualService, _>(state, |change| objects.virtual_services.change(change));
        }
        SERVERS => relist::<RealServer, _>(state, |change| objects.real_servers.change(change)),
        _ => relist::<DirectorGroup, _>(state, |change| objects.director_groups.change(change)),
    }
}

fn relist<K, F>(state: &State, mut change: F)
where
    K: kube::core::object::HasSpec<Spec: std::fmt::Debug + DeserializeOwned>,
    F: FnMut(Change<K>) -> bool,
{
    change(Change::Listing);
    for object in state.values() {
        change(Change::Item(parsed(object)));
    }
    change(Change::Listed);
}
