//! Tests which of a director's two Leases counts.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use hyper::{Request, Response};
use kube::client::Body;
use serde_json::json;
use tower::service_fn;

use super::*;

/// How the API server answers a request for a Lease.
#[derive(Clone, Copy)]
enum Answer {
    Missing,
    Forbidden,
    /// The Lease was renewed in this minute.
    Renewed(u32),
}

use Answer::{Forbidden, Missing, Renewed};

/// An API server with the Leases of one director, and what the agent saw there.
struct Scene {
    answers: Arc<Mutex<[Answer; 2]>>,
    places: [Api<Lease>; 2],
    seen: BTreeMap<String, Seen>,
}

impl Scene {
    fn new() -> Self {
        let answers = Arc::new(Mutex::new([Missing; 2]));
        let model = Arc::clone(&answers);
        let service = service_fn(move |request: Request<Body>| {
            let [directors, earlier] = *model.lock().unwrap();
            let answer = match request.uri().path().contains("/ipvs-directors/") {
                true => directors,
                false => earlier,
            };
            async move {
                let failure = |code: u16, reason: &str| json!({"status": "Failure", "message": "no", "reason": reason, "code": code});
                let (code, body) = match answer {
                    Missing => (404, failure(404, "NotFound")),
                    Forbidden => (403, failure(403, "Forbidden")),
                    Renewed(minute) => (
                        200,
                        json!({
                            "metadata": {"name": "b"},
                            "spec": {"renewTime": format!("2026-01-01T00:{minute:02}:00.000000Z")},
                        }),
                    ),
                };
                let body = Body::from(body.to_string().into_bytes());
                let answer = Response::builder().status(code).body(body);
                Ok::<_, Infallible>(answer.expect("an answer"))
            }
        });
        let client = Client::new(service, "default");
        let places = [DIRECTORS_NAMESPACE, "ipvs-operator"];
        Self {
            answers,
            places: places.map(|place| Api::namespaced(client.clone(), place)),
            seen: BTreeMap::new(),
        }
    }

    /// Looks at the director's Leases. Returns the minute of the newest renewal.
    async fn look(&mut self, answers: [Answer; 2]) -> Result<Option<u32>, String> {
        *self.answers.lock().unwrap() = answers;
        let newest = look(&self.places, "b", &mut self.seen).await?;
        Ok(newest.map(|time| time[14..16].parse().expect("a time")))
    }
}

#[tokio::test]
async fn the_newest_renewal_in_either_namespace_counts() {
    for (what, looks) in [
        (
            "an agent of an earlier version",
            &[
                ([Missing, Missing], None),
                ([Missing, Renewed(1)], Some(1)),
                ([Missing, Renewed(2)], Some(2)),
            ][..],
        ),
        (
            "an upgrade leaves a Lease in the earlier namespace",
            &[
                ([Missing, Renewed(1)], Some(1)),
                ([Renewed(2), Renewed(1)], Some(2)),
                ([Renewed(3), Renewed(1)], Some(3)),
                ([Renewed(3), Renewed(1)], Some(3)),
            ],
        ),
        (
            "the first look finds an old Lease in the earlier namespace",
            &[
                ([Renewed(5), Renewed(1)], Some(5)),
                ([Renewed(5), Renewed(1)], Some(5)),
            ],
        ),
        (
            "a rollback leaves a Lease in the directors' namespace, by a clock that was ahead",
            &[
                ([Renewed(50), Missing], Some(50)),
                ([Renewed(50), Renewed(1)], Some(1)),
                ([Renewed(50), Renewed(2)], Some(2)),
            ],
        ),
        (
            "a Lease is deleted, and the other one was not renewed",
            &[
                ([Renewed(2), Renewed(1)], Some(2)),
                ([Missing, Renewed(1)], Some(2)),
                ([Missing, Missing], None),
            ],
        ),
    ] {
        let mut scene = Scene::new();
        for (number, (answers, newest)) in looks.iter().enumerate() {
            let found = scene.look(*answers).await;
            assert_eq!(found, Ok(*newest), "{what}: look {number}");
        }
    }
}

#[tokio::test]
async fn without_an_answer_about_both_leases_only_a_renewal_counts() {
    let mut scene = Scene::new();
    for answers in [[Forbidden, Renewed(1)], [Renewed(1), Forbidden]] {
        let found = scene.look(answers).await;
        found.expect_err("the other Lease may be newer");
    }
    let found = scene.look([Missing, Renewed(1)]).await;
    assert_eq!(found, Ok(Some(1)));
    let found = scene.look([Forbidden, Renewed(1)]).await;
    found.expect_err("the other Lease may have been renewed");
    let found = scene.look([Forbidden, Renewed(2)]).await;
    assert_eq!(found, Ok(Some(2)), "the director is alive");
}
