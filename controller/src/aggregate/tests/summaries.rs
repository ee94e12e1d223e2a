//! Tests of what sums up the reports of directors: the holders of VIPs, and a
//! group's condition Ready.

use crds::condition::Release;
use k8s_openapi::jiff::Timestamp;

use super::*;

#[test]
fn a_service_names_the_director_that_holds_its_vip() {
    let mut scene = Scene::new();
    let holder = |scene: &mut Scene| {
        let vip = scene.status().vip.expect("the service has a VIP");
        (vip.director_name, vip.directors, vip.summary)
    };
    scene.report("d1", json!({"vips": []}));
    assert_eq!(holder(&mut scene), (None, 0, "0".to_owned()));
    scene.report("d2", json!({}));
    let d2 = (Some("d2".to_owned()), 1, "d2".to_owned());
    assert_eq!(holder(&mut scene), d2);
    scene.report("d2", json!({"vips": [], "vipsHeld": "All"}));
    assert_eq!(holder(&mut scene), d2, "it holds the VIPs of all services");
    let refused = json!([exception("shop/web", reason::VIP_TAKEN, "taken")]);
    scene.report(
        "d2",
        json!({"vips": [], "vipsHeld": "All", "exceptions": refused}),
    );
    assert_eq!(
        holder(&mut scene),
        (None, 0, "0".to_owned()),
        "it holds all VIPs but those of services in its exceptions"
    );
    scene.group(json!({"addresses": {"mode": "Dummy"}}));
    for director in ["d1", "d2"] {
        scene.report(director, json!({"vipsHeld": "All"}));
    }
    assert_eq!(holder(&mut scene), (None, 2, "2".to_owned()));
}

#[test]
fn a_group_sums_up_its_directors() {
    let mut scene = Scene::new();
    let group = |scene: &mut Scene| {
        let group = scene.wanted().director_groups[&ObjectKey::cluster("default")].clone();
        let counts = (group.programmed_directors, group.holding_removals);
        let holder = group.vips.map(|vips| vips.summary);
        (said(&group.conditions, kind::READY), counts, holder)
    };
    assert_eq!(
        group(&mut scene).0,
        "False/NoDirectors: No director is in this group: start an agent with --director-group \
         default"
    );
    let release = Release {
        group: "default",
        now: Timestamp::UNIX_EPOCH,
    };
    let conditions = |held| {
        let removals = match held {
            true => condition::removals_held(["-D -t 10.0.0.9:80"], release, 1),
            false => condition::no_removals_held(1),
        };
        json!([
            condition::director_programmed(1, 2, 1),
            removals,
            condition::health_checks_nothing(1),
            condition::sysctls_as_needed(0, 1),
        ])
    };
    scene.report("d1", json!({"conditions": conditions(false)}));
    scene.report("d2", json!({"conditions": conditions(true), "vips": []}));
    let (ready, counts, holder) = group(&mut scene);
    assert!(
        ready.starts_with("False/TooManyRemovals: Director d2: 1 removal held, and still served"),
        "{ready}"
    );
    assert_eq!((counts, holder.as_deref()), ((2, 1), Some("d1")));
    scene.report("d2", json!({"conditions": conditions(false), "vips": []}));
    assert_eq!(group(&mut scene).0, "True/Ready: 2 directors ready");
    scene.let_die(&["d1"]);
    let (ready, counts, _) = group(&mut scene);
    assert!(
        ready.starts_with("False/LeaseExpired: Director d2: The agent has not renewed its Lease"),
        "{ready}"
    );
    assert_eq!(counts, (1, 0));
}
