//! How much of the prober each namespace may use. The limits are in this file,
//! except those that a DirectorGroup sets ([`super::target::Rates`]).

use crds::fair_limit;

/// The limits of the prober, and of each namespace's share of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// How many probes may be in flight at once, over all namespaces.
    pub(super) places: usize,
    /// How many probes per second all namespaces together may make on average.
    /// The limit keeps the prober's thread from being busy all the time: a
    /// probe takes about 50 µs of it.
    pub(super) total_probes_per_second: f64,
}

impl Budget {
    /// Returns the default limits, with this many probes in flight at once.
    pub(super) fn with_places(places: usize) -> Self {
        Self {
            places,
            total_probes_per_second: 8000.0,
        }
    }
}

/// The unit in which rates are shared: this many are one probe per second.
const UNITS: f64 = 1e6;

/// Divides `room` probes per second among `demands` fairly
/// ([`crds::fair_limit`]). Returns the rate to which each demand is limited,
/// which is infinite if there is room for all demands.
pub(super) fn fair_rate(demands: impl Iterator<Item = f64>, room: f64) -> f64 {
    let units = demands.map(|demand| (demand * UNITS) as u64);
    let limit = fair_limit(units, (room * UNITS) as u64);
    limit.map_or(f64::INFINITY, |limit| limit as f64 / UNITS)
}
