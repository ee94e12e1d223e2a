use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crds::{
    DrainRule, Kind, ObjectKey, Rejection, Resolved, Service,
    api::{ForwardingMethod, RealServerStatus, ServerInForce, int32},
    condition::{self, ServerDrain, ServerHealth, Sight, server_state},
};

use super::{Facts, Group, drains, health_reports::Servers};
use crate::{scope::Scope, status::Subject};

/// One server with all services that use it.
#[derive(Default)]
struct Uses<'a> {
    services: usize,
    ports: BTreeSet<u16>,
    methods: BTreeSet<ForwardingMethod>,
    /// The groups of the services that check the server's health, without
    /// duplicates.
    checked_by: Vec<&'a Group<'a>>,
    health: ServerHealth<'a>,
    drain: ServerDrain<'a>,
    refused: Vec<(&'a ObjectKey, &'a Rejection)>,
}

/// Computes the status of every RealServer in `scope`.
pub(super) fn statuses<'a>(
    facts: Facts<'a>,
    groups: &'a HashMap<&'a str, Group<'a>>,
    no_directors: &'a Group<'a>,
    scope: &Scope,
) -> BTreeMap<ObjectKey, RealServerStatus> {
    if !scope.has_any(Subject::RealServer) {
        return BTreeMap::new();
    }
    let Facts {
        objects,
        resolved,
        needs,
        ..
    } = facts;
    let is_in_scope = |server: &ObjectKey| scope.has(Subject::RealServer, server);
    let mut uses: HashMap<&ObjectKey, Uses<'_>> = HashMap::new();
    for (key, service) in services(resolved, scope) {
        let group = groups.get(service.group.as_str()).unwrap_or(no_directors);
        let mut checked = None;
        let servers = service.servers.iter();
        for server in servers.filter(|server| is_in_scope(&server.object)) {
            let uses = uses.entry(&server.object).or_default();
            uses.services += 1;
            uses.ports.insert(server.port);
            uses.methods.insert(server.forwarding.method());
            if service.health_check.is_some() {
                let of = || Servers::of(key, needs.get(key), group);
                uses.check(&server.object, checked.get_or_insert_with(of), group);
            }
            if server.drain.is_some() {
                drains::add(&mut uses.drain, &server.object, needs.get(key), group);
                drains::remark(&mut uses.drain, key, service);
            }
        }
        for (_, server) in &service.ungranted {
            if server.drain.is_some() && is_in_scope(&server.object) {
                let uses = uses.entry(&server.object).or_default();
                drains::add_refused(&mut uses.drain, &server.object, group);
            }
        }
    }
    for ((service, server), rejection) in &resolved.refused {
        if is_in_scope(server) {
            let uses = uses.entry(server).or_default();
            uses.refused.push((service, rejection));
        }
    }
    let servers = scope.of(Subject::RealServer, &objects.real_servers);
    servers
        .into_iter()
        .map(|(key, stored)| {
            let uses = uses.remove(key).unwrap_or_default();
            let rejection = resolved.rejection(Kind::RealServer, key);
            let rule = stored.in_force().and_then(|server| server.drain);
            (key.clone(), uses.status(rejection, rule, stored.generation))
        })
        .collect()
}

/// Returns the services that may use a server in `scope`: those of the servers'
/// namespaces.
fn services<'a>(resolved: &'a Resolved, scope: &Scope) -> Vec<(&'a ObjectKey, &'a Service)> {
    let Some(namespaces) = scope.namespaces(Subject::RealServer) else {
        return resolved.services.iter().collect();
    };
    let in_namespace = |namespace: &Arc<str>| {
        let first = ObjectKey::new(namespace.clone(), "");
        let namespace = namespace.clone();
        let services = resolved.services.range(first..);
        services.take_while(move |(key, _)| key.namespace == namespace)
    };
    namespaces.into_iter().flat_map(in_namespace).collect()
}

impl<'a> Uses<'a> {
    /// Adds the health reports of one more service that checks the server.
    fn check(&mut self, server: &'a ObjectKey, all: &Servers<'a, 'a>, group: &'a Group<'a>) {
        if !self.checked_by.iter().any(|by| std::ptr::eq(*by, group)) {
            self.checked_by.push(group);
        }
        for (director, entry) in all.unhealthy(server) {
            self.health.named(director.name, entry);
        }
        for director in group.health.leaving_servers_out(&server.namespace) {
            self.health.unnamed(director, Sight::LeftOut);
        }
        for director in all.waiting(server) {
            self.health.unnamed(director.name, Sight::Waiting);
        }
    }

    fn status(
        mut self,
        rejection: Option<&Rejection>,
        rule: Option<DrainRule>,
        generation: i64,
    ) -> RealServerStatus {
        let health = self.seen();
        let drain = &self.drain;
        let drained = rule.map(|rule| drain.condition(&rule, self.services, generation));
        let mut conditions = match rejection {
            Some(rejection) => {
                let accepted = condition::not_accepted(rejection, generation);
                let ready = condition::server_not_ready(&accepted, generation);
                vec![accepted, ready]
            }
            None => vec![
                condition::accepted(generation),
                condition::server_ready(
                    self.services,
                    health.as_ref(),
                    self.refused.iter().copied(),
                    generation,
                ),
            ],
        };
        let state = server_state(drained.as_ref().map(|drained| (drained, drain)));
        conditions.extend(drained);
        RealServerStatus {
            conditions,
            state: Some(state),
            virtual_services: Some(int32(self.services)),
            in_force: (self.services > 0).then(|| ServerInForce {
                ports: listed(&self.ports),
                methods: listed(&self.methods),
            }),
            directors: health
                .map(|health| health.counts())
                .filter(|counts| counts.checking > 0),
        }
    }

    /// Combines the reports of the directors that check the server. Returns
    /// `None` if no service has a health check for the server. Also returns
    /// `None` if all live directors have the server but none of them reports
    /// health yet.
    fn seen(&mut self) -> Option<ServerHealth<'a>> {
        if self.checked_by.is_empty() {
            return None;
        }
        let mut health = std::mem::take(&mut self.health);
        for group in &self.checked_by {
            let checking = &group.health.checking;
            let others = health.others().filter(|other| checking.contains(other));
            let healthy = checking.len() - others.count();
            health.healthy(healthy);
        }
        let is_anybody_there = self.checked_by.iter().any(|group| !group.live.is_empty());
        let is_checked = health.counts().checking > 0;
        (is_checked || !is_anybody_there).then_some(health)
    }
}

fn listed<T: ToString>(all: &BTreeSet<T>) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(",")
}
