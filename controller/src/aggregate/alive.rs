use crds::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::DirectorView;
use crate::liveness::Life;

/// Returns the conditions Alive and Reporting of a Director, or `None` while
/// this controller does not know whether the director is alive. With `None`, the
/// published conditions stay unchanged.
///
/// The conditions' observedGeneration is 0 here;
/// [`crate::world::World::letters`] sets it.
pub(super) fn conditions(director: &DirectorView<'_>) -> Option<Vec<Condition>> {
    let alive = match &director.life {
        Life::Presumed => return None,
        Life::Alive => condition::alive(0),
        Life::Expired { last, duration } => {
            condition::lease_expired(duration.as_secs(), last.as_deref(), 0)
        }
        Life::NoLease => condition::no_lease(director.name, 0),
    };
    let reporting = match (&director.life, director.refused) {
        (Life::Alive, None) => condition::reporting(0),
        (Life::Alive, Some(why)) => condition::report_refused(why, 0),
        _ => condition::reporting_unknown(0),
    };
    Some(vec![alive, reporting])
}
