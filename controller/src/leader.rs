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

/// Takes the Lease whenever it is free, and renews it, until `stop` is true.
/// Then it is given back, so that the next one need not wait.
///
/// `leading` says what the last answer of the API server was. It is not enough
/// to act on: see [`Tenure`]. `free` is told when the Lease is seen to be
/// nobody's.
pub async fn campaign(
    client: Client,
    candidate: Candidate,
    complaints: Complaints,
    leading: watch::Sender<bool>,
    mut free: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let mut failed = false;
    while !*stop.borrow() {
        let manager = tokio::select! {
            manager = manager(&client, &candidate) => manager,
            _ = stop.changed() => return,
        };
        let ended = match manager {
            Ok(manager) => {
                if std::mem::take(&mut failed) {
                    info!("the leader's Lease can be reached again");
                }
                hold(&manager, &leading, &mut free, &mut stop).await
            }
            Err(error) => Err(error),
        };
        leading.send_replace(false);
        if let Err(error) = ended {
            failed = true;
            if let Some(complaint) = complaint(&candidate, &error) {
                complaints.warn(&complaint);
            }
            tokio::select! {
                () = time::sleep(RETRY) => {}
                _ = stop.changed() => {}
            }
        }
    }
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

/// Until it is time to stop, the Lease was seen to be free, or a request
/// failed.
async fn hold(
    manager: &LeaseManager,
    leading: &watch::Sender<bool>,
    free: &mut watch::Receiver<bool>,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), LeaseManagerError> {
    loop {
        tokio::select! {
            changed = manager.changed() => {
                leading.send_replace(changed?);
            }
            // The manager itself waits for the time that it read last.
            () = becomes_free(free), if !*leading.borrow() => return Ok(()),
            _ = stop.changed() => {
                leading.send_replace(false);
                let released = time::timeout(GRACE, manager.release()).await;
                if let Ok(Err(error)) = released {
                    warn!("the leader's Lease is not given back: {error}");
                }
                return Ok(());
            }
        }
    }
}

async fn becomes_free(free: &mut watch::Receiver<bool>) {
    while free.changed().await.is_ok() {
        if *free.borrow_and_update() {
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
    elected: bool,
    seen: Option<Time>,
}

impl Tenure {
    /// What the election says.
    pub fn elected(&mut self, elected: bool) {
        self.elected = elected;
        if !elected {
            self.seen = None;
        }
    }

    /// The leader's Lease was seen to be this process's own, renewed.
    pub fn renewed(&mut self, now: Time) {
        self.seen = Some(now);
    }

    /// The leader's Lease was seen to be somebody else's, or nobody's.
    pub fn lost(&mut self) {
        self.seen = None;
    }

    /// Whether to publish.
    pub fn leads(&self, now: Time) -> bool {
        self.elected
            && self
                .seen
                .is_some_and(|seen| now.saturating_sub(seen) < LEASE_DURATION)
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
        tenure.renewed(s(0));
        assert!(!tenure.leads(s(0)));
        tenure.elected(true);
        assert!(tenure.leads(s(1)));
        assert!(tenure.leads(s(14)));
        assert!(!tenure.leads(s(15)));
        tenure.renewed(s(20));
        assert!(tenure.leads(s(20)));
    }

    #[test]
    fn a_leader_stops_at_once_when_the_lease_is_not_its_own() {
        let mut tenure = Tenure::default();
        tenure.elected(true);
        tenure.renewed(s(0));
        tenure.lost();
        assert!(!tenure.leads(s(1)));
        tenure.renewed(s(2));
        tenure.elected(false);
        tenure.elected(true);
        assert!(!tenure.leads(s(2)));
    }
}
