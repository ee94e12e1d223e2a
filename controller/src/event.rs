//! What the watches say.

use std::{borrow::Cow, fmt};

use crds::{
    Loose,
    api::{Director, DirectorGroup, RealServer, VirtualService},
};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    core::object::{HasSpec, HasStatus},
    runtime::watcher,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// One thing that was seen.
#[derive(Debug)]
pub enum Event {
    /// On the watch of VirtualServices.
    VirtualServices(watcher::Event<Observed<VirtualService>>),
    /// On the watch of RealServers.
    RealServers(watcher::Event<Observed<RealServer>>),
    /// On the watch of DirectorGroups.
    DirectorGroups(watcher::Event<Observed<DirectorGroup>>),
    /// On the watch of Directors.
    Directors(watcher::Event<Director>),
    /// On the watch of Leases.
    Leases(watcher::Event<Lease>),
    /// The watch of Leases failed: until its next event nothing is known of
    /// renewals.
    LeasesUnseen,
}

/// An object whose spec may not parse, with its status if that does.
pub struct Observed<K: HasSpec + HasStatus> {
    /// Metadata and spec.
    pub object: Loose<K>,
    /// What was published about it.
    pub status: Option<K::Status>,
}

impl<'de, K> Deserialize<'de> for Observed<K>
where
    K: HasSpec<Spec: DeserializeOwned> + HasStatus<Status: DeserializeOwned>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // A status that somebody else broke is one to be written anew.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
