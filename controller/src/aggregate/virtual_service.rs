use crds::{
    Kind, ObjectKey, Objects, Rejection, Resolved, Service,
    api::{RealServerCounts, VirtualServiceStatus},
    condition::{self, kind, reason},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Group, number, programmed};
use crate::world::Need;

/// The status of one VirtualService, which is among the objects.
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
    let (programmed, directors) = programmed::programmed(&programmed::Subject {
        objects,
        resolved,
        key,
        service,
        accepted: rejection.is_none(),
        need,
        generation,
        group,
    });
    let counts = service.map(|service| real_servers(resolved, key, service));
    let mut conditions = vec![
        accepted(objects, service, rejection, generation),
        resolved_refs(objects, resolved, key, service, generation),
        programmed,
    ];
    let ready = condition::service_ready(&conditions, generation);
    conditions.push(match &counts {
        Some(counts) if counts.healthy == 0 && ready.status == "True" => {
            condition::no_weight(counts.selected, generation)
        }
        _ => ready,
    });
    VirtualServiceStatus {
        conditions,
        real_servers: counts,
        directors: Some(directors),
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
        // Every object is accepted or rejected, but for the moment between a
        // change and the next settlement.
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
        return condition::refused_refs(refused, generation);
    }
    drop(refused);
    if service.servers.is_empty() {
        return condition::no_real_servers(&key.namespace, generation);
    }
    debug_assert!(!objects.real_servers.is_empty());
    condition::resolved_refs(service.servers.len(), generation)
}

/// Without health checks, in service is what gets new connections.
fn real_servers(resolved: &Resolved, key: &ObjectKey, service: &Service) -> RealServerCounts {
    let selected = service.servers.len() + resolved.refused_by(key).count();
    let healthy = service
        .servers
        .iter()
        .filter(|server| server.weight > 0)
        .count();
    RealServerCounts {
        selected: number(selected),
        healthy: number(healthy),
        summary: format!("{healthy}/{selected}"),
    }
}
