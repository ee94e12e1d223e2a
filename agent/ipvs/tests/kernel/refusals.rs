//! Tests that the kernel refuses invalid operations, that this crate explains
//! the refusals, and that the model of the kernel refuses the same operations.

use std::{env, os::unix::process::CommandExt, process::Command};

use ipvs::{
    DestinationConfig, DestinationKey, Errno, Error, Failure, Family, Kernel, Meaning, Op,
    Protocol, ServiceConfig, ServiceFlags, ServiceKey, Socket, TunnelChecksum, TunnelKind,
    model_kernel::ModelKernel,
};
use proptest::{
    collection::vec, option, prelude::*, sample::select, strategy::ValueTree,
    test_runner::TestRunner,
};

use crate::{namespace::Namespace, rows::*};

#[test]
fn a_scheduler_that_the_kernel_does_not_have_is_named() {
    Namespace::run(|mut ns| {
        let key = tcp("10.0.0.1", 80);
        for scheduler in ["twos", "nonesuch"] {
            let op = Op::NewService(key, scheduled(key, scheduler));
            let failures = ns.apply(std::slice::from_ref(&op));
            match failures.as_slice() {
                // Some kernels have the scheduler twos.
                [] if scheduler == "twos" => ns.accept(&[Op::DeleteService(key)]),
                [failure] => {
                    assert_eq!(failure.errno, Errno::ENOENT);
                    assert_eq!(failure.errno.meaning(&op), Meaning::NotInThisKernel);
                    let text = failure.errno.explain(&op);
                    assert!(
                        text.contains(&format!("modprobe ip_vs_{scheduler}")),
                        "{text}"
                    );
                }
                others => panic!("{scheduler}: {others:?}"),
            }
        }
    });
}

#[test]
fn a_failed_edit_leaves_the_service_as_it_was() {
    Namespace::run(|mut ns| {
        let key = tcp("10.0.0.1", 80);
        let desired = wanted([(
            key,
            persistent(key, 60, 24),
            vec![(server("10.1.0.1", 80), nat(1))],
        )]);
        ns.settle(&desired, &mut ipvs::Owned::default());
        let failures = ns.apply(&[Op::SetService(key, scheduled(key, "nonesuch"))]);
        assert_eq!(failures.len(), 1);
        assert_eq!(ns.table(), shown(&desired));
    });
}

#[test]
fn without_the_capability_the_error_says_which() {
    const AS_NOBODY: &str = "IPVS_TEST_AS_NOBODY";
    if env::var_os(AS_NOBODY).is_some() {
        let error = Socket::open().unwrap_err();
        assert!(matches!(error, Error::NotPermitted), "{error:?}");
        println!("{error}");
        return;
    }
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "--nocapture"])
        .arg("refusals::without_the_capability_the_error_says_which")
        .env(AS_NOBODY, "yes")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    assert!(text.contains("CAP_NET_ADMIN is needed"), "{text}");
}

/// Generates a value of `good` in 11 of 12 cases, and a value of `bad`
/// otherwise. The kernel refuses the values of `bad`.
fn mostly<T: Clone + std::fmt::Debug + 'static>(good: &[T], bad: &[T]) -> BoxedStrategy<T> {
    prop_oneof![11 => select(good.to_vec()), 1 => select(bad.to_vec())].boxed()
}

fn keys() -> impl Strategy<Value = ServiceKey> {
    select(vec![
        tcp("10.0.0.1", 80),
        tcp("10.0.0.1", 0),
        service(Protocol(300), "0.0.0.0", 1),
        tcp("2001:db8::1", 80),
        mark(Family::V4, 7),
        mark(Family::V6, 7),
    ])
}

fn configs() -> impl Strategy<Value = ServiceConfig> {
    (
        mostly(&["rr", "mh", ""], &["nonesuch", "a-name-longer-than-15"]),
        any::<u8>(),
        0..100u32,
        mostly(&[1, 24, 32], &[0u8]),
        option::weighted(0.2, mostly(&["sip"], &["nope"])),
    )
        .prop_map(
            |(scheduler, flags, timeout, prefix_length, engine)| ServiceConfig {
                scheduler: scheduler.to_owned(),
                flags: ServiceFlags(u32::from(flags) & !ServiceFlags::HASHED.0),
                timeout,
                prefix_length,
                persistence_engine: engine.map(str::to_owned),
            },
        )
}

fn servers() -> impl Strategy<Value = (DestinationKey, DestinationConfig)> {
    let address = mostly(
        &[
            "10.1.0.1",
            "10.1.0.2",
            "127.0.0.1",
            "0.1.2.3",
            "2001:db8::a",
            "::1",
        ],
        &[
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:10.1.0.1",
        ],
    );
    let config = mostly(
        &[
            nat(0),
            nat(i32::MAX.cast_unsigned()),
            direct(3),
            ipip(1),
            ipip(2),
            tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Remote, 1),
            tunnel(TunnelKind::Gre, 0, TunnelChecksum::Full, 1),
            tunnel(TunnelKind::Other(9), 1, TunnelChecksum::Other(77), 1),
            forward(ipvs::ForwardingMethod::Local, 1),
            forward(ipvs::ForwardingMethod::Bypass, 1),
            forward(ipvs::ForwardingMethod::Other(5), 1),
            thresholds(nat(1), 6, 6),
        ],
        &[
            nat(1 << 31),
            tunnel(TunnelKind::Gue, 0, TunnelChecksum::None, 1),
            thresholds(nat(1), 5, 6),
            thresholds(nat(1), 0, 6),
        ],
    );
    (address, select(vec![0, 80]), config)
        .prop_map(|(address, port, config)| (server(address, port), config))
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (keys(), configs()).prop_map(|(key, config)| Op::NewService(key, config)),
        2 => (keys(), configs()).prop_map(|(key, config)| Op::SetService(key, config)),
        1 => keys().prop_map(Op::DeleteService),
        9 => (keys(), servers())
            .prop_map(|(service, (key, config))| Op::NewDestination(service, key, config)),
        5 => (keys(), servers())
            .prop_map(|(service, (key, config))| Op::SetDestination(service, key, config)),
        3 => (keys(), servers())
            .prop_map(|(service, (key, _))| Op::DeleteDestination(service, key)),
    ]
}

/// Checks that the model behaves like the kernel, because the tests of plans
/// rely on the model. This test gives the same random operations to the model
/// and to the kernel. The model and the kernel must refuse the same operations
/// with the same error numbers, and end with the same table.
#[test]
fn the_model_of_the_kernel_agrees_with_the_kernel() {
    Namespace::run(|mut ns| {
        let mut model = ModelKernel::default();
        let mut runner = TestRunner::deterministic();
        for _ in 0..100 {
            let ops = vec(ops(), 30).new_tree(&mut runner).unwrap().current();
            let expected = model.apply(&ops).unwrap();
            let failures = ns.apply(&ops);
            for (index, op) in ops.iter().enumerate() {
                let answer = |failures: &[Failure]| {
                    let mut failures = failures.iter();
                    failures.find(|it| it.index == index).map(|it| it.errno)
                };
                assert_eq!(
                    answer(&expected),
                    answer(&failures),
                    "model and kernel on: {op}"
                );
            }
            assert_eq!(ns.table(), model.table);
        }
        let refused = model
            .log
            .iter()
            .filter(|(_, errno)| errno.is_some())
            .count();
        println!("{refused} of {} operations were refused", model.log.len());
        assert!(refused > 500 && refused < 2500);
    });
}
