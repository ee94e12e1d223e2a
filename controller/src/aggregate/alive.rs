use crds::condition::{self, kind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::DirectorView;
use crate::liveness::{DEFAULT_LEASE_DURATION, Life};

/// A Director that never had a Lease, or whose Lease was deleted.
const NO_LEASE: &str = "NoLease";

/// The condition Alive. None while this observer does not know: then whatever
/// is published stays.
///
/// Its generation is filled in by who publishes: a Director's spec has no say
/// in it.
pub(super) fn condition(director: &DirectorView<'_>) -> Option<Condition> {
    match &director.life {
        Life::Presumed => None,
        Life::Alive => Some(condition::alive(0)),
        Life::Expired { last, duration } => {
            let mut expired = condition::lease_expired(duration.as_secs(), 0);
            if let Some(last) = last {
                expired.message += &format!(". It said so last at {last}");
            }
            Some(expired)
        }
        Life::NoLease => Some(Condition {
            reason: NO_LEASE.to_owned(),
            message: format!(
                "The agent has no Lease {}; see why in its log on that node, or delete the \
                 Director if the node is none any more",
                director.name
            ),
            ..condition::lease_expired(DEFAULT_LEASE_DURATION.as_secs(), 0)
        }),
    }
    .inspect(|condition| debug_assert_eq!(condition.type_, kind::ALIVE))
}
