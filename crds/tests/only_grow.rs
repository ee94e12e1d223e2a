//! Compares the definitions with those of the last release, in the folder
//! `released`. Within v1alpha1 schemas only grow, so that every object stays
//! valid, and older programs work with newer definitions. After a release, copy
//! the chart's definitions into the folder.

use std::{fs, path::Path};

use crds::{crd, installed::Installed};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

/// The limits of a schema that refuse what is lower.
const LOWEST: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
/// The limits of a schema that refuse what is higher.
const HIGHEST: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// The parts of a schema that no release may change.
const FIXED: [&str; 8] = [
    "type",
    "format",
    "pattern",
    "default",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
];

fn released(name: &str) -> CustomResourceDefinition {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released");
    let text = fs::read_to_string(folder.join(name)).expect("a definition of the last release");
    serde_saphyr::from_str(&text).expect("YAML of a definition")
}

/// Returns the spec of a definition, without the descriptions.
fn spec(definition: &CustomResourceDefinition) -> Value {
    without_descriptions(json!(definition.spec))
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    let version = &spec(definition)["versions"][0];
    assert_eq!(version["name"], json!(crd::VERSION));
    version["schema"]["openAPIV3Schema"].clone()
}

/// Removes the descriptions, which every release may change.
fn without_descriptions(schema: Value) -> Value {
    match schema {
        Value::Object(parts) => {
            let is_text = |name: &str, part: &Value| name == "description" && part.is_string();
            let parts = parts
                .into_iter()
                .filter(|(name, part)| !is_text(name, part));
            let parts = parts.map(|(name, part)| (name, without_descriptions(part)));
            Value::Object(parts.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(without_descriptions).collect(),
        other => other,
    }
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.map(Value::to_string).collect()
}

/// Collects what the schema `new` refuses although `old` allowed it.
fn compare(old: &Value, new: &Value, path: &str, breaks: &mut Vec<String>) {
    for part in FIXED {
        if old.get(part) != new.get(part) {
            breaks.push(format!("{path}: another {part}"));
        }
    }
    let number = |schema: &Value, limit: &str| schema[limit].as_f64();
    for limit in LOWEST {
        let before = number(old, limit).unwrap_or(f64::NEG_INFINITY);
        if number(new, limit).is_some_and(|now| now > before) {
            breaks.push(format!("{path}: a higher {limit}"));
        }
    }
    for limit in HIGHEST {
        let before = number(old, limit).unwrap_or(f64::INFINITY);
        if number(new, limit).is_some_and(|now| now < before) {
            breaks.push(format!("{path}: a lower {limit}"));
        }
    }
    match (old.get("enum"), new.get("enum")) {
        (_, None) => {}
        (None, Some(_)) => breaks.push(format!("{path}: an enum")),
        (Some(before), Some(now)) => {
            let allowed = texts(now);
            let gone = texts(before).into_iter();
            let gone = gone.filter(|value| !allowed.contains(value));
            breaks.extend(gone.map(|value| format!("{path}: no longer {value}")));
        }
    }
    let required = texts(&old["required"]);
    let newly = texts(&new["required"]).into_iter();
    let newly = newly.filter(|name| !required.contains(name));
    breaks.extend(newly.map(|name| format!("{path}: {name} became required")));
    let rules = |schema: &Value| {
        let rules = schema["x-kubernetes-validations"].as_array().cloned();
        let rules = rules.unwrap_or_default().into_iter();
        rules
            .map(|rule| rule["rule"].to_string())
            .collect::<Vec<_>>()
    };
    let known = rules(old);
    let more = rules(new).into_iter().filter(|rule| !known.contains(rule));
    breaks.extend(more.map(|rule| format!("{path}: a new rule {rule}")));
    for (name, old) in old["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match new["properties"].get(name) {
            Some(new) => compare(old, new, &path, breaks),
            None => breaks.push(format!("{path} is gone")),
        }
    }
    for part in ["items", "additionalProperties"] {
        match (old.get(part), new.get(part)) {
            (Some(old), Some(new)) => compare(old, new, &format!("{path}[]"), breaks),
            (None, None) => {}
            _ => breaks.push(format!("{path}: other {part}")),
        }
    }
}

fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut breaks = Vec::new();
    compare(old, new, "", &mut breaks);
    breaks
}

#[test]
fn what_the_last_release_accepted_is_still_valid() {
    for definition in crd::definitions() {
        let name = crd::file_name(&definition);
        let found = breaks(&schema(&released(&name)), &schema(&definition));
        assert_eq!(
            found, [""; 0],
            "{name} refuses what the last release accepted"
        );
    }
}

#[test]
fn a_definition_that_changed_since_the_last_release_has_a_higher_number() {
    for definition in crd::definitions() {
        let name = crd::file_name(&definition);
        let before = released(&name);
        let is_same = spec(&before) == spec(&definition);
        assert!(
            is_same || crd::schema_of(&before) < crd::schema_of(&definition),
            "{name} has changed: add one to SCHEMA in crds/src/schema.rs"
        );
    }
}

#[test]
fn a_failed_server_that_the_last_release_cannot_hold_counts_as_omitted() {
    let installed = Installed::of(&released("directors.yaml"));
    let server = json!({
        "realServer": {"namespace": "default", "name": "web1"},
        "state": "Unhealthy",
        "message": "it fails for all of its services, which are not listed",
        "since": "2026-11-30T12:00:00Z",
    });
    let mut status = json!({
        "directorGroupName": "default",
        "health": {"unhealthy": [server], "unhealthyOmittedNamespaces": ["shop"]},
    });
    installed.cut(&mut status);
    assert_eq!(
        status,
        json!({
            "directorGroupName": "default",
            "health": {"unhealthy": [], "unhealthyOmitted": 1},
        })
    );
}

#[test]
fn each_kind_of_break_is_found() {
    let old = json!({
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "integer", "minimum": 1, "maximum": 9},
            "b": {"type": "string", "enum": ["x", "y"]},
            "c": {"type": "array", "items": {"type": "object", "properties": {"d": {}}}},
        },
    });
    let changed = |pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a path");
        new.pointer_mut(parent).expect("a parent")[name] = value;
        breaks(&old, &new)
    };
    for (pointer, value) in [
        ("/type", json!("string")),
        ("/required", json!(["a", "b"])),
        ("/properties/a/minimum", json!(2)),
        ("/properties/a/maximum", json!(8)),
        ("/properties/a/enum", json!([1, 2])),
        ("/properties/b/enum", json!(["x"])),
        ("/properties/b/pattern", json!("^x")),
        ("/properties/c/maxItems", json!(3)),
        ("/properties/c/items/required", json!(["d"])),
        ("/properties/c/items/properties", json!({})),
        (
            "/properties",
            json!({"a": old["properties"]["a"], "b": old["properties"]["b"]}),
        ),
        (
            "/properties/a/x-kubernetes-validations",
            json!([{"rule": "self > 3"}]),
        ),
    ] {
        let found = changed(pointer, value);
        assert_eq!(found.len(), 1, "of {pointer}: {found:?}");
    }
    for (pointer, value) in [
        ("/required", json!([])),
        ("/properties/a/minimum", json!(0)),
        ("/properties/a/maximum", json!(10)),
        ("/properties/b/enum", json!(["x", "y", "z"])),
        ("/properties/e", json!({"type": "string"})),
        ("/description", json!("in other words")),
    ] {
        assert_eq!(changed(pointer, value), [""; 0], "of {pointer}");
    }
}
