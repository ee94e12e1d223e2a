//! The reports of one group's directors about the servers that they drain.

use std::collections::HashMap;

use crds::{
    ObjectKey, Service, ServiceId,
    api::{DirectorDrains, DrainCause, DrainingServer, Protocol, Scheduler},
    condition::ServerDrain,
};

use super::{DirectorView, Group};
use crate::need::Need;

/// The drained servers that one group's directors report. A director that is
/// not alive counts too, because its kernel may still forward packets.
#[derive(Debug, Default)]
pub(super) struct Drains<'a> {
    /// The reports about each server, by director.
    named: HashMap<&'a ObjectKey, HashMap<&'a str, &'a DrainingServer>>,
    /// The reports that leave servers out, by director.
    omitting: HashMap<&'a str, &'a DirectorDrains>,
}

impl<'a> Drains<'a> {
    /// Adds the report of a director.
    pub(super) fn hear(&mut self, director: &'a DirectorView<'a>) {
        let Some(drains) = &director.status.drains else {
            return;
        };
        // Servers that leave are drained without being asked to.
        let declared = drains.servers.iter();
        let declared = declared.filter(|entry| entry.cause == DrainCause::Drained);
        for entry in declared {
            let of_server = self.named.entry(&entry.real_server).or_default();
            of_server.insert(director.name, entry);
        }
        if drains.omitted > 0 {
            self.omitting.insert(director.name, drains);
        }
    }

    fn of(&self, server: &ObjectKey, director: &str) -> Option<&'a DrainingServer> {
        self.named.get(server)?.get(director).copied()
    }

    fn leaves_out(&self, server: &ObjectKey, director: &str) -> bool {
        let omitting = self.omitting.get(director);
        omitting.is_some_and(|drains| drains.leaves_out_servers_of(&server.namespace))
    }
}

/// Adds to `drain` what the directors of `group` report about a drained server
/// of a service. `need` is what the directors must have used of the service.
pub(super) fn add<'a>(
    drain: &mut ServerDrain<'a>,
    server: &ObjectKey,
    need: Option<&Need>,
    group: &Group<'a>,
) {
    let since = need.and_then(|need| need.drained.get(server)).copied();
    let since = since.unwrap_or_default();
    for director in group.live.iter().copied() {
        let name = director.name;
        match group.drains.of(server, name) {
            _ if !director.places.has_reached(&since) => drain.waiting(name),
            Some(entry) => drain.named(name, entry),
            None if group.drains.leaves_out(server, name) => drain.omitting(name),
            None => drain.waiting(name),
        }
    }
    for director in group.dead.iter().copied() {
        let name = director.name;
        match group.drains.of(server, name) {
            Some(entry) if entry.drained && director.places.has_reached(&since) => {
                drain.named(name, entry);
            }
            _ => drain.dead(name),
        }
    }
}

/// Adds to `drain` what the directors of `group` report about a drained server
/// that only some of them may still have, because it is refused.
pub(super) fn add_refused<'a>(drain: &mut ServerDrain<'a>, server: &ObjectKey, group: &Group<'a>) {
    for director in group.live.iter().chain(&group.dead) {
        if let Some(entry) = group.drains.of(server, director.name) {
            drain.named(director.name, entry);
        }
    }
}

/// Adds to `drain` what a user should know of a service with a drained server.
pub(super) fn remark(drain: &mut ServerDrain<'_>, key: &ObjectKey, service: &Service) {
    let takes_clients = service.servers.iter().filter(|server| server.share() > 0);
    let left = takes_clients.count();
    let minimum = service.health_check.as_ref().map(|_| &service.availability);
    let minimum = minimum.map_or(0, |availability| availability.minimum_of(left));
    if left == 0 {
        drain.remark(format!(
            "VirtualService {key} has no other server and refuses new connections"
        ));
    } else if left < minimum {
        drain.remark(format!(
            "VirtualService {key} has fewer other servers than its minimumHealthy: {left} of \
             {minimum}"
        ));
    }
    let scheduler = match service.scheduler {
        Scheduler::Sh if !service.fallback => Some("sh"),
        Scheduler::Dh => Some("dh"),
        _ => None,
    };
    if let Some(scheduler) = scheduler {
        drain.remark(format!(
            "VirtualService {key} refuses new connections of the clients that its scheduler \
             {scheduler} assigns to the server"
        ));
    }
    let is_udp = matches!(service.id, ServiceId::Vip { protocol, .. } if protocol == Protocol::Udp);
    if is_udp {
        drain.remark(format!(
            "UDP clients of VirtualService {key} that never pause keep going to the server"
        ));
    }
}
