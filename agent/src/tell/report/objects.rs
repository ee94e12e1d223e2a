//! Reports a director's problems with the objects that it uses. The code is
//! pure: it does no I/O.

use std::collections::{BTreeSet, HashSet};

use crds::{
    Kind, ObjectKey, Objects, Resolved, ServiceId,
    api::DirectorException,
    condition::{named, reason},
};

use super::exception;
use crate::ration::Line;

/// Returns the exceptions that only agents can report. There are four kinds of
/// exceptions:
///
/// - A service or server of the group is unreadable for this build. The
///   controller's build may be able to read the object.
/// - A service or server of the group has fields that this build does not know.
///   It is used without them.
/// - An object is not used because the last good version of another object is
///   still in force. The other object has the same [`ServiceId`], or it uses up
///   a budget of the same namespace.
/// - An object waits for room in a budget. Other objects, which this director
///   still serves, use up the budget.
pub fn unreadable(objects: &Objects, resolved: &Resolved, group: &str) -> Vec<DirectorException> {
    let unreadable = reason::UNREADABLE;
    let services = objects.virtual_services.iter().filter_map(|(key, stored)| {
        let rejection = stored.current.as_ref().err()?;
        (rejection.reason == unreadable && stored.group.as_deref() == Some(group))
            .then(|| exception(key, None, unreadable, &rejection.message))
    });
    let of_group = || resolved.services.iter().filter(|(_, of)| of.group == group);
    let linked = of_group().flat_map(|(key, service)| {
        let servers = service.servers.iter();
        servers.map(move |server| (key, &server.object))
    });
    let selected = resolved.refused.keys().map(|(key, server)| (key, server));
    let servers = selected.chain(linked).filter_map(|(service, server)| {
        let stored = objects.real_servers.get(server)?;
        let rejection = stored.current.as_ref().err()?;
        (rejection.reason == unreadable)
            .then(|| exception(service, Some(server), unreadable, &rejection.message))
    });
    let newer = objects.virtual_services.iter().filter_map(|(key, stored)| {
        let why = unknown_fields(&stored.ignored)?;
        (stored.group.as_deref() == Some(group))
            .then(|| exception(key, None, reason::UNKNOWN_FIELDS, &why))
    });
    let newer_servers = of_group().flat_map(|(service, of)| {
        of.servers.iter().filter_map(move |server| {
            let stored = objects.real_servers.get(&server.object)?;
            let why = unknown_fields(&stored.ignored)?;
            let server = Some(&server.object);
            Some(exception(service, server, reason::UNKNOWN_FIELDS, &why))
        })
    });
    let is_outdated = |key: &ObjectKey| {
        let service = objects.virtual_services.get(key);
        service.is_some_and(|stored| stored.current.is_err())
    };
    let outdated = of_group().filter(|(key, _)| is_outdated(key));
    let outdated: HashSet<ServiceId> = outdated.map(|(_, service)| service.id).collect();
    let unsure = objects.namespaces_with_outdated();
    let rejected = resolved.rejected.iter();
    let losers = rejected.filter_map(|((kind, key), rejection)| {
        let stored = objects.virtual_services.get(key);
        let stored = stored.filter(|_| *kind == Kind::VirtualService)?;
        let loser = stored.in_force()?;
        let is_owner = resolved.services.contains_key(key);
        let loses = !is_owner && outdated.contains(&loser.id);
        let is_left_out = rejection.reason == reason::BUDGET_EXCEEDED && is_in(&unsure, key);
        (loser.group == group && (loses || is_left_out))
            .then(|| exception(key, None, rejection.reason, &rejection.message))
    });
    let refused = resolved.refused.iter();
    let left_out = refused.filter_map(|((service, server), rejection)| {
        let is_left_out = rejection.reason == reason::BUDGET_EXCEEDED && is_in(&unsure, service);
        let of = resolved.services.get(service).filter(|_| is_left_out)?;
        (of.group == group)
            .then(|| exception(service, Some(server), rejection.reason, &rejection.message))
    });
    let waiting = resolved
        .waiting
        .iter()
        .filter_map(|((service, server), why)| {
            let stored = objects.virtual_services.get(service)?;
            (stored.group.as_deref() == Some(group))
                .then(|| exception(service, server.as_ref(), why.reason, &why.message))
        });
    let others = losers.chain(left_out).chain(waiting);
    let others = others.chain(newer).chain(newer_servers);
    services.chain(servers).chain(others).collect()
}

/// Returns a sentence about the fields of an object that this build does not
/// know, or `None` if there are none.
pub fn unknown_fields(ignored: &[String]) -> Option<String> {
    if ignored.is_empty() {
        return None;
    }
    let version = env!("CARGO_PKG_VERSION");
    let fields = named(ignored.iter().map(String::as_str));
    Some(format!(
        "this agent, version {version}, does not know {fields} and goes on without: upgrade the \
         agent, or take the field away"
    ))
}

fn is_in(namespaces: &BTreeSet<&str>, key: &ObjectKey) -> bool {
    namespaces.contains(&*key.namespace)
}

/// Returns one line for each problem with the objects that concern a group.
pub fn complaints(objects: &Objects, resolved: &Resolved, group: &str) -> BTreeSet<Line> {
    let concerns = |kind: Kind, key: &ObjectKey| {
        let service = objects.virtual_services.get(key);
        kind != Kind::VirtualService
            || service.is_some_and(|stored| stored.group.as_deref() == Some(group))
    };
    let rejected = resolved.rejected.iter();
    let rejected = rejected.filter(|((kind, key), _)| concerns(*kind, key));
    let rejected = rejected.map(|((kind, key), rejection)| Line {
        namespace: key.namespace.clone(),
        text: format!("{kind:?} {key} is not accepted: {}", rejection.message),
    });
    let refused = resolved.refused.iter();
    let refused = refused.filter(|((service, _), _)| concerns(Kind::VirtualService, service));
    let refused = refused.map(|((service, server), rejection)| Line {
        namespace: service.namespace.clone(),
        text: format!(
            "RealServer {server} does not serve VirtualService {service}: {}",
            rejection.message
        ),
    });
    let waiting = resolved.waiting.iter();
    let waiting = waiting.filter(|((service, _), _)| concerns(Kind::VirtualService, service));
    let waiting = waiting.map(|((service, server), why)| Line {
        namespace: service.namespace.clone(),
        text: match server {
            None => format!("VirtualService {service} waits: {}", why.message),
            Some(server) => format!(
                "RealServer {server} waits to serve VirtualService {service}: {}",
                why.message
            ),
        },
    });
    rejected.chain(refused).chain(waiting).collect()
}
