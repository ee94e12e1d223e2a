//! Limits how much of the prober each namespace may use. A DirectorGroup sets
//! further limits ([`super::target::Rates`]).

use crds::fair_limit;

/// The limits of the prober, and of each namespace's share of the prober.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// The maximum number of probes in flight at once, over all namespaces.
    pub(super) places: usize,
    /// The maximum number of probes per second, on average, over all
    /// namespaces. A probe takes about 50 µs of the prober's thread, so the
    /// thread is idle part of the time even at this limit.
    pub(super) total_probes_per_second: f64,
}

impl Budget {
    /// Returns the default limits, with at most `places` probes in flight at
    /// once.
    pub(super) fn with_places(places: usize) -> Self {
        Self {
            places,
            total_probes_per_second: 8000.0,
        }
    }
}

/// [`fair_limit`] divides only integers. So a rate of one probe per second is
/// represented by this integer.
const UNITS: f64 = 1e6;

/// Divides `room` probes per second among `demands` fairly
/// ([`crds::fair_limit`]). Returns the limit for each demand, or infinity if
/// there is room for all demands.
pub(super) fn fair_rate(demands: impl Iterator<Item = f64>, room: f64) -> f64 {
    let units = demands.map(|demand| (demand * UNITS) as u64);
    let limit = fair_limit(units, (room * UNITS) as u64);
    limit.map_or(f64::INFINITY, |limit| limit as f64 / UNITS)
}
