//! Upgrades of the definitions: by the controller that leads, and never back.

use crds::crd::SCHEMA;
use e2e::{
    Process,
    cluster::{
        Cluster, KINDS, PATIENCE, controller, example, install_the_last_definitions, start_agent,
        value, wait_for, wait_for_words, wait_until_ready,
    },
    course::{Course, another_service},
    eventually, kubectl, kubectl_apply,
};

/// Returns the schema number of each installed definition.
fn schemas() -> Vec<String> {
    let path = r".metadata.annotations.ipvs\.dev/schema";
    let names = KINDS.iter().map(|kind| format!("crd/{kind}.ipvs.dev"));
    names.map(|name| value(&name, path)).collect()
}

fn expect_schemas(expected: &str) {
    eventually(
        &format!("each definition to have schema {expected:?}"),
        PATIENCE,
        || match schemas() {
            found if found.iter().all(|found| found == expected) => Ok(()),
            found => Err(found.join(", ")),
        },
    );
}

/// Waits until a controller's log contains `words`.
fn expect_in_log(controller: &Process, words: &str) {
    eventually(
        &format!("the controller to log {words:?}"),
        PATIENCE,
        || {
            let log = controller.log();
            match log.contains(words) {
                true => Ok(()),
                false => Err(log),
            }
        },
    );
}

#[test]
fn the_controller_that_leads_upgrades_older_definitions_and_leaves_newer_ones() {
    let mut cluster = Cluster::start();
    let course = Course::nat();
    let (this, next) = (SCHEMA.to_string(), (SCHEMA + 1).to_string());
    expect_schemas(&this);
    let mut without_upgrades = controller("controller-without-upgrades");
    without_upgrades.env("IPVS_UPGRADE_DEFINITIONS", "false");
    cluster.replace_controller(&mut without_upgrades);
    install_the_last_definitions();
    expect_schemas("");
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    wait_for_words(
        "idir/director1",
        "DefinitionOlder",
        &[
            "FieldsLeftOut",
            "schema 0",
            "status.health.unhealthy without virtualServices",
        ],
    );
    wait_for("idir/director1", "Reporting", "True");

    cluster.restart_controller();
    expect_schemas(&this);
    expect_in_log(
        &cluster.controller,
        &format!("upgraded directors.ipvs.dev from schema 0 to {this}"),
    );
    wait_for("idir/director1", "DefinitionOlder", "False");
    wait_for("idir/director1", "Ready", "True");

    // A definition of a later release stays, with what this release does not
    // know.
    let newer = r#"[
        {"op": "replace", "path": "/metadata/annotations/ipvs.dev~1schema", "value": "NEXT"},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/later",
         "value": {"type": "string"}}
    ]"#;
    let directors = "crd/directors.ipvs.dev";
    let newer = newer.replace("NEXT", &next);
    kubectl(&["patch", directors, "--type=json", "-p", &newer]);
    // A definition that is missing is installed: a new release may bring a kind.
    kubectl(&["delete", "crd/directorgroupmembers.ipvs.dev"]);
    cluster.restart_controller();
    expect_in_log(
        &cluster.controller,
        &format!("directors.ipvs.dev has the newer schema {next}, and stays"),
    );
    expect_in_log(
        &cluster.controller,
        &format!("installed directorgroupmembers.ipvs.dev, schema {this}"),
    );
    let later =
        "{.spec.versions[0].schema.openAPIV3Schema.properties.status.properties.later.type}";
    let later = kubectl(&["get", directors, "-o", &format!("jsonpath={later}")]);
    assert_eq!(later, "string", "the later release's field stays");
    kubectl_apply(&another_service("after", 84));
    wait_until_ready(&["web", "after"]);
    wait_for("idir/director1", "Ready", "True");
}
