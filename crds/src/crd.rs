//! The CustomResourceDefinitions of the API.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{
    api::{Director, DirectorGroup, DirectorGroupMember, RealServer, VirtualService},
    condition::{self, kind},
};

pub use crate::schema::{SCHEMA, SCHEMA_ANNOTATION};

/// The version of the API in the definitions.
pub const VERSION: &str = "v1alpha1";

/// Returns the number of a definition's schema, or 0 for a definition without
/// a number. The definitions before the first numbered ones have none.
pub fn schema_of(definition: &CustomResourceDefinition) -> u32 {
    let annotations = definition.metadata.annotations.as_ref();
    let number = annotations.and_then(|annotations| annotations.get(SCHEMA_ANNOTATION));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Returns all CustomResourceDefinitions, as the chart installs them.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        finish(
            VirtualService::crd(),
            &[kind::ACCEPTED, kind::PROGRAMMED, kind::READY],
        ),
        finish(RealServer::crd(), &[kind::ACCEPTED, kind::READY]),
        finish(DirectorGroup::crd(), &[kind::ACCEPTED]),
        finish(Director::crd(), &[]),
        finish(DirectorGroupMember::crd(), &[]),
    ]
}

/// Adds the parts that the derived schema lacks, and removes the parts that an
/// API server warns about. `pending` lists the condition types that a new
/// object gets with status Unknown. Without any condition, a new object could
/// look healthy.
fn finish(crd: CustomResourceDefinition, pending: &[&str]) -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(crd).expect("a CRD is JSON");
    crd["metadata"]["annotations"][SCHEMA_ANNOTATION] = json!(SCHEMA.to_string());
    let versions = crd["spec"]["versions"].as_array_mut().into_iter().flatten();
    for version in versions {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        tidy(schema);
        let Some(status) = schema["properties"].get_mut("status") else {
            continue;
        };
        merge_conditions_by_type(&mut status["properties"]["conditions"]);
        if !pending.is_empty() {
            let pending: Vec<_> = pending.iter().map(|kind| not_seen(kind)).collect();
            status["default"] = json!({"conditions": pending});
        }
    }
    serde_json::from_value(crd).expect("it was a CRD")
}

/// Removes two things: `nullable`, which is of no use to users, and formats
/// that the API server does not know.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            if fields
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                fields.remove("format");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Marks the conditions as a list with the key `type`. Server-side apply then
/// merges the conditions by type. So two writers, such as a Director's agent
/// and the controller, change only their own conditions.
fn merge_conditions_by_type(conditions: &mut Value) {
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
}

fn not_seen(kind: &str) -> Value {
    let condition = condition::pending(kind, 0);
    json!({
        "type": condition.type_,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    })
}

/// Returns the spec fields of a definition that have a default, but do not give
/// the default in their description. `kubectl explain` shows the descriptions.
pub fn unnamed_defaults(crd: &CustomResourceDefinition) -> Vec<String> {
    let crd = serde_json::to_value(crd).expect("a CRD is JSON");
    let mut unnamed = Vec::new();
    for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
        let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        find_unnamed_defaults(spec, "spec", &mut unnamed);
    }
    unnamed
}

fn find_unnamed_defaults(schema: &Value, path: &str, unnamed: &mut Vec<String>) {
    if let Some(default) = schema.get("default") {
        let wanted = match default {
            Value::String(text) => format!("Defaults to {text}."),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                format!("Defaults to {}.", items.join(", "))
            }
            other => format!("Defaults to {other}."),
        };
        let description = schema["description"].as_str().unwrap_or_default();
        let words = description.split_whitespace().collect::<Vec<_>>().join(" ");
        if !words.contains(&wanted) {
            unnamed.push(format!("{path}: {wanted}"));
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        find_unnamed_defaults(field, &format!("{path}.{name}"), unnamed);
    }
    if let Some(items) = schema.get("items") {
        find_unnamed_defaults(items, &format!("{path}[]"), unnamed);
    }
}

/// Returns the name of a definition's file in the chart.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}.yaml", crd.spec.names.plural)
}

/// Returns the YAML text of a definition's file in the chart.
pub fn yaml(crd: &CustomResourceDefinition) -> String {
    let mut crd = serde_json::to_value(crd).expect("a CRD is JSON");
    whole_numbers(&mut crd);
    let text = serde_saphyr::to_string(&crd).expect("JSON is YAML");
    format!("# Generated from the Rust types in crds/ by `make generate`.\n{text}")
}

/// Turns 65535.0 into 65535, because the definition's type holds bounds as
/// floating-point numbers.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() < 1e15
            {
                *value = json!(float as i64);
            }
        }
        _ => {}
    }
}
