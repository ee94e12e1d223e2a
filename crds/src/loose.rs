use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::object::HasSpec};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Track;

/// An object whose spec may not parse.
///
/// An object that does not parse must not stop a watch, because the object may
/// be written for a newer version of ipvs-operator. The object's metadata is
/// available, and the parse error names the field (`spec.vip.port: invalid
/// type: …`). Status and managedFields are dropped, because no code uses them.
pub struct Loose<K: HasSpec> {
    /// The object's metadata, without managedFields.
    pub metadata: ObjectMeta,
    /// The spec, or an error that names the unreadable field and the reason.
    pub spec: Result<K::Spec, String>,
    /// The paths of the fields that this build does not know, such as
    /// `spec.drain`. A newer version of the definitions may have them.
    pub ignored: Vec<String>,
    /// Where the object comes from.
    pub source: Source,
    /// The value of `spec.directorGroupName`, even if other fields do not
    /// parse.
    pub group: Option<String>,
}

/// Where an object comes from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Source {
    /// The object comes from the API server, whose users have the rights that
    /// RBAC gives them.
    #[default]
    Api,
    /// The object comes from a file on the director, which only root can write.
    File,
}

/// The parts of an object that are parsed for every kind.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
}

impl<'de, K> Deserialize<'de> for Loose<K>
where
    K: HasSpec<Spec: DeserializeOwned>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Envelope { mut metadata, spec } = Envelope::deserialize(deserializer)?;
        metadata.managed_fields = None;
        let group = spec
            .get("directorGroupName")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let mut ignored = Vec::new();
        let mut track = Track::new();
        let known = serde_path_to_error::Deserializer::new(spec, &mut track);
        let spec = serde_ignored::deserialize(known, |path| {
            ignored.push(format!("spec.{}", spelled(&path)));
        });
        let spec = spec.map_err(|error| {
            let error = serde_path_to_error::Error::new(track.path(), error);
            unparsable(&error)
        });
        Ok(Self {
            metadata,
            spec,
            ignored,
            source: Source::Api,
            group,
        })
    }
}

/// Returns the path of a field that was left out, such as `vip.quic`. In the path
/// of serde_ignored, a question mark stands for a value that may be absent.
pub fn spelled(path: &serde_ignored::Path<'_>) -> String {
    path.to_string().replace(".?", "")
}

/// Describes a parse error: the field that does not parse, and the reason.
fn unparsable(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let mut path = "spec".to_owned();
    let mut add = |field: &str| {
        // If the whole object does not parse, the path in the error is "." or
        // empty.
        if !field.is_empty() && field != "." {
            path.push('.');
            path.push_str(field);
        }
    };
    add(&error.path().to_string());
    let why = error.inner().to_string();
    // For a missing field, serde gives the path of the field's parent.
    match why
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        Some(field) => {
            add(field);
            format!("{path}: is missing")
        }
        None => format!("{path}: {why}"),
    }
}

impl<K> Loose<K>
where
    K: HasSpec<Spec: Clone> + Resource,
{
    /// Converts `object`, and marks it as an object from a file on the
    /// director.
    pub fn from_file(object: &K) -> Self {
        let mut metadata = object.meta().clone();
        metadata.managed_fields = None;
        Self {
            metadata,
            spec: Ok(object.spec().clone()),
            ignored: Vec::new(),
            source: Source::File,
            group: None,
        }
    }
}

impl<K: HasSpec<Spec: Clone>> Clone for Loose<K> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
            ignored: self.ignored.clone(),
            source: self.source,
            group: self.group.clone(),
        }
    }
}

impl<K: HasSpec<Spec: fmt::Debug>> fmt::Debug for Loose<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loose")
            .field("metadata", &self.metadata)
            .field("spec", &self.spec)
            .field("ignored", &self.ignored)
            .field("source", &self.source)
            .field("group", &self.group)
            .finish()
    }
}

impl<K: HasSpec + Resource> Resource for Loose<K> {
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
    use crate::api::{RealServer, VirtualService};

    fn service(spec: &Value) -> Loose<VirtualService> {
        serde_json::from_value(json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": {"name": "web", "namespace": "shop", "managedFields": [{"manager": "me"}]},
            "spec": spec,
            "status": {"anything": ["at", "all"]},
        }))
        .unwrap()
    }

    #[test]
    fn a_good_spec_is_there() {
        let object = service(&json!({
            "vip": {"address": "10.0.0.1", "port": 80},
            "realServerSelector": {"matchLabels": {"app": "web"}},
        }));
        assert_eq!(object.spec.unwrap().vip.unwrap().port, 80);
        assert_eq!(object.metadata.managed_fields, None);
    }

    #[test]
    fn a_field_of_a_newer_version_is_named_and_the_rest_of_the_spec_is_there() {
        let object = service(&json!({
            "vip": {"address": "10.0.0.1", "port": 80, "quic": true},
            "realServerSelector": {},
            "drain": {"timeoutSeconds": 5},
        }));
        assert_eq!(object.ignored, ["spec.drain", "spec.vip.quic"]);
        assert_eq!(object.spec.unwrap().vip.unwrap().port, 80);
    }

    #[test]
    fn a_bad_spec_names_its_field_and_keeps_metadata_and_group() {
        let object = service(&json!({
            "vip": {"address": "10.0.0.1", "port": "eighty"},
            "realServerSelector": {},
            "directorGroupName": "edge",
        }));
        assert_eq!(
            object.spec.unwrap_err(),
            "spec.vip.port: invalid type: string \"eighty\", expected i32"
        );
        assert_eq!(object.metadata.name.as_deref(), Some("web"));
        assert_eq!(object.group.as_deref(), Some("edge"));
    }

    #[test]
    fn a_scheduler_that_does_not_exist_yet_is_named() {
        let object = service(&json!({
            "vip": {"address": "10.0.0.1", "port": 80},
            "scheduler": "quantum",
            "realServerSelector": {},
        }));
        let message = object.spec.unwrap_err();
        assert!(
            message.starts_with("spec.scheduler: unknown variant `quantum`, expected one of"),
            "{message}"
        );
    }

    #[test]
    fn a_field_that_is_missing_is_named() {
        let spec = |vip: Value| json!({"vip": vip, "realServerSelector": {}});
        for (spec, message) in [
            (json!({}), "spec.realServerSelector: is missing"),
            (spec(json!({"port": 80})), "spec.vip.address: is missing"),
        ] {
            assert_eq!(service(&spec).spec.unwrap_err(), message);
        }
    }

    #[test]
    fn an_object_without_a_spec_says_so() {
        let object: Loose<RealServer> =
            serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!(
            object.spec.unwrap_err(),
            "spec: invalid type: null, expected struct RealServerSpec"
        );
    }

    #[test]
    fn it_is_the_same_resource_as_the_object_itself() {
        assert_eq!(
            Loose::<VirtualService>::url_path(&(), Some("shop")),
            VirtualService::url_path(&(), Some("shop"))
        );
    }
}
