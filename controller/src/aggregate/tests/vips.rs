//! Tests of services whose VIP a director must hold.

use super::*;

#[test]
fn a_vip_that_nobody_holds_is_said_with_what_to_do() {
    let mut scene = Scene::new();
    let unnamed = json!([exception(
        "shop/web",
        reason::HOLDER_NOT_NAMED,
        "no holder is named"
    )]);
    for director in ["d1", "d2"] {
        scene.report(director, json!({"vips": [], "exceptions": unnamed}));
    }
    assert_eq!(
        scene.says(kind::READY),
        "False/HolderNotNamed: No director of group default holds 10.0.0.1, and the group has several. \
         Name the one that is to: kubectl patch idg default --type=merge -p \
         '{\"spec\":{\"addresses\":{\"holder\":\"NAME\"}}}'"
    );
    // The director that has the VIP keeps it, whatever the other directors
    // report.
    scene.report("d2", json!({}));
    assert!(scene.says(kind::READY).starts_with("True"));
    // When the director that has the VIP dies, no other director takes the VIP
    // by itself.
    for _ in 0..5 {
        scene.now += Duration::from_secs(10);
        scene.renew("d1");
    }
    let said = scene.says(kind::READY);
    assert!(
        said.starts_with(
            "False/HolderNotNamed: No director of group default holds 10.0.0.1, and the group has \
             several. Name the one that is to: kubectl patch idg default"
        ),
        "{said}"
    );
    assert!(
        said.ends_with("Directors without a live Lease are not counted: d2"),
        "{said}"
    );
}

#[test]
fn in_mode_manual_the_program_that_adds_the_vips_is_to_be_looked_at() {
    let mut scene = Scene::new();
    for director in ["d1", "d2"] {
        scene.report(director, json!({"vips": []}));
    }
    for addresses in [
        json!({"mode": "Manual"}),
        json!({"mode": "Manual", "holder": "d1"}),
    ] {
        scene.group(json!({"addresses": addresses}));
        let said = scene.says(kind::READY);
        assert!(said.starts_with("False/VipNotHeld: "), "{said}");
        assert!(said.contains("mode is Manual"), "{said}");
        assert!(!said.contains("holder"), "a holder has no effect: {said}");
    }
}

#[test]
fn a_holder_that_is_no_live_director_is_named() {
    let mut scene = Scene::new();
    scene.group(json!({"addresses": {"holder": "d9"}}));
    scene.report("d1", json!({"vips": []}));
    let said = scene.says(kind::READY);
    assert!(said.starts_with("False/VipNotHeld: "), "{said}");
    assert!(
        said.contains(
            "d9, the named holder, is no live director of the group: start its agent, or name \
             another one: kubectl patch idg default"
        ),
        "{said}"
    );
    assert!(said.contains(r#""holder":"d1""#), "a live one: {said}");
}

#[test]
fn a_holder_that_cannot_name_all_its_vips_is_believed_and_others_are_not() {
    let mut scene = Scene::new();
    let many = json!({"vips": [], "vipsOmitted": 1});
    scene.report("d1", many.clone());
    assert!(scene.says(kind::READY).starts_with("True"));
    scene.report("d2", json!({"vips": []}));
    assert!(
        scene
            .says(kind::READY)
            .starts_with("Unknown/VipNotHeld: Director d1 holds more VIPs")
    );
    scene.group(json!({"addresses": {"holder": "d1"}}));
    assert!(scene.says(kind::READY).starts_with("True"));
    scene.group(json!({"addresses": {"holder": "d2"}}));
    assert!(scene.says(kind::READY).starts_with("Unknown/VipNotHeld"));
}

#[test]
fn a_director_that_holds_all_vips_need_not_name_them() {
    let mut scene = Scene::new();
    let all = json!({"vips": [], "vipsHeld": "All", "vipsOmitted": 5000});
    scene.report("d1", all.clone());
    scene.report("d2", all);
    assert!(scene.says(kind::READY).starts_with("True"));
    let failed = json!({
        "vips": [],
        "vipsHeld": "All",
        "exceptions": [exception("shop/web", "VipNotHeld", "why")],
    });
    scene.report("d1", failed);
    let says = scene.says(kind::READY);
    assert!(says.starts_with("False/VipNotHeld"), "{says}");
    let none = json!({"vips": [], "vipsHeld": "Some"});
    scene.report("d1", none.clone());
    assert!(scene.says(kind::READY).starts_with("True"), "d2 holds it");
    scene.report("d2", none);
    let says = scene.says(kind::READY);
    assert!(says.starts_with("False/HolderNotNamed"), "{says}");
}

#[test]
fn a_firewall_mark_needs_no_vip() {
    let mut scene = Scene::new();
    scene.named_service("mark", json!({"vip": null, "firewallMark": {"mark": 7}}));
    scene.report("d1", json!({"vips": []}));
    let wanted = scene.wanted();
    let status = &wanted.virtual_services[&ObjectKey::new("shop", "mark")];
    assert!(said(&status.conditions, kind::READY).starts_with("True"));
}
