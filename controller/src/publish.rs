//! Writes statuses by server-side apply.

use crds::{
    Loose,
    api::{Director, DirectorGroup, RealServer, VirtualService},
};
use k8s_openapi::{NamespaceResourceScope, jiff::Timestamp};
use kube::{
    Api, Client, Resource, Result,
    api::{Patch, PatchParams},
    core::{ClusterResourceScope, object::HasSpec},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    outbox::{Letter, Outcome},
    status::{Id, Status, Subject},
};

/// The controller's field manager for server-side apply.
pub const FIELD_MANAGER: &str = "ipvs-controller";

/// Writes one status, and returns the status with its conditions' transition
/// times.
///
/// # Errors
/// Returns the API server's error; [`outcome`] classifies the error.
pub async fn write(client: Client, letter: &Letter, now: Timestamp) -> Result<Status> {
    let status = letter.status.dated(letter.published.as_ref(), now);
    match letter.id.subject {
        Subject::VirtualService => {
            let api = namespaced::<VirtualService>(client, &letter.id);
            apply(&api, letter, &status).await?;
        }
        Subject::RealServer => {
            let api = namespaced::<RealServer>(client, &letter.id);
            apply(&api, letter, &status).await?;
        }
        Subject::DirectorGroup => apply(&cluster::<DirectorGroup>(client), letter, &status).await?,
        Subject::Director => apply(&cluster::<Director>(client), letter, &status).await?,
    }
    Ok(status)
}

/// Translates the result of a write into an [`Outcome`].
pub fn outcome<T>(result: &Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Written,
        // The object was deleted, or replaced by a new object of the same name.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Outcome::Gone,
        Err(_) => Outcome::Failed,
    }
}

fn namespaced<K>(client: Client, id: &Id) -> Api<Loose<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + HasSpec,
{
    Api::namespaced(client, &id.key.namespace)
}

fn cluster<K>(client: Client) -> Api<Loose<K>>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + HasSpec,
{
    Api::all(client)
}

async fn apply<K>(api: &Api<Loose<K>>, letter: &Letter, status: &Status) -> Result<()>
where
    K: Resource<DynamicType = ()> + HasSpec<Spec: Clone + std::fmt::Debug + DeserializeOwned>,
    Loose<K>: DeserializeOwned,
{
    let mut metadata = json!({
        "name": letter.id.key.name,
        // With the uid, the API server refuses to patch a later object of the
        // same name.
        "uid": letter.uid,
    });
    if !letter.id.key.namespace.is_empty() {
        metadata["namespace"] = json!(letter.id.key.namespace);
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": body(status).map_err(kube::Error::SerdeError)?,
    });
    api.patch_status(
        &letter.id.key.name,
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(&patch),
    )
    .await?;
    Ok(())
}

fn body(status: &Status) -> serde_json::Result<Value> {
    match status {
        Status::VirtualService(status) => serde_json::to_value(status),
        Status::RealServer(status) => serde_json::to_value(status),
        Status::DirectorGroup(status) => serde_json::to_value(status),
        Status::Director(conditions) => Ok(json!({ "conditions": conditions })),
    }
}
