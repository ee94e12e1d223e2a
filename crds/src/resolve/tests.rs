use serde_json::{Value, json};

use super::{by_label::ServersByLabel, *};
use crate::{
    check::Selector,
    fixtures::{Fixture, group, key, objects, resolved, server, service},
};

mod budgets;
mod grants;
mod properties;
mod room;

/// Returns the servers of a service as `address:port`, oldest first.
fn servers(resolved: &Resolved, name: &str) -> Vec<String> {
    resolved.services[&key(name)]
        .servers
        .iter()
        .map(|server| SocketAddr::new(server.address, server.port).to_string())
        .collect()
}

#[track_caller]
fn assert_rejected(resolved: &Resolved, kind: Kind, key: &ObjectKey, reason: &str, says: &[&str]) {
    let rejection = resolved.rejection(kind, key).expect("it is rejected");
    assert_eq!(rejection.reason, reason, "{}", rejection.message);
    for text in says {
        assert!(rejection.message.contains(text), "{}", rejection.message);
    }
}

#[test]
fn a_service_gets_the_servers_that_it_selects() {
    let resolved = resolved(&[
        service("web"),
        server("b", "10.1.0.2").created(1),
        server("a", "10.1.0.1").created(2).with("spec.port", 8080),
        server("other", "10.1.0.3").with("metadata.labels", json!({"app": "mail"})),
        server("far", "10.1.0.4").with("metadata.namespace", "elsewhere"),
    ]);
    assert_eq!(servers(&resolved, "web"), ["10.1.0.2:80", "10.1.0.1:8080"]);
    assert!(resolved.rejected.is_empty());
    assert!(resolved.refused.is_empty());
}

#[test]
fn the_older_of_two_services_with_one_vip_wins() {
    let both = [
        service("a").created(2),
        service("b").created(1).with("spec.vip.protocol", "TCP"),
        service("c").created(3).with("spec.vip.protocol", "UDP"),
    ];
    let resolved = resolved(&both);
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &key("a"),
        reason::CONFLICT,
        &[
            "spec.vip: 10.0.0.1:80/TCP",
            "VirtualService shop/b",
            "DirectorGroup default",
        ],
    );
    assert_eq!(
        resolved.services.keys().collect::<Vec<_>>(),
        [&key("b"), &key("c")]
    );
}

#[test]
fn of_two_services_of_one_second_the_first_by_name_wins() {
    let resolved = resolved(&[service("b"), service("a")]);
    assert!(resolved.services.contains_key(&key("a")));
    assert!(!resolved.services.contains_key(&key("b")));
}

#[test]
fn one_vip_written_in_two_ways_is_one_vip() {
    let resolved = resolved(&[
        service("a").with("spec.vip.address", "2001:db8::1"),
        service("b").with("spec.vip.address", "2001:0DB8:0:0::1"),
    ]);
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &key("b"),
        reason::CONFLICT,
        &["[2001:db8::1]:80/TCP"],
    );
}

#[test]
fn other_groups_are_no_conflict() {
    let resolved = resolved(&[
        group("edge"),
        service("a"),
        service("b").with("spec.directorGroupName", "edge"),
    ]);
    assert_eq!(resolved.services.len(), 2);
}

#[test]
fn one_mark_of_two_families_is_no_conflict() {
    let marked = |name, family| {
        service(name)
            .without("vip")
            .with("spec.firewallMark", json!({"mark": 7, "ipFamily": family}))
    };
    let resolved = resolved(&[
        marked("a", "IPv4"),
        marked("b", "IPv6"),
        marked("c", "IPv6"),
    ]);
    assert_eq!(resolved.services.len(), 2);
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &key("c"),
        reason::CONFLICT,
        &["spec.firewallMark: firewall mark 7 (IPv6)", "shop/b"],
    );
}

#[test]
fn a_group_that_was_never_seen_is_not_found() {
    let resolved = resolved(&[service("web").with("spec.directorGroupName", "edge")]);
    assert!(resolved.services.is_empty());
    assert_rejected(
        &resolved,
        Kind::VirtualService,
        &key("web"),
        reason::DIRECTOR_GROUP_NOT_FOUND,
        &["spec.directorGroupName", "DirectorGroup edge"],
    );
}

#[test]
fn a_group_that_is_gone_goes_on() {
    let mut objects = objects(&[service("web")]);
    objects
        .director_groups
        .change(crate::Change::Delete(ObjectKey::cluster("default")));
    let gone = resolve(&objects);
    assert_eq!(gone.gone_groups, ["default"]);
    assert_eq!(gone.services.len(), 1);
    group("default").apply(&mut objects);
    assert!(resolve(&objects).gone_groups.is_empty());
}

