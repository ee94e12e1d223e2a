//! Which entries of the kernel's table are ours. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ActualTable, DestinationKey, Op, ServiceKey};

/// The keys of the entries of the kernel's table that are ours, which means
/// that we created or adopted them. The kernel has no owner tag, so the caller
/// has to remember them.
///
/// A destination can be ours only in a service that is ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    /// Our services, each with its destinations that are ours.
    pub services: BTreeMap<ServiceKey, BTreeSet<DestinationKey>>,
}

impl Owned {
    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether this service is ours.
    pub fn service(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// Whether this destination is ours.
    pub fn destination(&self, service: &ServiceKey, destination: &DestinationKey) -> bool {
        self.services
            .get(service)
            .is_some_and(|destinations| destinations.contains(destination))
    }

    /// Whether a table lacks an entry that is ours.
    pub fn is_any_missing(&self, table: &ActualTable) -> bool {
        self.services.iter().any(|(key, destinations)| {
            table.get(key).is_none_or(|service| {
                let mut ours = destinations.iter();
                ours.any(|key| !service.destinations.contains_key(key))
            })
        })
    }

    /// Makes a service ours, and one of its destinations if given.
    pub fn add(&mut self, service: ServiceKey, destination: Option<DestinationKey>) {
        let destinations = self.services.entry(service).or_default();
        destinations.extend(destination);
    }

    /// Forgets a destination; without one, forgets the service with all its
    /// destinations.
    pub fn remove(&mut self, service: &ServiceKey, destination: Option<&DestinationKey>) {
        match destination {
            None => {
                self.services.remove(service);
            }
            Some(destination) => {
                if let Some(destinations) = self.services.get_mut(service) {
                    destinations.remove(destination);
                }
            }
        }
    }

    /// Takes in operations that the kernel acknowledged: what they created
    /// becomes ours, and what they deleted is forgotten. Edits change nothing.
    /// Consecutive operations of one service need only one lookup, because
    /// there may be tens of thousands.
    pub fn acknowledge(&mut self, ops: &[&Op]) {
        for run in ops.chunk_by(|a, b| a.service() == b.service()) {
            let service = run[0].service();
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
                self.services.remove(&service);
            }
        }
    }

    /// Makes everything in `adopted` ours ([`crate::Plan::adopt`]).
    pub fn adopt(&mut self, adopted: &Self) {
        for (service, destinations) in &adopted.services {
            self.services
                .entry(*service)
                .or_default()
                .extend(destinations);
        }
    }

    /// Forgets everything in `gone` ([`crate::Plan::gone`]).
    pub fn forget(&mut self, gone: &Gone) {
        for service in &gone.services {
            self.remove(service, None);
        }
        for (service, destination) in &gone.destinations {
            self.remove(service, Some(destination));
        }
    }
}

/// Keys of ours that are neither wanted nor in the kernel any more.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Gone {
    /// Services, each with all its destinations.
    pub services: Vec<ServiceKey>,
    /// Destinations of services that stay ours.
    pub destinations: Vec<(ServiceKey, DestinationKey)>,
}
