//! Tests of two cases: a director's status leaves out entries of a namespace,
//! or a group's budgets leave out servers.

use super::*;

#[test]
fn exceptions_that_another_namespace_has_too_many_of_hide_nothing_here() {
    let mut scene = Scene::new();
    for (namespaces, status) in [
        (json!(["evil"]), "True/Ready"),
        (json!(["evil", "shop"]), "Unknown/NotProgrammed"),
        (json!([]), "Unknown/NotProgrammed"),
    ] {
        let left_out = json!({
            "exceptions": [exception("evil/web", "KernelRefused", "why")],
            "exceptionsOmitted": 4800,
            "exceptionsOmittedNamespaces": namespaces,
        });
        scene.report("d1", left_out);
        let says = scene.says(kind::READY);
        assert!(says.starts_with(status), "{namespaces}: {says}");
    }
}

#[test]
fn vips_that_another_namespace_has_too_many_of_hide_nothing_here() {
    let mut scene = Scene::new();
    for (namespaces, status) in [
        (json!(["evil"]), "False/HolderNotNamed"),
        (json!(["shop"]), "Unknown/VipNotHeld"),
    ] {
        let left_out = json!({
            "vips": [],
            "vipsOmitted": 4000,
            "vipsOmittedNamespaces": namespaces,
        });
        scene.report("d1", left_out.clone());
        scene.report("d2", left_out);
        let says = scene.says(kind::READY);
        assert!(says.starts_with(status), "{namespaces}: {says}");
    }
}

#[test]
fn a_server_that_a_budget_leaves_out_says_so_and_its_service_counts_it() {
    let mut scene = Scene::new();
    scene.group(json!({"budgets": {"serversPerService": 1}}));
    scene.report("d1", json!({}));
    let says = scene.says(kind::READY);
    assert!(
        says.starts_with("False/BudgetExceeded: RealServer shop/b: spec.realServerSelector: "),
        "{says}"
    );
    assert!(scene.says(kind::PROGRAMMED).starts_with("True"));
    let counts = scene.status().real_servers.unwrap();
    assert_eq!((counts.selected, counts.healthy), (2, 1));
    assert!(
        scene
            .server_says("a", kind::READY)
            .starts_with("True/Ready")
    );
    assert!(
        scene
            .server_says("b", kind::READY)
            .starts_with("False/BudgetExceeded")
    );
}

#[test]
fn a_service_that_a_budget_cuts_waits_for_every_object_of_its_namespace() {
    let mut scene = Scene::new();
    scene.group(json!({"budgets": {"serversPerService": 1}}));
    scene.report("d1", json!({}));
    assert!(scene.says(kind::PROGRAMMED).starts_with("True"));
    // Once server c exists, the budget may leave out other servers.
    scene.server("c", json!({"address": "10.1.0.3"}));
    assert!(
        scene
            .says(kind::PROGRAMMED)
            .starts_with("False/Programming")
    );
    scene.report("d1", json!({}));
    assert!(scene.says(kind::PROGRAMMED).starts_with("True"));
}
