//! Tests what the reporter writes, with an API server that refuses some objects.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use crds::condition;
use hyper::{Method, Request, Response};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::tell::report::{Trouble, tests::well};

/// The requests that wrote an object: `directors/a/status`, for example.
type Writes = Arc<Mutex<Vec<String>>>;

/// The installed definition of Directors, if the agent may read it.
type Definition = Arc<Mutex<Option<CustomResourceDefinition>>>;

/// The largest body in bytes that the API server of the tests accepts. A real one
/// accepts 3 MiB, and a real etcd 1.5 MiB.
const LARGEST: usize = 20_000;

/// Returns a client of an API server that refuses each write whose path or body
/// contains a word of `refused`, each write that is larger than [`LARGEST`], and
/// each status with repairs if the installed definition lacks them.
fn client(refused: &'static [&'static str], writes: &Writes, definition: &Definition) -> Client {
    let (writes, definition) = (Arc::clone(writes), Arc::clone(definition));
    let service = service_fn(move |request: Request<Body>| {
        let writes = Arc::clone(&writes);
        let definition = definition.lock().unwrap().clone();
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path().to_owned();
            let body = body.collect_bytes().await.expect("the whole body");
            let body = String::from_utf8_lossy(&body).into_owned();
            let object = path.rsplit("v1alpha1/").next().unwrap_or_default();
            let refuses = |word: &&str| path.contains(word) || body.contains(word);
            let knows = |word: &str| {
                let installed = definition.as_ref().map(|definition| json!(definition));
                installed.is_none_or(|installed| installed.to_string().contains(word))
            };
            let is_unknown = body.contains("\"repairs\"") && !knows("\"repairs\"");
            let (code, answer) = if head.method == Method::GET {
                match (path.contains("customresourcedefinitions"), definition) {
                    (true, Some(definition)) => (200, json!(definition)),
                    (true, None) => (403, failure(403, "forbidden")),
                    (false, _) => (404, failure(404, "not found")),
                }
            } else if is_unknown || refused.iter().any(refuses) {
                (422, failure(422, "refused"))
            } else if body.len() > LARGEST {
                (413, failure(413, "Request entity too large"))
            } else {
                writes.lock().unwrap().push(object.to_owned());
                let mut stored: Value = serde_json::from_str(&body).expect("an object");
                stored["metadata"]["uid"] = json!("uid-1");
                (200, stored)
            };
            let body = Body::from(answer.to_string().into_bytes());
            let answer = Response::builder().status(code).body(body);
            Ok::<_, Infallible>(answer.expect("an answer"))
        }
    });
    Client::new(service, "default")
}

fn failure(code: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": "x", "message": message,
    })
}

/// A reporter, and what it has told in the Lease and written.
struct Scene<'a> {
    reporter: Reporter<'a>,
    refused: watch::Receiver<Option<String>>,
    writes: Writes,
    definition: Definition,
}

impl Scene<'_> {
    fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    fn told(&self) -> Option<String> {
        self.refused.borrow().clone()
    }

    fn install(&self, definition: CustomResourceDefinition) {
        *self.definition.lock().unwrap() = Some(definition);
    }

    /// Returns status and message of the condition DefinitionOlder in the last
    /// written status.
    fn definition_older(&self) -> Option<(&str, &str)> {
        let conditions = &self.reporter.status.conditions;
        let found = condition::find(conditions, condition::kind::DEFINITION_OLDER)?;
        Some((&found.status, &found.message))
    }
}

fn own_definition() -> CustomResourceDefinition {
    let mut definitions = crds::crd::definitions().into_iter();
    let own = definitions.find(|definition| definition.spec.names.kind == "Director");
    own.expect("Directors have a definition")
}

/// Returns a definition of Directors without the field `repairs` of the status.
fn older_definition() -> CustomResourceDefinition {
    let mut definition = json!(own_definition());
    definition["metadata"]["annotations"] = json!({});
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    let fields = definition
        .pointer_mut(schema)
        .and_then(Value::as_object_mut);
    fields.expect("fields").remove("repairs").expect("a field");
    serde_json::from_value(definition).expect("a definition")
}

fn identity() -> Identity {
    Identity {
        name: "a".to_owned(),
        group: "default".to_owned(),
        boot_id: "this boot".to_owned(),
        kernel: "6.1.0".to_owned(),
        lease_namespace: "ipvs-operator".to_owned(),
    }
}

async fn scene<'a>(identity: &'a Identity, refuses: &'static [&'static str]) -> Scene<'a> {
    let (writes, definition) = (Writes::default(), Definition::default());
    let client = client(refuses, &writes, &definition);
    let writer = DirectorWriter::new(&client, identity);
    let registered = writer.register().await.expect("it is not refused");
    let (told, refused) = watch::channel(None);
    let scene = Scene {
        reporter: Reporter::new(writer, registered, told),
        refused,
        writes,
        definition,
    };
    assert_eq!(scene.take_writes(), ["directors/a", "directors/a/status"]);
    scene
}

fn broken() -> Observed {
    Observed {
        outcome: None,
        trouble: Some(Trouble::Kernel("no ip_vs".to_owned())),
        ..well()
    }
}

/// Returns the findings of a round after repairs.
fn repaired() -> Observed {
    let mut repaired = well();
    repaired.outcome.as_mut().expect("a round").repairs.count = 3;
    repaired
}

const BOTH: [&str; 2] = ["directors/a/status", "directorgroupmembers/a"];

#[tokio::test]
async fn an_unchanged_report_is_written_once() {
    let identity = identity();
    let mut scene = scene(&identity, &[]).await;
    assert!(scene.reporter.report(Some(&well())).await);
    assert_eq!(scene.take_writes(), BOTH);
    assert!(!scene.reporter.report(Some(&well())).await);
    assert!(scene.reporter.report(Some(&broken())).await);
    assert_eq!(scene.take_writes(), BOTH[..1], "the addresses are the same");
    assert_eq!(scene.told(), None);
}

