//! The entries of ours in the kernel that are no longer wanted.

use std::collections::BTreeMap;

use ipvs::{DestinationKey, Op, ServiceKey};

use super::Before;
use crate::decide::{departures::Entry, desired::Desired};

/// The part of a service that is ours, in the kernel, and no longer wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Leaving {
    /// The whole service, and every server of ours in it.
    Service,
    /// Servers of a service that is still wanted, in the kernel's order.
    Servers(Vec<DestinationKey>),
}

/// Our entries in the kernel that are no longer wanted, by service.
pub(super) type Leavings = BTreeMap<ServiceKey, Leaving>;

impl Leaving {
    /// Returns the operations that would remove the leaving entries of
    /// `service`.
    fn ops(&self, service: ServiceKey) -> Vec<Op> {
        match self {
            Self::Service => vec![Op::DeleteService(service)],
            Self::Servers(servers) => {
                let servers = servers.iter();
                servers
                    .map(|server| Op::DeleteDestination(service, *server))
                    .collect()
            }
        }
    }
}

/// Returns the operations that would remove the leaving entries.
pub(super) fn ops(leaving: &Leavings) -> Vec<Op> {
    let each = leaving.iter().map(|(key, leaving)| leaving.ops(*key));
    each.flatten().collect()
}

/// Whether `leaving` contains an entry.
pub(super) fn contains(leaving: &Leavings, (service, server): &Entry) -> bool {
    match (leaving.get(service), server) {
        (Some(Leaving::Service), None) => true,
        (Some(Leaving::Servers(servers)), Some(server)) => servers.contains(server),
        _ => false,
    }
}

/// Returns the entry that a removal operation removes.
pub(super) fn entry(removal: &Op) -> Entry {
    (removal.service(), removal.destination())
}

/// Returns the part of a service that is ours, in the kernel, and no longer
/// wanted.
pub(super) fn leaving(key: &ServiceKey, wanted: &Desired, before: Before<'_>) -> Option<Leaving> {
    let ours = before.ours.table.services.get(key)?;
    let found = before.kernel.get(key)?;
    if !wanted.table.contains_key(key) {
        return Some(Leaving::Service);
    }
    let is_leaving =
        |server: &&DestinationKey| ours.contains(*server) && !wanted.has_destination(key, server);
    let servers = found.destinations.keys().filter(is_leaving);
    let servers: Vec<_> = servers.copied().collect();
    (!servers.is_empty()).then_some(Leaving::Servers(servers))
}
