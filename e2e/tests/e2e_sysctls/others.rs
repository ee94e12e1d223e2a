//! Tests sysctls that another process changes, and sysctls that the agent
//! cannot write.

use std::process::Command;

use e2e::{
    Process,
    cluster::{
        Cluster, PATIENCE, agent, condition, example, start_agent, value, wait_for,
        wait_until_ready,
    },
    course::{Course, DR_VIP, NAT_VIP},
    eventually, kubectl_apply,
};

use crate::scene::{
    Both, DIRECTOR, expect_condition, expect_no_traffic, expect_problem, expect_sysctl,
    expect_traffic, said, web,
};

const FORWARDING: &str = "net.ipv4.conf.eth1.forwarding";
const REDIRECTS: &str = "net.ipv4.conf.eth1.send_redirects";

#[test]
fn a_value_that_is_changed_is_put_right_and_one_that_is_fought_over_is_left_and_told() {
    let _cluster = Cluster::start();
    let farm = Both::nat();
    let director = farm.director();
    let _agent = start_agent(director, DIRECTOR);
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    expect_traffic(&farm.course, NAT_VIP, web("NAT"));

    for time in 1..=3 {
        director.sysctl(FORWARDING, "0");
        expect_sysctl(director, FORWARDING, "1");
        eventually("the repair to be counted", PATIENCE, || {
            match value("idir/director1", ".status.repairs.count") {
                count if count == time.to_string() => Ok(()),
                count => Err(count),
            }
        });
    }
    director.sysctl(FORWARDING, "0");
    expect_problem(FORWARDING, "another program sets it to 0 again and again");
    expect_condition("False");
    // The agent reads all sysctls at the same time. Once the agent has repaired
    // send_redirects, the agent has also read forwarding.
    for _ in 0..2 {
        director.sysctl(REDIRECTS, "1");
        expect_sysctl(director, REDIRECTS, "0");
        assert_eq!(
            director.read_sysctl(FORWARDING),
            "0",
            "the agent must leave the value alone"
        );
    }
    assert_eq!(
        condition("idir/director1", "Programmed", "status"),
        "True",
        "a sysctl problem must not affect Programmed"
    );
    expect_no_traffic(&farm.course.browser(), NAT_VIP);

    // The test sets the sysctl to 1, as the message of the reported problem
    // advises.
    director.sysctl(FORWARDING, "1");
    expect_condition("True");
    assert_eq!(said(FORWARDING, "problem"), "");
    expect_traffic(&farm.course, NAT_VIP, web("NAT"));
}

/// A shell script that makes /proc/sys read-only, as in a container, and then
/// runs the command in its arguments.
const READ_ONLY: &str = r#"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec "$@""#;

#[test]
fn where_nothing_can_be_written_each_value_is_told_and_traffic_that_needs_none_goes_on() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let inner = agent(DIRECTOR);
    let mut contained = Command::new("unshare");
    contained
        .args(["--mount", "sh", "-euc", READ_ONLY, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        contained.env(name, value.unwrap_or_default());
    }
    let mut agent = Process::start(&course.director, "agent-contained", &mut contained);
    let checked = example("dr-cluster.yaml").replace(
        "  scheduler: wrr\n",
        "  scheduler: wrr\n  healthCheck: {tcpSocket: {}, periodSeconds: 5}\n",
    );
    kubectl_apply(&checked);
    wait_until_ready(&["web"]);
    expect_traffic(&course, DR_VIP, web("DR"));

    expect_condition("False");
    for name in [
        "net.ipv4.vs.expire_nodest_conn",
        "net.ipv4.vs.expire_quiescent_template",
    ] {
        expect_problem(name, "Read-only file system");
        expect_problem(name, "--sysctl-dir");
        assert_eq!(
            said(name, "found"),
            "0",
            "the value of {name} must be reported"
        );
    }
    wait_for("idir/director1", "Programmed", "True");
    let message = condition("idir/director1", "SysctlsApplied", "message");
    assert!(message.contains("everything else goes on"), "{message}");
    agent.kill();

    // With --sysctl-dir, as in the chart, the agent can write the sysctls.
    let _agent = start_agent(&course.director, DIRECTOR);
    expect_condition("True");
    expect_sysctl(&course.director, "net.ipv4.vs.expire_nodest_conn", "1");
}
