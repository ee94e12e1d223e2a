//! What the loop tells the trail about one round.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipvs::{ActualService, DestinationKey, ServiceKey, Timeouts, WantedService};
use jiff::Timestamp;

use super::{ours::Ours, record::Object};
use crate::act::Difference;

/// The result of one round.
#[derive(Debug)]
pub struct Round {
    /// When the round ended.
    pub at: Timestamp,
    /// The round's writes, in order. Empty if there were more than
    /// [`crate::act::MOST_WRITES`].
    pub writes: Vec<Difference>,
    /// The number of writes.
    pub count: usize,
    /// Whether `services` names all services. Services that it does not name
    /// are then not ours.
    pub is_whole: bool,
    /// The services that changed, or whose wanted state changed.
    pub services: BTreeMap<ServiceKey, Seen>,
    /// The parts other than the IPVS table, if they may have changed.
    pub host: Option<Host>,
}

/// A service after a round.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The kernel's service with our destinations, or `None` if the service is
    /// not ours.
    pub ours: Option<ActualService>,
    /// What the objects want of the service, and what the round wanted.
    pub wants: Wants,
}

/// The wanted state of one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    /// What the objects want, whatever the health of the servers is.
    pub desired: Option<Arc<WantedService>>,
    /// What the round wanted: what the objects want, with what must not be
    /// removed yet, and with the weights that health allows.
    pub in_force: Option<Arc<WantedService>>,
    /// The VirtualService that wants the service.
    pub object: Option<Object>,
    /// The RealServers that want the destinations, sorted by destination. A
    /// map would take more than twice the memory.
    pub servers: Box<[(DestinationKey, Object)]>,
    /// The service's sorry server.
    pub sorry: Option<DestinationKey>,
    /// The servers that a drain has ended, although objects want them.
    pub ended: Box<[DestinationKey]>,
}

impl Wants {
    /// Returns the RealServer that wants a destination.
    pub(crate) fn server(&self, destination: &DestinationKey) -> Option<&Object> {
        let found = self
            .servers
            .binary_search_by_key(destination, |(key, _)| *key);
        found.ok().map(|index| &self.servers[index].1)
    }

    /// Whether nothing is wanted.
    pub(super) fn is_nothing(&self) -> bool {
        self.desired.is_none() && self.in_force.is_none()
    }
}

/// The parts of the host that are ours, other than the IPVS table.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The virtual addresses that changed, each with the name of its interface.
    /// `None` is an address that is not ours.
    pub addresses: BTreeMap<IpAddr, Option<String>>,
    /// Whether `addresses` has all addresses. Addresses that it does not have
    /// are then not ours.
    pub is_whole: bool,
    /// The changed virtual addresses that are wanted and that another host has.
    pub taken: BTreeSet<IpAddr>,
    /// The sysctls that the agent set, each with its value. `None` is a value
    /// that this run does not know yet.
    pub sysctls: BTreeMap<String, Option<String>>,
    /// The timeouts of connections that the agent set, or `None` if this run
    /// does not know them yet. 0 is a timeout that the agent did not set.
    pub timeouts: Option<Timeouts>,
    /// The agent's own device for virtual addresses.
    pub device: Option<String>,
}

impl Host {
    /// Returns the parts of the host as the trail knows them.
    pub(super) fn known(ours: &Ours) -> Self {
        let sysctls = ours.sysctls.keys();
        Self {
            addresses: BTreeMap::new(),
            is_whole: false,
            taken: BTreeSet::new(),
            sysctls: sysctls.map(|name| (name.clone(), None)).collect(),
            timeouts: None,
            device: ours.device.clone(),
        }
    }
}
