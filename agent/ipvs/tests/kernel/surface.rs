//! Tests that write table entries with every feature of IPVS. The tests read
//! the table back and compare it with the output of ipvsadm.

use ipvs::{
    Family, ForwardingMethod, Kernel, Op, Owned, Plan, Protocol, ServiceConfig, ServiceFlags,
    TunnelChecksum, TunnelKind, WantedTable,
};

use crate::{namespace::Namespace, rows::*};

const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
];

/// Returns a table with an entry for each IPVS feature of the kernel.
fn everything() -> WantedTable {
    let web = tcp("10.0.0.1", 80);
    let web6 = tcp("2001:db8::1", 80);
    let dns = service(Protocol::UDP, "10.0.0.1", 53);
    let sip = service(Protocol::UDP, "10.0.0.1", 5060);
    let sctp = service(Protocol::SCTP, "10.0.0.1", 9);
    let every_port = tcp("10.0.0.2", 0);
    let every_port6 = tcp("2001:db8::2", 0);
    let source_hash = tcp("10.0.0.3", 80);
    let maglev = tcp("10.0.0.4", 80);
    let nobody = tcp("10.0.0.5", 80);
    wanted([
        (
            web,
            scheduled(web, "wrr"),
            vec![
                (server("10.1.0.1", 8080), nat(0)),
                (server("10.1.0.2", 80), thresholds(nat(65535), 100, 50)),
                (server("10.1.0.3", 80), thresholds(direct(2), 7, 0)),
                (server("10.1.0.4", 80), ipip(3)),
                (
                    server("10.1.0.5", 80),
                    tunnel(TunnelKind::Gue, 6080, TunnelChecksum::None, 1),
                ),
                (
                    server("10.1.0.6", 80),
                    tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Full, 1),
                ),
                (
                    server("10.1.0.7", 80),
                    tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Remote, 1),
                ),
                (
                    server("10.1.0.8", 80),
                    tunnel(TunnelKind::Gre, 0, TunnelChecksum::None, 1),
                ),
                (
                    server("10.1.0.9", 80),
                    tunnel(TunnelKind::Gre, 0, TunnelChecksum::Full, 1),
                ),
                (server("2001:db8::a", 80), ipip(1)),
                (
                    server("2001:db8::b", 80),
                    tunnel(TunnelKind::Gue, 6080, TunnelChecksum::None, 1),
                ),
            ],
        ),
        (
            web6,
            scheduled(web6, "rr"),
            vec![
                (server("2001:db8::a", 8080), nat(1)),
                (server("2001:db8::b", 80), direct(1)),
                (server("10.1.0.1", 80), ipip(1)),
            ],
        ),
        (
            dns,
            flagged(dns, "rr", &[ServiceFlags::ONE_PACKET]),
            vec![(server("10.1.0.1", 53), nat(1))],
        ),
        (
            sip,
            ServiceConfig {
                persistence_engine: Some("sip".to_owned()),
                ..persistent(sip, 60, 32)
            },
            vec![],
        ),
        (
            sctp,
            scheduled(sctp, "wlc"),
            vec![(server("10.1.0.1", 9), nat(1))],
        ),
        (
            every_port,
            persistent(every_port, 360, 24),
            vec![(server("10.1.0.1", 0), direct(1))],
        ),
        (
            every_port6,
            persistent(every_port6, 86400, 64),
            vec![(server("2001:db8::a", 0), direct(1))],
        ),
        (
            source_hash,
            flagged(
                source_hash,
                "sh",
                &[ServiceFlags::SCHEDULER_1, ServiceFlags::SCHEDULER_2],
            ),
            vec![(server("10.1.0.1", 80), nat(1))],
        ),
        (
            maglev,
            flagged(maglev, "mh", &[ServiceFlags::SCHEDULER_1]),
            vec![(server("10.1.0.1", 80), nat(1))],
        ),
        (nobody, scheduled(nobody, ""), vec![]),
        (
            mark(Family::V4, 7),
            scheduled(mark(Family::V4, 7), "lc"),
            vec![(server("10.1.0.1", 0), direct(1))],
        ),
        (
            mark(Family::V6, 7),
            persistent(mark(Family::V6, 7), 300, 128),
            vec![
                (server("2001:db8::a", 0), direct(1)),
                (server("10.1.0.1", 0), ipip(1)),
            ],
        ),
    ])
}

/// Returns the table of `everything()` after an edit of every service and
/// destination. The edits do not change any key.
fn everything_edited() -> WantedTable {
    let mut table = everything();
    for service in table.values_mut() {
        service.config.scheduler = match service.config.scheduler.as_str() {
            "sed" => "nq".to_owned(),
            _ => "sed".to_owned(),
        };
        service.config.flags = match service.config.flags {
            ServiceFlags::PERSISTENT => ServiceFlags::default(),
            _ => ServiceFlags::PERSISTENT,
        };
        service.config.timeout += 17;
        service.config.persistence_engine = None;
        for config in service.destinations.values_mut() {
            config.weight += 1;
            config.upper_threshold += 9;
            config.method = match config.method {
                ForwardingMethod::Masquerade => ForwardingMethod::DirectRoute,
                ForwardingMethod::DirectRoute => ipip(0).method,
                ForwardingMethod::Tunnel(_) => {
                    tunnel(TunnelKind::Gue, 7070, TunnelChecksum::Full, 0).method
                }
                other => other,
            };
        }
    }
    table
}

