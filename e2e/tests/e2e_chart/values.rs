//! Tests the chart's values: every one of them, misspelt ones, and the groups of
//! directors.

use std::{fs, path::PathBuf};

use e2e::{
    cluster::{Cluster, NAMESPACE, chart, workspace},
    control::{self, try_helm, try_kubectl, try_kubectl_with_input},
    kubectl,
};
use serde_json::Value;

/// A values file in which every value is set.
fn every_value() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e_chart/every-value.yaml")
}

fn template(options: &[&str]) -> control::Response {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let render = [
        "template",
        "ipvs-operator",
        &chart,
        "--namespace",
        NAMESPACE,
    ];
    try_helm(&[&render, options].concat())
}

/// Renders the chart, and returns its manifests.
fn rendered(options: &[&str]) -> String {
    let answer = template(options);
    assert!(answer.is_success(), "helm template {options:?}: {answer:?}");
    answer.stdout
}

/// Returns the names of all values below `schema`, such as `agent.image.tag`.
fn names(schema: &Value, whole: &Value, prefix: &str) -> Vec<String> {
    let schema = match schema["$ref"].as_str() {
        Some(path) => &whole["definitions"][path.trim_start_matches("#/definitions/")],
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else {
        return Vec::new();
    };
    let below = properties.iter().flat_map(|(name, of)| {
        let name = format!("{prefix}{name}");
        let below = names(of, whole, &format!("{name}."));
        std::iter::once(name).chain(below)
    });
    below.collect()
}

#[test]
fn the_api_server_strictly_accepts_the_chart_with_every_value_set() {
    let _cluster = Cluster::start();
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
    let file = fs::read_to_string(every_value()).unwrap();
    let values: Value = serde_saphyr::from_str(&file).expect("the values are YAML");
    for name in names(&schema, &schema, "") {
        let path = format!("/{}", name.replace('.', "/"));
        assert!(values.pointer(&path).is_some(), "{name} is not set");
    }
    let file = every_value();
    for options in [&[][..], &["--values", &file.to_string_lossy()]] {
        let manifests = rendered(options);
        let applied = try_kubectl_with_input(
            &[
                "apply",
                "--dry-run=server",
                "--server-side",
                // Helm's, so that what it set before is replaced.
                "--field-manager=helm",
                "--force-conflicts",
                "--validate=strict",
                "--warnings-as-errors",
                "-f",
                "-",
            ],
            &manifests,
        );
        assert!(applied.is_success(), "{options:?}: {applied:?}");
    }
}

#[test]
fn the_api_server_strictly_accepts_every_example() {
    let _cluster = Cluster::start();
    let examples = fs::read_dir(workspace().join("examples")).expect("there are examples");
    let examples: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    assert!(examples.len() >= 5, "the examples are found: {examples:?}");
    for example in examples {
        let applied = try_kubectl(&[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--warnings-as-errors",
            "-f",
            &example.to_string_lossy(),
        ]);
        assert!(applied.is_success(), "{}: {applied:?}", example.display());
    }
}

#[test]
fn what_is_switched_off_is_not_rendered() {
    let kinds = ["PodDisruptionBudget", "NetworkPolicy"];
    let all = rendered(&[]);
    let none = rendered(&[
        "--set",
        "controller.networkPolicy.enabled=false,controller.podDisruptionBudget=null",
    ]);
    for kind in kinds {
        let line = format!("kind: {kind}\n");
        assert!(all.contains(&line) && !none.contains(&line), "{kind}");
    }
}

#[test]
fn the_controller_may_upgrade_definitions_unless_the_value_turns_it_off() {
    const RIGHTS: &str = "resources: [customresourcedefinitions]
    resourceNames:
      - directorgroupmembers.ipvs.dev";
    // A missing value: --reuse-values after a release that did not have it.
    for (value, may) in [("true", true), ("null", true), ("false", false)] {
        let option = format!("controller.upgradeDefinitions={value}");
        let manifests = rendered(&["--set", &option]);
        assert_eq!(manifests.contains(RIGHTS), may, "{option}");
        let is_told = manifests.contains("IPVS_UPGRADE_DEFINITIONS");
        assert_eq!(is_told, !may, "{option}");
    }
}

#[test]
fn a_group_without_a_spec_is_not_rendered_and_the_others_keep_theirs() {
    let values = every_value();
    let values = values.to_string_lossy();
    for (group, left) in [("canary", "onConflict: Leave"), ("default", "name: test")] {
        let option = format!("directorGroups.{group}=null");
        let manifests = rendered(&["--values", &values, "--set-json", &option]);
        let groups = manifests.matches("kind: DirectorGroup\n").count();
        assert_eq!(groups, 1, "without {group}");
        assert!(manifests.contains(left), "{left} without {group}");
    }
}

#[test]
fn two_groups_of_directors_on_the_same_nodes_are_refused() {
    let refused = template(&[
        "--set",
        "agent.nodeSelector.lvs=yes,agents.edge.image.tag=a",
    ]);
    assert!(
        !refused.is_success() && refused.stderr.contains("agents.edge.nodeSelector"),
        "{refused:?}"
    );
}

#[test]
fn a_misspelt_value_is_refused_by_its_name() {
    for (option, word) in [
        ("agent.imgae.tag=1", "imgae"),
        ("agents.edge.image.tga=1", "tga"),
        ("agent.directorGroup=edge", "directorGroup"),
        ("controler.replicas=3", "controler"),
        ("controller.replicas=three", "replicas"),
        ("agent.dnsPolicy=None", "dnsPolicy"),
    ] {
        let refused = template(&["--set", option]);
        assert!(
            !refused.is_success() && refused.stderr.contains(word),
            "{option}: {refused:?}"
        );
    }
}

/// Returns the DaemonSets in rendered manifests.
fn daemon_sets(manifests: &str) -> Vec<Value> {
    let documents = manifests.split("\n---\n");
    let documents = documents.filter(|text| text.contains("kind: DaemonSet"));
    let parse = |text| serde_saphyr::from_str(text).expect("a manifest is YAML");
    documents.map(parse).collect()
}

#[test]
fn each_group_of_directors_has_a_daemon_set_with_its_own_values() {
    let sets = daemon_sets(&rendered(&[
        "--set-string",
        "agents.edge.image.tag=2",
        "--set",
        "agents.edge.apiServer.host=192.0.2.6",
    ]));
    let [default, edge] = &sets[..] else {
        panic!("two DaemonSets were expected: {sets:?}");
    };
    for (set, name, group, director, tag) in [
        (default, "ipvs-agent", "default", "true", ":0.1.0"),
        (edge, "ipvs-agent-edge", "edge", "edge", ":2"),
    ] {
        assert_eq!(set["metadata"]["name"], name);
        let spec = &set["spec"]["template"]["spec"];
        assert_eq!(spec["nodeSelector"]["ipvs.dev/director"], director);
        assert_eq!(spec["nodeSelector"]["kubernetes.io/os"], "linux");
        let agent = &spec["containers"][0];
        assert!(
            agent["image"]
                .as_str()
                .is_some_and(|image| image.ends_with(tag)),
            "{agent}"
        );
        let of = |name: &str| {
            let all = agent["env"].as_array().into_iter().flatten();
            all.filter(|variable| variable["name"] == name)
                .map(|variable| variable["value"].clone())
                .next()
        };
        assert_eq!(of("IPVS_DIRECTOR_GROUP"), Some(group.into()));
        let host = of("KUBERNETES_SERVICE_HOST");
        assert_eq!(host.is_some(), group == "edge", "{group}: {host:?}");
        let added = &agent["securityContext"]["capabilities"]["add"];
        assert_eq!(*added, serde_json::json!(["NET_ADMIN", "NET_RAW"]));
        let selector = &set["spec"]["selector"]["matchLabels"];
        assert_eq!(
            selector["app.kubernetes.io/name"], name,
            "no pod is in both"
        );
    }
}

#[test]
fn the_controllers_pods_pass_where_pod_security_is_restricted() {
    let _cluster = Cluster::start();
    kubectl(&["create", "namespace", "restricted"]);
    kubectl(&[
        "label",
        "namespace",
        "restricted",
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    // In the lab, no controller makes it.
    kubectl(&["create", "serviceaccount", "default", "-n", "restricted"]);
    for (workload, passes) in [
        ("deployment/ipvs-controller", true),
        ("daemonset/ipvs-agent", false),
    ] {
        let found = kubectl(&["get", workload, "-n", NAMESPACE, "-o", "json"]);
        let found: Value = serde_json::from_str(&found).expect("kubectl writes JSON");
        let mut spec = found["spec"]["template"]["spec"].clone();
        spec["serviceAccountName"] = "default".into();
        spec["automountServiceAccountToken"] = false.into();
        let pod = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "tried", "namespace": "restricted"},
            "spec": spec,
        });
        let tried =
            try_kubectl_with_input(&["create", "--dry-run=server", "-f", "-"], &pod.to_string());
        assert_eq!(tried.is_success(), passes, "{workload}: {tried:?}");
        if !passes {
            assert!(tried.stderr.contains("hostNetwork"), "{tried:?}");
        }
    }
}

