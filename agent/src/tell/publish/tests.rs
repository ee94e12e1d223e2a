//! Tests what the reporter writes, with an API server that refuses some objects.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use hyper::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::tell::report::{Trouble, tests::well};

/// The requests that wrote an object: `directors/a/status`, for example.
type Writes = Arc<Mutex<Vec<String>>>;

/// The largest body in bytes that the API server of the tests accepts. A real one
/// accepts 3 MiB, and a real etcd 1.5 MiB.
const LARGEST: usize = 20_000;

/// Returns a client of an API server that refuses each write whose path or body
/// contains a word of `refused`, and each write that is larger than [`LARGEST`].
fn client(refused: &'static [&'static str], writes: &Writes) -> Client {
    let writes = Arc::clone(writes);
    let service = service_fn(move |request: Request<Body>| {
        let writes = Arc::clone(&writes);
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path().to_owned();
            let body = body.collect_bytes().await.expect("the whole body");
            let body = String::from_utf8_lossy(&body).into_owned();
            let object = path.rsplit("v1alpha1/").next().unwrap_or_default();
            let refuses = |word: &&str| path.contains(word) || body.contains(word);
            let (code, answer) = if head.method == Method::GET {
                (404, failure(404, "not found"))
            } else if refused.iter().any(refuses) {
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
}

impl Scene<'_> {
    fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    fn told(&self) -> Option<String> {
        self.refused.borrow().clone()
    }
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
    let writes = Writes::default();
    let writer = DirectorWriter::new(&client(refuses, &writes), identity);
    let registered = writer.register().await.expect("it is not refused");
    let (told, refused) = watch::channel(None);
    let scene = Scene {
        reporter: Reporter::new(writer, registered, told),
        refused,
        writes,
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
