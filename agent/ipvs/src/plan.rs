//! What to do so that the kernel's table becomes the wanted one: pure.

use std::collections::BTreeSet;

use crate::{
    ActualService, ActualTable, DestinationKey, Gone, Op, Owned, ServiceConfig, ServiceKey,
    WantedService, WantedTable,
};

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
    /// Entries that are not ours, are wanted, and are left because their
    /// content is another one: services, and destinations inside services of
    /// ours.
    pub left: Vec<(ServiceKey, Option<DestinationKey>)>,
    /// Services whose scheduler goes by the order of the destinations, and
    /// which will not have the wanted order: it cannot be edited.
    pub misordered: Vec<ServiceKey>,
}

impl Plan {
    /// Whether the kernel's table needs no write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What becomes of an entry that is not ours, has a key that is wanted, and
/// another content. With the same content it becomes ours in any case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnConflict {
    /// It becomes ours, and is edited in place.
    #[default]
    Adopt,
    /// It is left as it is, with everything in it, and named in
    /// [`Plan::left`].
    Leave,
}

/// Compares three tables and says what to do.
///
/// Only what is in `owned` is ever removed. What is wanted and there already
/// is edited in place, never deleted and added, so that its connections live;
/// what is neither wanted nor owned is left alone. Deleting a service takes
/// all its destinations with it in one operation.
///
/// Nothing here knows how to empty a table: with an empty `desired` it removes
/// what is owned, entry by entry.
pub fn plan(
    desired: &WantedTable,
    actual: &ActualTable,
    owned: &Owned,
    on_conflict: OnConflict,
) -> Plan {
    let keys: BTreeSet<_> = desired.keys().chain(owned.services.keys()).collect();
    plan_services(keys, desired, actual, owned, on_conflict)
}

/// As [`plan`], for these services alone. The plans of disjoint sets of keys
/// add up to the plan of their union.
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

/// Whether which server a client gets depends on the order in which the
/// servers were added (`ip_vs_dh.c`, `ip_vs_sh.c`, `ip_vs_mh.c`).
fn is_order_kept(config: &ServiceConfig) -> bool {
    matches!(config.scheduler.as_str(), "dh" | "sh" | "mh")
}

/// Whether the wanted destinations will be in the wanted order when those that
/// are missing have been added behind those that are there.
fn in_order(wanted: &WantedService, actual: &ActualService) -> bool {
    let is_there = |key: &&DestinationKey| actual.destinations.contains_key(*key);
    let is_wanted = |key: &&DestinationKey| wanted.destinations.contains_key(*key);
    let there = actual.destinations.keys().filter(is_wanted);
    let missing = wanted.destinations.keys().filter(|key| !is_there(key));
    there.chain(missing).eq(wanted.destinations.keys())
}

#[cfg(test)]
mod tests;
