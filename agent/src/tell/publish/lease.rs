//! Renews the director's Lease, as long as the agent works.

use std::{collections::BTreeMap, time::Duration};

use crds::api::REPORT_REFUSED;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use tokio::{sync::watch, time};

use super::{
    FIELD_MANAGER,
    attempt::{once, succeeded},
};
use crate::{heartbeat::Heartbeat, pauses::Pauses, said::Said};

/// The interval at which the director's Lease is renewed, the same as for a
/// kubelet's Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The number of seconds for which a director's Lease is valid, the same as for
/// a kubelet's Lease.
const LEASE_SECONDS: i32 = 40;
/// If the last beat of the loop is at least this old, the Lease is not renewed.
/// A first load, or one slow write to the disk, is shorter.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// The interval at which the agent checks whether a loop that may hang works
/// again.
const RECHECK: Duration = Duration::from_secs(1);
/// The longest wait before a failed renewal of the Lease is repeated, without
/// the random part. This wait, its random part and the maximum wait for an
/// answer together are well below [`LEASE_SECONDS`].
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Renews the director's Lease while the loop works, without end. Readers of the
/// Lease measure the time between renewals with their own clock, so the clocks
/// need not agree. If the API server refuses the director's report, the Lease
/// has an annotation with the reason.
pub(super) async fn renew(
    leases: &Api<Lease>,
    name: &str,
    heartbeat: &Heartbeat,
    refused: watch::Receiver<Option<String>>,
) {
    let what = "renew this director's Lease";
    let mut pauses = Pauses::up_to(LONGEST_WAIT);
    let (mut stuck, mut failed) = (Said::default(), Said::default());
    loop {
        let pause = if works(heartbeat, &mut stuck) {
            let seconds = seconds(heartbeat.age());
            let lease = lease(name, seconds, refused.borrow().clone(), Timestamp::now());
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(&lease);
            match once(what, leases.patch(name, &parameters, &patch)).await {
                Ok(_) => {
                    succeeded(what, &mut failed);
                    pauses.reset();
                    // A Lease that ends early must be renewed as soon as the
                    // loop works again.
                    match seconds < LEASE_SECONDS {
                        true => RECHECK,
                        false => RENEW_INTERVAL,
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

/// Whether the loop works. Logs when the loop stops and when it works again.
fn works(heartbeat: &Heartbeat, said: &mut Said) -> bool {
    if heartbeat.age() < LONGEST_SILENCE {
        if said.clear() {
            tracing::info!("the director's thread works again");
        }
        return true;
    }
    said.error([format!(
        "the director's thread has not worked for {} s, probably because a disk or the kernel \
         does not answer: this director's Lease is not renewed, so that nobody relies on its \
         report. Packets keep flowing",
        LONGEST_SILENCE.as_secs()
    )]);
    false
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
    use super::*;

    #[test]
    fn a_lease_ends_within_a_minute_after_the_loops_last_beat() {
        for (age, valid) in [(0, 40), (10, 40), (11, 29), (29, 11)] {
            let age = Duration::from_secs(age);
            assert_eq!(seconds(age), valid, "last beat {age:?} ago");
            assert!(age + Duration::from_secs(valid as u64) <= Duration::from_secs(50));
        }
    }

    #[test]
    fn a_loop_that_was_silent_for_half_a_minute_does_not_work() {
        let heartbeat = Heartbeat::aged(LONGEST_SILENCE);
        let mut said = Said::default();
        assert!(!works(&heartbeat, &mut said));
        heartbeat.beat();
        assert!(works(&heartbeat, &mut said), "it is back");
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
