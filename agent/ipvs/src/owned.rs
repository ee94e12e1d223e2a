//! Keeps track of the entries of the kernel's table that the agent made or
//! adopted, without any I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ActualTable, DestinationKey, Op, ServiceKey};

/// The keys of our entries in the kernel's table. An entry is ours if the agent
/// created or adopted the entry. The kernel does not record which program made
/// an entry, so the caller must store these keys.
///
/// If a destination is ours, its service is ours too.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    /// Our services, each with the destinations in that service that are ours.
    pub services: BTreeMap<ServiceKey, BTreeSet<DestinationKey>>,
    /// Our services that another program made, and the agent adopted. An
    /// adopted service is deleted only if it contains no stranger's
    /// destination.
    pub adopted: BTreeSet<ServiceKey>,
}

impl Owned {
    /// Returns whether no entry of the kernel's table is ours.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Returns whether a service is ours.
    pub fn service(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// Returns whether a destination is ours.
    pub fn destination(&self, service: &ServiceKey, destination: &DestinationKey) -> bool {
        self.services
            .get(service)
            .is_some_and(|destinations| destinations.contains(destination))
    }

    /// Returns whether at least one entry of ours is missing from `table`.
    pub fn is_any_missing(&self, table: &ActualTable) -> bool {
        self.services.iter().any(|(key, destinations)| {
            table.get(key).is_none_or(|service| {
                let mut ours = destinations.iter();
                ours.any(|key| !service.destinations.contains_key(key))
            })
        })
    }

    /// Records a service as ours, and also a destination in the service if
    /// `destination` is given.
    pub fn add(&mut self, service: ServiceKey, destination: Option<DestinationKey>) {
        let destinations = self.services.entry(service).or_default();
        destinations.extend(destination);
    }

    /// Forgets a destination, or the service with all its destinations if
    /// `destination` is `None`.
    pub fn remove(&mut self, service: &ServiceKey, destination: Option<&DestinationKey>) {
        match destination {
            None => {
                self.services.remove(service);
                self.adopted.remove(service);
            }
            Some(destination) => {
                if let Some(destinations) = self.services.get_mut(service) {
                    destinations.remove(destination);
                }
            }
        }
    }

    /// Updates the keys after the kernel acknowledged operations: created
    /// entries become ours, and deleted entries are forgotten. Edits do not
    /// change the ownership of an entry. If the agent deletes an adopted
    /// service and creates it again, the service no longer counts as adopted.
    /// For speed, consecutive operations on one service share one lookup,
    /// because there may be tens of thousands of operations.
    pub fn acknowledge(&mut self, ops: &[&Op]) {
        for run in ops.chunk_by(|a, b| a.service() == b.service()) {
            let service = run[0].service();
            if run.iter().any(|op| matches!(op, Op::NewService(..))) {
                self.adopted.remove(&service);
            }
            let ours = match run.iter().any(|op| op.creates()) {
                true => Some(self.services.entry(service).or_default()),
                false => self.services.get_mut(&service),
            };
            let Some(ours) = ours else {
                continue;
            };
            for op in run {
                match op {
                    Op::NewDestination(_, key, _) => {
                        ours.insert(*key);
                    }
                    Op::DeleteDestination(_, key) => {
                        ours.remove(key);
                    }
                    _ => {}
                }
            }
            if run.iter().any(|op| matches!(op, Op::DeleteService(_))) {
                self.remove(&service, None);
            }
        }
    }

    /// Records every entry in `adopted` as ours ([`crate::Plan::adopt`]).
    pub fn adopt(&mut self, adopted: &Self) {
        for (service, destinations) in &adopted.services {
            self.services
                .entry(*service)
                .or_default()
                .extend(destinations);
        }
        self.adopted.extend(&adopted.adopted);
    }

    /// Forgets every entry in `gone` ([`crate::Plan::gone`]).
    pub fn forget(&mut self, gone: &Gone) {
        for service in &gone.services {
            self.remove(service, None);
        }
        for (service, destination) in &gone.destinations {
            self.remove(service, Some(destination));
        }
    }
}

/// The keys of our entries that are no longer wanted and no longer in the
/// kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Gone {
    /// Services that disappeared from the kernel with all their destinations.
    pub services: Vec<ServiceKey>,
    /// Destinations that disappeared from the kernel, in services that stay
    /// ours.
    pub destinations: Vec<(ServiceKey, DestinationKey)>,
}
