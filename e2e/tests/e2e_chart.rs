//! The chart and its custom resource definitions, as a real API server sees
//! them.

use e2e::{
    cluster::{Cluster, NAMESPACE, chart, example},
    control::{self, try_kubectl},
    kubectl, kubectl_apply,
};

#[test]
fn the_definitions_are_installed_and_the_api_server_warns_of_nothing() {
    let folder = chart().join("crds");
    let folder = folder.to_string_lossy();
    // With --warnings-as-errors an API server's warning fails the command.
    let applied = try_kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--warnings-as-errors",
        "-f",
        &folder,
    ]);
    assert!(
        applied.is_success() && applied.stderr.is_empty(),
        "installing the definitions: {applied:?}"
    );
    for name in [
        "directorgroups",
        "directors",
        "ipvsvirtualservices",
        "realservers",
    ] {
        let crd = format!("crd/{name}.ipvs.dev");
        kubectl(&["wait", &crd, "--for=condition=Established", "--timeout=30s"]);
        for (condition, why) in [
            ("NonStructuralSchema", "its schema is structural"),
            (
                "KubernetesAPIApprovalPolicyConformant",
                "it is no API of Kubernetes' own",
            ),
        ] {
            let path =
                format!("jsonpath={{.status.conditions[?(@.type==\"{condition}\")].status}}");
            let status = kubectl(&["get", &crd, "-o", &path]);
            assert_ne!(status, "True", "{name}: {why}");
        }
    }
}

#[test]
fn the_chart_is_installed_and_an_upgrade_changes_nothing() {
    let _cluster = Cluster::start();
    assert_eq!(
        kubectl(&["get", "serviceaccounts", "-n", NAMESPACE, "-o", "name"]),
        "serviceaccount/ipvs-agent\nserviceaccount/ipvs-controller\n"
    );
    assert_eq!(
        kubectl(&[
            "get",
            "deployments,daemonsets",
            "-n",
            NAMESPACE,
            "-o",
            "name"
        ]),
        "deployment.apps/ipvs-controller\ndaemonset.apps/ipvs-agent\n"
    );
    assert_eq!(
        kubectl(&["get", "directorgroups", "-o", "name"]),
        "directorgroup.ipvs.dev/default\n"
    );

    let rendered = control::helm(&["get", "manifest", "ipvs-operator", "-n", NAMESPACE]);
    let diff = control::try_kubectl_diff(&rendered);
    assert!(
        diff.is_success() && diff.stdout.is_empty(),
        "what is there is what the chart says: {diff:?}"
    );
}

#[test]
fn every_name_that_a_user_would_try_is_known_to_kubectl() {
    let _cluster = Cluster::start();
    kubectl_apply(&example("nat-cluster.yaml"));
    for name in [
        "ivs",
        "virtualservice",
        "virtualservices",
        "ipvsvirtualservice",
        "ipvsvirtualservices",
    ] {
        let found = kubectl(&["get", name, "-o", "name"]);
        assert_eq!(found, "virtualservice.ipvs.dev/web\n", "kubectl get {name}");
    }
    let found = kubectl(&["get", "ipvs", "-o", "name"]);
    for object in [
        "directorgroup.ipvs.dev/default",
        "virtualservice.ipvs.dev/web",
        "realserver.ipvs.dev/web1",
    ] {
        assert!(
            found.lines().any(|line| line == object),
            "kubectl get ipvs was expected to show {object}:\n{found}"
        );
    }
    let of_group = kubectl(&[
        "get",
        "ivs",
        "--field-selector",
        "spec.directorGroupName=edge",
        "-o",
        "name",
    ]);
    assert_eq!(of_group, "", "services can be selected by their group");
    let explained = kubectl(&["explain", "ivs.spec.vip.port"]);
    assert!(
        explained.contains("0 serves every port"),
        "kubectl explain tells users what a field is:\n{explained}"
    );
}
