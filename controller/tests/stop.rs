//! Tests the whole controller with an API server that never answers the write
//! of a status.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use controller::{leader::Candidate, run};
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::watch, time};
use tower::service_fn;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct ApiServer(Arc<State>);

#[derive(Default)]
struct State {
    /// The spec of the leader's Lease.
    lease: Mutex<Value>,
    version: AtomicUsize,
    /// The number of status writes that wait for an answer.
    under_way: AtomicUsize,
    /// The number of unanswered status writes when the Lease was given back.
    at_release: Mutex<Option<usize>>,
}

/// Counts a status write as under way until the write's connection is closed.
struct UnderWay(ApiServer);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ApiServer {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let answer = server.answer(request).await.to_string();
                Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes())))
            }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Value {
        let path = request.uri().path().to_owned();
        let is_watch = request.uri().query().unwrap_or("").contains("watch=true");
        if path.ends_with("/status") {
            self.0.under_way.fetch_add(1, Ordering::SeqCst);
            let _under_way = UnderWay(self.clone());
            return pending().await;
        }
        if path.ends_with("/ipvs-controller") {
            return self.lease(request).await;
        }
        match (is_watch, path.rsplit('/').next().unwrap()) {
            (true, "leases") => {
                // Each watch ends after one event, and the controller opens it
                // again.
                time::sleep(Duration::from_millis(20)).await;
                let object = lease(&self.0.lease.lock().unwrap(), &self.version());
                json!({"type": "MODIFIED", "object": object})
            }
            (true, _) => pending().await,
            (false, "directorgroups") => self.list(&json!([{
                "metadata": {"name": "default", "uid": "u", "generation": 1},
                "spec": {},
            }])),
            (false, _) => self.list(&json!([])),
        }
    }

    async fn lease(&self, request: Request<Body>) -> Value {
        let is_write = request.method() == Method::PATCH;
        let body = request.into_body().collect_bytes().await.unwrap();
        let mut spec = self.0.lease.lock().unwrap();
        if is_write {
            let sent: Value = serde_json::from_slice(&body).unwrap();
            if sent["spec"]["holderIdentity"].is_null()
                && sent["spec"]
                    .as_object()
                    .unwrap()
                    .contains_key("holderIdentity")
            {
                let under_way = self.0.under_way.load(Ordering::SeqCst);
                *self.0.at_release.lock().unwrap() = Some(under_way);
                *spec = json!({});
            } else {
                for (name, value) in sent["spec"].as_object().unwrap() {
                    spec[name] = value.clone();
                }
            }
        }
        lease(&spec, &self.version())
    }

    fn list(&self, items: &Value) -> Value {
        json!({"metadata": {"resourceVersion": self.version()}, "items": items})
    }

    fn version(&self) -> String {
        self.0.version.fetch_add(1, Ordering::SeqCst).to_string()
    }
}

fn lease(spec: &Value, version: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "ipvs-controller", "resourceVersion": version},
        "spec": spec,
    })
}

/// A write that outlives the leader's Lease could collide with a write of the
/// next leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_is_given_back_when_no_write_is_under_way_any_more() {
    let server = ApiServer::default();
    let candidate = Candidate {
        namespace: "ipvs-operator".to_owned(),
        name: "ipvs-controller".to_owned(),
        identity: "me".to_owned(),
    };
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(run::run(server.client(), candidate, false, stopped));
    time::timeout(PATIENCE, async {
        while server.0.under_way.load(Ordering::SeqCst) == 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a status was expected to be written");
    stop.send_replace(true);
    time::timeout(PATIENCE, running)
        .await
        .expect("the controller was expected to stop")
        .unwrap();
    assert_eq!(*server.0.at_release.lock().unwrap(), Some(0));
}
