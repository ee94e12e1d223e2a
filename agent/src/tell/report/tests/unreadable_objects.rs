//! Tests of the exceptions for objects that this build cannot read.

use crds::{Change, Objects, Store, resolve};
use serde_json::{Value, json};

use super::super::unreadable;

fn service(name: &str, second: u8, scheduler: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        },
        "spec": {
            "vip": {"address": "192.0.2.10", "port": 80},
            "scheduler": scheduler,
            "forwarding": {"method": "NAT"},
            "realServerSelector": {"matchLabels": {"app": "web"}},
        },
    })
}

fn server(weight: &Value) -> Value {
    json!({
        "metadata": {
            "name": "a", "namespace": "shop", "uid": "a", "labels": {"app": "web"},
        },
        "spec": {"address": "198.51.100.1", "weight": weight},
    })
}

fn apply<C: crds::Checked>(store: &mut Store<C>, object: &Value)
where
    crds::Loose<C::Object>: serde::de::DeserializeOwned,
    <C::Object as kube::core::object::HasSpec>::Spec: std::fmt::Debug,
{
    store.change(Change::Apply(
        serde_json::from_value(object.clone()).expect("metadata is good"),
    ));
}

fn world() -> Objects {
    let mut objects = Objects::default();
    let pools = json!([{"name": "all", "cidrs": ["0.0.0.0/0"]}]);
    let group = json!({
        "metadata": {"name": "default", "uid": "g"},
        "spec": {"addressPools": pools},
    });
    apply(&mut objects.director_groups, &group);
    apply(&mut objects.virtual_services, &service("web", 1, "rr"));
    apply(&mut objects.real_servers, &server(&json!(1)));
    objects
}

/// Returns the service, the server and the reason of each exception.
fn exceptions(objects: &Objects) -> Vec<(String, Option<String>, String)> {
    unreadable(objects, &resolve(objects), "default")
        .into_iter()
        .map(|found| {
            let server = found.real_server.map(|server| server.to_string());
            (found.virtual_service.to_string(), server, found.reason)
        })
        .collect()
}

#[test]
fn a_server_that_serves_on_with_its_last_good_version_is_reported() {
    let mut objects = world();
    assert_eq!(exceptions(&objects), [], "all can be read");
    apply(&mut objects.real_servers, &server(&json!("heavy")));
    let expected = (
        "shop/web".to_owned(),
        Some("shop/a".to_owned()),
        "Unreadable".to_owned(),
    );
    assert_eq!(exceptions(&objects), [expected]);
}

#[test]
fn a_service_that_loses_its_vip_to_one_that_cannot_be_read_is_reported() {
    let mut objects = world();
    apply(&mut objects.virtual_services, &service("rival", 2, "rr"));
    assert_eq!(
        exceptions(&objects),
        [],
        "the controller sees that conflict too"
    );
    apply(&mut objects.virtual_services, &service("web", 1, "quantum"));
    let of = |name: &str, reason: &str| (format!("shop/{name}"), None, reason.to_owned());
    assert_eq!(
        exceptions(&objects),
        [of("web", "Unreadable"), of("rival", "Conflict")]
    );
}

#[test]
fn what_a_budget_leaves_out_is_reported_while_the_namespace_has_an_object_that_cannot_be_read() {
    let mut objects = world();
    let group = json!({
        "metadata": {"name": "default", "uid": "g"},
        "spec": {
            "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}],
            "budgets": {"perNamespace": {"services": 1}},
        },
    });
    apply(&mut objects.director_groups, &group);
    let mut newer = service("newer", 2, "rr");
    newer["spec"]["vip"]["port"] = json!(81);
    apply(&mut objects.virtual_services, &newer);
    assert_eq!(exceptions(&objects), [], "the controller leaves it out too");
    // Only agents know that the last good version of `web` is still in force.
    apply(&mut objects.virtual_services, &service("web", 1, "quantum"));
    let of = |name: &str, reason: &str| (format!("shop/{name}"), None, reason.to_owned());
    assert_eq!(
        exceptions(&objects),
        [of("web", "Unreadable"), of("newer", "BudgetExceeded")]
    );
}

#[test]
fn fields_of_a_newer_version_are_reported_although_the_objects_are_used() {
    let mut objects = world();
    let mut newer = service("web", 1, "rr");
    newer["spec"]["quic"] = json!(true);
    apply(&mut objects.virtual_services, &newer);
    let mut newer = server(&json!(1));
    newer["spec"]["region"] = json!("north");
    apply(&mut objects.real_servers, &newer);
    let of = |server: Option<&str>| {
        let server = server.map(str::to_owned);
        ("shop/web".to_owned(), server, "UnknownFields".to_owned())
    };
    assert_eq!(exceptions(&objects), [of(None), of(Some("shop/a"))]);
    let found = unreadable(&objects, &resolve(&objects), "default");
    let words: Vec<_> = found.iter().map(|found| &*found.message).collect();
    assert!(words[0].contains("does not know spec.quic"), "{words:?}");
    assert!(words[1].contains("spec.region"), "{words:?}");
}
