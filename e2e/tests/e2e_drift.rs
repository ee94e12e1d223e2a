//! Somebody changes the kernel's table by hand.

use std::time::Duration;

use e2e::{
    Host,
    cluster::{Cluster, example, expect_table, start_agent, wait_until_ready},
    course::{Course, NAT_VIP},
    eventually, ipvsadm, kubectl_apply,
};

const TABLE: [&str; 4] = [
    "-A -t 192.168.4.5:80 -s wrr",
    "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1",
    "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 1",
    "-A -t 192.168.4.5:8080 -s rr",
];
/// The whole table is compared once a minute; a reading of the services sees
/// these changes long before.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn what_somebody_does_to_our_services_is_undone_and_strangers_are_left_alone() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    let _agent = start_agent(director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    director.run("ipvsadm -A -t 192.168.4.5:8080 -s rr");
    expect_table(director, &TABLE);

    for by_hand in [
        "ipvsadm -D -t 192.168.4.5:80",
        "ipvsadm -E -t 192.168.4.5:80 -s lc",
        "ipvsadm -E -t 192.168.4.5:80 -s wrr -p 60",
    ] {
        director.run(by_hand);
        expect_soon(director, &TABLE, by_hand);
    }
    director.run("ipvsadm -C");
    expect_soon(director, &TABLE[..3], "ipvsadm -C");
    let counts = course.browser().counts(10, NAT_VIP);
    assert_eq!(counts.len(), 2, "both servers serve: {counts:?}");
}

#[track_caller]
fn expect_soon(director: &Host, expected: &[&str], after: &str) {
    eventually(&format!("the table as before {after}"), SOON, || {
        let found = ipvsadm::sorted(director);
        let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
        expected.sort();
        let mut sorted = found.clone();
        sorted.sort();
        if sorted == expected {
            Ok(())
        } else {
            Err(format!("{found:#?}"))
        }
    });
}
