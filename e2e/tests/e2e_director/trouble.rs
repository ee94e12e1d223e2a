//! Tests agents on machines with a fault. The agent logs one line that says how
//! to fix the fault. If the fault may go away by itself, the agent keeps
//! trying.

use std::process::Command;

use e2e::{
    Host, Process,
    cluster::{
        Cluster, PATIENCE, agent, example, expect_table, start_agent, wait_for, wait_for_words,
        wait_until_ready,
    },
    course::Course,
    host::run_here,
    kubectl, kubectl_apply,
};

const TABLE: [&str; 3] = [
    "-A -t 192.168.4.5:80 -s wrr",
    "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1",
    "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 1",
];

#[test]
fn a_kernel_without_ip_vs_is_told_and_served_once_it_has_it() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let without = KernelWithoutIpvs::make();
    kubectl_apply(&example("nat-cluster.yaml"));
    let agent = start_agent(&course.director, "director1");
    let line = agent.wait_for_log("no ip_vs", PATIENCE);
    assert!(
        line.contains("modprobe ip_vs"),
        "the log line must say what to do: {line}"
    );
    wait_for_words("idir/director1", "Programmed", &["KernelUnavailable"]);
    assert_eq!(
        agent.log().matches("no ip_vs").count(),
        1,
        "the fault must be logged once:\n{}",
        agent.log()
    );

    drop(without);
    expect_table(&course.director, &TABLE);
    wait_until_ready(&["web"]);
}

#[test]
fn a_scheduler_that_the_kernel_lacks_is_told_and_holds_up_no_other_service() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    let twos = example("nat-cluster.yaml")
        .replace("name: web\n", "name: choosy\n")
        .replace("port: 80", "port: 82")
        .replace("scheduler: wrr", "scheduler: twos");
    kubectl_apply(&twos);
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    // The message of the condition names the missing scheduler, the director
    // and the remedy.
    wait_for_words("ivs/choosy", "Ready", &["twos", "director1", "modprobe"]);
    wait_for("ivs/choosy", "Programmed", "False");
    expect_table(&course.director, &TABLE);

    // When the VirtualService gets another scheduler, the agent tries again at
    // once, without waiting for the back-off.
    kubectl(&[
        "patch",
        "ivs/choosy",
        "--type=merge",
        "-p",
        r#"{"spec":{"scheduler":"rr"}}"#,
    ]);
    wait_until_ready(&["choosy"]);
}

#[test]
fn an_agent_without_cap_net_admin_says_so() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    kubectl_apply(&example("nat-cluster.yaml"));
    let unprivileged = agent("director1");
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-net_admin", "--bounding-set=-net_admin", "--"]);
    command
        .arg(unprivileged.get_program())
        .args(unprivileged.get_args());
    for (name, value) in unprivileged.get_envs() {
        command.env(
            name,
            value.expect("the agent's environment sets and removes nothing"),
        );
    }
    let agent = Process::start(&course.director, "agent-unprivileged", &mut command);
    let line = agent.wait_for_log("CAP_NET_ADMIN", PATIENCE);
    assert!(
        line.contains("user namespace"),
        "the log line must name the user namespace: {line}"
    );
    wait_for_words("idir/director1", "Programmed", &["CAP_NET_ADMIN"]);
}

#[test]
fn a_second_agent_on_a_machine_says_who_is_first_and_waits() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    kubectl_apply(&example("nat-cluster.yaml"));
    let mut first = start_agent(&course.director, "director1");
    wait_until_ready(&["web"]);
    let mut second = start_agent(&course.director, "director1");
    let line = second.wait_for_log("another ipvs-agent", PATIENCE);
    assert!(
        line.contains(&format!("pid {}", first.id())),
        "the log line must name the first agent, {}: {line}",
        first.id()
    );
    assert!(second.is_running(), "the second agent must wait");
    expect_table(&course.director, &TABLE);

    first.terminate(PATIENCE);
    kubectl(&[
        "patch",
        "irs/web2",
        "--type=merge",
        "-p",
        r#"{"spec":{"weight":5}}"#,
    ]);
    expect_table(
        &course.director,
        &[
            TABLE[0],
            TABLE[1],
            "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 5",
        ],
    );
    second.terminate(PATIENCE);
}

#[test]
fn an_agent_with_no_way_to_an_api_server_says_what_to_give_it() {
    let host = Host::new("lonely");
    let mut command = agent_command_without_kubeconfig();
    let mut agent = Process::start(&host, "agent-lonely", &mut command);
    let line = agent.wait_for_log("Trying again", PATIENCE);
    assert!(
        line.contains("--kubeconfig") && line.contains("--manifests"),
        "the log line must name both options: {line}"
    );
    assert!(
        agent.terminate(PATIENCE).success(),
        "the agent must stop cleanly"
    );
}

fn agent_command_without_kubeconfig() -> Command {
    let mut command = e2e::process::program("ipvs-agent");
    command
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .env("IPVS_STATE_DIR", e2e::layout::file("state-lonely"));
    command
}

/// A guard that keeps the module ip_vs unloaded. While a `KernelWithoutIpvs`
/// exists, the kernel cannot load the module.
struct KernelWithoutIpvs;

impl KernelWithoutIpvs {
    fn make() -> Self {
        shell("modprobe -r $(lsmod | awk '$1 ~ /^ip_vs_/ {print $1}') ip_vs");
        shell("echo /bin/false > /proc/sys/kernel/modprobe");
        Self
    }
}

impl Drop for KernelWithoutIpvs {
    fn drop(&mut self) {
        shell("echo /sbin/modprobe > /proc/sys/kernel/modprobe");
        shell("modprobe ip_vs");
    }
}

fn shell(line: &str) {
    run_here(Command::new("sh").args(["-c", line])).expect("the lab's kernel lets root do this");
}
