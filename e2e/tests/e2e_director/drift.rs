//! Tests that the agent repairs its IPVS entries after changes by hand, and
//! leaves strangers' entries alone.

use std::time::Instant;

use e2e::{
    Host,
    cluster::{
        Cluster, PATIENCE, example, expect_table, start_agent, value, wait_for, wait_for_words,
        wait_until_ready,
    },
    course::{Course, NAT_VIP},
    eventually, ipvsadm, kubectl, kubectl_apply,
};

const TABLE: [&str; 4] = [
    "-A -t 192.168.4.5:80 -s wrr",
    "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1",
    "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 1",
    "-A -t 192.168.4.5:8080 -s rr",
];

#[test]
fn what_somebody_does_to_ours_is_undone_and_told_and_strangers_are_left_alone() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    let _agent = start_agent(director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    director.run("ipvsadm -A -t 192.168.4.5:8080 -s rr");
    expect_table(director, &TABLE);

    let mut count = 0;
    for (by_hand, repairs) in [
        ("ipvsadm -D -t 192.168.4.5:80", 3),
        ("ipvsadm -E -t 192.168.4.5:80 -s lc", 1),
        ("ipvsadm -E -t 192.168.4.5:80 -s wrr -p 60", 1),
        (
            "ipvsadm -e -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 9",
            1,
        ),
        (
            "ipvsadm -e -t 192.168.4.5:80 -r 192.168.2.100:80 -g -w 1",
            1,
        ),
        ("ipvsadm -d -t 192.168.4.5:80 -r 192.168.2.200:80", 1),
    ] {
        director.run(by_hand);
        expect_soon(director, &TABLE, by_hand);
        count += repairs;
        expect_repairs(count);
    }
    director.run("ipvsadm -e -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1 -x 5 -y 2");
    expect_repairs(count + 1);
    let thresholds = director.run("ipvsadm -Ln --thresholds");
    let server = thresholds
        .lines()
        .find(|line| line.contains("192.168.2.100:80"));
    let server = server
        .expect("the server is in the table")
        .split_whitespace();
    assert!(server.skip(2).take(2).eq(["0", "0"]), "{thresholds}");
    assert_eq!(
        value("idir/director1", ".status.repairs.latest[0]"),
        "-e -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1"
    );

    director.run("ipvsadm -C");
    expect_soon(director, &TABLE[..3], "ipvsadm -C");
    expect_repairs(count + 4);
    let counts = course.browser().counts(10, NAT_VIP);
    assert_eq!(counts.len(), 2, "both servers must answer: {counts:?}");

    // A stranger adds a destination to one of our IPVS services.
    let theirs = "-a -t 192.168.4.5:80 -r 192.168.2.77:80 -m -w 0";
    director.run(&format!("ipvsadm {theirs}"));
    eventually("a notice of the stranger's server", PATIENCE, || {
        let notices = value("idir/director1", ".status.notices");
        if notices.contains("192.168.2.77:80") {
            Ok(())
        } else {
            Err(notices)
        }
    });
    expect_table(director, &[&TABLE[..3], &[theirs]].concat());
    expect_repairs(count + 4);
}

#[test]
fn a_strangers_service_with_our_key_is_left_alone_if_the_group_says_so() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    let theirs = [
        "-A -t 192.168.4.5:80 -s lc",
        "-a -t 192.168.4.5:80 -r 192.168.2.77:80 -m -w 5",
    ];
    for line in theirs {
        director.run(&format!("ipvsadm {line}"));
    }
    let policy = |policy: &str| {
        let patch = format!(r#"{{"spec":{{"onConflict":"{policy}"}}}}"#);
        kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
    };
    policy("Leave");
    let _agent = start_agent(director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_for("ivs/web", "Programmed", "False");
    let words = ["ipvsadm -D -t 192.168.4.5:80", "spec.onConflict"];
    wait_for_words("idir/director1", "Programmed", &words);
    expect_table(director, &theirs);

    policy("Adopt");
    wait_until_ready(&["web"]);
    expect_table(director, &[&TABLE[..3], &theirs[1..]].concat());
}

#[track_caller]
fn expect_repairs(count: usize) {
    let expected = count.to_string();
    eventually(
        &format!("{count} repairs in the Director"),
        PATIENCE,
        || match value("idir/director1", ".status.repairs.count") {
            found if found == expected => Ok(()),
            found => Err(found),
        },
    );
}

#[track_caller]
fn expect_soon(director: &Host, expected: &[&str], after: &str) {
    let start = Instant::now();
    eventually(
        &format!("the table to be as before {after}"),
        PATIENCE,
        || {
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
        },
    );
    println!("repaired after {:.1?}: {after}", start.elapsed());
}
