//! The condition RemovalsHeld of a Director.

use crds::condition;
use ipvs::Op;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::decide::{caution::Hold, permission::Doubt};

/// Returns the condition for the removals that are held, and for the reason why
/// every removal is held, if there is one.
pub(super) fn removals_held(
    held: &[Op],
    hold: Option<&Hold>,
    group: &str,
    generation: i64,
) -> Condition {
    let held: Vec<_> = held.iter().map(Op::to_string).collect();
    let names = held.iter().map(String::as_str);
    match hold {
        Some(hold) => {
            let reason = match hold {
                Hold::OtherCluster { .. } => condition::reason::OTHER_CLUSTER,
                Hold::Definition(..) => condition::reason::DEFINITION_DELETED,
                Hold::Unknown(_) => condition::reason::CLUSTER_UNKNOWN,
            };
            condition::every_removal_held(reason, &hold.to_string(), names, group, generation)
        }
        None if held.is_empty() => condition::no_removals_held(generation),
        None => condition::removals_held(names, group, generation),
    }
}

/// Adds to the condition why a permission that the group gives does not release
/// what is held.
pub(super) fn explain(condition: &mut Condition, doubt: Option<&Doubt>) {
    if let ("True", Some(doubt)) = (&*condition.status, doubt) {
        condition.message = format!("{}. Not released yet: {doubt}", condition.message);
    }
}