#[tokio::test]
async fn a_refused_status_is_told_and_the_next_one_does_not_wait() {
    let identity = identity();
    let mut scene = scene(&identity, &["no ip_vs"]).await;
    scene.reporter.report(Some(&well())).await;
    scene.take_writes();
    assert!(scene.reporter.report(Some(&broken())).await, "it is tried");
    let told = scene.told().expect("the Lease must say so");
    assert!(
        told.starts_with("since 20") && told.contains("status: refused"),
        "{told}"
    );
    assert!(!scene.reporter.report(Some(&broken())).await, "it waits");
    let mut other = well();
    other.outcome.as_mut().expect("a round").services = 7;
    assert!(
        scene.reporter.report(Some(&other)).await,
        "this one goes out"
    );
    assert_eq!(scene.take_writes(), BOTH[..1]);
    assert_eq!(scene.told(), None);
}

#[tokio::test]
async fn a_status_that_is_too_large_is_told_and_the_next_smaller_one_does_not_wait() {
    let identity = identity();
    let mut scene = scene(&identity, &[]).await;
    scene.reporter.report(Some(&well())).await;
    scene.take_writes();
    let large = Observed {
        trouble: Some(Trouble::Kernel("x".repeat(LARGEST))),
        ..broken()
    };
    assert!(scene.reporter.report(Some(&large)).await, "it is tried");
    let told = scene.told().expect("the Lease must say so");
    assert!(told.contains("status: Request entity too large"), "{told}");
    assert!(told.len() < LARGEST, "what is too large is not repeated");
    assert!(!scene.reporter.report(Some(&large)).await, "it waits");
    assert_eq!(scene.take_writes(), [""; 0]);
    assert!(
        scene.reporter.report(Some(&broken())).await,
        "it is smaller"
    );
    assert_eq!(scene.take_writes(), BOTH[..1]);
    assert_eq!(scene.told(), None);
}

#[tokio::test]
async fn a_refused_status_that_is_no_longer_wanted_is_not_tried_again() {
    let identity = identity();
    let mut scene = scene(&identity, &["no ip_vs"]).await;
    scene.reporter.report(Some(&well())).await;
    scene.reporter.report(Some(&broken())).await;
    assert!(scene.told().is_some() && scene.reporter.failed.is_some());
    scene.take_writes();
    assert!(!scene.reporter.report(Some(&well())).await);
    assert_eq!(
        scene.take_writes(),
        [""; 0],
        "the API server has this status"
    );
    assert!(scene.told().is_none() && scene.reporter.failed.is_none());
}

#[tokio::test]
async fn a_refused_member_keeps_no_status_back_and_the_other_way_round() {
    let identity = identity();
    for (refuses, written, told_of) in [
        (
            &["directorgroupmembers"][..],
            BOTH[0],
            "DirectorGroupMember",
        ),
        (&["\"services\":2"], BOTH[1], "status"),
    ] {
        let mut scene = scene(&identity, refuses).await;
        assert!(scene.reporter.report(Some(&well())).await);
        assert_eq!(scene.take_writes(), [written]);
        let told = scene.told().expect("the Lease must say so");
        assert!(told.contains(told_of), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_definition_costs_its_fields_and_never_the_report() {
    let identity = identity();
    let mut scene = scene(&identity, &[]).await;
    scene.install(older_definition());
    assert!(scene.reporter.report(Some(&repaired())).await);
    assert_eq!(
        scene.take_writes(),
        BOTH,
        "the status goes out without the field"
    );
    assert_eq!(scene.told(), None);
    let (status, message) = scene.definition_older().expect("it is told");
    assert_eq!(status, "True");
    for part in [
        "schema 0",
        "goes on without status.repairs.",
        "kubectl apply",
    ] {
        assert!(message.contains(part), "{part} in: {message}");
    }

    scene.install(own_definition());
    assert!(
        !scene.reporter.report(Some(&repaired())).await,
        "it is not read again yet"
    );
    time::advance(Duration::from_secs(30)).await;
    assert!(scene.reporter.report(Some(&repaired())).await);
    let (status, _) = scene.definition_older().expect("it is told");
    assert_eq!(status, "False");
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_becomes_older_under_a_running_agent_is_read_again() {
    let identity = identity();
    let mut scene = scene(&identity, &[]).await;
    scene.install(own_definition());
    time::advance(Duration::from_secs(60)).await;
    assert!(scene.reporter.report(Some(&well())).await);
    assert_eq!(
        scene.definition_older().map(|(status, _)| status),
        Some("False")
    );
    scene.take_writes();
    scene.install(older_definition());
    assert!(scene.reporter.report(Some(&repaired())).await);
    assert_eq!(
        scene.take_writes(),
        BOTH[..1],
        "it is written in the same attempt"
    );
    assert_eq!(
        scene.definition_older().map(|(status, _)| status),
        Some("True")
    );
    assert_eq!(scene.told(), None);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_may_no_longer_read_the_definition_says_and_leaves_out_nothing() {
    let identity = identity();
    let mut scene = scene(&identity, &[]).await;
    assert!(scene.reporter.report(Some(&well())).await);
    assert_eq!(scene.definition_older(), None, "it may not from the start");
    scene.install(older_definition());
    assert!(scene.reporter.report(Some(&repaired())).await);
    assert!(scene.definition_older().is_some());

    *scene.definition.lock().unwrap() = None;
    time::advance(Duration::from_secs(30)).await;
    assert!(scene.reporter.report(Some(&repaired())).await);
    assert_eq!(scene.definition_older(), None);
}
