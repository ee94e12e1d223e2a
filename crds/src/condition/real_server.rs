use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{FALSE, TRUE, condition, count, explained, kind, reason};
use crate::{ObjectKey, Rejection};

/// Ready of an accepted RealServer: True where at least one service uses it.
pub fn server_ready<'a>(
    services: usize,
    refused_by: impl IntoIterator<Item = (&'a ObjectKey, &'a Rejection)>,
    generation: i64,
) -> Condition {
    let refused_by: Vec<_> = refused_by.into_iter().collect();
    let refusals = explained(&refused_by, "VirtualService");
    match (services, refused_by.first()) {
        (0, None) => condition(
            kind::READY,
            FALSE,
            reason::NOT_SELECTED,
            "No VirtualService in its namespace selects it; give it the labels that one selects",
            generation,
        ),
        (0, Some((_, first))) => condition(kind::READY, FALSE, first.reason, refusals, generation),
        (_, first) => {
            let mut message = format!("Serves {}", count(services, "virtual service"));
            if first.is_some() {
                let _ = write!(message, "; refused by {refusals}");
            }
            condition(kind::READY, TRUE, reason::READY, message, generation)
        }
    }
}

/// Ready of a RealServer that is not accepted, or of which nothing is known:
/// what its Accepted says.
pub fn server_not_ready(accepted: &Condition, generation: i64) -> Condition {
    condition(
        kind::READY,
        &accepted.status,
        &accepted.reason,
        &accepted.message,
        generation,
    )
}
