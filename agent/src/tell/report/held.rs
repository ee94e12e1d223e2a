//! The condition RemovalsHeld of a Director.

use crds::condition::{self, Release};
use ipvs::Op;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::decide::{caution::Hold, permission::Doubt};

/// Returns the condition RemovalsHeld. `held` are the held removals. `hold` is
/// the reason for holding them, or `None` if they are held only because there
/// are too many.
pub(super) fn removals_held(
    held: &[Op],
    hold: Option<&Hold>,
    release: Release<'_>,
    generation: i64,
) -> Condition {
    let held: Vec<_> = held.iter().map(Op::to_string).collect();
    let names = held.iter().map(String::as_str);
    let all = |hold: &Hold, reason| {
        condition::every_removal_held(
            reason,
            &hold.to_string(),
            names.clone(),
            release,
            generation,
        )
    };
    match hold {
        Some(hold @ Hold::OtherCluster { .. }) => all(hold, condition::reason::OTHER_CLUSTER),
        Some(hold @ Hold::Definition(..)) => all(hold, condition::reason::DEFINITION_DELETED),
        Some(hold @ Hold::Unknown(_)) => all(hold, condition::reason::CLUSTER_UNKNOWN),
        _ if held.is_empty() => condition::no_removals_held(generation),
        Some(Hold::Missing(missing)) => {
            let why = missing.to_string();
            condition::missing_objects_held(&why, names, release, generation)
        }
        None => condition::removals_held(names, release, generation),
    }
}

/// If removals are held and the agent ignores the group's permission for them,
/// adds the reason for ignoring the permission to the condition's message.
pub(super) fn explain(condition: &mut Condition, doubt: Option<&Doubt>) {
    if let ("True", Some(doubt)) = (&*condition.status, doubt) {
        condition.message = format!("{}. Not released yet: {doubt}", condition.message);
    }
}
