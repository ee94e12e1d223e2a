//! Builds the report of a director on the health of its servers. The code is
//! pure: it does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    BelowMinimum, ObjectKey,
    api::{DirectorHealth, ServiceBelowMinimum, UnhealthyServer, UnhealthyState, int32},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Serving,
    server::{Health, ServerState},
};
use crate::decide::desired::Desired;

/// At most this many unhealthy servers are named in a report; the others are
/// only counted.
const MOST_SERVERS: usize = 300;
/// The unhealthy servers of a report name at most this many services in all, so
/// that a Director stays well below the size limit of an API server.
const MOST_NAMES: usize = 3000;
/// At most this many services below their minimum are named in a report.
const MOST_SERVICES: usize = 300;

/// A server that is not healthy, its state, and why.
type Ailment<'a> = (&'a ObjectKey, UnhealthyState, &'a str);

impl Serving {
    /// Returns the results of the health checks, or none if no service has a
    /// check. `wishes` maps the entries of the kernel's table to their objects.
    pub fn report(&self, wishes: &Desired) -> Option<DirectorHealth> {
        if self.services.is_empty() {
            return None;
        }
        let mut health = DirectorHealth::default();
        let mut ailing: BTreeMap<Ailment<'_>, (Timestamp, BTreeSet<&ObjectKey>)> = BTreeMap::new();
        for (key, service) in &self.services {
            let Some(name) = wishes.services.get(key) else {
                continue;
            };
            for (server, member) in &service.servers {
                health.checked += 1;
                let state = &member.state;
                let Some(ailment) = ailment(state) else {
                    health.healthy += 1;
                    continue;
                };
                let Some(server) = wishes.servers.get(&(*key, *server)) else {
                    continue;
                };
                let why = state.why().map_or(NO_RESULT, |why| why);
                let (since, services) = ailing
                    .entry((server, ailment, why))
                    .or_insert_with(|| (state.since(), BTreeSet::new()));
                *since = (*since).min(state.since());
                services.insert(name);
            }
            let Some(since) = service.below_since else {
                continue;
            };
            if health.below_minimum.len() == MOST_SERVICES {
                health.below_minimum_omitted += 1;
                continue;
            }
            let availability = &service.policy.availability;
            let count = service.count();
            health.below_minimum.push(ServiceBelowMinimum {
                virtual_service: name.clone(),
                action: action(&availability.below).to_owned(),
                healthy: int32(count.healthy),
                total: int32(count.total),
                minimum: int32(availability.minimum_of(count.total)),
                since: Time(since),
            });
        }
        let mut names = 0;
        for ((server, state, why), (since, services)) in ailing {
            if health.unhealthy.len() == MOST_SERVERS || names + services.len() > MOST_NAMES {
                health.unhealthy_omitted += 1;
                continue;
            }
            names += services.len();
            health.unhealthy.push(UnhealthyServer {
                real_server: server.clone(),
                virtual_services: services.into_iter().cloned().collect(),
                state,
                since: Time(since),
                message: why.to_owned(),
            });
        }
        Some(health)
    }

    /// Returns how many targets are probed.
    pub fn targets(&self) -> usize {
        self.targets.len()
    }
}

const NO_RESULT: &str = "no result so far";

fn ailment(state: &ServerState) -> Option<UnhealthyState> {
    match state.health() {
        Health::Up => None,
        Health::Unknown => Some(UnhealthyState::Unknown),
        Health::Down if state.is_flapping() => Some(UnhealthyState::Flapping),
        Health::Down => Some(UnhealthyState::Down),
    }
}

pub(super) fn action(below: &BelowMinimum) -> &'static str {
    match below {
        BelowMinimum::FailOpen => "FailOpen",
        BelowMinimum::Reject => "Reject",
        BelowMinimum::Sorry(_) => "SorryServer",
    }
}