#[test]
fn a_tenant_with_the_role_edit_writes_services_and_servers_and_no_group() {
    let _cluster = Cluster::start();
    for role in ["view", "edit"] {
        let role = format!("--clusterrole=ipvs-operator-{role}");
        let name = role.replace("--clusterrole=", "");
        kubectl(&[
            "create",
            "rolebinding",
            &name,
            &role,
            "--user=tenant",
            "-n",
            "default",
        ]);
    }
    for (verb, resource, may) in [
        ("create", "ipvsvirtualservices.ipvs.dev", "yes"),
        ("delete", "realservers.ipvs.dev", "yes"),
        ("watch", "realservers.ipvs.dev", "yes"),
        ("list", "directorgroups.ipvs.dev", "no"),
        ("get", "directors.ipvs.dev", "no"),
        ("patch", "directorgroups.ipvs.dev", "no"),
    ] {
        let answer = try_kubectl(&["auth", "can-i", verb, resource, "--as=tenant"]);
        assert_eq!(answer.stdout.trim(), may, "{verb} {resource}: {answer:?}");
    }
    let view = "clusterrole/ipvs-operator-view";
    let labels = kubectl(&["get", view, "-o", "jsonpath={.metadata.labels}"]);
    for role in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        assert!(labels.contains(&label), "{label} in {labels}");
    }
}
