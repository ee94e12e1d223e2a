//! Merges the retained servers of a service with its wanted servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipvs::{
    ActualService, DestinationConfig, DestinationKey, Destinations, ServiceKey, WantedService,
};

use crate::decide::desired::{CheckPolicy, Desired};

/// Adds a service's retained servers to `in_force`, and the service itself if
/// it is no longer wanted. `found` is the service in the kernel. `before` is
/// the previous state in force: it still has the service's check, the objects
/// of the entries, and the administrator's weights. If `servers` has a
/// configuration for a server, the server gets this configuration. Otherwise, a
/// server of a checked service keeps its configuration in `before`. All other
/// servers keep their configuration in the kernel.
pub(super) fn keep(
    in_force: &mut Desired,
    key: &ServiceKey,
    servers: &[(DestinationKey, Option<DestinationConfig>)],
    found: &ActualService,
    before: &Desired,
) {
    if !in_force.table.contains_key(key) {
        keep_service(in_force, key, found, before);
    }
    let is_checked = in_force.checks.contains_key(key);
    let sorry = in_force.checks.get(key).and_then(|policy| policy.sorry);
    let is_sorry = |server: &DestinationKey| sorry.is_some_and(|(sorry, _)| sorry == *server);
    let known = before.table.get(key);
    let mut kept = Destinations::default();
    for (server, given) in servers {
        let known = known.and_then(|service| service.destinations.get(server));
        let current = found.destinations[server];
        let config = match (given, known) {
            (Some(given), _) => *given,
            (None, Some(known)) if is_checked => *known,
            // A former sorry server stays in the table with weight 0, so that
            // it gets no new connections.
            (None, None) if is_checked && was_sorry(before, key, server) => DestinationConfig {
                weight: 0,
                ..current
            },
            _ => current,
        };
        // The health check, not the retention stage, adds and removes the sorry
        // server.
        if known.is_some() || !is_sorry(server) {
            kept.insert(*server, config);
        }
        if let Some(object) = before.servers.get(&(*key, *server)) {
            in_force.servers.insert((*key, *server), object.clone());
        }
    }
    if let Some(policy) = in_force.checks.get_mut(key) {
        let mut quiesce_only: BTreeSet<_> = policy.quiesce_only.clone();
        quiesce_only.extend(servers.iter().map(|(server, _)| *server));
        *policy = Arc::new(CheckPolicy {
            quiesce_only,
            ..CheckPolicy::clone(policy)
        });
    }
    let service = in_force.table.get_mut(key).expect("it was added above");
    service.destinations = in_order(&service.destinations, &kept, &found.destinations);
}

fn keep_service(in_force: &mut Desired, key: &ServiceKey, found: &ActualService, before: &Desired) {
    let service = WantedService {
        config: found.config.clone(),
        destinations: Destinations::default(),
    };
    in_force.table.insert(*key, service);
    if let Some(policy) = before.checks.get(key) {
        in_force.checks.insert(*key, policy.clone());
    }
    if let Some(period) = before.periods.get(key) {
        in_force.periods.insert(*key, *period);
    }
    let object = before.services.get(key);
    if let Some(address) = key.vip() {
        let users = in_force.vips.entry(address).or_default();
        users.extend(object.cloned());
    }
    if let Some(object) = object {
        in_force.services.insert(*key, object.clone());
    }
}

fn was_sorry(before: &Desired, key: &ServiceKey, server: &DestinationKey) -> bool {
    let policy = before.checks.get(key);
    policy.is_some_and(|policy| matches!(policy.sorry, Some((sorry, _)) if sorry == *server))
}

/// Returns the wanted servers in the wanted order, with the retained servers
/// between them. Each retained server is placed behind the wanted server that
/// it follows in the kernel. A service that already has the wanted order
/// therefore needs no reordering.
fn in_order(wanted: &Destinations, kept: &Destinations, found: &Destinations) -> Destinations {
    let mut behind: BTreeMap<Option<DestinationKey>, Vec<_>> = BTreeMap::new();
    let mut last = None;
    for key in found.keys() {
        if let Some(config) = kept.get(key) {
            behind.entry(last).or_default().push((*key, *config));
        } else if wanted.contains_key(key) {
            last = Some(*key);
        }
    }
    let mut merged = Destinations::default();
    merged.extend(behind.remove(&None).unwrap_or_default());
    for (key, config) in wanted {
        merged.insert(*key, *config);
        merged.extend(behind.remove(&Some(*key)).unwrap_or_default());
    }
    merged
}
