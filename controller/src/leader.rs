//! Elects the one controller that publishes statuses.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, time};
use tracing::{info, warn};

use crate::{
    liveness::Time,
    trouble::{self, Complaints},
};

/// How long the other controllers wait before one of them replaces a leader
/// that is gone.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// The leader renews its Lease this long before the Lease expires.
const GRACE: Duration = Duration::from_secs(5);

/// The pause before the next attempt after a failed request.
const RETRY: Duration = Duration::from_secs(2);

/// The leader's Lease, and the process that competes for it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The namespace of the leader's Lease.
    pub namespace: String,
    /// The name of the leader's Lease.
    pub name: String,
    /// The name of this process, unique among the candidates.
    pub identity: String,
}

/// Signals that the rest of the controller sends to the election.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Whether the leader's Lease has no holder.
    pub free: watch::Receiver<bool>,
    /// Whether this process holds the leader's Lease but cannot lead: see
    /// [`Tenure::is_in_vain`].
    pub in_vain: watch::Receiver<bool>,
    /// Whether the process must stop.
    pub stop: watch::Receiver<bool>,
}

/// Takes the leader's Lease whenever the Lease is free, and renews it until the
/// process must stop. At the end, the process releases the Lease, so the next
/// leader does not have to wait. The process also releases the Lease if it
/// cannot lead ([`Tenure::is_in_vain`]). In this case, the process then waits
/// for [`LEASE_DURATION`], so another candidate can take the Lease.
///
/// `leading` says whether this process has the Lease, according to the API
/// server's last answer. The API server's answer alone does not allow a leader
/// to publish: see [`Tenure`].
pub async fn campaign(
    client: Client,
    candidate: Candidate,
    complaints: Complaints,
    leading: watch::Sender<bool>,
    mut signals: Signals,
) {
    let mut failed = false;
    while !*signals.stop.borrow() {
        let manager = tokio::select! {
            manager = manager(&client, &candidate) => manager,
            _ = signals.stop.changed() => return,
        };
        let ended = match manager {
            Ok(manager) => {
                if std::mem::take(&mut failed) {
                    info!("the leader's Lease can be reached again");
                }
                hold(&manager, &leading, &mut signals).await
            }
            Err(error) => Err(error),
        };
        leading.send_replace(false);
        let pause = match ended {
            Ok(End::Stop | End::Free) => continue,
            Ok(End::InVain) => {
                warn!(
                    "{} holds the leader's Lease but has not seen its own renewals: it gives \
                     the Lease back, so that another controller can lead",
                    candidate.identity
                );
                LEASE_DURATION
            }
            Err(error) => {
                failed = true;
                if let Some(complaint) = complaint(&candidate, &error) {
                    complaints.warn(&complaint);
                }
                RETRY
            }
        };
        tokio::select! {
            () = time::sleep(pause) => {}
            _ = signals.stop.changed() => {}
        }
    }
}

/// Why an election attempt ended.
enum End {
    /// The process must stop.
    Stop,
    /// The leader's Lease has no holder, so this process can try to take it.
    Free,
    /// This process held the leader's Lease but could not lead.
    InVain,
}

async fn manager(
    client: &Client,
    candidate: &Candidate,
) -> Result<LeaseManager, LeaseManagerError> {
    LeaseManagerBuilder::new(client.clone(), &candidate.name)
        .with_namespace(&candidate.namespace)
        .with_identity(&candidate.identity)
        .with_duration(LEASE_DURATION.as_secs())
        .with_grace(GRACE.as_secs())
        .build()
        .await
}

/// Tries to take the leader's Lease, and then keeps the Lease. A signal ends
/// the attempt.
///
/// # Errors
/// Returns an error if a request to the API server fails.
async fn hold(
    manager: &LeaseManager,
    leading: &watch::Sender<bool>,
    signals: &mut Signals,
) -> Result<End, LeaseManagerError> {
    loop {
        let leads = *leading.borrow();
        let end = tokio::select! {
            biased;
            () = becomes(&mut signals.stop) => End::Stop,
            () = becomes(&mut signals.in_vain), if leads => End::InVain,
            // A free Lease can be taken at once. Without the signal `free`, the
            // Lease manager would wait until the Lease's last known expiry
            // time.
            () = becomes(&mut signals.free), if !leads => return Ok(End::Free),
            changed = manager.changed() => {
                leading.send_replace(changed?);
                continue;
            }
        };
        leading.send_replace(false);
        let released = time::timeout(GRACE, manager.release()).await;
        if let Ok(Err(error)) = released {
            warn!("cannot give the leader's Lease back: {error}");
        }
        return Ok(end);
    }
}

