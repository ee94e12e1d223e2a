//! The kernel's counters.

use std::collections::BTreeMap;

use crate::{Connections, DestinationKey, ServiceKey, Stats, codec::DumpedDestination};

/// The kernel's counters of all services and destinations, by service.
pub type Statistics = BTreeMap<ServiceKey, ServiceStatistics>;

/// The kernel's counters of an IPVS service and its destinations.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceStatistics {
    /// The counters of the service itself, including the traffic of removed
    /// destinations.
    pub stats: Stats,
    /// The kernel's counters of each of the service's destinations.
    pub destinations: BTreeMap<DestinationKey, DestinationStatistics>,
}

/// The kernel's counters of a destination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DestinationStatistics {
    /// The destination's counters and rates.
    pub stats: Stats,
    /// The numbers of the destination's current connections.
    pub connections: Connections,
}

/// Returns the counters of dumped destinations.
pub(crate) fn counters(
    destinations: Vec<DumpedDestination>,
) -> BTreeMap<DestinationKey, DestinationStatistics> {
    let counters = |found: DumpedDestination| {
        let statistics = DestinationStatistics {
            stats: found.stats,
            connections: found.connections,
        };
        (found.key, statistics)
    };
    destinations.into_iter().map(counters).collect()
}
