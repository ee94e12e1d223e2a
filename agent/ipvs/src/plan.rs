//! What to do so that the kernel's table becomes the wanted one: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ActualService, ActualTable, DestinationKey, Op, ServiceKey, WantedService, WantedTable,
};

/// The entries of the kernel's table that are ours, by key alone. The kernel
/// has no owner tag, so this is remembered outside of it.
///
/// A destination can be ours only in a service that is ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    /// Our services, each with those of its destinations that are ours.
    pub services: BTreeMap<ServiceKey, BTreeSet<DestinationKey>>,
}

impl Owned {
    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Whether the service is ours.
    pub fn service(&self, service: &ServiceKey) -> bool {
        self.services.contains_key(service)
    }

    /// Whether the destination is ours.
    pub fn destination(&self, service: &ServiceKey, destination: &DestinationKey) -> bool {
        self.services
            .get(service)
            .is_some_and(|destinations| destinations.contains(destination))
    }

    /// Whether a table lacks anything that is ours.
    pub fn is_any_missing(&self, table: &ActualTable) -> bool {
        self.services.iter().any(|(key, destinations)| {
            table.get(key).is_none_or(|service| {
                let mut ours = destinations.iter();
                ours.any(|key| !service.destinations.contains_key(key))
            })
        })
    }

    /// Makes a service ours, and with it one of its destinations if one is
    /// given.
    pub fn add(&mut self, service: ServiceKey, destination: Option<DestinationKey>) {
        let destinations = self.services.entry(service).or_default();
        destinations.extend(destination);
    }

    /// Forgets a destination, or without one the service with all of its.
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

    /// Records what an operation that the kernel acknowledged made ours, or
    /// took away. Edits change nothing here.
    pub fn acknowledge(&mut self, op: &Op) {
        match op {
            Op::NewService(service, _) => self.add(*service, None),
            Op::NewDestination(service, destination, _) => self.add(*service, Some(*destination)),
            Op::DeleteDestination(service, destination) => self.remove(service, Some(destination)),
            Op::DeleteService(service) => self.remove(service, None),
            Op::SetService(..) | Op::SetDestination(..) => {}
        }
    }

    /// Makes everything in `adopted` ours ([`Plan::adopt`]).
    pub fn adopt(&mut self, adopted: &Self) {
        for (service, destinations) in &adopted.services {
            self.services
                .entry(*service)
                .or_default()
                .extend(destinations);
        }
    }

    /// Forgets everything in `gone` ([`Plan::gone`]).
    pub fn forget(&mut self, gone: &Gone) {
        for service in &gone.services {
            self.remove(service, None);
        }
        for (service, destination) in &gone.destinations {
            self.remove(service, Some(destination));
        }
    }
}

/// Keys of ours that neither are wanted nor exist any more.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Gone {
    /// Services, each with everything in it.
    pub services: Vec<ServiceKey>,
    /// Single destinations of services that stay ours.
    pub destinations: Vec<(ServiceKey, DestinationKey)>,
}

/// The difference between a table that is wanted and the one that is there.
///
/// How a caller that may die at any moment uses it:
/// 1. note `adopt` as owned, forget `gone`;
/// 2. note an intent for every operation of `ops` that
///    [creates](Op::creates); make all this durable;
/// 3. apply `ops`;
/// 4. for each that did not fail: [`Op::apply_to`] the believed table,
///    [`Owned::acknowledge`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// What to apply, in this order: every addition and edit, then every
    /// removal. A service comes before its destinations, and destinations in
    /// the wanted order, because sh and mh build their tables in the order of
    /// insertion.
    pub ops: Vec<Op>,
    /// Wanted keys that the kernel has already and that were not ours: they
    /// become ours, edited in place where they differ.
    pub adopt: Owned,
    /// Our keys that are neither wanted nor in the kernel.
    pub gone: Gone,
    /// Destinations that are not ours and not wanted, inside services of ours:
    /// reported, not touched. They do go when their service is deleted, as the
    /// kernel cannot keep them.
    pub strangers: Vec<(ServiceKey, DestinationKey)>,
}

impl Plan {
    /// Whether the kernel's table needs no write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Compares three tables and says what to do.
///
/// Only what is in `owned` is ever removed. What is wanted and there already
/// is edited in place, never deleted and added, so that its connections live;
/// what is neither wanted nor owned is left alone. Deleting a service takes
/// all its destinations with it in one operation. Of two wanted destinations
/// with one key the first counts.
///
/// Nothing here knows how to empty a table: with an empty `desired` it removes
/// what is owned, entry by entry.
pub fn plan(desired: &WantedTable, actual: &ActualTable, owned: &Owned) -> Plan {
    let keys: BTreeSet<_> = desired
        .keys()
        .chain(owned.services.keys())
        .copied()
        .collect();
    plan_services(keys, desired, actual, owned)
}

/// As [`plan`], for these services alone. The plans of disjoint sets of keys
/// add up to the plan of their union.
pub fn plan_services(
    keys: impl IntoIterator<Item = ServiceKey>,
    desired: &WantedTable,
    actual: &ActualTable,
    owned: &Owned,
) -> Plan {
    let mut plan = Plan::default();
    let mut removals = Vec::new();
    for key in keys {
        let ours = owned.services.get(&key);
        match (desired.get(&key), actual.get(&key)) {
            (Some(wanted), actual) => {
                plan_wanted(&mut plan, &mut removals, key, wanted, actual, ours);
            }
            (None, Some(_)) if ours.is_some() => removals.push(Op::DeleteService(key)),
            (None, None) if ours.is_some() => plan.gone.services.push(key),
            (None, _) => {}
        }
    }
    plan.ops.append(&mut removals);
    plan
}

fn plan_wanted(
    plan: &mut Plan,
    removals: &mut Vec<Op>,
    service: ServiceKey,
    wanted: &WantedService,
    actual: Option<&ActualService>,
    ours: Option<&BTreeSet<DestinationKey>>,
) {
    match actual {
        None => plan
            .ops
            .push(Op::NewService(service, wanted.config.clone())),
        Some(actual) => {
            if actual.config != wanted.config {
                plan.ops
                    .push(Op::SetService(service, wanted.config.clone()));
            }
            if ours.is_none() {
                plan.adopt.services.entry(service).or_default();
            }
        }
    }

    let is_ours = |key: &DestinationKey| ours.is_some_and(|ours| ours.contains(key));
    let present = |key: &DestinationKey| actual.and_then(|actual| actual.destinations.get(key));
    let mut seen = BTreeSet::new();
    for (key, config) in &wanted.destinations {
        if !seen.insert(*key) {
            continue;
        }
        let Some(current) = present(key) else {
            plan.ops.push(Op::NewDestination(service, *key, *config));
            continue;
        };
        if current != config {
            plan.ops.push(Op::SetDestination(service, *key, *config));
        }
        if !is_ours(key) {
            plan.adopt.services.entry(service).or_default().insert(*key);
        }
    }

    for key in actual.iter().flat_map(|actual| actual.destinations.keys()) {
        if seen.contains(key) {
            continue;
        }
        if is_ours(key) {
            removals.push(Op::DeleteDestination(service, *key));
        } else {
            plan.strangers.push((service, *key));
        }
    }
    for key in ours.into_iter().flatten() {
        if !seen.contains(key) && present(key).is_none() {
            plan.gone.destinations.push((service, *key));
        }
    }
}

#[cfg(test)]
mod tests;
