use crds::{ObjectKey, api::VirtualServiceStatus, condition::kind};
use serde_json::{Value, json};

use super::scene::{REFUSED, Scene, below, checked, down, exception, sees, sick, unproven};

impl Scene {
    fn healthy(&mut self) -> String {
        summary(self.status())
    }

    fn server_healthy(&mut self, name: &str) -> Option<String> {
        let wanted = self.wanted();
        let status = &wanted.real_servers[&ObjectKey::new("shop", name)];
        Some(status.directors.as_ref()?.summary.clone())
    }
}

#[test]
fn a_server_that_nobody_names_is_healthy_on_every_director() {
    let mut scene = checked(&["d1", "d2"]);
    assert_eq!(scene.healthy(), "2/2");
    assert_eq!(scene.status().real_servers.unwrap().unknown, None);
    assert_eq!(
        scene.server_says("a", kind::READY),
        "True/Ready: Serves 1 virtual service; healthy on 2 of 2 directors"
    );
    assert_eq!(scene.server_healthy("a").as_deref(), Some("2/2"));
}

#[test]
fn a_server_that_one_director_sees_down_is_ready_and_not_counted() {
    let mut scene = checked(&["d1", "d2", "d3", "d4"]);
    scene.report(
        "d2",
        sees(&[sick(
            "shop/a",
            "Down",
            "HTTP 503, expected 200-299",
            &["shop/web"],
        )]),
    );
    assert_eq!(scene.healthy(), "1/2");
    assert!(scene.says(kind::READY).starts_with("True/Ready"));
    assert_eq!(
        scene.server_says("a", kind::READY),
        "True/Ready: Serves 1 virtual service; healthy on 3 of 4 directors; on d2: HTTP 503, \
         expected 200-299, for shop/web"
    );
    assert_eq!(scene.server_healthy("a").as_deref(), Some("3/4"));
    assert_eq!(scene.server_healthy("b").as_deref(), Some("4/4"));
}

#[test]
fn a_server_that_is_down_for_all_services_of_a_director_is_down_for_those_it_knows() {
    let mut scene = checked(&["d1", "d2"]);
    scene.named_service(
        "mail",
        json!({"vip": {"address": "10.0.0.1", "port": 25}, "healthCheck": {"tcpSocket": {}}}),
    );
    let down_for_all = sees(&[sick("shop/a", "Down", REFUSED, &[])]);
    for director in ["d1", "d2"] {
        scene.report(director, down_for_all.clone());
    }
    assert_eq!(scene.healthy(), "1/2");
    assert_eq!(
        scene.server_says("a", kind::READY),
        "False/Unhealthy: Behind 2 virtual services; healthy on 0 of 2 directors; on d1, d2: \
         connection refused, for all services that check it"
    );
    assert_eq!(scene.server_healthy("b").as_deref(), Some("2/2"));

    scene.named_service(
        "new",
        json!({"vip": {"address": "10.0.0.1", "port": 26}, "healthCheck": {"tcpSocket": {}}}),
    );
    let of_new = |scene: &mut Scene| {
        let wanted = scene.wanted().virtual_services;
        summary(wanted[&ObjectKey::new("shop", "new")].clone())
    };
    assert_eq!(of_new(&mut scene), "0/2?", "no director knows it");
    scene.report("d1", down_for_all);
    assert_eq!(of_new(&mut scene), "1/2");
}

#[test]
fn a_server_that_no_director_sees_healthy_is_not_ready() {
    let mut scene = checked(&["d1", "d2"]);
    for director in ["d1", "d2"] {
        scene.report(director, sees(&[down("shop/a")]));
    }
    assert_eq!(
        scene.server_says("a", kind::READY),
        "False/Unhealthy: Behind 1 virtual service; healthy on 0 of 2 directors; on d1, d2: \
         connection refused, for shop/web"
    );
}

