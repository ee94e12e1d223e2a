use crds::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::DirectorView;
use crate::liveness::Life;

/// Returns the condition Alive of a Director, or `None` while this controller
/// does not know whether the director is alive. With `None`, the published
/// condition Alive stays unchanged.
///
/// The condition's observedGeneration is 0 here;
/// [`crate::world::World::letters`] sets it.
pub(super) fn condition(director: &DirectorView<'_>) -> Option<Condition> {
    match &director.life {
        Life::Presumed => None,
        Life::Alive => Some(condition::alive(0)),
        Life::Expired { last, duration } => Some(condition::lease_expired(
            duration.as_secs(),
            last.as_deref(),
            0,
        )),
        Life::NoLease => Some(condition::no_lease(director.name, 0)),
    }
}
