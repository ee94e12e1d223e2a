//! Readings of the kernel's table that show changes by other processes.

use std::collections::BTreeMap;

use ipvs::{
    ActualService, ActualTable, DestinationKey, DestinationStatistics, Listing, ServiceConfig,
    ServiceKey, Socket,
};

/// The result of reading the kernel's table.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// The services of the kernel's table, without their destinations.
    Services(BTreeMap<ServiceKey, ServiceConfig>),
    /// The services and destinations of the kernel's table, as /proc/net/ip_vs
    /// shows them.
    Listing(Listing),
    /// The kernel's whole table, with every destination.
    Table(ActualTable),
}

/// The connections of one server in one service, and its packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// The number of established connections.
    pub active: u32,
    /// The number of connections in any other state.
    pub inactive: u32,
    /// The number of persistence templates.
    pub persistent: u32,
    /// The number of packets in both directions. The kernel updates it every
    /// two seconds.
    pub packets: u64,
}

/// The loads of all servers of some services. A service that the kernel does
/// not have has no servers.
pub type Loads = BTreeMap<ServiceKey, BTreeMap<DestinationKey, Load>>;

impl From<DestinationStatistics> for Load {
    fn from(found: DestinationStatistics) -> Self {
        let DestinationStatistics { stats, connections } = found;
        Self {
            active: connections.active,
            inactive: connections.inactive,
            persistent: connections.persistent,
            packets: stats.packets_in.wrapping_add(stats.packets_out),
        }
    }
}

/// Reads the loads of the servers of some services.
///
/// # Errors
/// Returns the kernel's error.
pub fn loads<'a>(
    socket: &mut Socket,
    services: impl IntoIterator<Item = &'a ServiceKey>,
) -> Result<Loads, ipvs::Error> {
    let mut loads = Loads::new();
    for service in services {
        let servers = socket.destination_statistics(service)?.into_iter();
        let servers = servers.map(|(server, found)| (server, found.into()));
        loads.insert(*service, servers.collect());
    }
    Ok(loads)
}

impl Reading {
    /// Returns the services that differ between `table` and this reading.
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

/// Whether two services are equal, including the order of their destinations.
fn is_same(one: &ActualService, other: &ActualService) -> bool {
    one.config == other.config && one.destinations.as_slice() == other.destinations.as_slice()
}
