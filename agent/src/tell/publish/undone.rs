//! Reports that `ipvs-agent undo` took a director out of service.

use std::time::Duration;

use crds::{
    api::{Director, DirectorStatus},
    condition,
};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::time;

use super::{FIELD_MANAGER, definition::Definition};

/// The longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(15);

/// Writes into the status of a Director that nothing of the agent is left on its
/// host. Returns false if there is no such Director.
///
/// # Errors
/// Returns an error in words for people if the API server does not answer, or
/// does not accept the status.
pub async fn report(client: Client, director: &str) -> Result<bool, String> {
    let written = time::timeout(PATIENCE, write(client, director)).await;
    match written {
        Ok(written) => written.map_err(|error| explained(&error)),
        Err(_) => Err(format!("the API server did not answer in {PATIENCE:?}")),
    }
}

async fn write(client: Client, director: &str) -> Result<bool, kube::Error> {
    let definition = Definition::new(&client);
    definition.look().await;
    let directors: Api<Director> = Api::all(client);
    // An agent may patch its Director, but not get it. An empty patch returns
    // the object.
    let (nothing, parameters) = (Patch::Merge(serde_json::json!({})), PatchParams::default());
    let existing = directors.patch_status(director, &parameters, &nothing);
    let existing = match existing.await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(false),
        existing => existing?,
    };
    let generation = existing.metadata.generation.unwrap_or_default();
    let before = existing.status.unwrap_or_default();
    let mut undone = Director::new(director, existing.spec);
    undone.status = Some(status(&before, generation, Timestamp::now()));
    let mut undone = serde_json::to_value(undone).map_err(kube::Error::SerdeError)?;
    definition.cut(&mut undone["status"]);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&undone);
    directors
        .patch_status(director, &parameters, &patch)
        .await?;
    Ok(true)
}

fn explained(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => answer.message.clone(),
        error => crds::advice::with_sources(error),
    }
}

/// Returns the status of a director on whose host nothing of the agent is left.
fn status(before: &DirectorStatus, generation: i64, now: Timestamp) -> DirectorStatus {
    let known = before.conditions.iter();
    let known = known.filter(|known| known.type_ == condition::kind::PROGRAMMED);
    let mut conditions = known.cloned().collect();
    condition::set(&mut conditions, condition::undone(generation), now);
    condition::set(
        &mut conditions,
        condition::no_removals_held(generation),
        now,
    );
    DirectorStatus {
        director_group_name: before.director_group_name.clone(),
        agent_version: before.agent_version.clone(),
        kernel_version: before.kernel_version.clone(),
        boot_id: before.boot_id.clone(),
        conditions,
        ..DirectorStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use crds::api::{HeldVip, WorldDigests};

    use super::*;

    #[test]
    fn a_director_that_was_undone_claims_nothing_and_says_why() {
        let before = DirectorStatus {
            director_group_name: "edge".to_owned(),
            used: Some(WorldDigests::default()),
            services: 3,
            vips: vec![HeldVip {
                address: "192.0.2.1".to_owned(),
                interface: "eth0".to_owned(),
            }],
            conditions: vec![condition::director_programmed(3, 6, 1)],
            ..DirectorStatus::default()
        };
        let after = status(&before, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(after.director_group_name, "edge");
        assert_eq!((after.used, after.services), (None, 0));
        assert!(after.vips.is_empty(), "no address is claimed");
        let found = condition::find(&after.conditions, "Programmed").expect("it is there");
        assert_eq!((&*found.status, &*found.reason), ("False", "Undone"));
        assert!(
            found.message.contains("kubectl delete idir"),
            "{}",
            found.message
        );
    }
}
