//! Works out how to turn the kernel's table into the wanted one. Pure.

use std::collections::BTreeSet;

use crate::{
    ActualService, ActualTable, DestinationKey, Gone, Op, Owned, ServiceConfig, ServiceKey,
    WantedService, WantedTable,
};

/// What must change to turn the kernel's table into the wanted one.
///
/// A caller that may die at any moment uses it as follows:
/// 1. record `adopt` as owned and forget `gone`;
/// 2. record an intent for every operation of `ops` that
///    [creates](Op::creates), and make all this durable;
/// 3. apply `ops`;
/// 4. for each operation that did not fail, call [`Op::apply_to`] on the
///    believed table and [`Owned::acknowledge`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The operations, in the order in which they must be applied: first all
    /// additions and edits, then all removals. A service comes before its
    /// destinations. Destinations come in the wanted order, because sh and mh
    /// build their tables in the order of insertion.
    pub ops: Vec<Op>,
    /// Wanted keys that exist in the kernel and were not ours. They become
    /// ours, and are edited in place if they differ.
    pub adopt: Owned,
    /// Keys of ours that are neither wanted nor in the kernel.
    pub gone: Gone,
    /// Destinations in services of ours that are neither ours nor wanted. They
    /// are reported and not touched, but they disappear with their service when
    /// it is deleted.
    pub strangers: Vec<(ServiceKey, DestinationKey)>,
    /// Wanted entries that are not ours and are left alone because they differ
    /// from what is wanted: services, and destinations in services of ours.
    pub left: Vec<(ServiceKey, Option<DestinationKey>)>,
    /// Services whose scheduler depends on the order of the destinations, and
    /// whose destinations will not be in the wanted order, because the order
    /// cannot be edited.
    pub misordered: Vec<ServiceKey>,
}

impl Plan {
    /// Whether the kernel's table needs no writes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What to do with an entry that is not ours and differs from a wanted one with
/// the same key. If it does not differ, it becomes ours in any case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnConflict {
    /// Make it ours, and edit it in place.
    #[default]
    Adopt,
    /// Leave it alone with everything in it, and name it in [`Plan::left`].
    Leave,
}

/// Compares three tables and works out what to do.
///
/// Only entries in `owned` are ever removed. A wanted entry that exists is
/// edited in place, and never deleted and added again, so that its connections
/// survive. An entry that is neither wanted nor owned is left alone. Deleting a
/// service is one operation that takes all its destinations with it.
///
/// There is no way to empty a table: with an empty `desired`, the owned entries
/// are removed one by one.
pub fn plan(
    desired: &WantedTable,
    actual: &ActualTable,
    owned: &Owned,
    on_conflict: OnConflict,
) -> Plan {
    let keys: BTreeSet<_> = desired.keys().chain(owned.services.keys()).collect();
    plan_services(keys, desired, actual, owned, on_conflict)
}

/// Like [`plan`], for these services only. The plans of disjoint sets of
/// services add up to the plan of their union.
pub fn plan_services<'a>(
    keys: impl IntoIterator<Item = &'a ServiceKey>,
    desired: &WantedTable,
    actual: &ActualTable,
    owned: &Owned,
    on_conflict: OnConflict,
) -> Plan {
    let mut planner = Planner {
        on_conflict,
        plan: Plan::default(),
        removals: Vec::new(),
    };
    for &key in keys {
        let ours = owned.services.get(&key);
        match (desired.get(&key), actual.get(&key)) {
            (Some(wanted), actual) => planner.wanted(key, wanted, actual, ours),
            (None, Some(_)) if ours.is_some() => planner.removals.push(Op::DeleteService(key)),
            (None, None) if ours.is_some() => planner.plan.gone.services.push(key),
            (None, _) => {}
        }
    }
    let Planner {
        mut plan,
        mut removals,
        ..
    } = planner;
    plan.ops.append(&mut removals);
    plan
}

struct Planner {
    on_conflict: OnConflict,
    plan: Plan,
    removals: Vec<Op>,
}

impl Planner {
    fn wanted(
        &mut self,
        service: ServiceKey,
        wanted: &WantedService,
        actual: Option<&ActualService>,
        ours: Option<&BTreeSet<DestinationKey>>,
    ) {
        let plan = &mut self.plan;
        let config = || wanted.config.clone();
        match actual {
            None => plan.ops.push(Op::NewService(service, config())),
            Some(actual) => {
                let differs = actual.config != wanted.config;
                if differs && ours.is_none() && self.on_conflict == OnConflict::Leave {
                    plan.left.push((service, None));
                    return;
                }
                if differs {
                    plan.ops.push(Op::SetService(service, config()));
                }
                if ours.is_none() {
                    plan.adopt.services.entry(service).or_default();
                }
            }
        }
        let is_ours = |key: &DestinationKey| ours.is_some_and(|ours| ours.contains(key));
        let present = |key: &DestinationKey| actual.and_then(|actual| actual.destinations.get(key));
        for (&key, &config) in &wanted.destinations {
            let Some(&current) = present(&key) else {
                plan.ops.push(Op::NewDestination(service, key, config));
                continue;
            };
            let ours = is_ours(&key);
            if current != config && !ours && self.on_conflict == OnConflict::Leave {
                plan.left.push((service, Some(key)));
                continue;
            }
            if current != config {
                plan.ops.push(Op::SetDestination(service, key, config));
            }
            if !ours {
                plan.adopt.services.entry(service).or_default().insert(key);
            }
        }
        for &key in actual.iter().flat_map(|actual| actual.destinations.keys()) {
            match wanted.destinations.contains_key(&key) {
                true => {}
                false if is_ours(&key) => {
                    self.removals.push(Op::DeleteDestination(service, key));
                }
                false => plan.strangers.push((service, key)),
            }
        }
        for &key in ours.into_iter().flatten() {
            if !wanted.destinations.contains_key(&key) && present(&key).is_none() {
                plan.gone.destinations.push((service, key));
            }
        }
        if is_order_kept(&wanted.config) && actual.is_some_and(|actual| !in_order(wanted, actual)) {
            plan.misordered.push(service);
        }
    }
}

/// Whether the choice of the server depends on the order in which the servers
/// were added (`ip_vs_dh.c`, `ip_vs_sh.c`, `ip_vs_mh.c`).
fn is_order_kept(config: &ServiceConfig) -> bool {
    matches!(config.scheduler.as_str(), "dh" | "sh" | "mh")
}

/// Whether the wanted destinations will be in the wanted order after the
/// missing ones were added behind the existing ones.
fn in_order(wanted: &WantedService, actual: &ActualService) -> bool {
    let is_there = |key: &&DestinationKey| actual.destinations.contains_key(*key);
    let is_wanted = |key: &&DestinationKey| wanted.destinations.contains_key(*key);
    let there = actual.destinations.keys().filter(is_wanted);
    let missing = wanted.destinations.keys().filter(|key| !is_there(key));
    there.chain(missing).eq(wanted.destinations.keys())
}

#[cfg(test)]
mod tests;
