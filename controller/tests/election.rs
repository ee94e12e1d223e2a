//! Tests the election of a leader, with an API server that has one Lease.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use controller::{
    leader::{Candidate, Signals, campaign},
    trouble::Complaints,
};
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time};
use tower::service_fn;

/// How long a test waits: enough for a few requests to an API server that
/// answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The leader's Lease, which is null until a candidate creates it.
#[derive(Clone, Default)]
struct Lease(Arc<Mutex<Value>>);

impl Lease {
    fn holder(&self) -> Option<String> {
        let lease = self.0.lock().unwrap();
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    fn client(&self) -> Client {
        let lease = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let lease = lease.clone();
            async move { Ok::<_, Infallible>(lease.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await.unwrap();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut lease = self.0.lock().unwrap();
        match method {
            Method::POST => *lease = sent,
            Method::PATCH => merge(&mut lease, sent),
            _ => {}
        }
        let (code, answer) = if lease.is_null() {
            let failure = json!({"status": "Failure", "message": "no Lease", "reason": "NotFound", "code": 404});
            (404, failure)
        } else {
            (200, lease.clone())
        };
        let body = Body::from(answer.to_string().into_bytes());
        Response::builder().status(code).body(body).unwrap()
    }
}

/// Applies a JSON merge patch: null removes a field.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *into = patch;
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(&name);
        } else {
            merge(&mut into[&name], value);
        }
    }
}

/// The election campaign of one controller, and the signals to the campaign.
struct Runner {
    leading: watch::Receiver<bool>,
    free: watch::Sender<bool>,
    in_vain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    campaign: JoinHandle<()>,
}

impl Runner {
    fn start(lease: &Lease, identity: &str) -> Self {
        let (lead, leading) = watch::channel(false);
        let (free, is_free) = watch::channel(false);
        let (in_vain, is_in_vain) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let candidate = Candidate {
            namespace: "ipvs-operator".to_owned(),
            name: "ipvs-controller".to_owned(),
            identity: identity.to_owned(),
        };
        let signals = Signals {
            free: is_free,
            in_vain: is_in_vain,
            stop: stopped,
        };
        let campaign = campaign(
            lease.client(),
            candidate,
            Complaints::default(),
            lead,
            signals,
        );
        Self {
            leading,
            free,
            in_vain,
            stop,
            campaign: tokio::spawn(campaign),
        }
    }

    async fn leads(&mut self, leads: bool) {
        time::timeout(PATIENCE, self.leading.wait_for(|now| *now == leads))
            .await
            .unwrap_or_else(|_| panic!("it was expected to become leading: {leads}"))
            .unwrap();
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = time::timeout(PATIENCE, async {
        while !is_so() {
            time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for: {what}");
}

#[tokio::test]
async fn who_holds_the_lease_in_vain_gives_it_back_and_lets_another_lead() {
    let lease = Lease::default();
    let mut first = Runner::start(&lease, "first");
    first.leads(true).await;
    let mut second = Runner::start(&lease, "second");
    assert_eq!(lease.holder().as_deref(), Some("first"));

    first.in_vain.send_replace(true);
    first.leads(false).await;
    until("the first controller no longer holds the Lease", || {
        lease.holder().as_deref() != Some("first")
    })
    .await;
    // In a real controller, the watch of Leases signals that the Lease is free.
    second.free.send_replace(true);
    second.leads(true).await;
    assert_eq!(lease.holder().as_deref(), Some("second"));
    assert!(!*first.leading.borrow());
}

#[tokio::test]
async fn a_campaign_that_ends_gives_the_lease_back() {
    let lease = Lease::default();
    let mut only = Runner::start(&lease, "only");
    only.leads(true).await;
    only.stop.send_replace(true);
    time::timeout(PATIENCE, only.campaign)
        .await
        .expect("the campaign was expected to end")
        .unwrap();
    assert_eq!(lease.holder(), None);
}
