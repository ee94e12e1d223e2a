//! What an installed CustomResourceDefinition knows. It may be older than this
//! program: helm does not upgrade definitions. An API server refuses a status
//! with a field that the installed definition lacks, so a writer cuts its status
//! to what the definition knows.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

use crate::crd;

/// The schema of a kind's status, from an installed definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Installed {
    /// The value of the definition's annotation [`crd::SCHEMA_ANNOTATION`], or 0
    /// without the annotation.
    pub schema: u32,
    /// The OpenAPI schema of the status.
    status: Value,
}

impl Installed {
    /// Reads the schema of version v1alpha1 from a definition. A definition
    /// without this version has a status without fields.
    pub fn of(definition: &CustomResourceDefinition) -> Self {
        let mut versions = definition.spec.versions.iter();
        let version = versions.find(|version| version.name == crd::VERSION);
        let schema = version.and_then(|version| version.schema.as_ref());
        let schema = schema.and_then(|schema| serde_json::to_value(schema).ok());
        let status = schema.and_then(|schema| {
            let status = schema.pointer("/openAPIV3Schema/properties/status");
            status.cloned()
        });
        Self {
            schema: crd::schema_of(definition),
            status: status.unwrap_or_else(|| json!({"type": "object"})),
        }
    }

    /// Returns what this program's own definition of a kind knows. `name` is the
    /// name of the definition: `directors.ipvs.dev`.
    ///
    /// # Panics
    /// Panics if this program has no such definition.
    pub fn own(name: &str) -> Self {
        let mut definitions = crd::definitions().into_iter();
        let definition = definitions.find(|own| own.metadata.name.as_deref() == Some(name));
        Self::of(&definition.expect("the definition is one of ours"))
    }

    /// Returns what `newer` allows and this definition refuses, each by its path:
    /// a field (`status.health.stopped`), a value (`status.vips: Some`), or the
    /// absence of a field (`status.health.servers without name`).
    pub fn lacks(&self, newer: &Self) -> BTreeSet<String> {
        let mut lacking = BTreeSet::new();
        compare(&self.status, &newer.status, "status", &mut lacking);
        lacking
    }

    /// Removes from a status what this definition would refuse: fields that it
    /// lacks, values that its enumerations lack, and objects without a field
    /// that it requires. The rest of the status stays. If items of a list are
    /// removed, the number beside the list (`unhealthyOmitted` beside
    /// `unhealthy`) counts them, so nobody takes the list for complete.
    pub fn cut(&self, status: &mut Value) {
        if !cut(&self.status, status) {
            *status = json!({});
        }
    }
}

/// Removes from `value` what `schema` refuses. Returns whether the schema takes
/// the rest.
fn cut(schema: &Value, value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            let mut dropped = Vec::new();
            fields.retain(|name, field| match known(schema, name) {
                Known::Field(schema) => {
                    let before = field.as_array().map_or(0, Vec::len);
                    let is_taken = cut(schema, field);
                    let after = field.as_array().map_or(0, Vec::len);
                    if after < before {
                        dropped.push((name.clone(), before - after));
                    }
                    is_taken
                }
                Known::Anything => true,
                Known::Not => false,
            });
            for (list, items) in dropped {
                count_omitted(schema, fields, &list, items);
            }
            let required = schema["required"].as_array().into_iter().flatten();
            let mut required = required.filter_map(Value::as_str);
            required.all(|name| fields.contains_key(name))
        }
        Value::Array(items) => {
            if let Some(of_each) = schema.get("items") {
                items.retain_mut(|item| cut(of_each, item));
            }
            true
        }
        scalar => match schema.get("enum").and_then(Value::as_array) {
            Some(allowed) => allowed.contains(scalar),
            None => true,
        },
    }
}

/// Counts dropped items of a list in the list's `…Omitted` field, if the schema
/// has one. Without `…OmittedNamespaces`, the items may be of every namespace.
fn count_omitted(schema: &Value, fields: &mut Map<String, Value>, list: &str, items: usize) {
    let count = format!("{list}Omitted");
    if let Known::Field(_) = known(schema, &count) {
        let before = fields.get(&count).and_then(Value::as_u64).unwrap_or(0);
        let items = u64::try_from(items).unwrap_or(u64::MAX);
        fields.insert(count, json!(before.saturating_add(items)));
        fields.remove(&format!("{list}OmittedNamespaces"));
    }
}

/// What a schema knows of a field of an object.
enum Known<'a> {
    /// The field has this schema.
    Field(&'a Value),
    /// The object may have fields of any name and content.
    Anything,
    /// The object has no such field.
    Not,
}

fn known<'a>(schema: &'a Value, name: &str) -> Known<'a> {
    if schema["x-kubernetes-preserve-unknown-fields"] == json!(true) {
        return Known::Anything;
    }
    let of_each = schema.get("additionalProperties");
    let field = schema["properties"].get(name).or(of_each);
    field.map_or(Known::Not, Known::Field)
}

