//! Tests that read a single service, the connection timeouts and
//! `/proc/net/ip_vs`.

use std::fs;

use ipvs::{
    ActualService, Family, Kernel, Listing, Op, ServiceFlags, Timeouts, TunnelChecksum, TunnelKind,
};

use crate::{namespace::Namespace, rows::*};

/// Reads `/proc/net/ip_vs` of this thread's network namespace.
fn listing() -> Listing {
    Listing::parse(&fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap())
}

#[test]
fn destinations_are_read_in_the_order_in_which_they_were_added() {
    Namespace::run(|mut ns| {
        let key = tcp("10.0.0.1", 80);
        // A dump of 250 servers does not fit into one datagram.
        let servers: Vec<_> = (0..250u16)
            .map(|number| server(&format!("10.1.{}.1", number * 7 % 250), 80))
            .collect();
        let mut ops = vec![Op::NewService(key, scheduled(key, "mh"))];
        ops.extend(
            servers
                .iter()
                .map(|at| Op::NewDestination(key, *at, nat(1))),
        );
        ns.accept(&ops);
        ns.accept(&[Op::DeleteDestination(key, servers[3])]);
        ns.accept(&[Op::NewDestination(key, servers[3], nat(1))]);

        let mut expected = servers.clone();
        let again = expected.remove(3);
        expected.push(again);
        assert!(ns.table()[&key].destinations.keys().eq(&expected));
        let alone = ns.socket.service(&key).unwrap().unwrap();
        assert!(alone.destinations.keys().eq(&expected));
    });
}

#[test]
fn one_service_is_read_without_the_others() {
    Namespace::run(|mut ns| {
        let (web, marked) = (tcp("10.0.0.1", 80), mark(Family::V6, 7));
        let desired = wanted([
            (
                web,
                flagged(web, "sh", &[ServiceFlags::SCHEDULER_1]),
                vec![
                    (server("10.1.0.1", 80), thresholds(nat(1), 9, 3)),
                    (
                        server("2001:db8::a", 80),
                        tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Full, 2),
                    ),
                ],
            ),
            (
                marked,
                persistent(marked, 300, 64),
                vec![(server("2001:db8::a", 0), direct(1))],
            ),
        ]);
        ns.settle(&desired, &mut Default::default());
        for (key, shown) in shown(&desired) {
            assert_eq!(ns.socket.service(&key).unwrap(), Some(shown));
        }
        for absent in [tcp("10.0.0.1", 81), mark(Family::V4, 7)] {
            assert_eq!(ns.socket.service(&absent).unwrap(), None, "{absent}");
        }
    });
}

#[test]
fn timeouts_are_read_and_those_that_are_not_0_are_set() {
    Namespace::run(|mut ns| {
        let (tcp, tcp_fin, udp) = (900, 120, 300);
        let own = Timeouts { tcp, tcp_fin, udp };
        assert_eq!(ns.socket.timeouts().unwrap(), own);
        let udp = 2_147_483;
        let change = Timeouts {
            udp,
            ..Timeouts::default()
        };
        ns.socket.set_timeouts(change).unwrap();
        assert_eq!(ns.socket.timeouts().unwrap(), Timeouts { udp, ..own });
        let too_long = Timeouts {
            tcp: u32::MAX,
            ..Timeouts::default()
        };
        let error = ns.socket.set_timeouts(too_long).unwrap_err();
        assert!(error.to_string().contains("EINVAL"), "{error}");
        assert_eq!(ns.socket.timeouts().unwrap(), Timeouts { udp, ..own });
    });
}

#[test]
fn proc_shows_every_key_and_what_of_it_was_changed() {
    Namespace::run(|mut ns| {
        let keys = [
            tcp("10.0.0.1", 80),
            service(ipvs::Protocol::UDP, "2001:db8::1", 53),
            service(ipvs::Protocol::SCTP, "10.0.0.1", 132),
            mark(Family::V4, 7),
            mark(Family::V6, 7),
            mark(Family::V6, 4_294_967_295),
        ];
        let desired = wanted(keys.map(|key| {
            let destinations = match key.family() {
                Family::V4 => vec![
                    (server("10.1.0.1", 80), nat(1)),
                    (server("10.1.0.2", 80), direct(0)),
                    (server("2001:db8::a", 80), ipip(65535)),
                ],
                Family::V6 => vec![(server("2001:db8::a", 8080), nat(3))],
            };
            (key, scheduled(key, "wrr"), destinations)
        }));
        ns.settle(&desired, &mut Default::default());
        let table = ns.table();
        for (key, service) in &table {
            assert!(listing().agrees_with(key, service), "{key}");
        }
        let unlisted = tcp("10.0.0.9", 80);
        assert!(listing().agrees_with(&unlisted, &table[&keys[0]]));

        let key = keys[0];
        let changed = |change: fn(&mut ActualService)| {
            let mut service = table[&key].clone();
            change(&mut service);
            !listing().agrees_with(&key, &service)
        };
        assert!(changed(|service| service.config.scheduler = "rr".to_owned()));
        assert!(changed(|service| service.destinations[0].weight = 2));
        assert!(changed(
            |service| service.destinations[0].method = direct(1).method
        ));
        assert!(changed(|service| service.destinations.truncate(2)));
        assert!(changed(|service| {
            service.destinations.insert(server("10.1.0.9", 80), nat(1));
        }));
        let is_shown = changed(|service| service.destinations[0].upper_threshold = 9);
        assert!(!is_shown, "/proc/net/ip_vs does not show thresholds");
    });
}
