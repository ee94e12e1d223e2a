//! Leaves out servers whose probes are beyond the budget of their namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Candidate, Standing,
    budgets::{Excess, Limits, MICRO, Why, micro_probes},
    left_out::LeftOut,
};
use crate::{HealthCheck, NamespaceRule, Objects, Resolved, Server};

/// Refuses the newest servers whose health checks are beyond the budget of
/// their namespace. A target that another service already probes does not count
/// again.
pub(super) fn limit<'a>(
    objects: &Objects,
    candidates: &[Candidate<'a>],
    limits: &Limits<'a>,
    standing: &dyn Standing,
    left_out: &mut LeftOut,
    resolved: &mut Resolved,
) {
    let mut exceeding: BTreeMap<(&str, &str), Vec<&Candidate<'a>>> = BTreeMap::new();
    for candidate in candidates {
        let namespace = &*candidate.key.namespace;
        let place = (&*candidate.service.group, namespace);
        let may_exceed = || {
            let limit = limits.get(&place);
            limit.is_some_and(|limit| limit.may_exceed(candidate.budgets.of(namespace)))
        };
        if candidate.takes_part() && candidate.service.health_check.is_some() && may_exceed() {
            exceeding.entry(place).or_default().push(candidate);
        }
    }
    for ((_, namespace), services) in exceeding {
        let Some(first) = services.first() else {
            continue;
        };
        let budget = first.budgets.of(namespace);
        let refused = beyond(objects, &services, budget, resolved);
        for (service, refused) in refused {
            refuse(services[service], &refused, standing, left_out, resolved);
        }
    }
}

/// The budgets that leave servers out. The outer key is the index of the
/// service. The inner key is the index of the server in the service.
type Beyond = BTreeMap<usize, BTreeMap<usize, Excess>>;

/// Returns the servers that are beyond the budget.
fn beyond(
    objects: &Objects,
    services: &[&Candidate<'_>],
    budget: NamespaceRule,
    resolved: &Resolved,
) -> Beyond {
    let mut checks: HashMap<&HealthCheck, usize> = HashMap::new();
    let mut rates: Vec<u64> = Vec::new();
    let mut probed = Vec::new();
    for (place, candidate) in services.iter().enumerate() {
        let service = &resolved.services[candidate.key];
        let Some(check) = &service.health_check else {
            continue;
        };
        let number = *checks.entry(check).or_insert_with(|| {
            rates.push(micro_probes(check));
            rates.len() - 1
        });
        for (index, server) in service.servers.iter().enumerate() {
            let stored = objects.real_servers.get(&server.object);
            let created = stored.map_or(0, |stored| stored.created);
            let age = candidate.created.max(created);
            let age = (age, candidate.key, (created, &server.object));
            let target = (number, check.target(server.socket()));
            probed.push((age, (place, index), target));
        }
    }
    probed.sort_unstable();
    let most_rate = MICRO * u64::from(budget.probes_per_second);
    let (mut known, mut rate, mut full) = (HashSet::new(), 0, None);
    let mut beyond = Beyond::new();
    for (_, (place, index), target) in probed {
        if known.contains(&target) {
            continue;
        }
        let more = rates[target.0];
        // Once a target is refused, all newer targets are refused too.
        if full.is_none() && known.len() == budget.probe_targets {
            full = Some(Excess::ProbeTargets);
        } else if full.is_none() && rate + more > most_rate {
            full = Some(Excess::ProbeRate);
        }
        match full {
            Some(excess) => {
                beyond.entry(place).or_default().insert(index, excess);
            }
            None => {
                rate += more;
                known.insert(target);
            }
        }
    }
    beyond
}

fn refuse(
    candidate: &Candidate<'_>,
    refused: &BTreeMap<usize, Excess>,
    standing: &dyn Standing,
    left_out: &mut LeftOut,
    resolved: &mut Resolved,
) {
    let key = candidate.key;
    let service = resolved.services.get_mut(key).expect("it is accepted");
    let id = service.id;
    let is_standing =
        |server: &Server| standing.service(id) && standing.server(id, server.socket());
    for (index, excess) in refused {
        let server = &service.servers[*index];
        if left_out.is_named(key, &server.object) || is_standing(server) {
            let pair = (key.clone(), server.object.clone());
            resolved
                .refused
                .insert(pair, excess.rejection(candidate, Why::Newest));
        } else {
            service.left_out += 1;
        }
    }
    let places: BTreeSet<_> = refused.keys().copied().collect();
    service.refuse(&places, is_standing);
}