/// Collects the fields and values of `newer` that `older` lacks.
fn compare(older: &Value, newer: &Value, path: &str, lacking: &mut BTreeSet<String>) {
    for (name, newer) in newer["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match known(older, name) {
            Known::Field(older) => compare(older, newer, &path, lacking),
            Known::Anything => {}
            Known::Not => {
                lacking.insert(path);
            }
        }
    }
    let needed = |schema: &Value| {
        let required = schema["required"].as_array().cloned();
        required.unwrap_or_default()
    };
    let still = needed(newer);
    let dropped = needed(older).into_iter();
    let dropped = dropped.filter(|name| !still.contains(name));
    lacking.extend(dropped.filter_map(|name| Some(format!("{path} without {}", name.as_str()?))));
    for part in ["items", "additionalProperties"] {
        if let (Some(older), Some(newer)) = (older.get(part), newer.get(part)) {
            compare(older, newer, path, lacking);
        }
    }
    if let Some(known) = older["enum"].as_array() {
        let values = newer["enum"].as_array().into_iter().flatten();
        let missing = values.filter(|value| !known.contains(value));
        lacking.extend(missing.map(|value| match value.as_str() {
            Some(text) => format!("{path}: {text}"),
            None => format!("{path}: {value}"),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(status: Value) -> Installed {
        Installed { schema: 1, status }
    }

    fn older() -> Installed {
        installed(json!({"type": "object", "properties": {
            "services": {"type": "integer"},
            "vips": {"type": "string", "enum": ["All"]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "health": {"type": "object", "required": ["kind"], "properties": {
                "kind": {"type": "string", "enum": ["Tcp"]},
                "servers": {"type": "array", "items": {
                    "type": "object",
                    "required": ["address"],
                    "properties": {"address": {"type": "string"}},
                }},
            }},
            "down": {"type": "array", "items": {"type": "object", "required": ["services"]}},
            "downOmitted": {"type": "integer"},
            "downOmittedNamespaces": {"type": "array", "items": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}))
    }

    fn cut_by_older(mut status: Value) -> Value {
        older().cut(&mut status);
        status
    }

    #[test]
    fn a_status_of_known_fields_stays_whole() {
        let status = json!({
            "services": 3,
            "vips": "All",
            "labels": {"a": "b"},
            "health": {"kind": "Tcp", "servers": [{"address": "192.0.2.1"}]},
            "any": {"what": ["ever"]},
        });
        assert_eq!(cut_by_older(status.clone()), status);
    }

    #[test]
    fn only_what_the_definition_refuses_is_removed() {
        for (status, rest) in [
            (
                json!({"services": 3, "new": {"a": 1}}),
                json!({"services": 3}),
            ),
            (
                json!({"services": 3, "vips": "Some"}),
                json!({"services": 3}),
            ),
            (
                json!({"health": {"kind": "Tcp", "servers": [
                    {"address": "192.0.2.1", "port": 80},
                    {"port": 80},
                ]}}),
                json!({"health": {"kind": "Tcp", "servers": [{"address": "192.0.2.1"}]}}),
            ),
            (
                json!({"services": 3, "health": {"kind": "Quic"}}),
                json!({"services": 3}),
            ),
        ] {
            assert_eq!(cut_by_older(status.clone()), rest, "of {status}");
        }
    }

    #[test]
    fn items_that_are_removed_from_a_list_are_counted_as_omitted() {
        let status = json!({
            "down": [{"name": "a"}, {"name": "b"}],
            "downOmitted": 3,
            "downOmittedNamespaces": ["shop"],
        });
        assert_eq!(cut_by_older(status), json!({"down": [], "downOmitted": 5}));
    }

    #[test]
    fn what_a_definition_lacks_is_named_by_path() {
        let mut newer = older();
        assert_eq!(older().lacks(&newer), [].into());
        newer.status["properties"]["quic"] = json!({"type": "object"});
        newer.status["properties"]["vips"]["enum"] = json!(["All", "Some"]);
        let server = "/properties/health/properties/servers/items/properties";
        newer.status.pointer_mut(server).unwrap()["port"] = json!({"type": "integer"});
        newer.status["properties"]["health"]["required"] = json!([]);
        newer.status["properties"]["any"]["properties"] = json!({"more": {}});
        assert_eq!(
            older().lacks(&newer),
            [
                "status.health without kind",
                "status.health.servers.port",
                "status.quic",
                "status.vips: Some",
            ]
            .map(str::to_owned)
            .into()
        );
    }

    #[test]
    fn our_own_definitions_lack_nothing_of_themselves() {
        for definition in crd::definitions() {
            let own = Installed::own(definition.metadata.name.as_deref().unwrap());
            assert_eq!(own.lacks(&own), [].into());
            assert_eq!(own.schema, crd::SCHEMA);
        }
    }

    #[test]
    fn a_definition_without_our_version_takes_no_field() {
        let mut definition = crd::definitions().remove(0);
        definition.spec.versions.clear();
        let installed = Installed::of(&definition);
        let mut status = json!({"conditions": []});
        installed.cut(&mut status);
        assert_eq!(status, json!({}));
    }
}
