//! Writes the Director, its status and its DirectorGroupMember.

use std::{net::IpAddr, time::Duration};

use crds::{
    api::{
        Director, DirectorGroupMember, DirectorGroupMemberSpec, DirectorSpec, DirectorStatus,
        Repairs,
    },
    condition::WRITTEN_BY_AGENTS,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{FIELD_MANAGER, Identity, definition::Definition};

/// Writes the objects that tell about this director.
pub(super) struct DirectorWriter<'a> {
    pub(super) definition: Definition,
    directors: Api<Director>,
    members: Api<DirectorGroupMember>,
    identity: &'a Identity,
}

/// A director that is registered: its Director exists.
pub(super) struct Registered {
    /// The status of the Director. A status from another boot or for another
    /// group was replaced.
    pub(super) status: DirectorStatus,
    /// The generation of the Director.
    pub(super) generation: i64,
    /// The uid of the Director.
    uid: String,
}

impl<'a> DirectorWriter<'a> {
    pub(super) fn new(client: &Client, identity: &'a Identity) -> Self {
        Self {
            definition: Definition::new(client),
            directors: Api::all(client.clone()),
            members: Api::all(client.clone()),
            identity,
        }
    }

    /// Creates the Director if there is none, and writes the director's group
    /// and the versions of this run into the status.
    pub(super) async fn register(&self) -> Result<Registered, kube::Error> {
        let object = Director::new(&self.identity.name, DirectorSpec::default());
        let existing = apply(&self.directors, &object).await?;
        let mut status = existing.status.unwrap_or_default();
        status
            .conditions
            .retain(|condition| WRITTEN_BY_AGENTS.contains(&&*condition.type_));
        let first = self.identity.first_status();
        let is_outdated = status.director_group_name != first.director_group_name
            || status.boot_id != first.boot_id;
        let registered = match is_outdated {
            true => first,
            false => DirectorStatus {
                agent_version: first.agent_version,
                kernel_version: first.kernel_version,
                ..without_findings(status.clone())
            },
        };
        if registered != status {
            status = registered;
            self.definition.look().await;
            self.write_status(&status).await?;
        }
        Ok(Registered {
            status,
            generation: existing.metadata.generation.unwrap_or_default(),
            uid: existing.metadata.uid.unwrap_or_default(),
        })
    }

    /// Writes the Director's status, without the fields that the installed
    /// definition lacks.
    ///
    /// # Errors
    /// Returns an error with code 404 if the Director was deleted: it must be
    /// registered again.
    pub(super) async fn write_status(&self, status: &DirectorStatus) -> Result<(), kube::Error> {
        let mut object = Director::new(&self.identity.name, DirectorSpec::default());
        object.status = Some(status.clone());
        let mut object = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
        self.definition.cut(&mut object["status"]);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let (name, patch) = (&self.identity.name, Patch::Apply(&object));
        let written = self.directors.patch_status(name, &parameters, &patch);
        written.await.map(drop)
    }

    /// Returns the addresses in the director's DirectorGroupMember, or `None` if
    /// there is no such object for this Director and group.
    pub(super) async fn addresses(
        &self,
        registered: &Registered,
    ) -> Result<Option<Vec<String>>, kube::Error> {
        let member = self.members.get_opt(&self.identity.name).await?;
        let member = member.filter(|member| {
            let mut owners = member.owner_references().iter();
            member.spec.director_group_name == self.identity.group
                && owners.any(|owner| owner.uid == registered.uid)
        });
        Ok(member.map(|member| member.spec.addresses))
    }

    /// Writes the director's DirectorGroupMember. The object belongs to the
    /// Director, so Kubernetes deletes it together with the Director.
    pub(super) async fn write_member(
        &self,
        registered: &Registered,
        addresses: &[String],
    ) -> Result<(), kube::Error> {
        let Identity { name, group, .. } = self.identity;
        let spec = DirectorGroupMemberSpec {
            director_group_name: group.clone(),
            addresses: addresses.to_vec(),
        };
        let mut member = DirectorGroupMember::new(name, spec);
        member.metadata.owner_references = Some(vec![OwnerReference {
            api_version: Director::api_version(&()).into_owned(),
            kind: Director::kind(&()).into_owned(),
            name: name.clone(),
            uid: registered.uid.clone(),
            ..OwnerReference::default()
        }]);
        apply(&self.members, &member).await.map(drop)
    }
}

/// Returns the status of the agent's previous run without what that run found.
/// What the kernel holds stays in the status until the first round.
fn without_findings(status: DirectorStatus) -> DirectorStatus {
    DirectorStatus {
        removals_held: 0,
        repairs: Repairs::default(),
        notices: Vec::new(),
        notices_omitted: 0,
        ..status
    }
}

async fn apply<K>(api: &Api<K>, object: &K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let name = object.meta().name.as_deref().unwrap_or_default();
    api.patch(name, &parameters, &Patch::Apply(object)).await
}

/// The shortest time between two writes of a Director's status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The number of status writes per second that a whole group makes at most,
/// apart from the first write of each director after a quiet interval.
const WRITES_PER_SECOND: u32 = 100;

/// Returns the shortest time between two writes of the status of one director in
/// a group of `directors`. The controller and the API server must process the
/// writes of all directors of the group.
pub(super) fn interval(directors: usize) -> Duration {
    let directors = u32::try_from(directors).unwrap_or(u32::MAX);
    STATUS_INTERVAL.max(Duration::from_secs(1) * directors / WRITES_PER_SECOND)
}

/// Returns addresses as the DirectorGroupMember has them.
pub(super) fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(IpAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_group_reports_less_often() {
        for (directors, seconds) in [(0, 1.0), (1, 1.0), (100, 1.0), (150, 1.5), (1000, 10.0)] {
            let interval = interval(directors).as_secs_f64();
            assert_eq!(interval, seconds, "{directors} directors");
        }
    }
}
