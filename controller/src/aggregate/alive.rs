use crds::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::DirectorView;
use crate::liveness::Life;

/// Returns the conditions Alive, Reporting and Ready of a Director, or `None`
/// while this controller does not know whether the director is alive. With
/// `None`, the published conditions stay unchanged.
///
/// The conditions' observedGeneration is 0 here;
/// [`crate::world::World::pass`] sets it.
pub(super) fn conditions(director: &DirectorView<'_>) -> Option<Vec<Condition>> {
    let alive = match &director.life {
        Life::Presumed => return None,
        Life::Alive => condition::alive(0),
        Life::Expired { last, duration } => {
            condition::lease_expired(director.name, duration.as_secs(), last.as_deref(), 0)
        }
        Life::NoLease => condition::no_lease(director.name, 0),
    };
    let reporting = match (&director.life, director.refused) {
        (Life::Alive, None) => condition::reporting(0),
        (Life::Alive, Some(why)) => condition::report_refused(why, 0),
        _ => condition::reporting_unknown(0),
    };
    // Ready sums up the new conditions Alive and Reporting, which come before
    // the published ones.
    let new = [&alive, &reporting].into_iter();
    let all: Vec<_> = new.chain(&director.status.conditions).collect();
    let ready = condition::director_ready(&all, 0);
    Some(vec![alive, reporting, ready])
}
