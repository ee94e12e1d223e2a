//! Tests that the examples in `docs/health-checks.md`, `docs/budgets.md` and
//! `examples/health.yaml` are valid.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{refusal, schema::Admission};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(path).unwrap()
}

/// Returns the YAML examples of a page.
fn pieces(page: &str) -> Vec<Value> {
    let page = read(page);
    let fences = page.split("```yaml\n").skip(1);
    let texts = fences.map(|rest| rest.split("```").next().unwrap());
    texts
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect()
}

fn assert_good(object: &Value) {
    let admission = Admission::of(object["kind"].as_str().unwrap());
    assert_eq!(admission.refusals(object, None), [""; 0], "{object:#}");
    assert_eq!(refusal(object, None), None, "{object:#}");
}

#[test]
fn each_piece_of_the_guide_is_let_pass_by_both() {
    // Each example is a part of a service's spec.
    let pieces = pieces("docs/health-checks.md");
    assert_eq!(pieces.len(), 10, "they were found");
    for piece in pieces {
        let mut service = json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "vip": {"address": "192.0.2.10", "port": 80},
                "realServerSelector": {"matchLabels": {"app": "web"}},
            },
        });
        for (field, value) in piece.as_object().unwrap() {
            service["spec"][field.as_str()] = value.clone();
        }
        assert_good(&service);
    }
}

#[test]
fn the_example_is_let_pass_by_both() {
    let example = read("examples/health.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&example).unwrap();
    assert_eq!(objects.len(), 4, "two services and two servers");
    for object in &objects {
        assert_good(object);
    }
}

#[test]
fn the_budgets_of_the_docs_are_let_pass_by_both() {
    let pieces = pieces("docs/budgets.md");
    assert!(!pieces.is_empty(), "the page has an example");
    pieces.iter().for_each(assert_good);
}