#[test]
fn a_director_without_a_live_lease_has_no_say() {
    let mut scene = checked(&["d1", "d2"]);
    scene.report("d1", sees(&[down("shop/a"), down("shop/b")]));
    assert_eq!(scene.healthy(), "0/2");
    scene.let_die(&["d2"]);
    assert_eq!(scene.healthy(), "2/2");
    assert_eq!(scene.server_healthy("a").as_deref(), Some("1/1"));
    scene.let_die(&[]);
    assert_eq!(scene.healthy(), "0/2?");
    assert_eq!(scene.server_healthy("a"), None);
    assert!(
        scene
            .server_says("a", kind::READY)
            .starts_with("Unknown/NoDirectors: No director that should check it renews its Lease")
    );
}

#[test]
fn a_server_that_has_no_weight_is_not_counted_however_healthy() {
    let mut scene = checked(&[]);
    scene.server("a", json!({"address": "10.1.0.1", "weight": 0}));
    scene.report("d1", json!({"health": {}}));
    assert_eq!(scene.healthy(), "1/2");
    scene.server("b", json!({"address": "10.1.0.2", "weight": 0}));
    scene.report(
        "d1",
        json!({"health": {"belowMinimum": [below("shop/web")]}}),
    );
    assert!(
        scene
            .says(kind::READY)
            .starts_with("False/NoRealServers: No real server takes new connections")
    );
}

#[test]
fn a_new_server_is_not_known_before_a_director_has_it() {
    let mut scene = checked(&["d1", "d2"]);
    scene.server("c", json!({"address": "10.1.0.3"}));
    assert_eq!(scene.healthy(), "2/3?");
    assert_eq!(scene.status().real_servers.unwrap().unknown, Some(1));
    assert_eq!(
        scene.server_says("c", kind::READY),
        "Unknown/Checking: Behind 1 virtual service; healthy on 0 of 2 directors; waiting for d1, \
         d2"
    );
    // The new server c does not change the state of server a.
    assert_eq!(scene.server_healthy("a").as_deref(), Some("2/2"));
    scene.report("d1", sees(&[unproven("shop/c")]));
    assert_eq!(scene.healthy(), "2/3");
    assert_eq!(
        scene.server_says("c", kind::READY),
        "Unknown/Checking: Behind 1 virtual service; healthy on 0 of 2 directors; on d1: new: no \
         result so far, for shop/web; waiting for d2"
    );
    scene.report("d1", json!({"health": {}}));
    assert_eq!(scene.healthy(), "3/3");
    assert!(scene.server_says("c", kind::READY).starts_with(
        "True/Ready: Serves 1 virtual service; healthy on 1 of 2 directors; waiting for d2"
    ));
}

#[test]
fn a_server_with_another_address_is_a_new_one() {
    let mut scene = checked(&["d1"]);
    scene.server("a", json!({"address": "10.1.0.1", "weight": 7}));
    assert_eq!(scene.healthy(), "2/2");
    scene.server("a", json!({"address": "10.1.0.9", "weight": 7}));
    assert_eq!(scene.healthy(), "1/2?");
}

#[test]
fn what_is_known_of_servers_outlasts_edits_that_are_on_their_way() {
    let mut scene = checked(&["d1"]);
    scene.report("d1", sees(&[down("shop/a")]));
    let before = scene.wanted().real_servers;
    scene.service(json!({"healthCheck": {"httpGet": {}}, "scheduler": "rr"}));
    assert!(
        scene.says(kind::READY).starts_with("False/Programming"),
        "no director has the edit yet"
    );
    assert_eq!(scene.healthy(), "1/2");
    assert_eq!(scene.wanted().real_servers, before);
}

#[test]
fn a_check_that_is_added_changes_nothing_before_directors_have_it() {
    let mut scene = Scene::new();
    for director in ["d1", "d2"] {
        scene.report(director, json!({}));
    }
    let before = scene.wanted().real_servers;
    scene.service(json!({"healthCheck": {"tcpSocket": {}}}));
    assert_eq!(scene.wanted().real_servers, before);
    assert_eq!(scene.healthy(), "2/2");
    scene.report("d1", json!({"health": {}}));
    assert_eq!(
        scene.server_says("a", kind::READY),
        "True/Ready: Serves 1 virtual service; healthy on 1 of 1 director"
    );
}