/// One row of the table: the name of the case, the service's forwarding and
/// vip, the server's forwarding, address and port, and the result. The vip is
/// null for a firewall mark. The result is the port by which the kernel knows
/// the server, or the reason why the server does not fit.
type Row<'a> = (
    &'a str,
    &'a Value,
    Value,
    &'a Value,
    &'a str,
    Option<u16>,
    Result<u16, &'a str>,
);

#[test]
fn a_server_fits_its_service_or_says_why_not() {
    let nat = json!({"method": "NAT"});
    let dr = json!({"method": "DR"});
    let tun = json!({"method": "TUN"});
    let gue = json!({"method": "TUN", "tunnel": {"type": "GUE", "port": 6080}});
    let none = Value::Null;
    let vip = |port: u16| json!({"address": "10.0.0.1", "port": port});
    let mark = Value::Null;
    let v4 = "10.1.0.1";
    let v6 = "2001:db8::1";
    #[rustfmt::skip]
    let table: [Row<'_>; 18] = [
        ("NAT, the service's port",        &nat,  vip(80),      &none, v4, None,       Ok(80)),
        ("NAT, a port of its own",         &nat,  vip(80),      &none, v4, Some(8080), Ok(8080)),
        ("NAT, every port",                &nat,  vip(0),       &none, v4, None,       Ok(0)),
        ("NAT, every port to one",         &nat,  vip(0),       &none, v4, Some(8080), Ok(8080)),
        ("NAT, a mark",                    &nat,  mark.clone(), &none, v4, None,       Ok(0)),
        ("NAT, v6 behind v4",              &nat,  vip(80),      &none, v6, None,       Err(reason::FAMILY_MISMATCH)),
        ("DR, the service's port",         &dr,   vip(80),      &none, v4, None,       Ok(80)),
        ("DR, the same port",              &dr,   vip(80),      &none, v4, Some(80),   Ok(80)),
        ("DR, another port",               &dr,   vip(80),      &none, v4, Some(8080), Err(reason::PORT_MISMATCH)),
        ("DR, every port",                 &dr,   vip(0),       &none, v4, None,       Ok(0)),
        ("DR, every port to one",          &dr,   vip(0),       &none, v4, Some(80),   Err(reason::PORT_MISMATCH)),
        ("DR, a mark and a port",          &dr,   mark,         &none, v4, Some(80),   Err(reason::PORT_MISMATCH)),
        ("DR, v6 behind v4",               &dr,   vip(80),      &none, v6, None,       Err(reason::FAMILY_MISMATCH)),
        ("TUN, v6 behind v4",              &tun,  vip(80),      &none, v6, None,       Ok(80)),
        ("GUE, another port",              &gue,  vip(80),      &none, v4, Some(8080), Err(reason::PORT_MISMATCH)),
        ("the server's replaces",          &dr,   vip(80),      &nat,  v4, Some(8080), Ok(8080)),
        ("only the server's",              &none, vip(80),      &dr,   v4, None,       Ok(80)),
        ("neither",                        &none, vip(80),      &none, v4, None,       Err(reason::NO_FORWARDING)),
    ];
    for (what, of_service, vip, of_server, address, port, expected) in table {
        let mut web = service("web")
            .with("spec.forwarding", of_service.clone())
            .with("spec.persistence", json!({}));
        web = if vip.is_null() {
            web.without("vip")
                .with("spec.firewallMark", json!({"mark": 7}))
        } else {
            web.with("spec.vip", vip)
        };
        let one = server("one", address)
            .with("spec.forwarding", of_server.clone())
            .with("spec.port", port);
        let resolved = resolved(&[web, one]);
        let found = match resolved.refused.get(&(key("web"), key("one"))) {
            Some(rejection) => Err(rejection.reason),
            None => Ok(resolved.services[&key("web")].servers[0].port),
        };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn of_two_servers_with_one_address_and_port_the_older_serves() {
    let resolved = resolved(&[
        service("web"),
        server("a", "10.1.0.1").created(2),
        server("b", "10.1.0.1").created(1).with("spec.port", 80),
        server("c", "10.1.0.1").created(3).with("spec.port", 81),
    ]);
    assert_eq!(servers(&resolved, "web"), ["10.1.0.1:80", "10.1.0.1:81"]);
    let refused = &resolved.refused[&(key("web"), key("a"))];
    assert_eq!(refused.reason, reason::DUPLICATE_SERVER);
    assert!(
        refused.message.contains("RealServer shop/b"),
        "{}",
        refused.message
    );
}

#[test]
fn a_server_that_is_refused_takes_no_address() {
    let resolved = resolved(&[
        service("web").with("spec.forwarding.method", "DR"),
        server("a", "10.1.0.1").created(1).with("spec.port", 8080),
        server("b", "10.1.0.1").created(2),
    ]);
    assert_eq!(servers(&resolved, "web"), ["10.1.0.1:80"]);
    assert_eq!(resolved.refused_by(&key("web")).count(), 1);
}

#[test]
fn a_bad_server_is_refused_where_it_is_selected() {
    let resolved = resolved(&[
        service("web"),
        server("a", "224.0.0.1"),
        server("b", "10.1.0.2"),
    ]);
    assert_eq!(servers(&resolved, "web"), ["10.1.0.2:80"]);
    assert_rejected(
        &resolved,
        Kind::RealServer,
        &key("a"),
        reason::INVALID,
        &["spec.address", "multicast"],
    );
    let refused = &resolved.refused[&(key("web"), key("a"))];
    assert_eq!(refused.reason, reason::REAL_SERVER_NOT_ACCEPTED);
    assert!(
        refused.message.contains("spec.address"),
        "{}",
        refused.message
    );
}

#[test]
fn what_stops_being_good_stays_in_force_as_it_was() {
    let good = [service("web"), server("a", "10.1.0.1")];
    let before = resolved(&good);
    let bad: [(Kind, Fixture, &str); 4] = [
        (
            Kind::VirtualService,
            good[0].clone().edited("spec.scheduler", "quantum"),
            reason::UNREADABLE,
        ),
        (
            Kind::VirtualService,
            good[0].clone().edited("spec.vip.port", 70000),
            reason::INVALID,
        ),
        (
            Kind::VirtualService,
            good[0].clone().edited("spec.vip.port", 81),
            reason::IMMUTABLE,
        ),
        (
            Kind::RealServer,
            good[1].clone().edited("spec.weight", 70000),
            reason::INVALID,
        ),
    ];
    for (kind, edit, reason) in bad {
        let mut objects = objects(&good);
        edit.apply(&mut objects);
        let after = resolve(&objects);
        assert_eq!(after.services, before.services, "{reason}");
        assert_rejected(
            &after,
            kind,
            &edit.key(),
            reason,
            &["last accepted version stays in force"],
        );
    }
}

#[test]
fn a_loser_of_a_conflict_is_not_said_to_be_in_force() {
    let loser = service("b").created(2);
    let mut objects = objects(&[service("a").created(1), loser.clone()]);
    loser
        .edited("spec.scheduler", "quantum")
        .apply(&mut objects);
    let resolved = resolve(&objects);
    let rejection = resolved.rejection(Kind::VirtualService, &key("b")).unwrap();
    assert_eq!(rejection.reason, reason::UNREADABLE);
    assert!(
        !rejection.message.contains("in force"),
        "{}",
        rejection.message
    );
}

#[test]
fn services_look_only_at_servers_with_one_of_their_labels_however_the_selector_is_written() {
    let mut all = Vec::new();
    for number in 0..300_u32 {
        let app = format!("app-{number}");
        all.push(service(&app).with("spec.vip.port", number + 1).with(
            "spec.realServerSelector",
            match number % 3 {
                0 => json!({"matchLabels": {"app": app, "tier": "web"}}),
                1 => json!({"matchExpressions": [
                    {"key": "tier", "operator": "Exists"},
                    {"key": "app", "operator": "In", "values": [app, "none"]},
                ]}),
                _ => json!({
                    "matchLabels": {"tier": "web"},
                    "matchExpressions": [{"key": app, "operator": "Exists"}],
                }),
            },
        ));
        for copy in 0..2 {
            all.push(
                server(
                    &format!("{app}-{copy}"),
                    &format!("10.1.{}.{}", number % 250, 2 * (number / 250) + copy),
                )
                .with(
                    "metadata.labels",
                    json!({"app": app, "tier": "web", &*app: "yes"}),
                ),
            );
        }
    }
    let objects = objects(&all);
    let services: Vec<_> = objects
        .virtual_services
        .iter()
        .map(|(key, stored)| (&*key.namespace, &stored.in_force().unwrap().selector))
        .collect();
    let by_label = ServersByLabel::new(
        oldest_first(objects.real_servers.iter()),
        services.iter().copied(),
    );
    let looked_at: usize = services
        .iter()
        .map(|(namespace, selector)| by_label.of(namespace, selector).len())
        .sum();
    assert_eq!(looked_at, 600);
    assert!(
        resolve(&objects)
            .services
            .values()
            .all(|service| service.servers.len() == 2)
    );
}
