//! Tests the unchanged chart on two nodes: machines of their own, with a kubelet,
//! containerd, kube-proxy and Debian's kernel.

mod gap;
mod network;
mod nodes;

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use e2e::{
    Asking, Transfers,
    cluster::{NAMESPACE, PATIENCE, condition, example, name_holder, wait_for, wait_until_ready},
    control::on_node,
    course::{DR_VIP, DR_WEB, NAT_VIP, NAT_WEB},
    eventually, helm, kubectl, kubectl_apply,
    layout::node_name,
    process::program,
};

use self::{
    gap::{Gap, print},
    network::Network,
    nodes::{
        NODES, USUAL, expect_to_stop_at_the_first, install, make_directors, node_that_serves,
        statuses, wait_for_rollout,
    },
};

/// A kubelet adds no capability to those of the chart, and no agent needs more.
const CONFINED: [&str; 4] = [
    // NET_ADMIN and NET_RAW.
    "CapEff:\t0000000000003000",
    "CapBnd:\t0000000000003000",
    "NoNewPrivs:\t1",
    // A filter: RuntimeDefault.
    "Seccomp:\t2",
];

#[test]
fn each_director_serves_with_two_capabilities() {
    nodes::start();
    let browser = Network::shared().browser();

    // The servers' gateway is node1.
    name_holder("node1");
    kubectl_apply(&example("nat-cluster.yaml"));
    make_directors();
    wait_until_ready(&["web"]);
    say_figures();
    let served = browser.counts(10, NAT_VIP);
    assert_eq!(served, equally(NAT_WEB), "NAT through node1");
    kubectl(&["delete", "ivs,irs", "--all"]);

    kubectl_apply(&example("dr-cluster.yaml"));
    for holder in ["node1", "node2"] {
        name_holder(holder);
        wait_for_vip(holder);
        wait_until_ready(&["web"]);
        let served = browser.counts(10, DR_VIP);
        assert_eq!(served, equally(DR_WEB), "DR through {holder}");
    }
    for number in NODES {
        let agents = statuses(number, "ipvs-agent");
        assert_eq!(agents.len(), 1, "node{number} has an agent: {agents:#?}");
        for line in CONFINED {
            assert!(
                agents[0].contains(line),
                "node{number}: {line}\n{agents:#?}"
            );
        }
    }
    kubectl(&["delete", "ivs,irs", "--all"]);
}

#[test]
fn nothing_is_lost_by_an_upgrade_a_restart_an_uninstall_and_a_reinstall() {
    nodes::start();
    make_directors();
    let browser = Network::shared().browser();
    name_holder("node1");
    // After each change of a server, the scheduler begins again with the first one.
    // So the servers are checked from the start, and healthy before the downloads.
    let forwarding = "  forwarding: {method: DR}\n";
    let checked = format!("{forwarding}  healthCheck: {{tcpSocket: {{}}}}\n");
    kubectl_apply(&example("dr-cluster.yaml").replacen(forwarding, &checked, 1));
    wait_for_vip("node1");
    for object in ["ivs/web", "irs/web1", "irs/web2"] {
        wait_for(object, "Ready", "True");
    }
    wait_for_checks(2);
    let changes = settled_changes_by_health();
    let transfers = Transfers::begin(&browser, DR_VIP, 2);
    let asking = Asking::pages(&browser.clone().with_timeout(PATIENCE), DR_VIP);
    let began = Instant::now();

    // Each of these builds takes the place of the same agent. The upgrade after
    // them takes that of the other agent too, whose gap is measured.
    for build in ["crashes", "never-ready"] {
        install(build);
        expect_to_stop_at_the_first(build);
        transfers.expect_to_move("while a build does not work");
    }
    let gap = Gap::watch(node_that_serves());
    install("other");
    wait_for_rollout();
    transfers.expect_to_move("during an upgrade");
    gap.say("helm upgrade");

    let gap = Gap::watch(1);
    kubectl(&["rollout", "restart", "ds/ipvs-agent", "-n", NAMESPACE]);
    wait_for_rollout();
    transfers.expect_to_move("during a restart");
    gap.say("kubectl rollout restart");

    let table = || on_node(1, &["ipvsadm", "-Sn"]);
    let before = table();
    helm(&["uninstall", "ipvs-operator", "-n", NAMESPACE]);
    eventually("the agents to end", PATIENCE, || match nodes::agents() {
        pods if pods.is_empty() => Ok(()),
        pods => Err(format!("{pods:#?}")),
    });
    transfers.expect_to_move("after an uninstall");
    asking.wait_for_more(20);
    assert_eq!(table(), before, "the table stays after an uninstall");

    install(USUAL);
    wait_for_rollout();
    let weight = r#"{"spec":{"weight":3}}"#;
    kubectl(&["patch", "irs/web1", "--type=merge", "-p", weight]);
    eventually(
        "the new agent to write the table",
        PATIENCE,
        || match table() {
            table if table.contains("-w 3") => Ok(()),
            table => Err(table),
        },
    );
    transfers.expect_to_move("after a reinstall");
    assert_eq!(changes_by_health(), changes, "no verdict changed");
    let failed = asking.failed(began);
    assert!(failed.is_empty(), "no request fails: {failed:?}");
    transfers.finish();
    kubectl(&["delete", "ivs,irs", "--all"]);
}

