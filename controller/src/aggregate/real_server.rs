use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::{
    Kind, ObjectKey, Objects, Rejection, Resolved,
    api::{ForwardingMethod, RealServerStatus, ServerInForce, int32},
    condition::{self, ServerHealth, Sight},
};

use super::{Group, health_reports::Servers};
use crate::need::Need;

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
    refused: Vec<(&'a ObjectKey, &'a Rejection)>,
}

/// Computes the status of every RealServer.
pub(super) fn statuses<'a>(
    objects: &Objects,
    resolved: &'a Resolved,
    needs: &'a BTreeMap<ObjectKey, Need>,
    groups: &'a HashMap<&'a str, Group<'a>>,
    no_directors: &'a Group<'a>,
) -> BTreeMap<ObjectKey, RealServerStatus> {
    let mut uses: HashMap<&ObjectKey, Uses<'_>> = HashMap::new();
    for (key, service) in &resolved.services {
        let group = groups.get(service.group.as_str()).unwrap_or(no_directors);
        let checked = service
            .health_check
            .as_ref()
            .map(|_| Servers::of(key, needs.get(key), group));
        for server in &service.servers {
            let uses = uses.entry(&server.object).or_default();
            uses.services += 1;
            uses.ports.insert(server.port);
            uses.methods.insert(server.forwarding.method());
            if let Some(checked) = &checked {
                uses.check(&server.object, checked, group);
            }
        }
    }
    for ((service, server), rejection) in &resolved.refused {
        let uses = uses.entry(server).or_default();
        uses.refused.push((service, rejection));
    }
    objects
        .real_servers
        .iter()
        .map(|(key, stored)| {
            let uses = uses.remove(key).unwrap_or_default();
            let rejection = resolved.rejection(Kind::RealServer, key);
            (key.clone(), uses.status(rejection, stored.generation))
        })
        .collect()
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

    fn status(mut self, rejection: Option<&Rejection>, generation: i64) -> RealServerStatus {
        let health = self.seen();
        let conditions = match rejection {
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
        RealServerStatus {
            conditions,
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
