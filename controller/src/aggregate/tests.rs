mod budgets;
mod drains;
mod health_reports;
mod partial;
mod property;
mod publishing;
mod scene;
mod summaries;
mod vips;
mod waits;

use std::time::Duration;

use crds::condition::{kind, reason};
use kube::runtime::watcher;
use serde_json::json;

use super::*;
use crate::{
    event::{Event, ObservedDirector},
    world::World,
};
use scene::{MOMENT, START, Scene, exception, parsed, said};

/// Returns the numbers of servers that get connections and of selected servers.
fn in_service(status: VirtualServiceStatus) -> (i32, i32) {
    let servers = status.real_servers.expect("the servers are counted");
    (servers.healthy, servers.selected)
}

#[test]
fn a_service_that_every_live_director_has_is_ready() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    scene.report("d2", json!({"vips": []}));
    let status = scene.status();
    assert_eq!(
        said(&status.conditions, kind::ACCEPTED),
        "True/Accepted: The object is in force"
    );
    assert_eq!(
        said(&status.conditions, kind::RESOLVED_REFS),
        "True/ResolvedRefs: 2 real servers selected"
    );
    assert_eq!(
        said(&status.conditions, kind::PROGRAMMED),
        "True/Programmed: On 2 directors"
    );
    assert_eq!(
        said(&status.conditions, kind::READY),
        "True/Ready: On 2 directors"
    );
    assert_eq!(
        status.real_servers.unwrap().summary,
        "",
        "no server is checked"
    );
    assert_eq!(status.directors.unwrap().summary, "2/2");
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(2))
    );
}

#[test]
fn a_director_that_has_not_used_an_edit_is_waited_for_by_name() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    scene.report("d2", json!({}));
    scene.service(json!({"scheduler": "rr"}));
    assert_eq!(
        scene.says(kind::PROGRAMMED),
        "False/Programming: Waiting for director d1, d2"
    );
    scene.report("d1", json!({}));
    assert_eq!(
        scene.says(kind::READY),
        "False/Programming: Waiting for director d2"
    );
    assert_eq!(scene.status().directors.unwrap().summary, "1/2");
    scene.report("d2", json!({}));
    assert_eq!(scene.says(kind::READY), "True/Ready: On 2 directors");
}

#[test]
fn a_director_whose_status_cannot_be_read_is_waited_for_and_stops_nobody() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    scene.report("d2", json!({"exceptions": {"count": 0}}));
    assert_eq!(
        scene.says(kind::READY),
        "False/Programming: Waiting for director d2. status.exceptions of Director d2 cannot be \
         read: its agent is probably newer than this controller. Upgrade the controller"
    );
    assert_eq!(scene.status().directors.unwrap().summary, "1/2");
    let group = &scene.wanted().director_groups[&ObjectKey::cluster("default")];
    assert_eq!((group.directors, group.live_directors), (2, 2));
    assert_eq!(
        said(&scene.wanted().directors["d2"], kind::ALIVE),
        "True/Alive: The agent renews its Lease"
    );
    scene.report("d2", json!({}));
    assert!(scene.says(kind::READY).starts_with("True"));
}

#[test]
fn an_edit_of_another_service_waits_for_nobody() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    assert_eq!(
        scene.says(kind::PROGRAMMED),
        "True/Programmed: On 1 director"
    );
    scene.named_service("other", json!({"vip": {"address": "10.0.0.9", "port": 80}}));
    assert_eq!(
        scene.says(kind::PROGRAMMED),
        "True/Programmed: On 1 director"
    );
}

#[test]
fn without_a_live_director_nothing_is_programmed() {
    let mut scene = Scene::new();
    assert!(
        scene
            .says(kind::PROGRAMMED)
            .starts_with("False/NoDirectors: No director of group default renews its Lease")
    );
    scene.report("d1", json!({}));
    assert!(scene.says(kind::PROGRAMMED).starts_with("True"));
    for _ in 0..5 {
        scene.now += Duration::from_secs(10);
        scene.renew("other");
    }
    let said = scene.says(kind::READY);
    assert!(said.starts_with("False/NoDirectors: "), "{said}");
    assert!(
        said.ends_with("Directors without a live Lease are not counted: d1"),
        "{said}"
    );
    let group = &scene.wanted().director_groups[&ObjectKey::cluster("default")];
    assert_eq!(
        (
            group.directors,
            group.live_directors,
            group.virtual_services
        ),
        (1, 0, 1)
    );
}

#[test]
fn a_dead_director_is_named_and_not_waited_for() {
    let mut scene = Scene::new();
    scene.report("d1", json!({"vips": []}));
    for _ in 0..5 {
        scene.now += Duration::from_secs(10);
        scene.renew("other");
    }
    scene.report("d2", json!({}));
    assert_eq!(
        scene.says(kind::PROGRAMMED),
        "True/Programmed: On 1 director. Directors without a live Lease are not counted: d1"
    );
    let wanted = scene.wanted();
    let alive = |name: &str| said(&wanted.directors[name], kind::ALIVE);
    assert!(
        alive("d1").starts_with("False/LeaseExpired: The agent has not renewed its Lease for 40 s")
    );
    assert!(
        alive("d1").contains("for 40 s, the last time at 2026-01-01T00:00:00Z. "),
        "{}",
        alive("d1")
    );
    assert_eq!(alive("d2"), "True/Alive: The agent renews its Lease");
}

