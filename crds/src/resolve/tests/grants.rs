//! Tests of the grants of a DirectorGroup, and of objects without a grant.

use super::{budgets::Everything, *};
use crate::{Loose, api::VirtualService};

/// A group with this spec.
fn granting(spec: Value) -> Fixture {
    group("default").with("spec", spec)
}

fn pool(cidr: &str, namespaces: &Value) -> Value {
    json!({"addressPools": [{"name": "pool", "cidrs": [cidr], "namespaces": namespaces}]})
}

#[track_caller]
fn assert_not_granted(resolved: &Resolved, name: &str, reason: &str, says: &[&str]) {
    assert_rejected(resolved, Kind::VirtualService, &key(name), reason, says);
    assert!(
        !resolved.services.contains_key(&key(name)),
        "{name} must not be programmed"
    );
}

#[test]
fn a_group_without_pools_grants_no_vip_and_says_how_it_would() {
    let resolved = resolved(&[granting(json!({})), service("web")]);
    assert_not_granted(
        &resolved,
        "web",
        reason::ADDRESS_NOT_GRANTED,
        &[
            "spec.vip.address: DirectorGroup default does not grant 10.0.0.1 to namespace shop",
            "kubectl patch directorgroup default --type=merge -p",
            r#"{"spec":{"addressPools":[{"cidrs":["10.0.0.1/32"],"name":"shop-10-0-0-1","namespaces":["shop"]}]}}"#,
        ],
    );
}

#[test]
fn a_vip_is_granted_to_the_namespaces_of_its_pool_and_to_no_other() {
    for (cidr, namespaces, is_granted) in [
        ("10.0.0.0/24", json!(["bank", "shop"]), true),
        ("10.0.0.1/32", json!(["shop"]), true),
        ("10.0.0.0/24", json!(["bank"]), false),
        ("10.0.0.0/24", json!(["sho", "shops"]), false),
        ("10.0.1.0/24", json!(["shop"]), false),
        ("::/0", json!(["shop"]), false),
    ] {
        let group = granting(pool(cidr, &namespaces));
        let resolved = resolved(&[group, service("web")]);
        assert_eq!(
            resolved.services.contains_key(&key("web")),
            is_granted,
            "{cidr} for {namespaces}"
        );
    }
}

#[test]
fn the_next_grant_is_added_to_the_list_that_is_there() {
    let group = granting(pool("10.9.0.0/24", &json!(["bank"])));
    let resolved = resolved(&[group, service("web")]);
    assert_not_granted(
        &resolved,
        "web",
        reason::ADDRESS_NOT_GRANTED,
        &[r#"--type=json -p '[{"op":"add","path":"/spec/addressPools/-","value":{"cidrs""#],
    );
}

#[test]
fn only_a_vip_that_is_granted_by_itself_is_meant() {
    for (cidrs, is_meant) in [
        (json!(["10.0.0.0/24"]), false),
        (json!(["10.0.0.1/32"]), true),
        (json!(["10.0.0.0/24", "10.0.0.1/32"]), true),
    ] {
        let spec = json!({"addressPools": [{"name": "pool", "cidrs": cidrs}]});
        let resolved = resolved(&[granting(spec), service("web")]);
        assert_eq!(resolved.services[&key("web")].is_meant, is_meant, "{cidrs}");
    }
}

#[test]
fn a_service_without_a_grant_takes_no_part_in_conflicts() {
    let squatter = service("squatter")
        .with("metadata.namespace", "evil")
        .created(1);
    let group = granting(pool("10.0.0.0/24", &json!(["shop"])));
    let resolved = resolved(&[group, squatter.clone(), service("web").created(2)]);
    assert!(
        resolved.services.contains_key(&key("web")),
        "the younger service is the only one with a grant"
    );
    assert!(
        resolved.ungranted.is_empty(),
        "the kernel's service is the granted object's"
    );
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &squatter.key(),
        reason::ADDRESS_NOT_GRANTED,
        &["namespace evil"],
    );
}

#[test]
fn of_services_without_a_grant_the_oldest_is_the_one_that_a_director_may_still_serve() {
    let group = granting(json!({}));
    let objects = objects(&[
        group,
        service("young").created(2),
        service("old").created(1),
        server("a", "10.1.0.1"),
    ]);
    assert!(
        resolve(&objects).ungranted.is_empty(),
        "no director serves it"
    );
    let resolved = resolve_for(&objects, &Everything);
    let ungranted: Vec<_> = resolved.ungranted.keys().collect();
    assert_eq!(ungranted, [&key("old")]);
    assert_eq!(resolved.ungranted[&key("old")].servers.len(), 1);
}

