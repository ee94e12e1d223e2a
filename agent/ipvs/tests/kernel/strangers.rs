//! Tests of plans for a kernel's table that contains entries of other programs.

use ipvs::{Kernel, Op, Owned, Plan, ServiceConfig, WantedTable};

use crate::{namespace::Namespace, rows::*};

#[test]
fn strangers_entries_are_left_alone() {
    Namespace::run(|mut ns| {
        ns.ipvsadm_restore(
            "-A -t 10.9.0.1:80 -s lc\n\
             -a -t 10.9.0.1:80 -r 10.9.1.1:80 -m -w 5\n",
        );
        let theirs = ns.ipvsadm_save();
        let key = tcp("10.0.0.1", 80);
        let desired = wanted([(
            key,
            scheduled(key, "rr"),
            vec![(server("10.1.0.1", 80), nat(1))],
        )]);
        let mut ours = Owned::default();
        ns.settle(&desired, &mut ours);

        // In this test, another program adds a destination to a service of
        // ours.
        ns.ipvsadm_restore("-a -t 10.0.0.1:80 -r 10.9.1.9:80 -m -w 1\n");
        let plan = ns.plan(&desired, &ours);
        assert!(plan.is_empty());
        assert_eq!(plan.strangers, [(key, server("10.9.1.9", 80))]);

        ns.settle(&WantedTable::new(), &mut ours);
        assert_eq!(ns.ipvsadm_save(), theirs);
    });
}

#[test]
fn what_is_wanted_and_was_made_by_hand_is_adopted_in_place() {
    Namespace::run(|mut ns| {
        ns.ipvsadm_restore(
            "-A -t 10.0.0.1:80 -s lc\n\
             -a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1\n\
             -a -t 10.0.0.1:80 -r 10.1.0.2:80 -m -w 5\n",
        );
        let key = tcp("10.0.0.1", 80);
        let (first, second) = (server("10.1.0.1", 80), server("10.1.0.2", 80));
        let desired = wanted([(
            key,
            scheduled(key, "wrr"),
            vec![(first, nat(1)), (second, nat(2))],
        )]);
        let mut ours = Owned::default();
        let plan = ns.settle(&desired, &mut ours);
        assert_eq!(
            plan.ops,
            [
                Op::SetService(key, scheduled(key, "wrr")),
                Op::SetDestination(key, second, nat(2)),
            ]
        );
        assert_eq!(ns.plan(&desired, &ours), Plan::default());
        ns.settle(&WantedTable::new(), &mut ours);
        assert!(ns.table().is_empty());
    });
}

#[test]
fn odd_entries_of_others_are_read_and_do_not_look_like_ours() {
    Namespace::run(|mut ns| {
        ns.ipvsadm_restore(
            "-A -t 10.0.0.1:80 -s rr -p 300 -M 255.0.255.0\n\
             -A -t 10.0.0.2:80 -s rr -p 300 -M 0.0.0.255\n",
        );
        for (key, service) in ns.table() {
            assert_eq!(service.config.prefix_length, ServiceConfig::IRREGULAR_MASK);
            let desired = wanted([(
                key,
                ServiceConfig {
                    scheduler: "rr".to_owned(),
                    ..persistent(key, 300, 24)
                },
                vec![],
            )]);
            ns.settle(&desired, &mut Owned::default());
            assert_eq!(ns.table()[&key], shown(&desired)[&key]);
        }
    });
}

#[test]
fn with_nothing_to_do_nothing_is_sent() {
    Namespace::run(|mut ns| {
        let key = tcp("10.0.0.1", 80);
        let desired = wanted([(
            key,
            scheduled(key, "rr"),
            vec![(server("10.1.0.1", 80), nat(1))],
        )]);
        let mut ours = Owned::default();
        ns.settle(&desired, &mut ours);
        assert_eq!(ns.socket.writes(), 2);
        let plan = ns.plan(&desired, &ours);
        let calls = ns.socket.system_calls();
        assert_eq!(ns.socket.apply(&plan.ops).unwrap(), []);
        assert_eq!(ns.socket.writes(), 2);
        assert_eq!(ns.socket.system_calls(), calls);
    });
}
