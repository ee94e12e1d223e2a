//! Upgrades the CustomResourceDefinitions of the API. helm installs them with
//! the chart, but never upgrades them.

use std::time::Duration;

use crds::{
    advice::APPLY_DEFINITIONS,
    crd::{self, SCHEMA, schema_of},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Result,
    api::{Patch, PatchParams},
};
use tokio::time;
use tracing::{info, warn};

use crate::{
    publish::FIELD_MANAGER,
    trouble::{self, Complaints},
};

/// The pause before the next attempt after a failed request. The pause doubles
/// with each attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long a request may wait for the API server's answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Applies each definition that is missing, or older than this program's. A
/// definition with a higher schema number stays. Ends when no definition is older
/// than this program's.
pub(crate) async fn upgrade(client: Client, complaints: Complaints) {
    let api = Api::all(client);
    for definition in crd::definitions() {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let mut pause = FIRST_PAUSE;
        loop {
            let result = time::timeout(ANSWER_TIME, upgrade_one(&api, &name, &definition)).await;
            let result = result.unwrap_or_else(|_| Err(kube::Error::Service("no answer".into())));
            let Err(error) = result else {
                break;
            };
            let what = format!("upgrade CustomResourceDefinition {name}");
            if let Some(complaint) = trouble::of_request(&what, &error) {
                complaints.warn(&format!(
                    "{complaint}. By hand: {APPLY_DEFINITIONS}; to leave the definitions alone, \
                     start the controller with --upgrade-definitions=false"
                ));
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What to do with an installed definition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Apply this program's definition.
    Apply,
    /// The definition is the same, newer, or being deleted.
    Leave,
}

async fn upgrade_one(
    api: &Api<CustomResourceDefinition>,
    name: &str,
    definition: &CustomResourceDefinition,
) -> Result<()> {
    let installed = api.get_opt(name).await?;
    let step = step(installed.as_ref());
    let installed = installed.as_ref().map(schema_of);
    match (step, installed) {
        (Step::Apply, _) => {
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &parameters, &Patch::Apply(definition))
                .await?;
            match installed {
                Some(before) => info!("upgraded {name} from schema {before} to {SCHEMA}"),
                None => info!("installed {name}, schema {SCHEMA}"),
            }
        }
        (Step::Leave, Some(newer)) if newer > SCHEMA => {
            info!("{name} has the newer schema {newer}, and stays: this program knows {SCHEMA}");
        }
        (Step::Leave, Some(older)) if older < SCHEMA => {
            warn!("{name} is being deleted, and is not upgraded");
        }
        (Step::Leave, _) => {}
    }
    Ok(())
}

fn step(installed: Option<&CustomResourceDefinition>) -> Step {
    let Some(installed) = installed else {
        return Step::Apply;
    };
    let is_going = installed.metadata.deletion_timestamp.is_some();
    match schema_of(installed) < SCHEMA && !is_going {
        true => Step::Apply,
        false => Step::Leave,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn installed(schema: Option<&str>) -> CustomResourceDefinition {
        let mut definition = crd::definitions().remove(0);
        definition.metadata.annotations = schema.map(|schema| {
            let annotation = (crd::SCHEMA_ANNOTATION.to_owned(), schema.to_owned());
            [annotation].into()
        });
        definition
    }

    #[test]
    fn only_a_missing_or_older_definition_is_applied() {
        assert_eq!(step(None), Step::Apply);
        let newer = (SCHEMA + 1).to_string();
        for (schema, expected) in [
            (None, Step::Apply),
            (Some("0"), Step::Apply),
            (Some("of somebody else"), Step::Apply),
            (Some(&*SCHEMA.to_string()), Step::Leave),
            (Some(&*newer), Step::Leave),
        ] {
            assert_eq!(step(Some(&installed(schema))), expected, "{schema:?}");
        }
    }

    #[test]
    fn a_definition_that_is_being_deleted_is_left_alone() {
        let mut going = installed(None);
        going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(step(Some(&going)), Step::Leave);
    }
}
