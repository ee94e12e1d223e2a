//! Renews the director's Lease, as long as the agent works.
//!
//! The Lease is in [`DIRECTORS_NAMESPACE`]. Until version 0.2, the agent renews
//! a second Lease with the same content in the controller's namespace. A
//! controller of an earlier version sees only the second Lease: during an
//! upgrade that replaces the agents first, or after a rollback that has not
//! reached each agent yet.

use std::{collections::BTreeMap, time::Duration};

use crds::api::{DIRECTORS_NAMESPACE, REPORT_REFUSED};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::{sync::watch, time};

use super::{
    FIELD_MANAGER, Identity,
    attempt::{once, succeeded},
};
use crate::{heartbeat::Heartbeat, pauses::Pauses, said::Said};

/// The interval at which the director's Lease is renewed, the same as for a
/// kubelet's Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The interval at which the second Lease is renewed, which only earlier
/// controllers need. The interval is long, because each renewal is a write to
/// etcd and an event for every controller. A Lease still outlasts two of them.
const SECOND_INTERVAL: Duration = Duration::from_secs(20);
/// The number of seconds for which a director's Lease is valid, the same as for
/// a kubelet's Lease.
const LEASE_SECONDS: i32 = 40;
/// If the last beat of the loop is at least this old, the Lease is not renewed.
/// A first load, or one slow write to the disk, is shorter.
pub(in crate::tell) const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// The interval at which the agent checks whether a loop that may hang works
/// again.
const RECHECK: Duration = Duration::from_secs(1);
/// The maximum wait for the API server's answer to a renewal. A Lease outlasts a
/// renewal without an answer, and the next one.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest wait before a failed renewal of the Lease is repeated, without
/// the random part, which is at most as long.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Renews the director's Leases while the loop works, without end. Readers of a
/// Lease measure the time between renewals with their own clock, so the clocks
/// need not agree. If the API server refuses the director's report, the Leases
/// have an annotation with the reason.
///
/// Each Lease is renewed without regard to the other one: a controller counts
/// the renewals of both.
pub(super) async fn renew(
    client: &Client,
    identity: &Identity,
    heartbeat: &Heartbeat,
    refused: watch::Receiver<Option<String>>,
) {
    let earlier = Some(identity.lease_namespace.as_str());
    let earlier = earlier.filter(|namespace| *namespace != DIRECTORS_NAMESPACE);
    let first = (DIRECTORS_NAMESPACE, RENEW_INTERVAL);
    tokio::join!(
        renew_in(first, client, identity, heartbeat, &refused),
        async {
            if let Some(namespace) = earlier {
                let second = (namespace, SECOND_INTERVAL);
                renew_in(second, client, identity, heartbeat, &refused).await;
            }
        },
        tell_whether_it_works(heartbeat),
    );
}

/// Renews the Lease in one namespace, at the given interval.
async fn renew_in(
    (namespace, interval): (&str, Duration),
    client: &Client,
    identity: &Identity,
    heartbeat: &Heartbeat,
    refused: &watch::Receiver<Option<String>>,
) {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let what = format!("renew this director's Lease in the namespace {namespace}");
    let mut pauses = Pauses::up_to(LONGEST_WAIT);
    let mut failed = Said::default();
    loop {
        let pause = if works(heartbeat) {
            let seconds = seconds(heartbeat.age());
            let (refused, now) = (refused.borrow().clone(), Timestamp::now());
            let lease = lease(&identity.name, seconds, refused, now);
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(&lease);
            let write = leases.patch(&identity.name, &parameters, &patch);
            match once(&what, ANSWER_TIME, write).await {
                Ok(_) => {
                    succeeded(&what, &mut failed);
                    pauses.reset();
                    // A Lease that ends early must be renewed as soon as the
                    // loop works again.
                    match seconds < LEASE_SECONDS {
                        true => RECHECK,
                        false => interval,
                    }
                }
                Err(failure) => {
                    failed.warn([failure.why]);
                    pauses.next()
                }
            }
        } else {
            RECHECK
        };
        time::sleep(pause).await;
    }
}

/// Returns for how many seconds a renewed Lease is valid. If the loop last beat
/// more than a renewal ago, it may hang, and the Lease must not outlast the
/// loop by much.
fn seconds(age: Duration) -> i32 {
    match age > RENEW_INTERVAL {
        true => LEASE_SECONDS - i32::try_from(age.as_secs()).unwrap_or(LEASE_SECONDS),
        false => LEASE_SECONDS,
    }
}