/// Returns how ten requests are divided among two servers of equal weights.
fn equally(pages: [&str; 2]) -> BTreeMap<String, usize> {
    pages.map(|page| (page.to_owned(), 5)).into()
}

/// Waits until the VIP of the DR cluster is on this node, and on no other one.
fn wait_for_vip(holder: &str) {
    let vip = DR_VIP.trim_end_matches(":80");
    eventually(&format!("{vip} to be on {holder} alone"), PATIENCE, || {
        let has_it = |number: &u8| {
            let addresses = on_node(*number, &["ip", "address", "show", "dev", "wire"]);
            addresses.contains(&format!(" {vip}/"))
        };
        let nodes: Vec<_> = NODES.into_iter().filter(has_it).map(node_name).collect();
        match nodes == [holder] {
            true => Ok(()),
            false => Err(format!("on {nodes:?}")),
        }
    });
}

/// Prints figures for docs/install.md.
fn say_figures() {
    for number in NODES {
        for program in ["ipvs-agent", "ipvs-controller"] {
            for status in statuses(number, program) {
                let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
                let resident = resident.unwrap_or_default().trim();
                print(format_args!(
                    "{program} on node{number}: {resident} resident at rest"
                ));
            }
        }
    }
    print(format_args!(
        "from the start of the agents' pods to the first service: {} to {}",
        nodes::started(),
        condition("ivs/web", "Programmed", "lastTransitionTime")
    ));
}

/// Waits until each director reports that it checks the given number of servers,
/// and that all of them are healthy.
fn wait_for_checks(servers: usize) {
    let path = "jsonpath={.status.health.checked} checked, {.status.health.healthy} healthy";
    let wanted = format!("{servers} checked, {servers} healthy");
    for director in NODES.map(node_name) {
        eventually(
            &format!("{director} to say {wanted}"),
            PATIENCE,
            || match kubectl(&["get", "idir", &director, "-o", path]) {
                said if said == wanted => Ok(()),
                said => Err(said),
            },
        );
    }
}

/// Waits until the health of the servers no longer changes on any node. Returns
/// the changes until then.
fn settled_changes_by_health() -> Vec<String> {
    const QUIET: Duration = Duration::from_secs(10);
    let mut before = changes_by_health();
    eventually("the servers' health to settle", PATIENCE, || {
        sleep(QUIET);
        let now = changes_by_health();
        let are_same = now == before;
        before.clone_from(&now);
        match are_same {
            true => Ok(now),
            false => Err(now.join("\n")),
        }
    })
}

/// Returns each change on the nodes whose cause is the health of a server.
fn changes_by_health() -> Vec<String> {
    let agent = program("ipvs-agent");
    let agent = agent.get_program().to_string_lossy();
    let history = |number| on_node(number, &[&agent, "history"]);
    let lines = NODES.map(history).join("\n");
    let by_health = lines.lines().filter(|line| line.contains(" health "));
    by_health.map(str::to_owned).collect()
}
