//! The nodes of the lab, and the chart's pods on them.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use e2e::{
    cluster::{NAMESPACE, PATIENCE, chart},
    control::{on_node, try_kubectl},
    eventually, helm, kubectl,
    layout::{file, node_name},
};

/// The numbers of the nodes.
pub(crate) const NODES: [u8; 2] = [1, 2];

/// The label of the agents' pods.
const LABEL: &str = "app.kubernetes.io/component=agent";

/// The chart's default tag, which is its appVersion.
pub(crate) const USUAL: &str = "";

/// Waits until the nodes are Ready, and installs the chart.
#[track_caller]
pub(crate) fn start() {
    for name in NODES.map(node_name) {
        let node = format!("node/{name}");
        let wait = ["wait", &node, "--for=condition=Ready", "--timeout=5s"];
        eventually(&format!("{name} to be Ready"), PATIENCE * 2, || {
            let said = log(&name);
            assert!(!said.contains("lab: "), "{name} must run: {said}");
            match try_kubectl(&wait) {
                waited if waited.is_success() => Ok(()),
                waited => Err(format!("{}{said}", waited.stderr)),
            }
        });
    }
    // For the image of an upgrade. The tag is what the kubelet compares.
    let image = |tag| format!("docker.io/library/ipvs-agent:{tag}");
    let (usual, other) = (image(env!("CARGO_PKG_VERSION")), image("other"));
    let ctr = format!("{}/tools/bin/ctr", env!("CARGO_MANIFEST_DIR"));
    for number in NODES {
        let tag = ["-n", "k8s.io", "images", "tag", "--force", &usual, &other];
        on_node(number, &[&[&*ctr], &tag[..]].concat());
    }
    install(USUAL);
}

/// Labels the nodes as directors, and waits for their agents.
#[track_caller]
pub(crate) fn make_directors() {
    let label = "ipvs.dev/director=true";
    kubectl(&["label", "node", "--all", "--overwrite", label]);
    wait_for_rollout();
}

/// Installs the chart, or upgrades to an image of the agent.
#[track_caller]
pub(crate) fn install(tag: &str) {
    let chart = chart();
    let pools =
        r#"directorGroups.default={"addressPools":[{"name":"course","cidrs":["192.168.4.0/24"]}]}"#;
    helm(&[
        "upgrade",
        "--install",
        "ipvs-operator",
        &chart.to_string_lossy(),
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--set-json",
        pools,
        "--set",
        &format!("agent.image.tag={tag}"),
    ]);
}

/// Waits until the agents of all nodes, and the controller, are as the chart
/// wants them.
#[track_caller]
pub(crate) fn wait_for_rollout() {
    // The nodes follow one after another.
    let timeout = format!("--timeout={}s", (PATIENCE * 3).as_secs());
    for workload in ["ds/ipvs-agent", "deploy/ipvs-controller"] {
        let status = ["rollout", "status", workload, "-n", NAMESPACE, &timeout];
        let rolled_out = try_kubectl(&status);
        assert!(
            rolled_out.is_success(),
            "{workload}: {}\n{}",
            rolled_out.stderr,
            kubectl(&["describe", "pods", "-n", NAMESPACE])
        );
    }
}

/// Returns `NODE IMAGE READY` of each pod of the agents.
pub(crate) fn agents() -> Vec<String> {
    let path = "jsonpath={range .items[*]}{.spec.nodeName} {.spec.containers[0].image} \
                {.status.containerStatuses[0].ready}{\"\\n\"}{end}";
    let pods = kubectl(&["get", "pods", "-n", NAMESPACE, "-l", LABEL, "-o", path]);
    let mut pods: Vec<String> = pods.lines().map(str::to_owned).collect();
    pods.sort();
    pods
}

/// Returns when the agents' pods started.
pub(crate) fn started() -> String {
    let path = "jsonpath={.items[*].status.startTime}";
    kubectl(&["get", "pods", "-n", NAMESPACE, "-l", LABEL, "-o", path])
}

/// Waits until one agent has the image with this tag and is not ready. Then
/// checks, for longer than `minReadySeconds`, that the other agent keeps its
/// image.
#[track_caller]
pub(crate) fn expect_to_stop_at_the_first(tag: &str) {
    // Without the check of readiness, a rollout pauses for 30 s.
    const LONGER_THAN_A_PAUSE: Duration = Duration::from_secs(35);
    const LOOK: Duration = Duration::from_secs(1);
    let new = format!(":{tag} ");
    let has_stopped = |pods: &[String]| {
        let of_new = pods.iter().filter(|pod| pod.contains(&new));
        let of_new: Vec<_> = of_new.collect();
        pods.len() == 2 && of_new.len() == 1 && of_new[0].ends_with(" false")
    };
    eventually(
        &format!("one agent to be {tag}"),
        PATIENCE,
        || match agents() {
            pods if has_stopped(&pods) => Ok(()),
            pods => Err(format!("{pods:#?}")),
        },
    );
    let began = Instant::now();
    while began.elapsed() < LONGER_THAN_A_PAUSE {
        let pods = agents();
        assert!(
            has_stopped(&pods),
            "{tag} stops at the first director: {pods:#?}"
        );
        sleep(LOOK);
    }
}

/// Returns the number of the one node whose agent is ready.
#[track_caller]
pub(crate) fn node_that_serves() -> u8 {
    let pods = agents();
    let ready = pods.iter().filter(|pod| pod.ends_with(" true"));
    let [ready] = ready.collect::<Vec<_>>()[..] else {
        panic!("one agent is ready: {pods:#?}");
    };
    let is_on = |number: &u8| ready.starts_with(&format!("{} ", node_name(*number)));
    let node = NODES.into_iter().find(is_on);
    node.expect("a node of the lab")
}

/// Returns `/proc/PID/status` of each process of a program on a node.
pub(crate) fn statuses(number: u8, program: &str) -> Vec<String> {
    // The kubelet's probes run the same program, with arguments.
    let script = format!(
        "for pid in $(busybox pidof {program}); do
            [ \"$(tr -d '\\0' 2>/dev/null </proc/$pid/cmdline)\" = /usr/bin/{program} ] || continue
            cat /proc/$pid/status 2>/dev/null
        done
        true"
    );
    let found = on_node(number, &["sh", "-c", &script]);
    let statuses = found.split("Name:").skip(1);
    statuses.map(str::to_owned).collect()
}

/// Returns what a node of the lab has printed.
fn log(node: &str) -> String {
    fs::read_to_string(file(&format!("logs/{node}.log"))).unwrap_or_default()
}
