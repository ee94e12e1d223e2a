//! Admits custom resources as an API server does: fills in defaults, checks the
//! structure, then applies the CEL rules.

use crds::crd;
use k8s_openapi::{ByteString, jiff::Timestamp};
use kube::core::cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde_json::Value;

/// The schema of one kind, with its compiled CEL rules.
pub(crate) struct Admission {
    schema: Value,
    rules: CompiledSchema,
}

impl Admission {
    pub(crate) fn of(kind: &str) -> Self {
        let definition = crd::definitions()
            .into_iter()
            .find(|definition| definition.spec.names.kind == kind)
            .unwrap();
        let schema =
            serde_json::to_value(&definition.spec.versions[0].schema).unwrap()["openAPIV3Schema"]
                .take();
        let rules = compile_schema(&schema);
        Self { schema, rules }
    }

    /// Returns the reasons why an object is refused. The list is empty if the
    /// object is accepted.
    pub(crate) fn refusals(&self, object: &Value, before: Option<&Value>) -> Vec<String> {
        let object = apply_defaults(&self.schema, object);
        let before = before.map(|before| apply_defaults(&self.schema, before));
        let mut refusals = Vec::new();
        structure(&self.schema, &object, "", &mut refusals);
        // Like an API server, apply the rules only if the structure is valid,
        // because the rules rely on the structure.
        if refusals.is_empty()
            && let Err(errors) =
                Validator::new().validate_compiled(&self.rules, &object, before.as_ref())
        {
            refusals.extend(errors.into_vec().iter().map(ToString::to_string));
        }
        refusals
    }
}

/// Checks a value against the keywords that our schemas use. Any other keyword
/// fails the test.
fn structure(schema: &Value, value: &Value, path: &str, refusals: &mut Vec<String>) {
    let mut refuse = |what: String| refusals.push(format!("{path}: {what}"));
    let number = |keyword: &Value| keyword.as_f64().unwrap();
    let size = |keyword: &Value| usize::try_from(keyword.as_f64().unwrap() as u64).unwrap();
    for (keyword, wanted) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("type {other} at {path}"),
            },
            "format" if wanted == "date-time" => value
                .as_str()
                .is_none_or(|text| text.parse::<Timestamp>().is_ok()),
            "format" if wanted == "byte" => {
                serde_json::from_value::<ByteString>(value.clone()).is_ok()
            }
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|value| value >= number(wanted)),
            "maximum" => value.as_f64().is_none_or(|value| value <= number(wanted)),
            "maxLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() <= size(wanted)),
            "minLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() >= size(wanted)),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() >= size(wanted)),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| items.len() <= size(wanted)),
            "maxProperties" => value
                .as_object()
                .is_none_or(|fields| fields.len() <= size(wanted)),
            "required" => wanted.as_array().unwrap().iter().all(|name| {
                value
                    .as_object()
                    .is_none_or(|fields| fields.contains_key(name.as_str().unwrap()))
            }),
            "x-kubernetes-int-or-string" => value.is_i64() || value.is_string(),
            "x-kubernetes-list-type" if wanted == "set" => value.as_array().is_none_or(|items| {
                items
                    .iter()
                    .enumerate()
                    .all(|(index, item)| !items[..index].contains(item))
            }),
            "x-kubernetes-list-type" if wanted == "map" => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
                let name = |item: &Value| -> Vec<_> {
                    let values = keys.iter().map(|key| item[key.as_str().unwrap()].clone());
                    values.collect()
                };
                value.as_array().is_none_or(|items| {
                    let names: Vec<_> = items.iter().map(name).collect();
                    (0..names.len()).all(|at| !names[..at].contains(&names[at]))
                })
            }
            "additionalProperties"
            | "default"
            | "description"
            | "format"
            | "items"
            | "properties"
            | "title"
            | "x-kubernetes-list-map-keys"
            | "x-kubernetes-list-type"
            | "x-kubernetes-map-type"
            | "x-kubernetes-validations" => true,
            other => panic!("keyword {other} at {path}"),
        };
        if !good {
            refuse(format!("{keyword} {wanted} is not met by {value}"));
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let declared = &schema["properties"][name];
                let schema = if declared.is_null() {
                    &schema["additionalProperties"]
                } else {
                    declared
                };
                if schema.is_object() {
                    structure(schema, field, &format!("{path}.{name}"), refusals);
                }
            }
        }
        Value::Array(items) if schema["items"].is_object() => {
            for (index, item) in items.iter().enumerate() {
                structure(
                    &schema["items"],
                    item,
                    &format!("{path}[{index}]"),
                    refusals,
                );
            }
        }
        _ => {}
    }
}