#[test]
fn marks_need_a_grant_and_kube_proxys_are_never_granted() {
    let mark = |mark: u32| {
        service("web")
            .without("vip")
            .with("spec.firewallMark", json!({"mark": mark}))
    };
    let range = |first: u32, last: u32| {
        granting(json!({
            "firewallMarks": [
                {"name": "range", "first": first, "last": last, "namespaces": ["shop"]},
            ],
        }))
    };
    let all = || range(1, u32::MAX);
    for (group, service, is_granted) in [
        (granting(json!({})), mark(7), false),
        (range(7, 7), mark(7), true),
        (range(8, 9), mark(7), false),
        (range(8, 9), mark(9), true),
        (all(), mark(7).with("metadata.namespace", "bank"), false),
        (all(), mark(u32::MAX), true),
        (all(), mark(0x4000), false),
        (all(), mark(0x8000), false),
    ] {
        let resolved = resolved(&[group, service.clone()]);
        assert_eq!(
            resolved.services.contains_key(&service.key()),
            is_granted,
            "{service:?}"
        );
        if !is_granted {
            let rejection = resolved.rejection(Kind::VirtualService, &service.key());
            assert_eq!(
                rejection.expect("it is rejected").reason,
                reason::MARK_NOT_GRANTED
            );
        }
    }
}

#[test]
fn a_server_without_a_grant_is_refused_and_the_others_serve() {
    let resolved = resolved(&[
        service("web"),
        server("a", "10.1.0.1"),
        server("cloud", "169.254.169.254"),
        server("local", "127.0.0.1"),
    ]);
    assert_eq!(servers(&resolved, "web"), ["10.1.0.1:80"]);
    let web = key("web");
    let refused: Vec<_> = resolved.refused_by(&web).collect();
    assert_eq!(refused.len(), 2);
    for (server, rejection) in refused {
        assert_eq!(rejection.reason, reason::ADDRESS_NOT_GRANTED, "{server}");
    }
    let ungranted = &resolved.services[&key("web")].ungranted;
    assert_eq!(
        ungranted.len(),
        2,
        "a director that serves them already goes on"
    );
}

#[test]
fn a_list_of_server_addresses_replaces_the_default() {
    let spec = json!({
        "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}],
        "realServerAddresses": [
            {"name": "shops", "cidrs": ["10.1.0.0/24"], "namespaces": ["shop"]},
            {"name": "local", "cidrs": ["127.0.0.1/32"]},
        ],
    });
    let resolved = resolved(&[
        granting(spec),
        service("web"),
        server("a", "10.1.0.1").created(1),
        server("b", "10.2.0.1").created(2),
        server("local", "127.0.0.1").created(3),
    ]);
    assert_eq!(servers(&resolved, "web"), ["10.1.0.1:80", "127.0.0.1:80"]);
    let service = &resolved.services[&key("web")];
    assert!(service.servers.iter().all(|server| server.is_listed));
    let refused = (key("web"), key("b"));
    let rejection = resolved.refused.get(&refused).expect("b is refused");
    assert!(
        rejection.message.contains("/spec/realServerAddresses/-"),
        "{}",
        rejection.message
    );
}

#[test]
fn a_sorry_server_without_a_grant_rejects_the_service() {
    let service = service("web")
        .with("spec.healthCheck", json!({"tcpSocket": {}}))
        .with(
            "spec.availability",
            json!({"belowMinimum": {
                "action": "SorryServer",
                "sorryServer": {"address": "169.254.169.254"},
            }}),
        );
    assert_not_granted(
        &resolved(&[service]),
        "web",
        reason::ADDRESS_NOT_GRANTED,
        &["spec.availability.belowMinimum.sorryServer.address: 169.254.169.254"],
    );
}

#[test]
fn objects_from_files_need_no_grant_and_objects_of_the_api_beside_them_do() {
    let mut objects = objects(&[granting(json!({})), service("api")]);
    let mut typed: VirtualService = service("file").with("spec.vip.port", 81).read();
    typed.metadata.namespace = Some("shop".into());
    objects
        .virtual_services
        .change(crate::Change::Apply(Loose::from_file(&typed)));
    let resolved = resolve(&objects);
    assert!(resolved.services.contains_key(&key("file")));
    assert!(!resolved.services.contains_key(&key("api")));
}

#[test]
fn a_group_that_was_never_accepted_grants_nothing() {
    let pools = json!([{"name": "pool", "cidrs": ["10.0.0.1/8"]}]);
    let broken = group("edge").with("spec.addressPools", pools);
    let service = service("web").with("spec.directorGroupName", "edge");
    assert_not_granted(
        &resolved(&[broken, service]),
        "web",
        reason::ADDRESS_NOT_GRANTED,
        &["DirectorGroup edge was never accepted"],
    );
}
