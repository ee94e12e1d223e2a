//! The events that the controller's watches deliver.

use std::{borrow::Cow, fmt};

use crds::{
    Loose,
    api::{Director, DirectorGroup, DirectorStatus, RealServer, VirtualService},
};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    core::object::{HasSpec, HasStatus},
    runtime::watcher,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::{Map, Value, json};

/// An event of one of the controller's watches.
#[derive(Debug)]
pub enum Event {
    /// An event of the watch of VirtualServices.
    VirtualServices(watcher::Event<Observed<VirtualService>>),
    /// An event of the watch of RealServers.
    RealServers(watcher::Event<Observed<RealServer>>),
    /// An event of the watch of DirectorGroups.
    DirectorGroups(watcher::Event<Observed<DirectorGroup>>),
    /// An event of the watch of Directors.
    Directors(watcher::Event<ObservedDirector>),
    /// An event of the watch of Leases in the controller's own namespace: the
    /// leader's Lease and, until version 0.2, Leases of directors.
    Leases(watcher::Event<Lease>),
    /// The watch of Leases in the controller's own namespace failed. Renewals
    /// of these Leases are unknown until the watch's next event.
    LeasesUnseen,
    /// An event of the watch of Leases in
    /// [`DIRECTORS_NAMESPACE`](crds::api::DIRECTORS_NAMESPACE).
    DirectorLeases(watcher::Event<Lease>),
    /// The watch of Leases in the directors' namespace failed. Renewals of
    /// these Leases are unknown until the watch's next event.
    DirectorLeasesUnseen,
}

/// An object from a watch, even if its spec or its status is unreadable.
pub struct Observed<K: HasSpec + HasStatus> {
    /// The object's metadata and spec.
    pub object: Loose<K>,
    /// The published status, if it parses.
    pub status: Option<K::Status>,
}

impl<'de, K> Deserialize<'de> for Observed<K>
where
    K: HasSpec<Spec: DeserializeOwned> + HasStatus<Status: DeserializeOwned>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // If the status does not parse, the controller ignores it and writes a
        // new status.
        let status = value
            .get_mut("status")
            .map(Value::take)
            .and_then(|status| serde_json::from_value(status).ok());
        let object = Loose::deserialize(value).map_err(D::Error::custom)?;
        Ok(Self { object, status })
    }
}

impl<K> Clone for Observed<K>
where
    K: HasSpec<Spec: Clone> + HasStatus<Status: Clone>,
{
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            status: self.status.clone(),
        }
    }
}

impl<K> fmt::Debug for Observed<K>
where
    K: HasSpec<Spec: fmt::Debug> + HasStatus<Status: fmt::Debug>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("object", &self.object)
            .field("status", &self.status)
            .finish()
    }
}

impl<K: HasSpec + HasStatus + Resource> Resource for Observed<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}

/// A Director whose metadata is readable, but whose spec and status may be
/// unreadable. So the watch of Directors does not fail if a newer agent writes
/// a status that this controller cannot parse.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedDirector {
    /// The Director's metadata.
    pub metadata: ObjectMeta,
    /// The fields of the Director's status that parse. The digests in `used`
    /// identify the objects that the director's kernel matches, except for the
    /// differences in `exceptions`. If any field does not parse, exceptions may
    /// be missing, so `used` is None.
    pub status: DirectorStatus,
    /// The names of the fields that do not parse, such as `status.vips`.
    pub unreadable: Vec<String>,
}

impl<'de> Deserialize<'de> for ObservedDirector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            metadata: ObjectMeta,
            #[serde(default)]
            status: Value,
        }
        let Envelope { metadata, status } = Envelope::deserialize(deserializer)?;
        let (status, unreadable) = match status {
            Value::Null => (DirectorStatus::default(), Vec::new()),
            Value::Object(fields) => readable_part(fields),
            _ => (DirectorStatus::default(), vec!["status".to_owned()]),
        };
        Ok(Self {
            metadata,
            status,
            unreadable,
        })
    }
}

/// Returns the fields of a Director's status that parse, and the names of the
/// other fields.
fn readable_part(fields: Map<String, Value>) -> (DirectorStatus, Vec<String>) {
    if let Ok(status) = DirectorStatus::deserialize(&fields) {
        return (status, Vec::new());
    }
    let (readable, others): (Map<_, _>, Map<_, _>) =
        fields.into_iter().partition(|(name, value)| {
            // Each field is parsed as if the status had no other field. This
            // works because every field of a status is optional.
            DirectorStatus::deserialize(json!({ name.as_str(): value })).is_ok()
        });
    let unreadable = others.keys().map(|name| format!("status.{name}")).collect();
    let status = DirectorStatus::deserialize(&readable).unwrap_or_default();
    let status = DirectorStatus {
        used: None,
        ..status
    };
    (status, unreadable)
}

impl Resource for ObservedDirector {
    type DynamicType = <Director as Resource>::DynamicType;
    type Scope = <Director as Resource>::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        Director::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        Director::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        Director::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        Director::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn director(status: &Value) -> ObservedDirector {
        serde_json::from_value(json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "Director",
            "metadata": {"name": "lb-1"},
            "spec": "of another version",
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn of_a_newer_directors_status_what_parses_is_kept_but_not_its_state_of_the_world() {
        let used = json!({"virtualServices": "0", "realServers": "0", "directorGroups": "0"});
        let good = director(&json!({"directorGroupName": "edge", "used": used, "new": [1]}));
        assert_eq!(good.unreadable, [""; 0]);
        assert!(good.status.used.is_some());
        let newer = director(&json!({
            "directorGroupName": "edge",
            "used": used,
            "exceptions": {"count": 3},
            "vips": "10.0.0.1",
            "services": 7,
        }));
        assert_eq!(newer.unreadable, ["status.exceptions", "status.vips"]);
        assert_eq!(newer.status.director_group_name, "edge");
        assert_eq!(newer.status.services, 7);
        assert_eq!(newer.status.used, None);
    }

    #[test]
    fn a_directors_status_can_be_missing_or_nonsense() {
        let none = director(&Value::Null);
        assert_eq!(
            (none.status, none.unreadable),
            (DirectorStatus::default(), vec![])
        );
        assert_eq!(director(&json!(["well"])).unreadable, ["status"]);
    }

    #[test]
    fn a_status_that_does_not_parse_is_none_and_hides_nothing() {
        let observed: Observed<VirtualService> = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"vip": {"port": "eighty"}, "directorGroupName": "edge"},
            "status": {"conditions": "none"},
        }))
        .unwrap();
        assert_eq!(observed.object.group.as_deref(), Some("edge"));
        assert!(observed.object.spec.is_err());
        assert_eq!(observed.status, None);
    }

    #[test]
    fn a_status_is_kept() {
        let observed: Observed<RealServer> = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"address": "10.0.0.1"},
            "status": {"virtualServices": 3},
        }))
        .unwrap();
        assert_eq!(observed.status.unwrap().virtual_services, Some(3));
    }
}
