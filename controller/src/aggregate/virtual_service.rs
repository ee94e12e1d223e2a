use crds::{
    Kind, ObjectKey, Objects, Rejection, Resolved, Service,
    api::{RealServerCounts, VirtualServiceStatus, int32},
    condition::{self, kind, reason},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    Group,
    health_reports::{self, Known, Servers},
    programmed,
};
use crate::need::Need;

/// Computes the status of one VirtualService. `key` must be in `objects`.
pub(super) fn status(
    objects: &Objects,
    resolved: &Resolved,
    key: &ObjectKey,
    need: Option<&Need>,
    group: &Group<'_>,
) -> VirtualServiceStatus {
    let generation = objects
        .virtual_services
        .get(key)
        .map_or(0, |stored| stored.generation);
    let service = resolved.services.get(key);
    let rejection = resolved.rejection(Kind::VirtualService, key);
    let programmed = programmed::programmed(&programmed::ServiceView {
        objects,
        resolved,
        key,
        service,
        accepted: rejection.is_none(),
        need,
        generation,
        group,
    });
    let counts = service.map(|service| real_servers(resolved, key, service, need, group));
    let mut conditions = vec![
        accepted(objects, service, rejection, generation),
        resolved_refs(objects, resolved, key, service, generation),
        programmed.condition,
    ];
    let ready = condition::service_ready(&conditions, generation);
    let not_ready = match service {
        Some(service) if ready.status == "True" => no_weight(service, generation)
            .or_else(|| health_reports::below_minimum(group, key, service, need, generation)),
        _ => None,
    };
    conditions.push(not_ready.unwrap_or(ready));
    VirtualServiceStatus {
        conditions,
        real_servers: counts,
        directors: Some(programmed.counts),
        vip: programmed.vip,
    }
}

fn accepted(
    objects: &Objects,
    service: Option<&Service>,
    rejection: Option<&Rejection>,
    generation: i64,
) -> Condition {
    match (rejection, service) {
        (Some(rejection), _) => condition::not_accepted(rejection, generation),
        (None, Some(service)) if objects.is_group_gone(&service.group) => {
            condition::accepted_without_group(&service.group, generation)
        }
        (None, Some(_)) => condition::accepted(generation),
        // A changed object is neither accepted nor rejected before the next
        // [`crate::world::World::resolve`].
        (None, None) => condition::pending(kind::ACCEPTED, generation),
    }
}

fn resolved_refs(
    objects: &Objects,
    resolved: &Resolved,
    key: &ObjectKey,
    service: Option<&Service>,
    generation: i64,
) -> Condition {
    let Some(service) = service else {
        return condition::refs_not_looked_at(generation);
    };
    let outdated: Vec<(ObjectKey, Rejection)> = service
        .servers
        .iter()
        .filter_map(|server| {
            let rejection = resolved.rejection(Kind::RealServer, &server.object)?;
            Some((
                server.object.clone(),
                Rejection {
                    reason: reason::REAL_SERVER_NOT_ACCEPTED,
                    message: rejection.message.clone(),
                },
            ))
        })
        .collect();
    let mut refused = resolved
        .refused_by(key)
        .chain(outdated.iter().map(|(server, why)| (server, why)))
        .peekable();
    if refused.peek().is_some() {
        return condition::refused_refs(refused, service.left_out, generation);
    }
    drop(refused);
    if service.servers.is_empty() {
        return condition::no_real_servers(&key.namespace, generation);
    }
    debug_assert!(!objects.real_servers.is_empty());
    condition::resolved_refs(service.servers.len(), generation)
}

fn no_weight(service: &Service, generation: i64) -> Option<Condition> {
    let servers = &service.servers;
    let has_weight = servers.iter().any(|server| server.share() > 0);
    (!has_weight).then(|| condition::no_weight(int32(servers.len()), generation))
}

/// Counts the service's servers. A server counts as healthy if it gets new
/// connections. Without a health check, every server with a weight above 0
/// counts as healthy.
fn real_servers(
    resolved: &Resolved,
    key: &ObjectKey,
    service: &Service,
    need: Option<&Need>,
    group: &Group<'_>,
) -> RealServerCounts {
    let refused = resolved.refused_by(key).count() + service.left_out;
    let selected = service.servers.len() + refused;
    let checked = service
        .health_check
        .as_ref()
        .map(|_| Servers::of(key, need, group));
    let (mut healthy, mut unknown) = (0, 0);
    for server in service.servers.iter().filter(|server| server.share() > 0) {
        let known = checked
            .as_ref()
            .map_or(Known::Healthy, |checked| checked.known(&server.object));
        match known {
            Known::Healthy => healthy += 1,
            Known::Nothing => unknown += 1,
            Known::Unhealthy => {}
        }
    }
    let mark = if unknown > 0 { "?" } else { "" };
    let summary = match checked {
        Some(_) => format!("{healthy}/{selected}{mark}"),
        None => String::new(),
    };
    RealServerCounts {
        selected: int32(selected),
        healthy: int32(healthy),
        unknown: (unknown > 0).then(|| int32(unknown)),
        summary,
    }
}
