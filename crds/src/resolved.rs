//! The result of resolving all objects together. The values in this module have
//! been checked and are always valid.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    Availability, DrainRule, ForwardingRule, HealthCheck, Kind, ObjectKey, PersistenceRule,
    Rejection, ServiceId, api::Scheduler, condition::reason,
};

/// The result for all objects. Each object is accepted or rejected. Each server
/// that a service selects is linked to the service or refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// The services that the directors of each group must serve. If the newest
    /// version of a service was rejected, its last valid version is in this
    /// map.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Rejected services that the director still serves. These services lack
    /// only a grant or room in a budget. Each service is resolved in the same
    /// way as an accepted service. If several services have the same kernel
    /// key, only the oldest is in this map. The director continues to serve
    /// each service until the service's object is deleted.
    pub ungranted: BTreeMap<ObjectKey, Service>,
    /// Objects that are not accepted in their current form.
    pub rejected: BTreeMap<(Kind, ObjectKey), Rejection>,
    /// Selected servers that do not fit their service, by (service, server). If
    /// budgets leave out many pairs, this map has only some of the pairs. The
    /// map has at least one pair of each affected service and one pair of each
    /// affected server. [`Service::left_out`] counts the other pairs.
    pub refused: BTreeMap<(ObjectKey, ObjectKey), Rejection>,
    /// Accepted services, and servers of accepted services, that wait for room
    /// in a budget, by (service, server). The server is None if the service
    /// itself waits. Objects that the director still serves use up the budget.
    pub waiting: BTreeMap<(ObjectKey, Option<ObjectKey>), Rejection>,
    /// Deleted DirectorGroups that services still name.
    pub gone_groups: Vec<String>,
}

impl Resolved {
    /// Returns the selected servers that do not fit the service, with the
    /// reasons.
    pub fn refused_by<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Rejection)> {
        let first = ObjectKey::new("", "");
        self.refused
            .range((service.clone(), first)..)
            .take_while(move |((of, _), _)| of == service)
            .map(|((_, server), rejection)| (server, rejection))
    }

    /// Returns whether a budget leaves servers out of the service.
    pub fn is_cut(&self, service: &ObjectKey) -> bool {
        let accepted = self.services.get(service);
        accepted.is_some_and(|service| service.left_out > 0)
            || self
                .refused_by(service)
                .any(|(_, rejection)| rejection.reason == reason::BUDGET_EXCEEDED)
    }

    /// Returns why an object is not accepted in its current form, or None if it
    /// is accepted.
    pub fn rejection(&self, kind: Kind, key: &ObjectKey) -> Option<&Rejection> {
        self.rejected.get(&(kind, key.clone()))
    }
}

/// A virtual service that directors can program.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The name of the DirectorGroup whose directors serve the service.
    pub group: String,
    /// The key of the service in the kernel's table.
    pub id: ServiceId,
    /// The scheduler, which chooses the server of each new connection.
    pub scheduler: Scheduler,
    /// Whether the scheduler flag sh-fallback or mh-fallback is set.
    pub fallback: bool,
    /// Whether the scheduler flag sh-port or mh-port is set.
    pub hash_port: bool,
    /// Whether the scheduler chooses a server for each datagram (one-packet
    /// scheduling).
    pub one_packet: bool,
    /// How a client stays with its server. With a `persistence` of None, the
    /// service has no persistence.
    pub persistence: Option<PersistenceRule>,
    /// How the servers are probed. With a `health_check` of None, the servers
    /// are not checked.
    pub health_check: Option<Arc<HealthCheck>>,
    /// How the service reacts to servers that fail their health check.
    pub availability: Availability,
    /// How long connections may go on after their server no longer belongs to the
    /// service.
    pub removal_grace_period: Duration,
    /// The service's real servers, oldest first. No two servers have the same
    /// address and port.
    pub servers: Vec<Server>,
    /// Refused servers that a director may still serve, oldest first. The group
    /// does not grant the addresses of these servers, or a budget leaves the
    /// servers out. The number in each tuple says how many servers in `servers`
    /// are older. A director that already serves one of these servers goes on
    /// serving it.
    pub ungranted: Vec<(usize, Server)>,
    /// The number of servers that budgets leave out and that
    /// [`Resolved::refused`] does not name.
    pub left_out: usize,
    /// Whether the group grants exactly this VIP, and not only a network that
    /// contains the VIP.
    pub is_meant: bool,
}

impl Service {
    /// Refuses the servers at the given indexes in `servers`. A refused server
    /// moves to `ungranted` if `standing` returns true for the server.
    pub(crate) fn refuse(&mut self, refused: &BTreeSet<usize>, standing: impl Fn(&Server) -> bool) {
        let before = mem::take(&mut self.ungranted);
        let mut before = before.into_iter().peekable();
        for (index, server) in mem::take(&mut self.servers).into_iter().enumerate() {
            while let Some((_, older)) = before.next_if(|(place, _)| *place <= index) {
                self.ungranted.push((self.servers.len(), older));
            }
            if !refused.contains(&index) {
                self.servers.push(server);
            } else if standing(&server) {
                self.ungranted.push((self.servers.len(), server));
            }
        }
        let place = self.servers.len();
        self.ungranted
            .extend(before.map(|(_, server)| (place, server)));
    }
}

/// A real server as one service uses it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The key of the RealServer object.
    pub object: ObjectKey,
    /// The server's address (RIP).
    pub address: IpAddr,
    /// The server's port. With DR and TUN, the server's port is the service's
    /// port. The port may be 0 if the service has a firewall mark or serves
    /// every port.
    pub port: u16,
    /// The server's share of new connections, 0 to 65535. A server of weight 0
    /// gets no new connections.
    pub weight: u16,
    /// How packets reach the server.
    pub forwarding: ForwardingRule,
    /// A server with this many connections gets no new connections; 0 means no
    /// limit.
    pub upper_threshold: u32,
    /// A server that reached the upper threshold gets new connections again
    /// when it has fewer connections than this number. 0 means three quarters
    /// of the upper threshold.
    pub lower_threshold: u32,
    /// How the server is drained, or None if it takes new connections.
    pub drain: Option<DrainRule>,
    /// Whether the group's `spec.realServerAddresses` grants the address, or
    /// the server is from a file. If `is_listed` is false, a status must not
    /// quote the server's answers.
    pub is_listed: bool,
}

impl Server {
    /// Returns the server's share of new connections: its weight, or 0 while
    /// it is drained.
    pub fn share(&self) -> u16 {
        match self.drain {
            None => self.weight,
            Some(_) => 0,
        }
    }

    /// Returns the server's address and port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}