#[test]
fn every_feature_is_written_read_back_and_seen_by_ipvsadm() {
    Namespace::run(|mut ns| {
        let mut ours = Owned::default();
        for desired in [everything(), everything_edited(), everything()] {
            ns.settle(&desired, &mut ours);
            let table = ns.table();
            assert_eq!(table, shown(&desired));
            assert_eq!(ns.ipvsadm_save(), spelled(&table));
            assert_eq!(ns.plan(&desired, &ours), Plan::default());
        }

        ns.settle(&WantedTable::new(), &mut ours);
        assert!(ns.table().is_empty());
        assert!(ours.is_empty());
    });
}

#[test]
fn what_ipvsadm_restores_from_our_spelling_is_the_same_table() {
    Namespace::run(|mut ns| {
        let desired = everything();
        ns.ipvsadm_restore(&(spelled(&shown(&desired)).join("\n") + "\n"));
        // ipvsadm -S does not save the thresholds (-x and -y).
        let mut expected = shown(&desired);
        for service in expected.values_mut() {
            for config in service.destinations.values_mut() {
                *config = thresholds(*config, 0, 0);
            }
        }
        assert_eq!(ns.table(), expected);
    });
}

#[test]
fn every_scheduler_of_the_kernel_is_taken_and_changed_in_place() {
    Namespace::run(|mut ns| {
        let key = tcp("10.0.0.1", 80);
        let servers = || vec![(server("10.1.0.1", 80), nat(1))];
        let mut ours = Owned::default();
        for scheduler in SCHEDULERS {
            let desired = wanted([(key, scheduled(key, scheduler), servers())]);
            let plan = ns.settle(&desired, &mut ours);
            let edits = plan.ops.iter().all(|op| matches!(op, Op::SetService(..)));
            assert!(edits || scheduler == SCHEDULERS[0], "{:?}", plan.ops);
            assert_eq!(ns.table(), shown(&desired), "{scheduler}");
            assert_eq!(ns.ipvsadm_save(), spelled(&shown(&desired)));
        }
    });
}

#[test]
fn one_destination_is_added_edited_and_taken_away() {
    Namespace::run(|mut ns| {
        let key = tcp("10.0.0.1", 80);
        let gue = |weight| tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Remote, weight);
        let service = |servers| wanted([(key, scheduled(key, "rr"), servers)]);
        let mut ours = Owned::default();
        let first = server("10.1.0.1", 80);
        let other_family = server("2001:db8::a", 80);

        ns.settle(&service(vec![(first, nat(1))]), &mut ours);
        let plan = ns.settle(
            &service(vec![(first, nat(1)), (other_family, gue(1))]),
            &mut ours,
        );
        assert_eq!(
            plan.ops,
            [Op::NewDestination(key, other_family, gue(1))],
            "adding"
        );
        // This edit changes the destination's weight from 1 to 9. The edit must
        // not change the destination's tunnel.
        let desired = service(vec![(first, nat(1)), (other_family, gue(9))]);
        let plan = ns.settle(&desired, &mut ours);
        assert_eq!(
            plan.ops,
            [Op::SetDestination(key, other_family, gue(9))],
            "editing"
        );
        assert_eq!(ns.table(), shown(&desired));
        let desired = service(vec![(first, nat(1))]);
        let plan = ns.settle(&desired, &mut ours);
        assert_eq!(
            plan.ops,
            [Op::DeleteDestination(key, other_family)],
            "removing"
        );
        assert_eq!(ns.table(), shown(&desired));
    });
}

#[test]
fn the_kernel_tells_its_version() {
    Namespace::run(|mut ns| {
        let info = ns.socket.info().unwrap();
        assert_eq!(info.version, (1, 2, 1));
        // Since Linux 7, a namespace has a connection table of its own, which
        // has no bucket before the first connection.
        let size = info.connection_table_size;
        assert!(
            size == 0 || size >= 256,
            "the connection table has {size} buckets"
        );
    });
}

#[test]
fn statistics_name_every_entry_and_are_zero_without_traffic() {
    Namespace::run(|mut ns| {
        let desired = everything();
        ns.settle(&desired, &mut Owned::default());
        let statistics = ns.socket.statistics().unwrap();
        let table = ns.table();
        assert!(statistics.keys().eq(table.keys()));
        for (key, service) in statistics {
            assert_eq!(service.stats, ipvs::Stats::default());
            let there = &table[&key].destinations;
            assert_eq!(service.destinations.len(), there.len(), "{key}");
            assert!(
                service
                    .destinations
                    .keys()
                    .all(|key| there.contains_key(key))
            );
        }
    });
}
