//! The chart is uninstalled, and installed again under the same and under another
//! name.

use std::time::Instant;

use e2e::{
    Asking,
    cluster::{
        Cluster, DIRECTORS_NAMESPACE, NAMESPACE, chart, example, start_agent, upgrade_chart,
        wait_until_ready,
    },
    control::{self, try_helm, try_kubectl_with_input},
    course::{Course, NAT_VIP},
    ipvsadm, kubectl, kubectl_apply,
};
use serde_json::{Value, json};

/// Uninstalls a release, as a cluster does it: the lab has no controller that
/// ends namespaces.
fn uninstall(release: &str) {
    control::helm(&["uninstall", release, "-n", NAMESPACE]);
    let namespace = kubectl(&["get", "namespace", DIRECTORS_NAMESPACE, "-o", "json"]);
    let mut namespace: Value = serde_json::from_str(&namespace).expect("JSON");
    namespace["spec"]["finalizers"] = json!([]);
    let path = format!("/api/v1/namespaces/{DIRECTORS_NAMESPACE}/finalize");
    let replace = ["replace", "--raw", &path, "-f", "-"];
    let ended = try_kubectl_with_input(&replace, &namespace.to_string());
    assert!(ended.is_success(), "the namespace ends: {ended:?}");
    control::forget_tokens();
}

#[test]
fn an_uninstall_keeps_what_serves_and_each_later_install_takes_it_over() {
    let mut cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    let table = ipvsadm::saved(&course.director);
    let objects = || kubectl(&["get", "crd,idg,ivs,irs", "-o", "name"]);
    let before = objects();
    let asking = Asking::pages(&course.browser(), NAT_VIP);
    let began = Instant::now();

    // The kubelet ends the pods, the controller's and the agent's.
    cluster.controller.kill();
    agent.kill();
    uninstall("ipvs-operator");
    assert_eq!(objects(), before, "an uninstall deletes no object of users");
    asking.wait_for_more(20);
    assert_eq!(ipvsadm::saved(&course.director), table, "the table stays");

    upgrade_chart();
    cluster.restart_controller();
    agent = start_agent(&course.director, "director1");
    kubectl_apply(&e2e::course::another_service("after", 84));
    wait_until_ready(&["web", "after"]);
    kubectl(&["delete", "ivs/after"]);
    agent.kill();
    cluster.controller.kill();
    uninstall("ipvs-operator");

    take_over("other", "ipvs-operator");
    uninstall("other");
    take_over("ipvs-operator", "other");
    asking.wait_for_more(20);
    let failed = asking.failed(began);
    assert!(failed.is_empty(), "no request fails: {failed:?}");
}

/// Installs the chart as a release of another name than `before`, with the
/// command that the first attempt prints.
fn take_over(release: &str, before: &str) {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let install = ["upgrade", "--install", release, &chart, "-n", NAMESPACE];
    let refused = try_helm(&install);
    assert!(
        !refused.is_success(),
        "the group is {before}'s: {refused:?}"
    );
    let said = &refused.stderr;
    let whose = format!("belongs to the release {before} in namespace {NAMESPACE}");
    assert!(said.contains(&whose), "{whose} in: {said}");
    let command = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("helm "));
    let command = command.unwrap_or_else(|| panic!("a command in: {said}"));
    let words = command.split(' ').map(|word| match word {
        "CHART" => &*chart,
        word => word,
    });
    let taken = try_helm(&words.collect::<Vec<_>>());
    assert!(taken.is_success(), "helm {command}: {taken:?}");
    let owner = r"jsonpath={.metadata.annotations.meta\.helm\.sh/release-name}";
    assert_eq!(kubectl(&["get", "idg/default", "-o", owner]), release);
}