#[test]
fn a_service_without_a_check_is_none_of_the_checks_business() {
    let mut scene = Scene::new();
    let health = json!({"health": {
        "unhealthy": [down("shop/a")],
        "belowMinimum": [below("shop/web")],
    }});
    scene.report("d1", health);
    assert_eq!(scene.healthy(), "", "no server is checked");
    assert!(scene.says(kind::READY).starts_with("True/Ready"));
    assert_eq!(
        scene.server_says("a", kind::READY),
        "True/Ready: Serves 1 virtual service"
    );
    assert_eq!(scene.server_healthy("a"), None);
}

#[test]
fn a_director_that_left_servers_out_proves_nothing_about_those_that_it_does_not_name() {
    let mut scene = checked(&["d1"]);
    let left_out = json!({"health": {"unhealthy": [down("shop/a")], "unhealthyOmitted": 1}});
    scene.report("d1", left_out);
    assert_eq!(scene.healthy(), "0/2?");
    assert_eq!(scene.status().real_servers.unwrap().unknown, Some(1));
    assert!(
        scene.says(kind::READY).starts_with("True/Ready"),
        "a service below its minimum is named"
    );
    assert!(
        scene
            .server_says("a", kind::READY)
            .starts_with("False/Unhealthy")
    );
    assert!(
        scene
            .server_says("b", kind::READY)
            .starts_with("Unknown/MoreToReport")
    );
    scene.report("d2", json!({"health": {}}));
    assert_eq!(
        scene.server_says("b", kind::READY),
        "True/Ready: Serves 1 virtual service; healthy on 1 of 2 directors; not known on d1: more \
         unhealthy servers than fit into a Director's status"
    );
    assert_eq!(scene.server_healthy("b").as_deref(), Some("1/2?"));
}

#[test]
fn a_report_that_names_objects_in_another_way_is_not_believed() {
    let mut scene = checked(&["d1"]);
    let mut entry = down("shop/a");
    entry["realServer"] = json!("shop/a");
    scene.report("d1", sees(&[entry]));
    assert!(
        scene
            .says(kind::PROGRAMMED)
            .contains("status.health of Director d1 cannot be read"),
        "{}",
        scene.says(kind::PROGRAMMED)
    );
}

#[test]
fn a_service_below_its_minimum_is_programmed_and_not_ready() {
    let mut scene = checked(&["d1", "d2", "d3"]);
    let health = json!({"health": {
        "unhealthy": [down("shop/a")],
        "belowMinimum": [below("shop/web")],
    }});
    scene.report("d2", health.clone());
    scene.report("d3", health);
    assert_eq!(
        scene.says(kind::PROGRAMMED),
        "True/Programmed: On 3 directors"
    );
    assert_eq!(
        scene.says(kind::READY),
        "False/BelowMinimum: Director d2: 1 of 4 real servers healthy (not a), 2 needed. FailOpen: \
         every server that is not drained counts as healthy. The same on 1 more director"
    );
    // The condition Ready takes its reason from the condition Programmed rather
    // than from the health check.
    let exceptions = json!([exception("shop/web", "KernelRefused", "no memory")]);
    scene.report("d1", json!({"health": {}, "exceptions": exceptions}));
    assert!(
        scene
            .says(kind::READY)
            .starts_with("False/KernelRefused: Director d1: no memory")
    );
}

#[test]
fn a_director_that_left_services_out_leaves_those_open_that_may_be_below_their_minimum() {
    let mut scene = checked(&["d1", "d2"]);
    let availability = |minimum: Value| {
        json!({
            "healthCheck": {"tcpSocket": {}},
            "availability": {"minimumHealthy": minimum},
        })
    };
    for (minimum, unhealthy, servers_left_out, status) in [
        (json!(1), vec![], 0, "True/Ready"),
        (json!(1), vec![down("shop/a")], 0, "True/Ready"),
        (json!(2), vec![down("shop/a")], 0, "Unknown/MoreToReport"),
        (json!(1), vec![], 1, "Unknown/MoreToReport"),
    ] {
        scene.service(availability(minimum.clone()));
        scene.report("d1", json!({"health": {}}));
        scene.report(
            "d2",
            json!({"health": {
                "unhealthy": unhealthy,
                "unhealthyOmitted": servers_left_out,
                "belowMinimumOmitted": 7,
            }}),
        );
        let says = scene.says(kind::READY);
        assert!(
            says.starts_with(status),
            "{minimum} {unhealthy:?} {servers_left_out}: {says}"
        );
    }
    assert_eq!(
        scene.says(kind::READY),
        "Unknown/MoreToReport: Director d2 has more services with too few healthy servers than fit \
         into its status; this may be one of them"
    );
}

