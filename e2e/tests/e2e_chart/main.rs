//! Tests that a real API server accepts the chart and its
//! CustomResourceDefinitions.

mod definitions;
mod rights;
mod shares;
mod uninstall;
mod values;

use e2e::{
    cluster::{Cluster, DIRECTORS_NAMESPACE, NAMESPACE, chart, example, upgrade_chart, value},
    control::{self, try_kubectl},
    kubectl, kubectl_apply,
};

#[test]
fn the_definitions_are_installed_and_the_api_server_warns_of_nothing() {
    let folder = chart().join("crds");
    let folder = folder.to_string_lossy();
    // With --warnings-as-errors, kubectl fails if the API server warns.
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
        "directorgroupmembers",
        "directors",
        "ipvsvirtualservices",
        "realservers",
    ] {
        let crd = format!("crd/{name}.ipvs.dev");
        kubectl(&["wait", &crd, "--for=condition=Established", "--timeout=30s"]);
        for (condition, why) in [
            ("NonStructuralSchema", "the schema must be structural"),
            (
                "KubernetesAPIApprovalPolicyConformant",
                "the API must not count as one of Kubernetes' own",
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

    assert_as_rendered("after the install");

    kubectl(&["patch", "idg", "default", "--type=merge", "-p", HOLDER]);
    upgrade_chart();
    let revision = control::helm(&[
        "history",
        "ipvs-operator",
        "-n",
        NAMESPACE,
        "--max",
        "1",
        "-o",
        "yaml",
    ]);
    assert!(
        !revision.contains("revision: 1\n"),
        "the chart must have been upgraded:\n{revision}"
    );
    assert_eq!(
        value("idg/default", ".spec.addresses.holder"),
        "lb-1",
        "an upgrade must not change a holder that was named by hand"
    );
    kubectl(&["patch", "idg", "default", "--type=json", "-p", NO_HOLDER]);
    assert_as_rendered("after the upgrade");
}

const HOLDER: &str = r#"{"spec":{"addresses":{"holder":"lb-1"}}}"#;
const NO_HOLDER: &str = r#"[{"op":"remove","path":"/spec/addresses"}]"#;

fn assert_as_rendered(when: &str) {
    let rendered = control::helm(&["get", "manifest", "ipvs-operator", "-n", NAMESPACE]);
    let diff = control::try_kubectl_diff(&rendered);
    assert!(
        diff.is_success() && diff.stdout.is_empty(),
        "{when}, the objects differ from the chart: {diff:?}"
    );
}

#[test]
fn the_notes_say_what_an_installation_needs_and_what_an_uninstallation_keeps() {
    let _cluster = Cluster::start();
    let notes = control::helm(&["get", "notes", "ipvs-operator", "-n", NAMESPACE]);
    for command in [
        "kubectl label namespace ipvs-operator pod-security.kubernetes.io/enforce=privileged",
        "helm upgrade --install OTHER CHART --namespace ipvs-operator --take-ownership --set takeOwnership=true",
    ] {
        assert!(notes.contains(command), "{command} in:\n{notes}");
    }
}

#[test]
fn an_agent_may_apply_what_is_its_own_and_nothing_else() {
    let _cluster = Cluster::start();
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:ipvs-agent");
    let may = |verb: &str, resource: &str, namespace: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        let mut args = vec!["auth", "can-i", verb, resource, &subresource, &account];
        args.extend(["-n", namespace]);
        let answer = try_kubectl(&args);
        match answer.stdout.trim() {
            "yes" => true,
            "no" => false,
            _ => panic!("{args:?}: {answer:?}"),
        }
    };
    for (verb, resource, expected) in [
        ("create", "directors", true),
        ("patch", "directors", true),
        ("delete", "directors", false),
        ("list", "directors", false),
        ("watch", "directors", false),
        ("watch", "directorgroupmembers", true),
        ("patch", "directorgroupmembers", true),
        ("delete", "directorgroupmembers", true),
        ("patch", "directors/status", true),
        ("update", "directors/status", false),
        ("patch", "directorgroups", false),
        ("patch", "ipvsvirtualservices/status", false),
    ] {
        let answer = may(verb, resource, NAMESPACE);
        assert_eq!(answer, expected, "may it {verb} {resource}?");
    }
    for namespace in [DIRECTORS_NAMESPACE, NAMESPACE] {
        for (verb, expected) in [
            ("create", true),
            ("patch", true),
            ("get", true),
            ("list", false),
            ("update", false),
            ("delete", false),
        ] {
            let answer = may(verb, "leases", namespace);
            assert_eq!(answer, expected, "may it {verb} Leases in {namespace}?");
        }
    }
    for verb in ["create", "get", "patch"] {
        let answer = may(verb, "leases", "default");
        assert!(!answer, "no Lease of another namespace is for agents");
    }
}

#[test]
fn a_controller_may_read_the_directors_leases_and_write_only_the_leaders() {
    let _cluster = Cluster::start();
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:ipvs-controller");
    for (verb, object, namespace, may) in [
        ("get", "leases", DIRECTORS_NAMESPACE, true),
        ("list", "leases", DIRECTORS_NAMESPACE, true),
        ("watch", "leases", DIRECTORS_NAMESPACE, true),
        ("create", "leases", DIRECTORS_NAMESPACE, false),
        ("patch", "leases", DIRECTORS_NAMESPACE, false),
        ("delete", "leases", DIRECTORS_NAMESPACE, false),
        ("patch", "leases/ipvs-controller", NAMESPACE, true),
        ("patch", "leases/lb-1", NAMESPACE, false),
        ("watch", "leases", NAMESPACE, true),
    ] {
        let answer = try_kubectl(&["auth", "can-i", verb, object, &account, "-n", namespace]);
        assert_eq!(
            answer.stdout.trim(),
            if may { "yes" } else { "no" },
            "{verb} {object} in {namespace}: {answer:?}"
        );
    }
}

#[test]
fn the_chart_is_not_installed_into_the_namespace_of_the_directors_leases() {
    let refused = control::try_helm(&[
        "template",
        "ipvs-operator",
        &chart().to_string_lossy(),
        "--namespace",
        DIRECTORS_NAMESPACE,
    ]);
    assert!(
        !refused.is_success() && refused.stderr.contains("install the chart into another"),
        "{refused:?}"
    );
}

#[test]
fn an_agent_may_look_at_what_stands_behind_its_objects_and_at_nothing_like_it() {
    let _cluster = Cluster::start();
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:ipvs-agent");
    for (verb, object, may) in [
        ("get", "namespaces/kube-system", true),
        ("get", "namespaces/default", false),
        ("list", "namespaces", false),
        ("get", "crd/ipvsvirtualservices.ipvs.dev", true),
        ("get", "crd/realservers.ipvs.dev", true),
        ("get", "crd/directorgroups.ipvs.dev", true),
        ("get", "crd/others.example.com", false),
        ("list", "crd", false),
        ("list", "endpointslices", true),
        ("watch", "endpointslices", false),
        ("list", "endpoints", false),
        ("delete", "crd/ipvsvirtualservices.ipvs.dev", false),
    ] {
        let answer = try_kubectl(&["auth", "can-i", verb, object, &account]);
        assert_eq!(
            answer.stdout.trim(),
            if may { "yes" } else { "no" },
            "{verb} {object}: {answer:?}"
        );
    }
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
            "kubectl get ipvs must show {object}:\n{found}"
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
    assert_eq!(of_group, "", "no service is in the group edge");
    let explained = kubectl(&["explain", "ivs.spec.vip.port"]);
    assert!(
        explained.contains("0 serves every port"),
        "kubectl explain describes a field:\n{explained}"
    );
}
