//! Plans how to turn the kernel's table into the wanted table, without any I/O.

use std::collections::BTreeSet;

use crate::{
    ActualService, ActualTable, DestinationKey, Gone, Op, Owned, ServiceConfig, ServiceKey,
    WantedService, WantedTable,
};

/// The changes that turn the kernel's table into the wanted table.
///
/// A caller that may crash at any moment uses a plan as follows:
/// 1. Record `adopt` as owned, and forget `gone`.
/// 2. Record an intent for every operation of `ops` that [creates](Op::creates)
///    an entry. Make the records of steps 1 and 2 durable.
/// 3. Apply `ops`.
/// 4. For each operation that succeeded, call [`Op::apply_to`] with the
///    believed table. Pass the same operations to [`Owned::acknowledge`].
/// 5. Forget each service of `shared` that no longer contains an entry of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The plan's operations, in the order in which they must be applied: first
    /// all additions and edits, then all removals. Operations on a service come
    /// before the operations on its destinations. Destinations come in the
    /// wanted order, because the schedulers dh, sh and mh build their tables in
    /// the order of insertion.
    pub ops: Vec<Op>,
    /// The keys of wanted entries that exist in the kernel and become ours. An
    /// adopted entry that differs from the wanted entry is edited in place.
    pub adopt: Owned,
    /// The keys of our entries that are no longer wanted and no longer in the
    /// kernel.
    pub gone: Gone,
    /// Adopted services that are no longer wanted but contain strangers'
    /// destinations. The plan removes our destinations from such a service, and
    /// leaves the service and the strangers' destinations alone.
    pub shared: Vec<ServiceKey>,
    /// Unwanted destinations of other programs in our wanted services. The plan
    /// reports strangers' destinations and leaves them alone. When the plan
    /// deletes a service that the agent made, the kernel also deletes the
    /// strangers' destinations in the service.
    pub strangers: Vec<(ServiceKey, DestinationKey)>,
    /// Strangers' entries that the plan leaves alone. Each of these entries has
    /// the key of a wanted entry, but another configuration. `None` stands for
    /// the service itself, and `Some` for a destination in the service.
    pub left: Vec<(ServiceKey, Option<DestinationKey>)>,
    /// Services whose destinations will not be in the wanted order, although
    /// the service's scheduler depends on the order. The kernel cannot reorder
    /// the destinations of a service.
    pub misordered: Vec<ServiceKey>,
}

impl Plan {
    /// Returns whether the kernel's table needs no writes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The policy for a stranger's entry that differs from the wanted entry with
/// the same key. A stranger's entry that equals the wanted entry always becomes
/// ours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnConflict {
    /// Adopt the stranger's entry, and edit it in place.
    #[default]
    Adopt,
    /// Leave the stranger's entry and everything in it alone, and list the
    /// entry in [`Plan::left`].
    Leave,
}

/// Compares the wanted table, the kernel's table and the owned keys, and plans
/// the operations that are needed.
///
/// Only entries in `owned` are ever removed. A wanted entry that exists in the
/// kernel is edited in place. No plan deletes an entry and creates it again, so
/// established connections survive. Unwanted entries of other programs are left
/// alone. A single operation deletes a service with all its destinations. The
/// plan does not delete an adopted service while it contains a stranger's
/// destination.
///
/// No operation of a plan empties the kernel's whole table. With an empty
/// `desired`, the plan removes the owned services one by one.
pub fn plan(
    desired: &WantedTable,
    actual: &ActualTable,
    owned: &Owned,
    on_conflict: OnConflict,
) -> Plan {
    let keys: BTreeSet<_> = desired.keys().chain(owned.services.keys()).collect();
    plan_services(keys, desired, actual, owned, on_conflict)
}

/// Plans as [`plan`] does, but only for the services in `keys`. The plans for
/// disjoint sets of services add up to the plan for the union of the sets.
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
            (None, actual) => {
                if let Some(ours) = ours {
                    let is_adopted = owned.adopted.contains(&key);
                    planner.unwanted(key, actual, ours, is_adopted);
                }
            }
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
                    plan.adopt.adopted.insert(service);
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

    fn unwanted(
        &mut self,
        service: ServiceKey,
        actual: Option<&ActualService>,
        ours: &BTreeSet<DestinationKey>,
        is_adopted: bool,
    ) {
        let Some(actual) = actual else {
            self.plan.gone.services.push(service);
            return;
        };
        let mut there = actual.destinations.keys();
        if !is_adopted || there.all(|key| ours.contains(key)) {
            self.removals.push(Op::DeleteService(service));
            return;
        }
        self.plan.shared.push(service);
        for &key in ours {
            match actual.destinations.contains_key(&key) {
                true => self.removals.push(Op::DeleteDestination(service, key)),
                false => self.plan.gone.destinations.push((service, key)),
            }
        }
    }
}

/// Returns whether the scheduler's choice depends on the order in which the
/// servers were added (`ip_vs_dh.c`, `ip_vs_sh.c`, `ip_vs_mh.c`).
fn is_order_kept(config: &ServiceConfig) -> bool {
    matches!(config.scheduler.as_str(), "dh" | "sh" | "mh")
}

/// Returns whether the destinations will be in the wanted order once the
/// missing destinations are added. The kernel adds a destination after all
/// existing destinations of the service.
fn in_order(wanted: &WantedService, actual: &ActualService) -> bool {
    let is_there = |key: &&DestinationKey| actual.destinations.contains_key(*key);
    let is_wanted = |key: &&DestinationKey| wanted.destinations.contains_key(*key);
    let there = actual.destinations.keys().filter(is_wanted);
    let missing = wanted.destinations.keys().filter(|key| !is_there(key));
    there.chain(missing).eq(wanted.destinations.keys())
}

#[cfg(test)]
mod tests;
