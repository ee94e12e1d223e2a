//! Tests that admission and [`crds::Store`] refuse the same objects. In these
//! tests, the generated schema and its CEL rules take the place of the API
//! server. The end-to-end tests send the same files to a real API server.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod bounds;
mod generated;
mod guide;
mod schema;
mod unfit;

use std::{collections::BTreeMap, fs, path::Path};

use crds::{
    Change, Checked, ObjectKey, Store,
    check::{CheckedGroup, CheckedServer, CheckedService},
    crd,
};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::schema::Admission;

/// The certificate of a certificate authority, as PEM.
const AUTHORITY: &str = include_str!("../authority.pem");

fn base64(text: &str) -> String {
    let encoded = serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap();
    encoded.as_str().unwrap().to_owned()
}

/// A file of `tests/bad`: a line `# expect: PATH`, then an object that must be
/// refused for the field PATH. The file may first have an earlier version of
/// the object.
struct Case {
    name: String,
    path: String,
    before: Option<Value>,
    object: Value,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let expected = text.lines().next().unwrap().strip_prefix("# expect: ");
            Case {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                path: expected
                    .expect("the first line says what to expect")
                    .to_owned(),
                object: documents.pop().expect("there is an object"),
                before: documents.pop(),
            }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// Returns why a store refuses an object, given the object's earlier version.
pub(crate) fn refusal(object: &Value, before: Option<&Value>) -> Option<String> {
    match object["kind"].as_str() {
        Some("VirtualService") => stored::<CheckedService>(object, before),
        Some("RealServer") => stored::<CheckedServer>(object, before),
        Some("DirectorGroup") => stored::<CheckedGroup>(object, before),
        other => panic!("{other:?}"),
    }
}

fn stored<C: Checked>(object: &Value, before: Option<&Value>) -> Option<String>
where
    crds::Loose<C::Object>: serde::de::DeserializeOwned,
    <C::Object as kube::core::object::HasSpec>::Spec: std::fmt::Debug,
{
    let mut store = Store::<C>::default();
    for version in before.into_iter().chain([object]) {
        store.change(Change::Apply(
            serde_json::from_value(version.clone()).unwrap(),
        ));
    }
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let stored = store.get(&ObjectKey::new(text("namespace"), text("name")));
    let refusal = stored.unwrap().current.as_ref().err();
    refusal.map(|rejection| rejection.message.clone())
}

#[test]
fn every_bad_object_is_refused_by_both_for_the_same_field() {
    let cases = cases();
    assert!(cases.len() > 190, "only {} cases", cases.len());
    let mut admissions = BTreeMap::new();
    for case in cases {
        let Case { name, path, .. } = &case;
        let kind = case.object["kind"].as_str().unwrap();
        let admission = admissions
            .entry(kind.to_owned())
            .or_insert_with(|| Admission::of(kind));
        if let Some(before) = &case.before {
            assert_eq!(admission.refusals(before, None), [""; 0], "{name}: before");
            assert_eq!(refusal(before, None), None, "{name}: before");
        }
        let refusals = admission.refusals(&case.object, case.before.as_ref());
        assert!(!refusals.is_empty(), "{name}: admission lets it pass");
        let message = refusal(&case.object, case.before.as_ref())
            .unwrap_or_else(|| panic!("{name}: the store lets it pass"));
        assert!(
            message.starts_with(path.as_str()),
            "{name}: not about {path}: {message}"
        );
    }
}

#[test]
fn every_good_object_is_let_pass_by_both() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display();
        let object: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let admission = Admission::of(object["kind"].as_str().unwrap());
        assert_eq!(admission.refusals(&object, None), [""; 0], "{name}");
        assert_eq!(refusal(&object, None), None, "{name}");
        files += 1;
    }
    assert_eq!(files, 21);
}

#[test]
fn an_edit_that_keeps_the_identity_is_let_pass_by_both() {
    let before = json!({
        "apiVersion": "ipvs.dev/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "vip": {"address": "2001:db8::10", "port": 80},
            "realServerSelector": {"matchLabels": {"app": "web"}},
        },
    });
    let mut after = before.clone();
    after["spec"]["vip"]["address"] = json!("2001:0DB8::10");
    after["spec"]["scheduler"] = json!("mh");
    after["spec"]["vip"]["protocol"] = json!("TCP");
    after["spec"]["directorGroupName"] = json!("default");
    let admission = Admission::of("VirtualService");
    assert_eq!(admission.refusals(&after, Some(&before)), [""; 0]);
    assert_eq!(refusal(&after, Some(&before)), None);
}

#[test]
fn every_field_with_a_default_names_it_in_its_description() {
    for definition in crd::definitions() {
        let kind = &definition.spec.names.kind;
        assert_eq!(crd::unnamed_defaults(&definition), [""; 0], "{kind}");
    }
}

#[test]
fn the_charts_definitions_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ipvs-operator/crds");
    let mut expected: Vec<_> = crd::definitions().iter().map(crd::file_name).collect();
    expected.sort();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the chart has definitions: run `make generate`")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, expected, "run `make generate`");
    for definition in crd::definitions() {
        let name = crd::file_name(&definition);
        let committed = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(
            committed == crd::yaml(&definition),
            "{name} is not what the types say: run `make generate`"
        );
    }
}
