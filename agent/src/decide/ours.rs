//! The record of the entries that are ours: the entries that the agent created,
//! adopted or set on this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipvs::{
    ActualTable, DestinationConfig, DestinationKey, Owned, ServiceConfig, ServiceKey, Timeouts,
};
use serde::{Deserialize, Serialize};

use crate::decide::{departures::Record, refusals::Refused};

/// One entry that is recorded as ours.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Entry {
    /// A service of ours in the IPVS table.
    Service(ServiceKey),
    /// A destination in a service of ours.
    Destination(ServiceKey, DestinationKey),
    /// An address that the agent added, with the name of its interface.
    Address(IpAddr, String),
    /// The timeouts of connections that the kernel had before the agent set
    /// them. A timeout that the agent did not set is 0.
    Timeouts(Timeouts),
    /// A sysctl that the agent set, with its previous value.
    Sysctl(String, String),
    /// A device that the agent made for virtual addresses.
    Device(String),
    /// Marks a service of ours as made by another program. The mark disappears
    /// with the service.
    Adopted(ServiceKey),
}

/// The entries that a round is about to create, with their configuration.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Intent {
    /// The services that the round will create, each with its configuration.
    pub services: Vec<(ServiceKey, ServiceConfig)>,
    /// The destinations that the round will create, each with its service and
    /// its configuration.
    pub destinations: Vec<(ServiceKey, DestinationKey, DestinationConfig)>,
    /// The addresses that the round will add, each with its interface.
    pub addresses: Vec<(IpAddr, String)>,
}

impl Intent {
    /// Whether the round creates nothing.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.destinations.is_empty() && self.addresses.is_empty()
    }
}

/// A change of the entries that are ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Change {
    /// The entry is ours now.
    Own(Entry),
    /// The entry is no longer ours.
    Disown(Entry),
}

/// The contents of the journal when an agent starts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Remembered {
    /// Our services and destinations in the IPVS table.
    pub table: Owned,
    /// The addresses that the agent added, each with its interface.
    pub addresses: BTreeMap<IpAddr, String>,
    /// The timeouts of connections that the kernel had before the agent set
    /// them. A timeout that the agent did not set is 0.
    pub timeouts: Timeouts,
    /// The sysctls that the agent set, with their previous values.
    pub sysctls: BTreeMap<String, String>,
    /// The device that the agent made for virtual addresses.
    pub device: Option<String>,
    /// The entries that the last round was about to create, if the journal
    /// lacks the round's outcome.
    pub intent: Intent,
    /// The addresses that were taken over from a director that is out.
    /// Addresses that were taken over are given up as soon as another host
    /// answers for them.
    pub taken_over: BTreeSet<IpAddr>,
    /// The entries that were refused ([`crate::decide::refusals`]).
    pub refused: Refused,
    /// The services that were ours before the host's last start, or none if the
    /// journal was written since that start.
    pub before_boot: Option<BTreeSet<ServiceKey>>,
    /// When drains began, since the host's start.
    pub drains: Record,
    /// The cluster that the recorded entries come from
    /// ([`crate::decide::caution`]).
    pub cluster: Option<String>,
}

impl Remembered {
    /// Records that an entry became ours or ceased to be ours. When a service
    /// ceases to be ours, its destinations cease to be ours too.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Own(Entry::Service(service)) => self.table.add(*service, None),
            Change::Own(Entry::Destination(service, destination)) => {
                self.table.add(*service, Some(*destination));
            }
            Change::Own(Entry::Address(address, interface)) => {
                self.addresses.insert(*address, interface.clone());
            }
            Change::Own(Entry::Timeouts(before)) => self.timeouts = *before,
            Change::Own(Entry::Sysctl(name, before)) => {
                self.sysctls.insert(name.clone(), before.clone());
            }
            Change::Own(Entry::Device(name)) => self.device = Some(name.clone()),
            Change::Own(Entry::Adopted(service)) => {
                self.table.adopted.insert(*service);
            }
            Change::Disown(Entry::Service(service)) => self.table.remove(service, None),
            Change::Disown(Entry::Adopted(service)) => {
                self.table.adopted.remove(service);
            }
            Change::Disown(Entry::Destination(service, destination)) => {
                self.table.remove(service, Some(destination));
            }
            Change::Disown(Entry::Address(address, _)) => {
                self.addresses.remove(address);
            }
            Change::Disown(Entry::Timeouts(_)) => self.timeouts = Timeouts::default(),
            Change::Disown(Entry::Sysctl(name, _)) => {
                self.sysctls.remove(name);
            }
            Change::Disown(Entry::Device(_)) => self.device = None,
        }
    }

    /// Returns one [`Change::Own`] for each entry that is ours.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Change> {
        let services = self.table.services.iter();
        let table = services.flat_map(|(service, destinations)| {
            let destinations = destinations.iter();
            std::iter::once(Entry::Service(*service))
                .chain(destinations.map(|key| Entry::Destination(*service, *key)))
        });
        let addresses = self.addresses.iter();
        let timeouts = (self.timeouts != Timeouts::default()).then_some(self.timeouts);
        let sysctls = self.sysctls.iter();
        let sysctls = sysctls.map(|(name, before)| Entry::Sysctl(name.clone(), before.clone()));
        table
            .chain(self.table.adopted.iter().copied().map(Entry::Adopted))
            .chain(addresses.map(|(address, name)| Entry::Address(*address, name.clone())))
            .chain(timeouts.map(Entry::Timeouts))
            .chain(sysctls)
            .chain(self.device.clone().map(Entry::Device))
            .map(Change::Own)
    }
}

impl Intent {
    /// Returns the intended entries that count as ours now. An entry is ours if
    /// the kernel's table has it with exactly the intended configuration. An
    /// entry with any other configuration is a stranger's by now. The only
    /// configuration of an address is its interface. Each plan for addresses
    /// checks the interface.
    pub fn claims(&self, table: &ActualTable) -> Vec<Entry> {
        let mut claims = Vec::new();
        for (key, config) in &self.services {
            if table.get(key).is_some_and(|found| found.config == *config) {
                claims.push(Entry::Service(*key));
            }
        }
        for (service, key, config) in &self.destinations {
            let found = table
                .get(service)
                .and_then(|found| found.destinations.get(key));
            if found == Some(config) {
                claims.push(Entry::Destination(*service, *key));
            }
        }
        for (address, interface) in &self.addresses {
            claims.push(Entry::Address(*address, interface.clone()));
        }
        claims
    }
}
