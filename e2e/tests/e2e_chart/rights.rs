//! Tests the chart's admission policy: an agent writes only what is its own
//! director's. RBAC alone would allow an agent to write every Director, every
//! DirectorGroupMember, and every Lease of the chart's namespace.

use std::{path::PathBuf, process::Command};

use e2e::{
    cluster::{Cluster, NAMESPACE, PATIENCE, kubeconfig_of_director},
    control::{kubeconfig_of_service_account, kubeconfig_with_token},
    eventually,
    host::run_here,
    kubectl, kubectl_apply,
    layout::{Which, client_authority, file, kubeconfig_with_certificate},
};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// The agents' requests for one director: the kind, whether the request writes
/// the status, and the object.
fn requests(director: &str) -> Vec<(&'static str, bool, Value)> {
    let metadata = json!({"name": director});
    let lease = json!({"name": director, "namespace": NAMESPACE});
    let group = json!({"directorGroupName": "default"});
    vec![
        ("Director", false, json!({"metadata": metadata, "spec": {}})),
        (
            "Director",
            true,
            json!({"metadata": metadata, "status": group}),
        ),
        (
            "DirectorGroupMember",
            false,
            json!({"metadata": metadata, "spec": group}),
        ),
        (
            "Lease",
            false,
            json!({"metadata": lease, "spec": {"holderIdentity": director}}),
        ),
    ]
}

/// The requests that create the objects of a director that does not exist.
fn creations(director: &str) -> Vec<(&'static str, bool, Value)> {
    let requests = requests(director).into_iter();
    requests.filter(|(_, is_status, _)| !is_status).collect()
}

/// A client with the rights of one agent.
struct Agent {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn with(kubeconfig: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            Client::try_from(config.expect("it is complete")).expect("a client")
        });
        Self { client, runtime }
    }

    /// Applies an object as an agent does. Returns the API server's message if
    /// it refuses the object.
    fn apply(&self, (kind, is_status, object): &(&str, bool, Value)) -> Result<(), String> {
        let (group, version) = match *kind {
            "Lease" => ("coordination.k8s.io", "v1"),
            _ => ("ipvs.dev", "v1alpha1"),
        };
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk(&kind);
        let metadata = &object["metadata"];
        let api: Api<DynamicObject> = match metadata["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let name = metadata["name"].as_str().expect("a name");
        let mut object = object.clone();
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(resource.kind);
        let parameters = PatchParams::apply("ipvs-agent").force();
        let patch = Patch::Apply(&object);
        let applied = self.runtime.block_on(async {
            match is_status {
                true => api.patch_status(name, &parameters, &patch).await,
                false => api.patch(name, &parameters, &patch).await,
            }
        });
        applied.map(drop).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn expect_refused(&self, requests: &[(&'static str, bool, Value)], why: &str) {
        for request in requests {
            let refused = self.apply(request).expect_err(&format!("{request:?}"));
            assert!(refused.contains(why), "{request:?}: {refused}");
        }
    }
}

/// Returns a kubeconfig with a token bound to a pod on a node, as the kubelet
/// gives it to the pod.
fn of_pod_on(node: &str) -> PathBuf {
    kubectl_apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: agent-on-{node}, namespace: {NAMESPACE}}}, spec: {{nodeName: {node}, serviceAccountName: ipvs-agent, containers: [{{name: agent, image: agent}}]}}}}"
    ));
    let pod = format!("agent-on-{node}");
    kubeconfig_with_token(NAMESPACE, "ipvs-agent", &pod.clone(), || {
        ["--bound-object-kind", "Pod", "--bound-object-name", &pod]
            .map(str::to_owned)
            .to_vec()
    })
}

/// Returns a kubeconfig with a certificate of a director outside the cluster.
fn of_machine(director: &str) -> PathBuf {
    let of = |end: &str| file(&format!("machine.{end}"));
    let subject = format!("/O=ipvs.dev:directors/CN=ipvs.dev:director:{director}");
    let mut request = Command::new("openssl");
    request.args(["req", "-newkey", "ec", "-nodes", "-subj", &subject]);
    request.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    request
        .arg("-keyout")
        .arg(of("key"))
        .arg("-out")
        .arg(of("csr"));
    std::fs::write(of("extensions"), "extendedKeyUsage = clientAuth\n")
        .expect("the lab's folder can be written");
    let mut sign = Command::new("openssl");
    sign.args(["x509", "-req", "-days", "1", "-CAcreateserial"]);
    sign.arg("-CA").arg(client_authority());
    sign.arg("-CAkey")
        .arg(client_authority().with_extension("key"));
    sign.arg("-extfile").arg(of("extensions"));
    sign.arg("-in").arg(of("csr")).arg("-out").arg(of("crt"));
    for command in [&mut request, &mut sign] {
        run_here(command).unwrap_or_else(|failed| panic!("{failed}"));
    }
    let kubeconfig = kubeconfig_with_certificate(Which::First, &of("crt"), &of("key"));
    let path = file("kubeconfig-of-machine");
    std::fs::write(&path, kubeconfig).expect("the lab's folder can be written");
    path
}

#[test]
fn an_agent_writes_what_is_its_own_directors_and_nothing_of_another() {
    let _cluster = Cluster::start();
    let admin = Agent::with(e2e::layout::admin_kubeconfig(Which::First));
    let theirs = requests("lb-2");
    for request in &theirs {
        admin.apply(request).expect("an administrator may");
    }
    let leaders = [(
        "Lease",
        false,
        json!({
            "metadata": {"name": "ipvs-controller", "namespace": NAMESPACE},
            "spec": {"holderIdentity": "an agent"},
        }),
    )];
    let node = kubeconfig_of_director("lb-1");
    for (whose, kubeconfig) in [
        ("a token bound to the node", node),
        ("a token bound to a pod on the node", of_pod_on("lb-1")),
        ("a certificate", of_machine("lb-1")),
    ] {
        let agent = Agent::with(kubeconfig);
        // The API server takes a moment to learn a new policy.
        let not_own = "may write only its own objects";
        eventually("the policy to be in force", PATIENCE, || {
            match agent.apply(&theirs[0]) {
                Err(why) if why.contains(not_own) => Ok(()),
                other => Err(format!("{whose}: {other:?}")),
            }
        });
        agent.expect_refused(&theirs, not_own);
        agent.expect_refused(&creations("lb-3"), not_own);
        agent.expect_refused(&leaders, not_own);
        for request in requests("lb-1") {
            let applied = agent.apply(&request);
            assert_eq!(applied, Ok(()), "{whose}: {request:?}");
        }
    }
    let unbound = Agent::with(kubeconfig_of_service_account(NAMESPACE, "ipvs-agent"));
    for requests in [requests("lb-1"), theirs, creations("lb-3")] {
        unbound.expect_refused(&requests, "must be bound to a node");
    }
    kubectl(&["delete", "pod", "-n", NAMESPACE, "agent-on-lb-1", "--force"]);
}