/// Returns when a signal changes to true.
async fn becomes(signal: &mut watch::Receiver<bool>) {
    while signal.changed().await.is_ok() {
        if *signal.borrow_and_update() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

fn complaint(candidate: &Candidate, error: &LeaseManagerError) -> Option<String> {
    let what = format!("hold Lease {}/{}", candidate.namespace, candidate.name);
    match error {
        LeaseManagerError::KubeError(error) => trouble::of_request(&what, error),
        other => Some(format!("cannot {what}: {other}")),
    }
}

/// Decides whether this process may publish. This type reads no clock: callers
/// pass the time as `now`.
///
/// The last answer of the API server may be old, because the process slept or
/// requests hang. So a leader may publish only while its watch shows fresh
/// renewals. By the leader's own clock, the last seen renewal must be younger
/// than the duration of the Lease.
#[derive(Debug, Default)]
pub struct Tenure {
    /// The time at which this process won the election, if it still has the
    /// Lease.
    elected: Option<Time>,
    /// The time until which the last seen renewal allows this process to lead.
    until: Time,
}

impl Tenure {
    /// Records the result of the election.
    pub fn elected(&mut self, elected: bool, now: Time) {
        if elected {
            self.elected.get_or_insert(now);
        } else if self.elected.take().is_some() {
            self.until = Time::ZERO;
        }
    }

    /// Records that the watch showed a renewal by this process. `age` is the
    /// time since the renewal, by the process's own clock. The Lease's duration
    /// starts at the renewal, not when the watch shows the renewal. The other
    /// candidates also measure the duration from the renewal.
    pub fn renewed(&mut self, age: Duration, now: Time) {
        self.until = (now + LEASE_DURATION).saturating_sub(age);
    }

    /// Records that the leader's Lease belongs to another process, or to no
    /// process.
    pub fn lost(&mut self, now: Time) {
        self.until = self.until.min(now);
    }

    /// Whether this process may publish now.
    pub fn leads(&self, now: Time) -> bool {
        self.elected.is_some() && now < self.until
    }

    /// Whether this process has held the leader's Lease for a whole Lease
    /// duration without being able to lead. Such a process does not see its own
    /// renewals, and keeps other controllers from leading.
    pub fn is_in_vain(&self, now: Time) -> bool {
        self.elected
            .is_some_and(|since| now >= since.max(self.until) + LEASE_DURATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_leader_is_elected_and_sees_its_own_renewals() {
        let mut tenure = Tenure::default();
        tenure.renewed(s(0), s(0));
        assert!(!tenure.leads(s(0)));
        tenure.elected(true, s(0));
        assert!(tenure.leads(s(1)));
        assert!(tenure.leads(s(14)));
        assert!(!tenure.leads(s(15)));
        tenure.renewed(s(0), s(20));
        assert!(tenure.leads(s(20)));
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_made() {
        let mut tenure = Tenure::default();
        tenure.elected(true, s(30));
        tenure.renewed(s(10), s(30));
        assert!(tenure.leads(s(34)));
        assert!(!tenure.leads(s(35)));
        tenure.renewed(s(1000), s(36));
        assert!(!tenure.leads(s(36)));
    }

    #[test]
    fn a_leader_stops_at_once_when_the_lease_is_not_its_own() {
        let mut tenure = Tenure::default();
        tenure.elected(true, s(0));
        tenure.renewed(s(0), s(0));
        tenure.lost(s(1));
        assert!(!tenure.leads(s(1)));
        tenure.renewed(s(0), s(2));
        tenure.elected(false, s(2));
        tenure.elected(true, s(2));
        assert!(!tenure.leads(s(2)));
    }

    #[test]
    fn a_lease_is_held_in_vain_by_who_has_not_led_for_its_whole_duration() {
        let mut tenure = Tenure::default();
        assert!(!tenure.is_in_vain(s(100)));
        tenure.elected(true, s(100));
        assert!(!tenure.is_in_vain(s(114)));
        assert!(tenure.is_in_vain(s(115)), "no renewal was seen at all");
        tenure.renewed(s(0), s(116));
        assert!(!tenure.is_in_vain(s(145)));
        assert!(tenure.is_in_vain(s(146)), "no further renewal was seen");
        tenure.renewed(s(0), s(147));
        tenure.lost(s(148));
        assert!(!tenure.is_in_vain(s(162)));
        assert!(tenure.is_in_vain(s(163)), "the Lease is another's");
        tenure.elected(false, s(164));
        tenure.elected(true, s(164));
        assert!(!tenure.is_in_vain(s(178)), "an election restarts the time");
    }
}
