//! Tests the chart's admission policy: an agent writes only what is its own
//! director's. RBAC alone would allow an agent to write every Director, every
//! DirectorGroupMember, and every Lease of two namespaces.

use std::{fmt, path::PathBuf, process::Command};

use e2e::{
    cluster::{Cluster, DIRECTORS_NAMESPACE, NAMESPACE, PATIENCE, kubeconfig_of_director, value},
    control::{kubeconfig_of_service_account, kubeconfig_with_token, try_kubectl},
    eventually,
    host::run_here,
    kubectl, kubectl_apply,
    layout::{Which, admin_kubeconfig, client_authority, file, kubeconfig_with_certificate},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Verb {
    Get,
    List,
    Create,
    /// Server-side apply, which also creates an object that does not exist.
    Apply,
    /// A merge patch.
    Patch,
    Update,
    Delete,
}

use Verb::{Apply, Create, Delete, Get, List, Patch as Merge, Update};

/// The verbs that write one object.
const WRITES: [Verb; 5] = [Create, Apply, Merge, Update, Delete];
/// The verbs that write a status.
const STATUS_WRITES: [Verb; 3] = [Apply, Merge, Update];

/// A resource, such as `directors/status`.
#[derive(Clone, Copy)]
struct Resource(&'static str);

const DIRECTOR: Resource = Resource("directors");
const STATUS: Resource = Resource("directors/status");
const MEMBER: Resource = Resource("directorgroupmembers");
const LEASE: Resource = Resource("leases");
const SECRET: Resource = Resource("secrets");

impl Resource {
    fn kind(self) -> GroupVersionKind {
        let (group, version, kind) = match self.0 {
            "leases" => ("coordination.k8s.io", "v1", "Lease"),
            "secrets" => ("", "v1", "Secret"),
            "directorgroupmembers" => ("ipvs.dev", "v1alpha1", "DirectorGroupMember"),
            "directorgroups" => ("ipvs.dev", "v1alpha1", "DirectorGroup"),
            "ipvsvirtualservices" => ("ipvs.dev", "v1alpha1", "VirtualService"),
            "realservers" => ("ipvs.dev", "v1alpha1", "RealServer"),
            _ => ("ipvs.dev", "v1alpha1", "Director"),
        };
        GroupVersionKind::gvk(group, version, kind)
    }

    fn is_status(self) -> bool {
        self.0.ends_with("/status")
    }

    /// The verbs that RBAC allows an agent, whatever the name of the object.
    /// The policy must refuse these verbs for objects that are not the agent's.
    fn granted(self) -> &'static [Verb] {
        match self.0 {
            "directors" | "leases" => &[Create, Apply, Merge],
            "directors/status" => &[Apply, Merge],
            "directorgroupmembers" => &[Create, Apply, Merge, Delete],
            _ => &[],
        }
    }
}

/// An object that a request is about.
#[derive(Clone)]
struct Object {
    resource: Resource,
    namespace: Option<&'static str>,
    name: String,
    /// The fields of the object besides its metadata.
    fields: Value,
}

impl Object {
    fn new(resource: Resource, namespace: Option<&'static str>, name: &str) -> Self {
        let fields = match resource.0 {
            "directors" => json!({"spec": {}}),
            "directors/status" => json!({"status": {"directorGroupName": "default"}}),
            "directorgroupmembers" => json!({"spec": {"directorGroupName": "default"}}),
            "leases" => json!({"spec": {"holderIdentity": name}}),
            _ => json!({}),
        };
        Self {
            resource,
            namespace,
            name: name.to_owned(),
            fields,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.unwrap_or("no namespace");
        write!(f, "{} {} in {namespace}", self.resource.0, self.name)
    }
}

/// The five objects of a director.
fn objects_of(director: &str) -> Vec<Object> {
    vec![
        Object::new(DIRECTOR, None, director),
        Object::new(STATUS, None, director),
        Object::new(MEMBER, None, director),
        Object::new(LEASE, Some(DIRECTORS_NAMESPACE), director),
        Object::new(LEASE, Some(NAMESPACE), director),
    ]
}

/// A client with the rights of one user.
struct User {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl User {
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

    /// Makes a request. Returns the API server's message if it refuses.
    fn ask(&self, verb: Verb, object: &Object) -> Result<(), String> {
        let resource = ApiResource::from_gvk_with_plural(
            &object.resource.kind(),
            object.resource.0.trim_end_matches("/status"),
        );
        let api: Api<DynamicObject> = match object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let name = object.name.as_str();
        let mut body = object.fields.clone();
        body["apiVersion"] = json!(resource.api_version);
        body["kind"] = json!(resource.kind);
        body["metadata"] = json!({"name": name});
        let whole: DynamicObject = serde_json::from_value(body.clone()).expect("an object");
        let post = PostParams::default();
        let applied = PatchParams::apply("ipvs-agent").force();
        let merged = PatchParams::default();
        let is_status = object.resource.is_status();
        let asked = self.runtime.block_on(async {
            match (verb, is_status) {
                (Get, _) => api.get(name).await.map(drop),
                (List, _) => api.list(&ListParams::default()).await.map(drop),
                (Create, _) => api.create(&post, &whole).await.map(drop),
                (Delete, _) => api.delete(name, &DeleteParams::default()).await.map(drop),
                (Apply, false) => api
                    .patch(name, &applied, &Patch::Apply(&body))
                    .await
                    .map(drop),
                (Apply, true) => {
                    let patch = Patch::Apply(&body);
                    api.patch_status(name, &applied, &patch).await.map(drop)
                }
                (Merge, false) => api
                    .patch(name, &merged, &Patch::Merge(&body))
                    .await
                    .map(drop),
                (Merge, true) => {
                    let patch = Patch::Merge(&body);
                    api.patch_status(name, &merged, &patch).await.map(drop)
                }
                (Update, false) => api.replace(name, &post, &whole).await.map(drop),
                (Update, true) => api.replace_status(name, &post, &whole).await.map(drop),
            }
        });
        asked.map_err(|error| error.to_string())
    }

    /// Makes a request that must be refused: by the policy, in the words `why`,
    /// if RBAC allows the verb, and by RBAC otherwise.
    #[track_caller]
    fn expect_refused(&self, whose: &str, verb: Verb, object: &Object, why: &str) {
        let by_rbac = format!("cannot {} resource \"{}\"", word(verb), object.resource.0);
        let expected = match object.resource.granted().contains(&verb) {
            true => why,
            false => &by_rbac,
        };
        let refused = self.ask(verb, object);
        let refused = refused.expect_err(&format!("{whose} must not {verb:?} {object}"));
        assert!(
            refused.contains(expected),
            "{whose} must not {verb:?} {object}, because {expected:?}: {refused}"
        );
    }

    #[track_caller]
    fn expect_allowed(&self, whose: &str, verb: Verb, object: &Object) {
        let asked = self.ask(verb, object);
        assert_eq!(asked, Ok(()), "{whose} may {verb:?} {object}");
    }
}

/// RBAC's word for a verb.
fn word(verb: Verb) -> &'static str {
    match verb {
        Get => "get",
        List => "list",
        Create => "create",
        Apply | Merge => "patch",
        Update => "update",
        Delete => "delete",
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

/// The verbs to try on an object of another director.
fn writes(object: &Object) -> &'static [Verb] {
    match object.resource.is_status() {
        true => &STATUS_WRITES,
        false => &WRITES,
    }
}

/// Requests that no agent may make, whoever it is, and which RBAC refuses.
fn never_granted() -> Vec<(Verb, Object)> {
    let mut requests = Vec::new();
    for resource in ["directorgroups", "ipvsvirtualservices", "realservers"] {
        let namespace = (resource != "directorgroups").then_some("default");
        let object = Object::new(Resource(resource), namespace, "default");
        requests.extend(WRITES.map(|verb| (verb, object.clone())));
    }
    for namespace in [NAMESPACE, DIRECTORS_NAMESPACE, "default"] {
        let object = Object::new(SECRET, Some(namespace), "secret");
        requests.extend([Get, List, Create, Merge, Delete].map(|verb| (verb, object.clone())));
    }
    requests
}

const NOT_OWN: &str = "may write only its own objects";
const SPEC: &str = "the spec of a Director is for its administrators";

#[test]
fn an_agent_writes_what_is_its_own_directors_and_nothing_of_another() {
    let _cluster = Cluster::start();
    let admin = User::with(admin_kubeconfig(Which::First));
    for object in objects_of("lb-2") {
        admin.expect_allowed("an administrator", Apply, &object);
    }
    let leaders = leaders_lease(&admin);
    for (whose, kubeconfig) in [
        ("a token bound to the node", kubeconfig_of_director("lb-1")),
        ("a token bound to a pod on the node", of_pod_on("lb-1")),
        ("a certificate", of_machine("lb-1")),
    ] {
        let agent = User::with(kubeconfig);
        wait_for_the_policy(&agent, NOT_OWN);
        for object in objects_of("lb-2").iter().chain([&leaders]) {
            for verb in writes(object) {
                agent.expect_refused(whose, *verb, object, NOT_OWN);
            }
        }
        for object in objects_of("lb-3")
            .iter()
            .filter(|it| !it.resource.is_status())
        {
            for verb in [Create, Apply] {
                agent.expect_refused(whose, verb, object, NOT_OWN);
            }
        }
        for (verb, object) in never_granted() {
            agent.expect_refused(whose, verb, &object, "RBAC must refuse this");
        }
        for object in objects_of("lb-1") {
            for verb in object
                .resource
                .granted()
                .iter()
                .filter(|verb| **verb != Create)
            {
                agent.expect_allowed(whose, Apply, &object);
                agent.expect_allowed(whose, *verb, &object);
            }
        }
    }
    kubectl(&["delete", "pod", "-n", NAMESPACE, "agent-on-lb-1", "--force"]);
}

#[test]
fn a_token_that_names_no_node_writes_nothing() {
    let _cluster = Cluster::start();
    let admin = User::with(admin_kubeconfig(Which::First));
    for object in objects_of("lb-2") {
        admin.expect_allowed("an administrator", Apply, &object);
    }
    let unbound = User::with(kubeconfig_of_service_account(NAMESPACE, "ipvs-agent"));
    let (whose, why) = ("a token without a node", "must be bound to a node");
    wait_for_the_policy(&unbound, why);
    let leaders = leaders_lease(&admin);
    for object in objects_of("lb-2").iter().chain([&leaders]) {
        for verb in writes(object) {
            unbound.expect_refused(whose, *verb, object, why);
        }
    }
    for object in objects_of("lb-1")
        .iter()
        .filter(|it| !it.resource.is_status())
    {
        for verb in [Create, Apply] {
            unbound.expect_refused(whose, verb, object, why);
        }
    }
    for (verb, object) in never_granted() {
        unbound.expect_refused(whose, verb, &object, "RBAC must refuse this");
    }
}

#[test]
fn a_director_with_the_name_of_the_leaders_lease_does_not_write_that_lease() {
    let _cluster = Cluster::start();
    let leaders = leaders_lease(&User::with(admin_kubeconfig(Which::First)));
    let agent = User::with(kubeconfig_of_director("ipvs-controller"));
    wait_for_the_policy(&agent, NOT_OWN);
    for verb in WRITES {
        let why = "elects the controllers' leader";
        agent.expect_refused("a director with its name", verb, &leaders, why);
    }
    let own = Object::new(LEASE, Some(DIRECTORS_NAMESPACE), "ipvs-controller");
    agent.expect_allowed("a director with its name", Apply, &own);
}

#[test]
fn an_agent_writes_no_spec_of_its_director() {
    let _cluster = Cluster::start();
    let _newer = NewerDefinition::begin();
    let admin = User::with(admin_kubeconfig(Which::First));
    let mut wanted = Object::new(DIRECTOR, None, "lb-1");
    wanted.fields = json!({"spec": {"role": "edge"}});
    let kept = || value("idir/lb-1", ".spec.role");
    eventually("the definition to have a spec", PATIENCE, || {
        admin
            .ask(Merge, &wanted)
            .or_else(|_| admin.ask(Create, &wanted))?;
        match kept().as_str() {
            "edge" => Ok(()),
            other => Err(format!("the role is {other:?}")),
        }
    });
    let mut other = wanted.clone();
    other.fields = json!({"spec": {"role": "core"}});
    let mut emptied = wanted.clone();
    emptied.fields = json!({"spec": {"role": null}});
    for (whose, kubeconfig) in [
        ("a token bound to the node", kubeconfig_of_director("lb-1")),
        ("a certificate", of_machine("lb-1")),
    ] {
        let agent = User::with(kubeconfig);
        wait_for_the_policy(&agent, NOT_OWN);
        agent.expect_refused(whose, Apply, &other, SPEC);
        agent.expect_refused(whose, Merge, &other, SPEC);
        agent.expect_refused(whose, Merge, &emptied, SPEC);
        agent.expect_allowed(whose, Apply, &Object::new(DIRECTOR, None, "lb-1"));
        assert_eq!(kept(), "edge", "{whose} leaves the spec alone");
    }
    admin.expect_allowed("an administrator", Delete, &wanted);
    let agent = User::with(kubeconfig_of_director("lb-1"));
    for verb in [Create, Apply] {
        agent.expect_refused("an agent", verb, &other, SPEC);
    }
    agent.expect_allowed("an agent", Create, &Object::new(DIRECTOR, None, "lb-1"));
}

/// Waits until the controller has made the Lease that elects the leader.
#[track_caller]
fn leaders_lease(admin: &User) -> Object {
    let lease = Object::new(LEASE, Some(NAMESPACE), "ipvs-controller");
    eventually("the leader's Lease to exist", PATIENCE, || {
        admin.ask(Get, &lease)
    });
    lease
}

/// The API server takes a moment to learn a new policy. Waits until it refuses
/// an agent another director's object.
#[track_caller]
fn wait_for_the_policy(agent: &User, why: &str) {
    let theirs = Object::new(MEMBER, None, "lb-9");
    eventually("the policy to be in force", PATIENCE, || {
        match agent.ask(Apply, &theirs) {
            Err(refused) if refused.contains(why) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// A definition of Directors whose spec has fields, like that of a later
/// version. Dropping a `NewerDefinition` makes the spec empty again.
struct NewerDefinition;

const DEFINITION: &str = "crd/directors.ipvs.dev";
const ANY_FIELD: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-preserve-unknown-fields";

impl NewerDefinition {
    fn begin() -> Self {
        let add = format!(r#"[{{"op":"add","path":"{ANY_FIELD}","value":true}}]"#);
        kubectl(&["patch", DEFINITION, "--type=json", "-p", &add]);
        Self
    }
}

impl Drop for NewerDefinition {
    fn drop(&mut self) {
        let remove = format!(r#"[{{"op":"remove","path":"{ANY_FIELD}"}}]"#);
        let removed = try_kubectl(&["patch", DEFINITION, "--type=json", "-p", &remove]);
        if !removed.is_success() {
            eprintln!("the definition keeps its spec: {}", removed.stderr);
        }
    }
}
