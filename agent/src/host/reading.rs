//! A reading of the kernel's table, as a hint of what another process changed.

use std::collections::BTreeMap;

use ipvs::{ActualService, ActualTable, Listing, ServiceConfig, ServiceKey};

/// What a reading found.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// The services, without their destinations.
    Services(BTreeMap<ServiceKey, ServiceConfig>),
    /// The services, and what /proc/net/ip_vs shows of their destinations.
    Listing(Listing),
    /// The whole table, with every destination.
    Table(ActualTable),
}

impl Reading {
    /// The services that differ between this reading and a table.
    pub fn contradictions(&self, table: &ActualTable) -> Vec<ServiceKey> {
        let services = table.iter();
        match self {
            Self::Services(found) => services
                .filter(|(key, service)| found.get(key) != Some(&service.config))
                .map(|(key, _)| *key)
                .collect(),
            Self::Listing(listing) => services
                .filter(|(key, service)| !listing.agrees_with(key, service))
                .map(|(key, _)| *key)
                .collect(),
            Self::Table(found) => services
                .filter(|(key, service)| {
                    let found = found.get(key);
                    !found.is_some_and(|found| is_same(found, service))
                })
                .map(|(key, _)| *key)
                .collect(),
        }
    }
}

/// Compares the order of the destinations, too.
fn is_same(one: &ActualService, other: &ActualService) -> bool {
    one.config == other.config && one.destinations.as_slice() == other.destinations.as_slice()
}
