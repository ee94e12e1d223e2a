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
use tracing::info;

use crate::{
    publish::FIELD_MANAGER,
    trouble::{self, Complaints},
};

/// The pause before the next attempt after a failed request. The pause doubles
/// with each attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The pause before the next look at a definition that is being deleted.
const DELETION_PAUSE: Duration = Duration::from_secs(5);

/// How long a request may wait for the API server's answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Applies each definition that is missing, or older than this program's. A
/// definition with a higher schema number stays. Tries again until no definition
/// is missing or older. A definition that cannot be applied delays no other.
pub(crate) async fn upgrade(client: Client, complaints: Complaints) {
    let api = Api::all(client);
    let mut remaining = crd::definitions();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut failed = Vec::new();
        let mut has_error = false;
        for definition in remaining {
            let upgraded = time::timeout(ANSWER_TIME, upgrade_one(&api, &definition)).await;
            match upgraded.unwrap_or_else(|_| Err(kube::Error::Service("no answer".into()))) {
                Ok(true) => {}
                Ok(false) => {
                    let name = name(&definition);
                    complaints.warn(&format!(
                        "{name} is being deleted, and is installed when it is gone"
                    ));
                    failed.push(definition);
                }
                Err(error) => {
                    has_error = true;
                    complain(&definition, &error, &complaints);
                    failed.push(definition);
                }
            }
        }
        if failed.is_empty() {
            return;
        }
        remaining = failed;
        if has_error {
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            time::sleep(DELETION_PAUSE).await;
        }
    }
}

fn complain(definition: &CustomResourceDefinition, error: &kube::Error, complaints: &Complaints) {
    let what = format!("upgrade CustomResourceDefinition {}", name(definition));
    if let Some(complaint) = trouble::of_request(&what, error) {
        complaints.warn(&format!(
            "{complaint}. By hand: {APPLY_DEFINITIONS}; to leave the definitions alone, start the \
             controller with --upgrade-definitions=false"
        ));
    }
}

fn name(definition: &CustomResourceDefinition) -> &str {
    definition.metadata.name.as_deref().unwrap_or_default()
}

/// What to do with an installed definition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Apply this program's definition.
    Apply,
    /// Wait until the definition is deleted.
    Wait,
    /// The definition is the same, or newer.
    Leave,
}

/// Applies a definition if that is necessary. Returns false if the definition
/// must be looked at again.
async fn upgrade_one(
    api: &Api<CustomResourceDefinition>,
    definition: &CustomResourceDefinition,
) -> Result<bool> {
    let name = name(definition);
    let found = api.get_opt(name).await?;
    let installed = found.as_ref().map(schema_of);
    match (step(found.as_ref()), installed) {
        (Step::Apply, _) => {
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(definition);
            api.patch(name, &parameters, &patch).await?;
            match installed {
                Some(before) => info!("upgraded {name} from schema {before} to {SCHEMA}"),
                None => info!("installed {name}, schema {SCHEMA}"),
            }
        }
        (Step::Wait, _) => return Ok(false),
        (Step::Leave, Some(newer)) if newer > SCHEMA => {
            info!("{name} has the newer schema {newer}, and stays: this program knows {SCHEMA}");
        }
        (Step::Leave, _) => {}
    }
    Ok(true)
}

fn step(installed: Option<&CustomResourceDefinition>) -> Step {
    let Some(installed) = installed else {
        return Step::Apply;
    };
    if installed.metadata.deletion_timestamp.is_some() {
        return Step::Wait;
    }
    match schema_of(installed) < SCHEMA {
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
    fn a_definition_that_is_being_deleted_is_applied_when_it_is_gone() {
        let mut going = installed(None);
        going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(step(Some(&going)), Step::Wait);
    }
}
