//! Tests the watches with an API server that answers every listing and then
//! sends nothing.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use controller::{event::Event, trouble::Complaints, watch};
use http::{Request, Response};
use kube::{Client, client::Body, runtime::watcher};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet, time};
use tower::service_fn;

const PATIENCE: Duration = Duration::from_secs(10);

/// The timeout in the request of each opened watch, by the end of the watch's
/// path, such as `ipvs-operator/leases`.
type Opened = Arc<Mutex<BTreeMap<String, String>>>;

/// Returns a client of an API server that has only `directors` and no other
/// objects.
fn client(directors: Value, opened: &Opened) -> Client {
    let opened = Arc::clone(opened);
    let service = service_fn(move |request: Request<Body>| {
        let uri = request.uri().clone();
        let path: Vec<&str> = uri.path().rsplitn(3, '/').collect();
        let (plural, place) = (path[0].to_owned(), format!("{}/{}", path[1], path[0]));
        let query = uri.query().unwrap_or_default();
        let timeout = query
            .split('&')
            .find_map(|part| part.strip_prefix("timeoutSeconds="))
            .map(str::to_owned);
        let is_watch = query.contains("watch=true");
        if let (true, Some(timeout)) = (is_watch, timeout) {
            opened.lock().unwrap().insert(place, timeout);
        }
        let items = match plural.as_str() {
            "directors" => directors.clone(),
            _ => json!([]),
        };
        async move {
            if is_watch {
                std::future::pending::<()>().await;
            }
            let list = json!({"metadata": {"resourceVersion": "7"}, "items": items});
            let body = Body::from(list.to_string().into_bytes());
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    Client::new(service, "default")
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    time::timeout(PATIENCE, events.recv())
        .await
        .expect("an event was expected")
        .unwrap()
}

#[tokio::test]
async fn every_watch_ends_soon_enough_for_one_that_hangs_to_be_noticed() {
    let opened = Opened::default();
    let mut tasks = JoinSet::new();
    let client = client(json!([]), &opened);
    let _events = watch::start(&client, "ipvs-operator", &Complaints::default(), &mut tasks);
    time::timeout(PATIENCE, async {
        while opened.lock().unwrap().len() < 6 {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("six watches were expected to be opened");
    let expected = [
        ("ipvs-directors/leases", "20"),
        ("ipvs-operator/leases", "20"),
        ("v1alpha1/directorgroups", "50"),
        ("v1alpha1/directors", "50"),
        ("v1alpha1/ipvsvirtualservices", "50"),
        ("v1alpha1/realservers", "50"),
    ];
    let expected = expected.map(|(path, seconds)| (path.to_owned(), seconds.to_owned()));
    assert_eq!(*opened.lock().unwrap(), BTreeMap::from(expected));
}

#[tokio::test]
async fn a_director_of_another_version_does_not_hide_the_others() {
    let director = |name: &str, status: Value| {
        json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "Director",
            "metadata": {"name": name, "resourceVersion": "1"},
            "spec": {},
            "status": status,
        })
    };
    let directors = json!([
        director("newer", json!({"vips": {"10.0.0.1": "eth0"}})),
        director("same", json!({"vips": []})),
    ]);
    let mut tasks = JoinSet::new();
    let client = client(directors, &Opened::default());
    let mut events = watch::start(&client, "ipvs-operator", &Complaints::default(), &mut tasks);
    let mut names = Vec::new();
    loop {
        match next(&mut events).await {
            Event::Directors(watcher::Event::InitApply(director)) => {
                names.push(director.metadata.name.unwrap());
            }
            Event::Directors(watcher::Event::InitDone) => break,
            _ => {}
        }
    }
    assert_eq!(names, ["newer", "same"]);
}
