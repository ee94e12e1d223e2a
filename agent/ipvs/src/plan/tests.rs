use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    DestinationConfig, Errno, ForwardingMethod, Kernel, Protocol, ServiceConfig, ServiceFlags,
    arbitrary, model_kernel::ModelKernel,
};

fn web() -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::TCP,
        address: "192.0.2.1".parse().unwrap(),
        port: 80,
    }
}

fn dns() -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::UDP,
        address: "192.0.2.1".parse().unwrap(),
        port: 53,
    }
}

fn server(last: u8) -> DestinationKey {
    DestinationKey {
        address: [198, 51, 100, last].into(),
        port: 80,
    }
}

fn config(scheduler: &str) -> ServiceConfig {
    ServiceConfig {
        scheduler: scheduler.to_owned(),
        flags: ServiceFlags::default(),
        timeout: 0,
        prefix_length: 32,
        persistence_engine: None,
    }
}

fn weight(weight: u32) -> DestinationConfig {
    DestinationConfig {
        method: ForwardingMethod::Masquerade,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

type Rows<'a> = &'a [(ServiceKey, &'a str, &'a [(u8, u32)])];

fn wanted(rows: Rows) -> WantedTable {
    let service = |(key, scheduler, servers): &(ServiceKey, &str, &[(u8, u32)])| {
        let destinations = servers
            .iter()
            .map(|(last, value)| (server(*last), weight(*value)))
            .collect();
        let service = WantedService {
            config: config(scheduler),
            destinations,
        };
        (*key, service)
    };
    rows.iter().map(service).collect()
}

fn actual(rows: Rows) -> ActualTable {
    let service = |(key, service): (ServiceKey, WantedService)| {
        let service = ActualService {
            config: service.config,
            destinations: service.destinations,
        };
        (key, service)
    };
    wanted(rows).into_iter().map(service).collect()
}

fn owned(rows: &[(ServiceKey, &[u8])]) -> Owned {
    let services = rows
        .iter()
        .map(|(key, servers)| (*key, servers.iter().copied().map(server).collect()))
        .collect();
    Owned {
        services,
        ..Owned::default()
    }
}

/// Returns the same keys as [`owned`], with every service marked as adopted.
fn adopted(rows: &[(ServiceKey, &[u8])]) -> Owned {
    let owned = owned(rows);
    let adopted = owned.services.keys().copied().collect();
    Owned { adopted, ..owned }
}

fn spelled(plan: &Plan) -> Vec<String> {
    plan.ops.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_kernel_gets_services_with_destinations_in_the_wanted_order() {
    let plan = plan(
        &wanted(&[(web(), "wrr", &[(9, 1), (1, 2), (5, 3)])]),
        &ActualTable::new(),
        &Owned::default(),
        OnConflict::Adopt,
    );
    assert_eq!(
        spelled(&plan),
        [
            "-A -t 192.0.2.1:80 -s wrr",
            "-a -t 192.0.2.1:80 -r 198.51.100.9:80 -m -w 1",
            "-a -t 192.0.2.1:80 -r 198.51.100.1:80 -m -w 2",
            "-a -t 192.0.2.1:80 -r 198.51.100.5:80 -m -w 3",
        ]
    );
    assert_eq!(plan.adopt, Owned::default());
}

#[test]
fn what_differs_is_edited_and_what_agrees_is_left() {
    let plan = plan(
        &wanted(&[(web(), "rr", &[(1, 1), (2, 7)]), (dns(), "rr", &[(1, 1)])]),
        &actual(&[(web(), "wrr", &[(1, 1), (2, 2)]), (dns(), "rr", &[(1, 1)])]),
        &owned(&[(web(), &[1, 2]), (dns(), &[1])]),
        OnConflict::Adopt,
    );
    assert_eq!(
        spelled(&plan),
        [
            "-E -t 192.0.2.1:80 -s rr",
            "-e -t 192.0.2.1:80 -r 198.51.100.2:80 -m -w 7",
        ]
    );
}

#[test]
fn removals_come_last_and_a_deleted_service_takes_its_destinations_along() {
    let plan = plan(
        &wanted(&[(web(), "rr", &[(2, 1)])]),
        &actual(&[(dns(), "rr", &[(1, 1), (2, 1)]), (web(), "rr", &[(1, 1)])]),
        &owned(&[(dns(), &[1]), (web(), &[1])]),
        OnConflict::Adopt,
    );
    assert_eq!(
        spelled(&plan),
        [
            "-a -t 192.0.2.1:80 -r 198.51.100.2:80 -m -w 1",
            "-d -t 192.0.2.1:80 -r 198.51.100.1:80",
            "-D -u 192.0.2.1:53",
        ]
    );
}

#[test]
fn what_is_wanted_and_there_already_is_adopted_in_place() {
    let plan = plan(
        &wanted(&[(web(), "rr", &[(1, 1), (2, 5)])]),
        &actual(&[(web(), "rr", &[(1, 1), (2, 2)])]),
        &Owned::default(),
        OnConflict::Adopt,
    );
    assert_eq!(
        spelled(&plan),
        ["-e -t 192.0.2.1:80 -r 198.51.100.2:80 -m -w 5"]
    );
    assert_eq!(plan.adopt, adopted(&[(web(), &[1, 2])]));
}

#[test]
fn strangers_are_left_and_those_in_our_service_are_named() {
    let plan = plan(
        &wanted(&[(web(), "rr", &[(1, 1)])]),
        &actual(&[(web(), "rr", &[(1, 1), (66, 1)]), (dns(), "rr", &[(9, 9)])]),
        &owned(&[(web(), &[1])]),
        OnConflict::Adopt,
    );
    assert_eq!(spelled(&plan), [""; 0]);
    assert_eq!(plan.strangers, [(web(), server(66))]);
}

#[test]
fn an_adopted_service_stays_with_the_destinations_that_strangers_have_in_it() {
    let there = actual(&[(web(), "rr", &[(1, 1), (66, 1)])]);
    let unwanted = |ours: &Owned| plan(&WantedTable::new(), &there, ours, OnConflict::Adopt);

    let made = owned(&[(web(), &[1])]);
    assert_eq!(spelled(&unwanted(&made)), ["-D -t 192.0.2.1:80"]);

    let mut ours = adopted(&[(web(), &[1, 2])]);
    let first = unwanted(&ours);
    assert_eq!(spelled(&first), ["-d -t 192.0.2.1:80 -r 198.51.100.1:80"]);
    assert_eq!(first.shared, [web()]);
    assert_eq!(first.gone.destinations, [(web(), server(2))]);

    ours.services.insert(web(), [server(1), server(66)].into());
    assert_eq!(
        spelled(&unwanted(&ours)),
        ["-D -t 192.0.2.1:80"],
        "nothing in it is a stranger's"
    );
}

#[test]
fn a_conflict_is_left_if_that_is_wanted_and_what_agrees_becomes_ours() {
    let desired = wanted(&[
        (web(), "rr", &[(1, 1), (2, 5), (3, 1)]),
        (dns(), "rr", &[(1, 1)]),
    ]);
    let there = actual(&[
        (web(), "rr", &[(1, 1), (2, 2)]),
        (dns(), "wrr", &[(1, 1), (2, 1)]),
    ]);
    let leave = |owned: &Owned| plan(&desired, &there, owned, OnConflict::Leave);
    let first = leave(&Owned::default());
    assert_eq!(
        spelled(&first),
        ["-a -t 192.0.2.1:80 -r 198.51.100.3:80 -m -w 1"]
    );
    assert_eq!(first.left, [(web(), Some(server(2))), (dns(), None)]);
    assert_eq!(first.adopt, adopted(&[(web(), &[1])]));
    assert_eq!(first.strangers, []);

    let ours = leave(&owned(&[(web(), &[1, 2]), (dns(), &[1])]));
    assert_eq!(
        spelled(&ours),
        [
            "-e -t 192.0.2.1:80 -r 198.51.100.2:80 -m -w 5",
            "-a -t 192.0.2.1:80 -r 198.51.100.3:80 -m -w 1",
            "-E -u 192.0.2.1:53 -s rr",
        ],
        "our own entries are corrected in any case"
    );
}

#[test]
fn an_order_that_cannot_be_had_is_told_where_the_scheduler_goes_by_it() {
    type Servers = &'static [(u8, u32)];
    let cases: [(&str, Servers, Servers, bool); 8] = [
        ("sh", &[(1, 1), (2, 1)], &[(1, 1), (2, 1)], false),
        ("sh", &[(2, 1), (1, 1)], &[(1, 1), (2, 1)], true),
        ("mh", &[(2, 1), (1, 1)], &[(1, 1), (2, 1)], true),
        ("dh", &[(2, 1), (1, 1)], &[(1, 1), (2, 1)], true),
        ("wrr", &[(2, 1), (1, 1)], &[(1, 1), (2, 1)], false),
        // In the next two cases, the plan adds the missing destination last.
        // The result is the wanted order only in the first of the two cases.
        ("mh", &[(1, 1), (2, 1)], &[(1, 1)], false),
        ("mh", &[(2, 1), (1, 1)], &[(1, 1)], true),
        // A destination that will be removed does not affect the order.
        ("mh", &[(1, 1), (2, 1)], &[(9, 1), (1, 1), (2, 1)], false),
    ];
    for (scheduler, wish, there, told) in cases {
        let plan = plan(
            &wanted(&[(web(), scheduler, wish)]),
            &actual(&[(web(), scheduler, there)]),
            &owned(&[(web(), &[1, 2, 9])]),
            OnConflict::Adopt,
        );
        let expected: &[ServiceKey] = if told { &[web()] } else { &[] };
        assert_eq!(plan.misordered, expected, "{scheduler} {wish:?} {there:?}");
    }
}

#[test]
fn an_owned_key_that_is_nowhere_is_forgotten() {
    let mut ours = owned(&[(web(), &[1, 2]), (dns(), &[1])]);
    let plan = plan(
        &wanted(&[(web(), "rr", &[(1, 1)])]),
        &actual(&[(web(), "rr", &[(1, 1)])]),
        &ours,
        OnConflict::Adopt,
    );
    assert!(plan.is_empty());
    assert_eq!(plan.gone.services, [dns()]);
    assert_eq!(plan.gone.destinations, [(web(), server(2))]);
    ours.forget(&plan.gone);
    assert_eq!(ours, owned(&[(web(), &[1])]));
}

#[test]
fn a_service_that_the_kernel_refuses_stops_no_other() {
    let desired = wanted(&[(web(), "twos", &[(1, 1), (2, 1)]), (dns(), "rr", &[(1, 1)])]);
    let mut kernel = ModelKernel::default();
    let mut ours = Owned::default();
    round(&mut kernel, &desired, &mut ours);
    assert_eq!(kernel.table, actual(&[(dns(), "rr", &[(1, 1)])]));
    assert_eq!(ours, owned(&[(dns(), &[1])]));

    kernel.schedulers.insert("twos".to_owned());
    round(&mut kernel, &desired, &mut ours);
    assert_eq!(kernel.table.len(), 2);
    assert!(plan(&desired, &kernel.table, &ours, OnConflict::Adopt).is_empty());
}

/// Returns the table that the kernel should have after a round: the wanted
/// table and every entry of `before` that is not ours.
fn expected(desired: &WantedTable, before: &ActualTable, owned: &Owned) -> ActualTable {
    let mut table = before.clone();
    for (key, service) in &mut table {
        if !desired.contains_key(key) && owned.service(key) {
            let is_theirs = |there: &_| !owned.destination(key, there);
            service.destinations.retain(|there, _| is_theirs(there));
        }
    }
    table.retain(|key, service| {
        let stays = owned.adopted.contains(key) && !service.destinations.is_empty();
        desired.contains_key(key) || !owned.service(key) || stays
    });
    for (key, wanted) in desired {
        let mut destinations = wanted.destinations.clone();
        for (destination, config) in before.get(key).into_iter().flat_map(|s| &s.destinations) {
            if !owned.destination(key, destination) {
                destinations.entry(*destination).or_insert(*config);
            }
        }
        let config = wanted.config.clone();
        let service = ActualService {
            config,
            destinations,
        };
        table.insert(*key, service);
    }
    table
}

/// Returns our keys after a successful round: the keys of all wanted entries.
/// `wanted_keys` copies the adopted services from `ours`.
fn wanted_keys(desired: &WantedTable, ours: &Owned) -> Owned {
    let keys = |service: &WantedService| service.destinations.iter().map(|(key, _)| *key).collect();
    let services = desired
        .iter()
        .map(|(key, service)| (*key, keys(service)))
        .collect();
    let adopted = ours.adopted.clone();
    Owned { services, adopted }
}

/// Makes a plan and applies it, as a caller of this crate would, and returns
/// the plan.
fn round(kernel: &mut ModelKernel, desired: &WantedTable, ours: &mut Owned) -> Plan {
    let plan = plan(desired, &kernel.table().unwrap(), ours, OnConflict::Adopt);
    ours.adopt(&plan.adopt);
    ours.forget(&plan.gone);
    let failures = kernel.apply(&plan.ops).unwrap();
    let failed: BTreeSet<_> = failures.iter().map(|failure| failure.index).collect();
    for (index, op) in plan.ops.iter().enumerate() {
        if !failed.contains(&index) {
            ours.acknowledge(&[op]);
        }
    }
    for service in &plan.shared {
        if ours.services.get(service).is_some_and(BTreeSet::is_empty) {
            ours.remove(service, None);
        }
    }
    plan
}

proptest! {
    #[test]
    fn applying_a_plan_makes_what_is_wanted_and_then_nothing_is_left_to_do(
        desired in arbitrary::wanted_table(),
        before in arbitrary::actual_table(),
        mut ours in arbitrary::owned(),
    ) {
        let expected = expected(&desired, &before, &ours);
        let mut kernel = ModelKernel::with_table(before);
        let mut believed = kernel.table.clone();
        let first = round(&mut kernel, &desired, &mut ours);
        for op in &first.ops {
            op.apply_to(&mut believed);
        }
        prop_assert_eq!(&kernel.table, &expected);
        prop_assert_eq!(&believed, &expected);
        prop_assert_eq!(&ours, &wanted_keys(&desired, &ours));

        let second = plan(&desired, &kernel.table, &ours, OnConflict::Adopt);
        let Plan { strangers, misordered, .. } = second.clone();
        prop_assert_eq!(second, Plan { strangers, misordered, ..Plan::default() });
    }

    #[test]
    fn only_what_is_ours_is_ever_removed_and_nothing_is_removed_and_added(
        desired in arbitrary::wanted_table(),
        before in arbitrary::actual_table(),
        ours in arbitrary::owned(),
    ) {
        let plan = plan(&desired, &before, &ours, OnConflict::Adopt);
        let first_removal = plan.ops.iter().position(Op::removes).unwrap_or(plan.ops.len());
        let (additions, removals) = plan.ops.split_at(first_removal);
        prop_assert!(!additions.iter().any(Op::removes));
        prop_assert!(removals.iter().all(Op::removes));
        for op in removals {
            let service = op.service();
            prop_assert!(match op.destination() {
                Some(destination) => ours.destination(&service, &destination),
                None => ours.service(&service),
            }, "{} is not ours", op);
            let takes_all = op.destination().is_none() && ours.adopted.contains(&service);
            let mut there = before[&service].destinations.keys();
            prop_assert!(
                !takes_all || there.all(|key| ours.destination(&service, key)),
                "{} deletes a stranger's destination", op
            );
        }
        let keys: BTreeSet<_> = plan.ops.iter().map(|op| (op.service(), op.destination())).collect();
        prop_assert_eq!(keys.len(), plan.ops.len(), "at most one operation per entry");
    }

    #[test]
    fn plans_of_single_services_add_up_to_the_plan_of_all(
        desired in arbitrary::wanted_table(),
        before in arbitrary::actual_table(),
        ours in arbitrary::owned(),
    ) {
        let all = plan(&desired, &before, &ours, OnConflict::Adopt);
        let keys: BTreeSet<_> = desired.keys().chain(before.keys()).chain(ours.services.keys()).collect();
        let mut sum = Plan::default();
        let mut removals = Vec::new();
        for key in keys {
            let mut part = plan_services([key], &desired, &before, &ours, OnConflict::Adopt);
            removals.extend(part.ops.extract_if(.., |op| op.removes()));
            sum.ops.append(&mut part.ops);
            sum.adopt.adopt(&part.adopt);
            sum.gone.services.append(&mut part.gone.services);
            sum.gone.destinations.append(&mut part.gone.destinations);
            sum.shared.append(&mut part.shared);
            sum.strangers.append(&mut part.strangers);
            sum.misordered.append(&mut part.misordered);
        }
        sum.ops.append(&mut removals);
        prop_assert_eq!(sum, all);
    }

    /// In this test, operations fail at random, and other programs write to the
    /// table between rounds.
    #[test]
    fn once_failures_and_strangers_stop_the_table_is_right(
        desired in arbitrary::wanted_table(),
        before in arbitrary::actual_table(),
        mut ours in arbitrary::owned(),
        failing in vec(any::<bool>(), 1..40),
        strange in vec(stranger(), 0..8),
    ) {
        let mut kernel = ModelKernel::with_table(before);
        let mut failing = failing.into_iter().cycle();
        kernel.fail_with = Some(Box::new(move |_| failing.next().filter(|fails| *fails).map(|_| Errno::ENOMEM)));
        for op in strange {
            let untouched: Vec<_> = kernel.table.iter()
                .filter(|(key, _)| !desired.contains_key(key) && !ours.service(key))
                .map(|(key, service)| (*key, service.clone()))
                .collect();
            round(&mut kernel, &desired, &mut ours);
            for (key, service) in untouched {
                prop_assert_eq!(kernel.table.get(&key), Some(&service));
            }
            op.apply_to(&mut kernel.table);
        }

        kernel.fail_with = None;
        let expected = expected(&desired, &kernel.table, &ours);
        round(&mut kernel, &desired, &mut ours);
        prop_assert_eq!(&kernel.table, &expected);
        prop_assert_eq!(&ours, &wanted_keys(&desired, &ours));
        let writes = kernel.writes();
        round(&mut kernel, &desired, &mut ours);
        prop_assert_eq!(kernel.writes(), writes);
    }
}

fn stranger() -> impl Strategy<Value = Op> {
    let service = arbitrary::few_services;
    let config = arbitrary::few_service_configs;
    let destination = arbitrary::few_destinations;
    prop_oneof![
        (service(), config()).prop_map(|(key, config)| Op::NewService(key, config)),
        (service(), config()).prop_map(|(key, config)| Op::SetService(key, config)),
        service().prop_map(Op::DeleteService),
        (service(), destination())
            .prop_map(|(service, (key, config))| Op::NewDestination(service, key, config)),
        (service(), destination())
            .prop_map(|(service, (key, config))| Op::SetDestination(service, key, config)),
        (service(), destination())
            .prop_map(|(service, (key, _))| Op::DeleteDestination(service, key)),
    ]
}