#[test]
fn a_renewal_changes_nothing_but_the_life_of_a_dead_director_and_death_changes_it_again() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    assert!(scene.world.time_passed(scene.now));
    let before = scene.wanted();
    for _ in 0..5 {
        scene.now += Duration::from_secs(10);
        assert!(!scene.renew("d1") && !scene.world.time_passed(scene.now));
        assert_eq!(scene.wanted(), before);
    }
    for seconds in (10..40).step_by(10) {
        scene.now += Duration::from_secs(10);
        scene.renew("other");
        assert!(!scene.world.time_passed(scene.now), "after {seconds} s");
    }
    assert_eq!(
        scene.world.next_deadline(scene.now),
        Some(scene.now + Duration::from_secs(10))
    );
    scene.now += Duration::from_secs(10);
    assert!(scene.world.time_passed(scene.now));
    assert!(scene.says(kind::READY).starts_with("False/NoDirectors"));
    assert!(!scene.renew("d1") && scene.world.time_passed(scene.now));
    assert!(!scene.world.time_passed(scene.now));
    assert_eq!(scene.wanted(), before);
}

#[test]
fn an_exception_is_said_with_its_director_and_reason() {
    let mut scene = Scene::new();
    let exceptions = json!([exception(
        "shop/web",
        "SchedulerNotFound",
        "the kernel has no scheduler wlc: modprobe ip_vs_wlc"
    )]);
    scene.report("d1", json!({"exceptions": exceptions}));
    scene.report("d2", json!({}));
    assert_eq!(
        scene.says(kind::READY),
        "False/SchedulerNotFound: Director d1: the kernel has no scheduler wlc: modprobe ip_vs_wlc"
    );
    assert_eq!(scene.status().directors.unwrap().summary, "1/2");
}

#[test]
fn a_reason_that_is_no_word_is_replaced() {
    let mut scene = Scene::new();
    let exceptions = json!([exception("shop/web", "no such thing!", "why")]);
    scene.report("d1", json!({"exceptions": exceptions}));
    assert_eq!(
        scene.says(kind::READY),
        "False/NotProgrammed: Director d1: why"
    );
}

#[test]
fn an_exception_of_another_service_is_none_of_this_one() {
    let mut scene = Scene::new();
    let exceptions = json!([exception("shop/other", "KernelRefused", "why")]);
    scene.report("d1", json!({"exceptions": exceptions}));
    assert!(scene.says(kind::READY).starts_with("True"));
}

#[test]
fn a_director_that_left_exceptions_out_proves_nothing_about_what_it_does_not_name() {
    let mut scene = Scene::new();
    scene.report("d1", json!({"exceptionsOmitted": 1}));
    assert!(
        scene
            .says(kind::READY)
            .starts_with("Unknown/NotProgrammed: Director d1 has more to report")
    );
}

#[test]
fn a_director_that_can_do_nothing_says_why_for_every_service() {
    let mut scene = Scene::new();
    let conditions = json!([condition::director_not_programmed(
        reason::KERNEL_UNAVAILABLE,
        "the kernel has no IPVS: modprobe ip_vs",
        1
    )]);
    scene.report("d1", json!({"used": null, "conditions": conditions}));
    assert_eq!(
        scene.says(kind::READY),
        "False/KernelUnavailable: Director d1: the kernel has no IPVS: modprobe ip_vs"
    );
}

#[test]
fn a_rejected_service_is_not_programmed_and_says_what_stays_in_force() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    scene.service(json!({"scheduler": "quantum"}));
    scene.report("d1", json!({}));
    let status = scene.status();
    assert!(
        said(&status.conditions, kind::ACCEPTED).starts_with("False/Unreadable: spec.scheduler")
    );
    assert_eq!(
        said(&status.conditions, kind::PROGRAMMED),
        "False/NotProgrammed: Not accepted as it is now; its last accepted version stays in force"
    );
    assert!(said(&status.conditions, kind::READY).starts_with("False/Unreadable"));
    assert_eq!(in_service(status), (2, 2));
}

#[test]
fn a_service_that_conflicts_has_no_servers_and_no_directors() {
    let mut scene = Scene::new();
    scene.named_service("zweb", json!({}));
    scene.report("d1", json!({}));
    let wanted = scene.wanted();
    let status = &wanted.virtual_services[&ObjectKey::new("shop", "zweb")];
    assert!(said(&status.conditions, kind::READY).starts_with("False/Conflict: spec.vip"));
    assert_eq!(status.real_servers, None);
    assert_eq!(status.directors.as_ref().unwrap().programmed, 0);
    assert!(said(&status.conditions, kind::RESOLVED_REFS).starts_with("Unknown/"));
    assert_eq!(
        wanted.director_groups[&ObjectKey::cluster("default")].virtual_services,
        1
    );
}

