//! Which of several controllers publishes.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::{sync::watch, time};
use tracing::{info, warn};

use crate::{
    liveness::Time,
    trouble::{self, Complaints},
};

/// For so long nobody else takes over from a leader that is gone.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// A leader renews so long before its time has passed.
const GRACE: Duration = Duration::from_secs(5);

/// How often an API server that is away is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// Where the leader's Lease is, and who wants it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Unique among the candidates.
    pub identity: String,
}

/// What a campaign is told by those that watch.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Whether the Lease was seen to be nobody's.
    pub free: watch::Receiver<bool>,
    /// Whether the Lease is held in vain: see [`Tenure::is_in_vain`].
    pub in_vain: watch::Receiver<bool>,
    /// Whether it is time to stop.
    pub stop: watch::Receiver<bool>,
}

/// Takes the Lease whenever it is free, and renews it, until it is time to
/// stop. Then it is given back, so that the next one need not wait; and so it
/// is when it is held in vain, with time for another candidate to take it.
///
/// `leading` says what the last answer of the API server was. It is not enough
/// to act on: see [`Tenure`].
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
                    "{} holds the leader's Lease and has not seen its own renewals of it: it gives \
                     the Lease back, so that another one can lead",
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

/// Why a candidate begins anew.
enum End {
    /// It is time to stop.
    Stop,
    /// The Lease was seen to be free.
    Free,
    /// The Lease was held in vain.
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

/// Stands for election, and leads, until it is time to begin anew.
///
/// # Errors
/// As soon as a request fails.
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
            // The manager itself waits for the time that it read last.
            () = becomes(&mut signals.free), if !leads => return Ok(End::Free),
            changed = manager.changed() => {
                leading.send_replace(changed?);
                continue;
            }
        };
        leading.send_replace(false);
        let released = time::timeout(GRACE, manager.release()).await;
        if let Ok(Err(error)) = released {
            warn!("the leader's Lease is not given back: {error}");
        }
        return Ok(end);
    }
}

/// Until a signal changes to true.
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

/// Whether this process may publish. Pure.
///
/// The last answer of the API server may be old: the process slept, or requests
/// hang. So a leader must also have seen a renewal of its own, on its watch and
/// by its own clock, within the time for which a Lease counts.
#[derive(Debug, Default)]
pub struct Tenure {
    /// Since when the election says so.
    elected: Option<Time>,
    /// Until when the last renewal that was seen counts.
    until: Time,
}

impl Tenure {
    /// What the election says.
    pub fn elected(&mut self, elected: bool, now: Time) {
        if elected {
            self.elected.get_or_insert(now);
        } else if self.elected.take().is_some() {
            self.until = Time::ZERO;
        }
    }

    /// The leader's Lease was seen to be this process's own, renewed so long
    /// ago by its own clock: others count from the renewal, and not from when
    /// it was seen here.
    pub fn renewed(&mut self, age: Duration, now: Time) {
        self.until = (now + LEASE_DURATION).saturating_sub(age);
    }

    /// The leader's Lease was seen to be somebody else's, or nobody's.
    pub fn lost(&mut self, now: Time) {
        self.until = self.until.min(now);
    }

    /// Whether to publish.
    pub fn leads(&self, now: Time) -> bool {
        self.elected.is_some() && now < self.until
    }

    /// Whether the Lease is better given back: it is held, and keeps others
    /// from leading, but its renewals have not been seen for so long that this
    /// process has not led for a whole Lease's duration.
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
        assert!(tenure.is_in_vain(s(146)), "none was seen any more");
        tenure.renewed(s(0), s(147));
        tenure.lost(s(148));
        assert!(!tenure.is_in_vain(s(162)));
        assert!(tenure.is_in_vain(s(163)), "it was seen to be another's");
        tenure.elected(false, s(164));
        tenure.elected(true, s(164));
        assert!(!tenure.is_in_vain(s(178)), "the time begins anew");
    }
}
