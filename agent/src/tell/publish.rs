//! Publishes the loop's findings on the API server. The findings go into the
//! Director and its status, and a Lease shows that the agent is alive.

use std::time::Duration;

use crds::{
    advice,
    api::{Director, DirectorSpec, DirectorStatus},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::{
    sync::{Notify, watch},
    time,
};

use crate::tell::report::{self, Observed};

/// The field manager of all objects that the agent applies.
const FIELD_MANAGER: &str = "ipvs-agent";
/// The shortest time between two writes of a Director's status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which an unchanged status is written again. Writing an
/// unchanged status recreates a deleted Director. If the Director still exists,
/// the write of the same status changes nothing in the API server's storage.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The interval at which the director's Lease is renewed, the same as for a
/// kubelet's Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// The number of seconds for which a director's Lease is valid, the same as for
/// a kubelet's Lease.
const LEASE_SECONDS: i32 = 40;
/// The maximum wait for the API server's answer to a write. Without a limit, a
/// dead connection would block the agent.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest wait before a failed write to the API server is repeated.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait before a failed renewal of the Lease is repeated. The
/// longest wait and [`ANSWER_TIME`] together are well below [`LEASE_SECONDS`].
const LONGEST_LEASE_WAIT: Duration = Duration::from_secs(5);

/// The identity under which a director publishes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of the director.
    pub name: String,
    /// The name of the director's DirectorGroup.
    pub group: String,
    /// The id of the machine's current boot. A Director's status from another
    /// boot is outdated.
    pub boot_id: String,
    /// The namespace of the director's Lease.
    pub lease_namespace: String,
}

/// Registers the director, then publishes its status and renews its Lease,
/// without end. The caller must notify `vanished` after the Director was
/// deleted.
pub async fn publish(
    client: Client,
    identity: &Identity,
    mut observed: watch::Receiver<Option<Observed>>,
    vanished: &Notify,
) {
    let director = DirectorWriter {
        api: Api::all(client.clone()),
        identity,
    };
    let leases = Api::<Lease>::namespaced(client, &identity.lease_namespace);
    // Other programs trust a status while its Lease is renewed, so the status
    // is written before the Lease.
    let (mut last, generation) = insist("register this director", LONGEST_WAIT, || {
        director.register()
    })
    .await;
    tokio::join!(renew(&leases, &identity.name), async {
        let mut written = time::Instant::now();
        let mut missing = false;
        loop {
            let latest = observed.borrow_and_update().clone();
            if let Some(latest) = latest {
                let status = report::status(&latest, &last, generation);
                if status != last || missing || written.elapsed() >= REFRESH_INTERVAL {
                    insist("report this director's status", LONGEST_WAIT, || {
                        director.write(&status)
                    })
                    .await;
                    missing = false;
                    written = time::Instant::now();
                    last = status;
                    time::sleep(STATUS_INTERVAL).await;
                }
            }
            tokio::select! {
                changed = observed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = vanished.notified() => missing = true,
                () = time::sleep(REFRESH_INTERVAL) => {}
            }
        }
    });
}

struct DirectorWriter<'a> {
    api: Api<Director>,
    identity: &'a Identity,
}

impl DirectorWriter<'_> {
    /// Creates the Director if there is none, and writes the director's group
    /// into the status. So the other directors see this director before this
    /// director takes any VIP. Returns the Director's status and generation. A
    /// status from another boot or for another group is replaced, and only its
    /// addresses are kept.
    async fn register(&self) -> Result<(DirectorStatus, i64), kube::Error> {
        let object = Director::new(&self.identity.name, DirectorSpec::default());
        let existing = self.apply(&object, false).await?;
        let generation = existing.metadata.generation.unwrap_or_default();
        let mut status = existing.status.unwrap_or_default();
        let Identity { group, boot_id, .. } = self.identity;
        if status.director_group_name != *group || status.boot_id != *boot_id {
            status = DirectorStatus {
                director_group_name: group.clone(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                boot_id: boot_id.clone(),
                // Other directors read the host's addresses in the status to
                // find out whether a server is on this host.
                addresses: status.addresses,
                ..DirectorStatus::default()
            };
            self.write(&status).await?;
        }
        status
            .conditions
            .retain(|condition| report::CONDITIONS.contains(&&*condition.type_));
        Ok((status, generation))
    }

    async fn write(&self, status: &DirectorStatus) -> Result<(), kube::Error> {
        let mut object = Director::new(&self.identity.name, DirectorSpec::default());
        object.status = Some(status.clone());
        match self.apply(&object, true).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                self.apply(&object, false).await?;
                self.apply(&object, true).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    async fn apply(&self, object: &Director, status: bool) -> Result<Director, kube::Error> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(object);
        let name = &self.identity.name;
        if status {
            self.api.patch_status(name, &parameters, &patch).await
        } else {
            self.api.patch(name, &parameters, &patch).await
        }
    }
}

/// Renews the director's Lease, without end. Readers of the Lease measure the
/// time between renewals with their own clock, so the clocks need not agree.
async fn renew(leases: &Api<Lease>, name: &str) {
    let mut ticks = time::interval(RENEW_INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        insist(
            "renew this director's Lease",
            LONGEST_LEASE_WAIT,
            || async {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(name.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec {
                        holder_identity: Some(name.to_owned()),
                        lease_duration_seconds: Some(LEASE_SECONDS),
                        renew_time: Some(MicroTime(Timestamp::now())),
                        ..LeaseSpec::default()
                    }),
                };
                let parameters = PatchParams::apply(FIELD_MANAGER).force();
                leases
                    .patch(name, &parameters, &Patch::Apply(&lease))
                    .await
                    .map(drop)
            },
        )
        .await;
    }
}

/// Repeats an attempt until it succeeds, with growing pauses of at most
/// `longest_wait`. Logs each problem only once.
async fn insist<T, F>(what: &str, longest_wait: Duration, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut wait = STATUS_INTERVAL;
    let mut said = None;
    loop {
        let message = match time::timeout(ANSWER_TIME, attempt()).await {
            Ok(Ok(done)) => {
                if said.is_some() {
                    tracing::info!("{what}: succeeded");
                }
                return done;
            }
            Ok(Err(error)) => explain(what, &error),
            Err(_) => explain(what, &kube::Error::Service("no answer in time".into())),
        };
        if said.as_ref() != Some(&message) {
            tracing::warn!("{message}");
            said = Some(message);
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(longest_wait);
    }
}

fn explain(what: &str, error: &kube::Error) -> String {
    let why = match error {
        kube::Error::Api(status) => advice::api_error(what, status),
        error => Some(format!("cannot {what}: {}", advice::with_sources(error))),
    };
    let why = why.unwrap_or_else(|| format!("cannot {what}: {error}"));
    format!("{why}. Trying again; packets keep flowing meanwhile")
}