/// Logs when the loop stops and when it works again, without end.
async fn tell_whether_it_works(heartbeat: &Heartbeat) {
    let mut said = Said::default();
    loop {
        if !works(heartbeat) {
            said.error([format!(
                "the director's thread has not worked for {} s, probably because a disk or the \
                 kernel does not answer: this director's Lease is not renewed, so that nobody \
                 relies on its report. Packets keep flowing",
                LONGEST_SILENCE.as_secs()
            )]);
        } else if said.clear() {
            tracing::info!("the director's thread works again");
        }
        time::sleep(RECHECK).await;
    }
}

fn works(heartbeat: &Heartbeat) -> bool {
    heartbeat.age() < LONGEST_SILENCE
}

fn lease(name: &str, seconds: i32, refused: Option<String>, now: Timestamp) -> Lease {
    let annotations = refused.map(|why| BTreeMap::from([(REPORT_REFUSED.to_owned(), why)]));
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use hyper::{Request, Response};
    use kube::client::Body;
    use tower::service_fn;

    use super::*;

    /// Runs an agent for 61 s. Its API server refuses the Lease in the namespace
    /// `refuses`. Returns how many renewals each namespace has seen.
    async fn renewals(lease_namespace: &str, refuses: &'static str) -> BTreeMap<String, u32> {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let count = Arc::clone(&seen);
        let service = service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let namespace = path.split('/').nth(5).unwrap_or_default().to_owned();
            let code = match namespace == refuses {
                true => 403,
                false => 200,
            };
            if code == 200 {
                *count.lock().unwrap().entry(namespace).or_default() += 1;
            }
            async move {
                let answer = match code {
                    200 => serde_json::json!({"metadata": {"name": "a"}}),
                    _ => serde_json::json!({"status": "Failure", "message": "no", "code": code}),
                };
                let body = Body::from(answer.to_string().into_bytes());
                let answer = Response::builder().status(code).body(body);
                Ok::<_, Infallible>(answer.expect("an answer"))
            }
        });
        let client = Client::new(service, "default");
        let identity = Identity {
            name: "a".to_owned(),
            group: "default".to_owned(),
            boot_id: "this boot".to_owned(),
            kernel: "6.1.0".to_owned(),
            lease_namespace: lease_namespace.to_owned(),
        };
        let (_told, refused) = watch::channel(None);
        let heartbeat = Heartbeat::default();
        let renewing = renew(&client, &identity, &heartbeat, refused);
        time::timeout(Duration::from_secs(61), renewing)
            .await
            .expect_err("it renews without end");
        drop(client);
        std::mem::take(&mut seen.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_the_two_leases_is_renewed_whatever_becomes_of_the_other() {
        for (lease_namespace, refuses, expected) in [
            (
                "ipvs-operator",
                "",
                &[("ipvs-directors", 7), ("ipvs-operator", 4)][..],
            ),
            ("ipvs-operator", "ipvs-operator", &[("ipvs-directors", 7)]),
            ("ipvs-operator", "ipvs-directors", &[("ipvs-operator", 4)]),
            ("ipvs-directors", "", &[("ipvs-directors", 7)]),
        ] {
            let expected = expected.iter();
            let expected = expected.map(|(namespace, count)| ((*namespace).to_owned(), *count));
            assert_eq!(
                renewals(lease_namespace, refuses).await,
                expected.collect(),
                "the second Lease is in {lease_namespace}, and {refuses:?} is refused"
            );
        }
    }

    #[test]
    fn a_lease_ends_within_a_minute_after_the_loops_last_beat() {
        for (age, valid) in [(0, 40), (10, 40), (11, 29), (29, 11)] {
            let age = Duration::from_secs(age);
            assert_eq!(seconds(age), valid, "last beat {age:?} ago");
            assert!(age + Duration::from_secs(valid as u64) <= Duration::from_secs(50));
        }
        let valid = Duration::from_secs(LEASE_SECONDS as u64);
        assert!(2 * SECOND_INTERVAL <= valid, "one renewal may fail");
        let in_vain = ANSWER_TIME + 2 * LONGEST_WAIT;
        assert!(RENEW_INTERVAL + in_vain <= valid, "one answer may be lost");
    }

    #[test]
    fn a_loop_that_was_silent_for_half_a_minute_does_not_work() {
        let heartbeat = Heartbeat::aged(LONGEST_SILENCE);
        assert!(!works(&heartbeat));
        heartbeat.beat();
        assert!(works(&heartbeat), "it is back");
    }

    #[test]
    fn a_refused_report_is_told_in_the_lease() {
        let why = "since then: too large".to_owned();
        let told = lease("a", 40, Some(why.clone()), Timestamp::UNIX_EPOCH);
        let annotations = told.metadata.annotations.expect("it has one");
        assert_eq!(annotations[REPORT_REFUSED], why);
        let silent = lease("a", 40, None, Timestamp::UNIX_EPOCH);
        assert_eq!(silent.metadata.annotations, None);
    }
}
