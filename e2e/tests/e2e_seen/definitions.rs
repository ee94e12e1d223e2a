//! This build's programs with definitions that have one field more, and one
//! field less.

use e2e::{
    cluster::{Cluster, PATIENCE, example, start_agent, value, wait_for_words, wait_until_ready},
    control::try_kubectl,
    course::{Course, NAT_VIP},
    eventually, kubectl, kubectl_apply,
};

use crate::screen::{expect_on_screen, expect_the_fleet_is_not_well, expect_the_fleet_is_well};

const DEFINITION: &str = "crd/ipvsvirtualservices.ipvs.dev";
const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";

fn change_definition(patch: &str) {
    kubectl(&["patch", DEFINITION, "--type=json", "-p", patch]);
}

/// Changes the spec of the VirtualService `web`.
fn patch_web(spec: &str) {
    let patch = format!(r#"{{"spec":{spec}}}"#);
    kubectl(&["patch", "ivs/web", "--type=merge", "-p", &patch]);
}

/// Sets the new field, as soon as the API server serves the new definition.
fn set_new_field() {
    eventually("the API server to take the new field", PATIENCE, || {
        patch_web(r#"{"quic":true,"scheduler":"rr"}"#);
        match value("ivs/web", ".spec.quic").as_str() {
            "true" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

#[test]
fn a_field_more_or_less_in_a_definition_is_told_and_the_rest_works() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);

    let more = format!(r#"[{{"op":"add","path":"{FIELDS}/quic","value":{{"type":"boolean"}}}}]"#);
    change_definition(&more);
    set_new_field();
    // For up to a minute after the change, the API server sends objects without
    // the new field on watches that are older than the change.
    agent.kill();
    let _agent = start_agent(&course.director, "director1");
    expect_on_screen(
        "the definitions have one field more",
        &["web", "UnknownFields", "spec.quic", "upgrade the agent"],
    );
    expect_the_fleet_is_not_well("the agent leaves out a field");
    let table = course.director.run("ipvsadm -Ln");
    assert!(table.contains(":80 rr"), "the other fields count: {table}");
    let page = course.browser().get(NAT_VIP, "/");
    page.expect("packets keep flowing");
    patch_web(r#"{"quic":null}"#);
    wait_until_ready(&["web"]);
    expect_the_fleet_is_well("the field is gone");
    change_definition(&format!(r#"[{{"op":"remove","path":"{FIELDS}/quic"}}]"#));

    let path = format!("{FIELDS}/healthCheck/properties/successThreshold");
    let field = value(DEFINITION, &path.replace("/0/", "[0]/").replace('/', "."));
    change_definition(&format!(r#"[{{"op":"remove","path":"{path}"}}]"#));
    eventually(
        "kubectl to name the field that is missing",
        PATIENCE,
        || {
            let refused = kubectl_says_of_the_example();
            match refused.contains("unknown field \"spec.healthCheck.successThreshold\"") {
                true => Ok(()),
                false => Err(refused),
            }
        },
    );
    patch_web(r#"{"scheduler":"wrr"}"#);
    wait_until_ready(&["web"]);
    wait_for_words("ivs/web", "Programmed", &["On 1 director"]);
    expect_the_fleet_is_well("the definitions have one field less");
    change_definition(&format!(
        r#"[{{"op":"add","path":"{path}","value":{field}}}]"#
    ));
}

/// Applies the health example, which has the field that is missing, and returns
/// kubectl's error.
fn kubectl_says_of_the_example() -> String {
    let manifest = example("health.yaml");
    let folder = e2e::layout::file("one-field-less.yaml");
    std::fs::write(&folder, manifest).expect("the lab's folder can be written");
    let said = try_kubectl(&["apply", "--dry-run=server", "-f", &folder.to_string_lossy()]);
    said.stderr
}