#[test]
fn a_server_that_does_not_fit_is_named_and_the_others_serve() {
    let mut scene = Scene::new();
    scene.server("c", json!({"address": "10.1.0.1"}));
    scene.report("d1", json!({}));
    let status = scene.status();
    let refs = said(&status.conditions, kind::RESOLVED_REFS);
    assert!(
        refs.starts_with("False/DuplicateServer: RealServer shop/c"),
        "{refs}"
    );
    assert!(said(&status.conditions, kind::PROGRAMMED).starts_with("True"));
    assert_eq!(in_service(status), (2, 3));
    assert!(
        scene
            .server_says("c", kind::READY)
            .starts_with("False/DuplicateServer: VirtualService shop/web")
    );
    assert_eq!(
        scene.server_says("a", kind::READY),
        "True/Ready: Serves 1 virtual service"
    );
}

#[test]
fn a_service_without_servers_is_not_ready() {
    let mut scene = Scene::new();
    scene.service(json!({"realServerSelector": {"matchLabels": {"app": "none"}}}));
    scene.report("d1", json!({}));
    assert!(scene.says(kind::READY).starts_with("False/NoRealServers"));
    assert!(scene.says(kind::PROGRAMMED).starts_with("True"));
    assert!(
        scene
            .server_says("a", kind::READY)
            .starts_with("False/NotSelected")
    );
}

#[test]
fn a_service_whose_servers_all_have_weight_0_is_not_ready() {
    let mut scene = Scene::new();
    for (name, address) in [("a", "10.1.0.1"), ("b", "10.1.0.2")] {
        scene.server(name, json!({"address": address, "weight": 0}));
    }
    scene.report("d1", json!({}));
    assert_eq!(
        scene.says(kind::READY),
        "False/NoRealServers: No real server takes new connections: the weight of all 2 is 0. \
         Raise spec.weight of one"
    );
    assert_eq!(in_service(scene.status()), (0, 2));
}

#[test]
fn a_server_that_is_not_acceptable_any_more_makes_its_services_unprovable() {
    let mut scene = Scene::new();
    scene.server("a", json!({"address": "10.1.0.1", "weight": 70_000}));
    scene.report("d1", json!({}));
    let status = scene.status();
    assert!(
        said(&status.conditions, kind::RESOLVED_REFS).starts_with("False/RealServerNotAccepted")
    );
    let programmed = said(&status.conditions, kind::PROGRAMMED);
    assert!(
        programmed.starts_with("Unknown/RealServerNotAccepted: RealServer shop/a is not accepted"),
        "{programmed}"
    );
    assert!(
        scene
            .server_says("a", kind::ACCEPTED)
            .starts_with("False/Invalid: spec.weight")
    );
}

#[test]
fn a_deleted_group_is_said_and_nothing_is_proven_any_more() {
    let mut scene = Scene::new();
    scene.report("d1", json!({}));
    scene.delete_group();
    scene.report("d1", json!({}));
    assert!(
        scene
            .says(kind::ACCEPTED)
            .starts_with("True/DirectorGroupDeleted")
    );
    assert!(
        scene
            .says(kind::READY)
            .starts_with("Unknown/DirectorGroupDeleted: DirectorGroup default was deleted")
    );
    assert!(scene.wanted().director_groups.is_empty());
}

#[test]
fn right_after_start_a_reported_death_stands_and_the_rest_is_believed() {
    let mut scene = Scene::new();
    let dead = json!([condition::lease_expired("d1", 40, None, 1)]);
    let director: ObservedDirector = parsed(&json!({
        "metadata": {"name": "d1", "uid": "d1", "generation": 1},
        "spec": {},
        "status": {"directorGroupName": "default", "conditions": dead},
    }));
    scene
        .world
        .apply(Event::Directors(watcher::Event::Apply(director)), scene.now);
    assert!(scene.says(kind::READY).starts_with("False/NoDirectors"));
    let said = said(&scene.wanted().directors["d1"], kind::ALIVE);
    assert!(
        said.starts_with("False/NoLease: The agent has no Lease d1"),
        "{said}"
    );
    scene.renew("d1");
    assert!(scene.says(kind::READY).starts_with("False/Programming"));
}

#[test]
fn nothing_is_published_before_everything_is_listed() {
    let mut world = World::default();
    assert!(world.pass(MOMENT).letters.is_empty());
    let mut scene = Scene::new();
    scene.world.resolve();
    assert_eq!(scene.world.pass(MOMENT).letters.len(), 4);
    world.apply(Event::Leases(watcher::Event::InitDone), START);
    world.apply(Event::DirectorLeases(watcher::Event::InitDone), START);
    assert!(world.pass(MOMENT).letters.is_empty());
}
