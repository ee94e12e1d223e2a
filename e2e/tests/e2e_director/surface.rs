//! Tests that every feature of IPVS can be set in a manifest. Each setting must
//! reach the kernel through the API, and must be read back unchanged.

use e2e::{
    Host, Segment,
    cluster::{Cluster, PATIENCE, example, expect_table, start_agent},
    eventually, kubectl, kubectl_apply,
    segment::attach_to_management,
};
use ipvs::{Kernel, Op, Socket};

#[test]
fn every_feature_is_in_the_kernel_as_the_ipvsadm_command_beside_it_says() {
    let _cluster = Cluster::start();
    let (outer, inner) = (Segment::new("outer"), Segment::new("inner"));
    let director = Host::new("director");
    outer.attach(&director, "eth0", "192.168.4.5/24");
    inner.attach(&director, "eth1", "192.168.2.5/24");
    director.ip("address add 2001:db8:4::5/64 dev eth0 nodad");
    attach_to_management(&director);
    let _agent = start_agent(&director, "director1");

    let manifest = example("every-feature.yaml");
    kubectl_apply(&manifest);
    kubectl(&[
        "wait",
        "ivs",
        "--all",
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
    let (timeouts, commands): (Vec<_>, Vec<_>) = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("# ipvsadm "))
        .partition(|line| line.starts_with("--set "));
    assert_eq!(
        timeouts,
        ["--set 7200 30 60"],
        "the timeouts of the DirectorGroup"
    );
    let set = "Timeout (tcp tcpfin udp): 7200 30 60";
    expect_timeouts(&director, set);
    assert!(
        commands.len() > 50,
        "the commands were found: {commands:#?}"
    );
    assert_eq!(
        dumped(&director),
        sorted(&commands),
        "the table as our own code reads it"
    );
    // The thresholds are removed from the expected commands, because
    // ipvsadm-save does not print them.
    let saved: Vec<_> = commands
        .iter()
        .map(|line| line.split(" -x ").next().unwrap_or(line))
        .collect();
    expect_table(&director, &saved);

    kubectl(&["delete", "ivs,irs", "--all"]);
    let no_timeouts = r#"[{"op":"remove","path":"/spec/timeouts"}]"#;
    kubectl(&["patch", "idg/default", "--type=json", "-p", no_timeouts]);
    expect_timeouts(&director, "Timeout (tcp tcpfin udp): 900 120 300");
}

#[track_caller]
fn expect_timeouts(director: &Host, expected: &str) {
    eventually(expected, PATIENCE, || {
        let found = director.run("ipvsadm -L --timeout");
        if found.trim() == expected {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// Reads the director's IPVS table with the crate `ipvs`. Returns the table in
/// the format of `ipvsadm -Sn`, but with thresholds.
fn dumped(director: &Host) -> Vec<String> {
    let table = director.enter(|| {
        let mut socket = Socket::open().expect("the lab's kernel has ip_vs");
        socket.table().expect("the kernel answers")
    });
    let mut lines = Vec::new();
    for (key, service) in table {
        lines.push(Op::NewService(key, service.config).to_string());
        for (destination, config) in service.destinations {
            lines.push(Op::NewDestination(key, destination, config).to_string());
        }
    }
    lines.sort();
    lines
}

fn sorted(lines: &[&str]) -> Vec<String> {
    let mut lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
    lines.sort();
    lines
}
