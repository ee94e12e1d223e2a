//! Collects what the rounds write to this host, for the audit trail
//! ([`crate::trail`]).

use std::{collections::BTreeSet, net::IpAddr};

use ipvs::{
    ActualTable, DestinationConfig, DestinationKey, Op, ServiceConfig, ServiceKey, Timeouts,
};
use serde::{Deserialize, Serialize};

use crate::decide::ours::Entry;

/// The maximum number of writes that are collected one by one. After more
/// writes, the trail records the whole state instead.
pub const MOST_WRITES: usize = 1000;

/// A difference of one thing on this host: its value before and after. `None`
/// means that the thing does not exist, or is not ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Difference {
    /// A service of the IPVS table. A service that disappears takes all its
    /// servers with it.
    Service {
        /// The key of the service.
        service: ServiceKey,
        /// The configuration before.
        old: Option<ServiceConfig>,
        /// The configuration after.
        new: Option<ServiceConfig>,
    },
    /// A destination of a service.
    Destination {
        /// The key of the destination's service.
        service: ServiceKey,
        /// The key of the destination.
        destination: DestinationKey,
        /// The configuration before.
        old: Option<DestinationConfig>,
        /// The configuration after.
        new: Option<DestinationConfig>,
    },
    /// A virtual address.
    Address {
        /// The virtual address.
        address: IpAddr,
        /// The name of the interface that had the address before.
        old: Option<String>,
        /// The name of the interface that has the address after.
        new: Option<String>,
    },
    /// A sysctl.
    Sysctl {
        /// The name of the sysctl.
        name: String,
        /// The value before.
        old: Option<String>,
        /// The value after.
        new: Option<String>,
        /// Whether the sysctl is ours afterwards: whether the agent still has
        /// to restore the previous value.
        ours: bool,
    },
    /// The kernel's timeouts of connections, in seconds. 0 is a timeout that
    /// stays as it is.
    Timeouts {
        /// The timeouts before.
        old: Timeouts,
        /// The timeouts after.
        new: Timeouts,
        /// The timeouts that are ours afterwards. 0 is a timeout that is not
        /// ours.
        ours: Timeouts,
    },
    /// The agent's own device for virtual addresses.
    Device {
        /// The name of the device.
        name: String,
        /// Whether the device exists afterwards.
        exists: bool,
    },
}

impl Difference {
    /// Returns the entry of the IPVS table that differs: a service, or a
    /// destination in it.
    pub fn entry(&self) -> Option<(ServiceKey, Option<DestinationKey>)> {
        match self {
            Self::Service { service, .. } => Some((*service, None)),
            Self::Destination {
                service,
                destination,
                ..
            } => Some((*service, Some(*destination))),
            Self::Address { .. }
            | Self::Sysctl { .. }
            | Self::Timeouts { .. }
            | Self::Device { .. } => None,
        }
    }
}

/// The writes since the trail last took them.
#[derive(Debug, Default)]
pub struct Writes {
    /// The writes, in order. Empty if there were more than [`MOST_WRITES`].
    pub list: Vec<Difference>,
    /// The services whose entries changed, or changed hands.
    pub services: BTreeSet<ServiceKey>,
    /// The virtual addresses that changed, or changed hands.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether the addresses, sysctls, timeouts or the device changed, or
    /// changed hands.
    pub is_host_touched: bool,
    /// Whether any part of the state may have changed, because there were too
    /// many writes, or because the table before is not known.
    pub is_whole: bool,
    /// The number of writes.
    pub count: usize,
}

impl Writes {
    /// Whether nothing was written and nothing changed hands.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.services.is_empty() && !self.is_host_touched && !self.is_whole
    }

    /// Marks the whole state as possibly changed.
    pub(super) fn everything(&mut self) {
        self.is_whole = true;
        self.services = BTreeSet::new();
        self.addresses = BTreeSet::new();
    }

    /// Counts `more` writes. Returns whether they are collected one by one.
    fn count(&mut self, more: usize) -> bool {
        self.count += more;
        let is_listed = self.count <= MOST_WRITES;
        if !is_listed {
            self.list = Vec::new();
            self.everything();
        }
        is_listed
    }

    /// Adds operations that the kernel is about to be known to have carried
    /// out. `before` is the table before the operations.
    pub(super) fn operations(&mut self, ops: &[&Op], before: Option<&ActualTable>) {
        if !self.count(ops.len()) {
            return;
        }
        for op in ops {
            let service = op.service();
            let found = before.and_then(|table| table.get(&service));
            let destination = |key: &DestinationKey| found?.destinations.get(key).copied();
            let config = || found.map(|found| found.config.clone());
            let write = match op {
                Op::NewService(_, new) | Op::SetService(_, new) => Difference::Service {
                    service,
                    old: config(),
                    new: Some(new.clone()),
                },
                Op::DeleteService(_) => Difference::Service {
                    service,
                    old: config(),
                    new: None,
                },
                Op::NewDestination(_, key, new) | Op::SetDestination(_, key, new) => {
                    Difference::Destination {
                        service,
                        destination: *key,
                        old: destination(key),
                        new: Some(*new),
                    }
                }
                Op::DeleteDestination(_, key) => Difference::Destination {
                    service,
                    destination: *key,
                    old: destination(key),
                    new: None,
                },
            };
            self.touched(service);
            self.list.push(write);
        }
    }

    /// Adds a write that does not concern the IPVS table.
    pub(super) fn other(&mut self, write: Difference) {
        self.is_host_touched = true;
        if let Difference::Address { address, .. } = &write {
            self.addresses.insert(*address);
        }
        if self.count(1) {
            self.list.push(write);
        }
    }

    /// Notes that an entry became ours, or ceased to be ours.
    pub(super) fn changed_hands(&mut self, entry: &Entry) {
        match entry {
            Entry::Service(service) | Entry::Destination(service, _) => self.touched(*service),
            Entry::Adopted(_) => {}
            Entry::Address(address, _) => {
                self.is_host_touched = true;
                self.addresses.insert(*address);
            }
            Entry::Timeouts(_) | Entry::Sysctl(..) | Entry::Device(_) => {
                self.is_host_touched = true;
            }
        }
    }

    /// Notes that a service of ours may have changed.
    pub(super) fn touched(&mut self, service: ServiceKey) {
        if !self.is_whole {
            self.services.insert(service);
        }
    }
}