#[test]
fn health_that_another_namespace_has_too_much_to_report_of_hides_nothing_here() {
    for (namespaces, healthy, status) in [
        (json!(["evil"]), "2/2", "True/Ready"),
        (json!(["shop"]), "0/2?", "Unknown/MoreToReport"),
    ] {
        let mut scene = checked(&["d1"]);
        scene.report(
            "d1",
            json!({"health": {
                "unhealthyOmitted": 1000,
                "unhealthyOmittedNamespaces": namespaces,
                "belowMinimumOmitted": 1000,
                "belowMinimumOmittedNamespaces": namespaces,
            }}),
        );
        assert_eq!(scene.healthy(), healthy, "{namespaces}");
        for says in [scene.says(kind::READY), scene.server_says("b", kind::READY)] {
            assert!(says.starts_with(status), "{namespaces}: {says}");
        }
    }
}

#[test]
fn a_service_whose_servers_are_all_new_is_not_ready_before_the_first_results() {
    let mut scene = checked(&["d1", "d2"]);
    scene.report("d2", sees(&[unproven("shop/a"), unproven("shop/b")]));
    assert_eq!(
        scene.says(kind::READY),
        "Unknown/Checking: Director d2 waits for the first results of the health check; no real \
         server is healthy there so far"
    );
    scene.report("d2", sees(&[unproven("shop/a")]));
    assert_eq!(scene.says(kind::READY), "True/Ready: On 2 directors");
}

#[test]
fn a_service_whose_minimum_is_0_is_not_ready_without_a_healthy_server() {
    let mut scene = checked(&[]);
    scene.service(json!({
        "healthCheck": {"tcpSocket": {}},
        "availability": {"minimumHealthy": "0%"},
    }));
    scene.report("d1", sees(&[down("shop/a"), down("shop/b")]));
    assert!(
        scene
            .says(kind::READY)
            .starts_with("False/Unhealthy: Director d1 has no healthy real server")
    );
}

#[test]
fn a_server_behind_several_services_is_healthy_where_it_is_so_for_each() {
    let mut scene = checked(&[]);
    scene.named_service(
        "mail",
        json!({
            "vip": {"address": "10.0.0.1", "port": 25},
            "healthCheck": {"icmp": {}},
        }),
    );
    scene.named_service("plain", json!({"vip": {"address": "10.0.0.1", "port": 7}}));
    for director in ["d1", "d2"] {
        scene.report(director, json!({"health": {}}));
    }
    scene.report(
        "d1",
        sees(&[
            sick("shop/a", "Flapping", "no answer in 2 s", &["shop/web"]),
            sick("shop/b", "Down", REFUSED, &["shop/mail", "shop/web"]),
        ]),
    );
    let wanted = scene.wanted();
    let healthy = |service| {
        let key = ObjectKey::new("shop", service);
        summary(wanted.virtual_services[&key].clone())
    };
    assert_eq!(
        (healthy("web"), healthy("mail"), healthy("plain")),
        ("0/2".to_owned(), "1/2".to_owned(), String::new())
    );
    assert_eq!(
        scene.server_says("a", kind::READY),
        "True/Ready: Serves 3 virtual services; healthy on 1 of 2 directors; on d1: flapping: no \
         answer in 2 s, for shop/web"
    );
    assert!(
        scene
            .server_says("b", kind::READY)
            .ends_with("on d1: connection refused, for shop/mail and 1 more")
    );
}

fn summary(status: VirtualServiceStatus) -> String {
    status.real_servers.unwrap().summary
}
