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
use crate::{
    decide::desired::Desired,
    fair::{Room, keep, names},
};

/// The size limits of the list of unhealthy servers in a health report.
const UNHEALTHY: Room = Room {
    bytes: 256 << 10,
    each: 300,
};
/// The size limits of the list of services below their minimum in a health
/// report.
const BELOW_MINIMUM: Room = Room {
    bytes: 96 << 10,
    each: 300,
};

/// The largest number of services that the report names of a server that is
/// unhealthy for all of them. More would not help a reader, and a server may be
/// behind thousands.
const NAMED_SERVICES: usize = 10;

/// A server that is not healthy, its state, and the reason.
type Ailment<'a> = (&'a ObjectKey, UnhealthyState, &'a str);

impl Serving {
    /// Returns the results of the health checks, or none if no service has a
    /// check. `wishes` names the object that wants each entry of the kernel's
    /// table.
    pub fn report(&self, wishes: &Desired) -> Option<DirectorHealth> {
        if self.services.is_empty() {
            return None;
        }
        let (mut checked, mut healthy) = (0, 0);
        let mut checks: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
        let mut below_minimum = Vec::new();
        let mut ailing: BTreeMap<Ailment<'_>, (Timestamp, BTreeSet<&ObjectKey>)> = BTreeMap::new();
        for (key, service) in &self.services {
            let Some(name) = wishes.services.get(key) else {
                continue;
            };
            for (server, member) in &service.servers {
                checked += 1;
                let server = wishes.servers.get(&(*key, *server));
                if let Some(server) = server {
                    *checks.entry(server).or_default() += 1;
                }
                let state = &member.state;
                let Some(ailment) = ailment(state) else {
                    healthy += 1;
                    continue;
                };
                let Some(server) = server else {
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
            let availability = &service.policy.availability;
            let count = service.count();
            below_minimum.push(ServiceBelowMinimum {
                virtual_service: name.clone(),
                action: action(&availability.below).to_owned(),
                healthy: int32(count.healthy),
                total: int32(count.total),
                minimum: int32(availability.minimum_of(count.total)),
                since: Time(since),
            });
        }
        let unhealthy = ailing.into_iter();
        let unhealthy =
            unhealthy.map(
                |((server, state, why), (since, services))| UnhealthyServer {
                    real_server: server.clone(),
                    virtual_services: named(services, checks.get(server)),
                    state,
                    since: Time(since),
                    message: why.to_owned(),
                },
            );
        Some(DirectorHealth {
            checked,
            healthy,
            ..within_room(unhealthy.collect(), below_minimum)
        })
    }

    /// Returns the number of targets that the agent probes.
    pub fn targets(&self) -> usize {
        self.targets.len()
    }
}

/// Returns a health report that respects the size limits of both lists. Each
/// namespace gets a fair share of each list.
pub(crate) fn within_room(
    unhealthy: Vec<UnhealthyServer>,
    below_minimum: Vec<ServiceBelowMinimum>,
) -> DirectorHealth {
    let (unhealthy, unnamed) = keep(unhealthy, of_server, UNHEALTHY);
    let (below_minimum, without) = keep(below_minimum, of_service, BELOW_MINIMUM);
    DirectorHealth {
        unhealthy,
        unhealthy_omitted: int32(unnamed.len()),
        unhealthy_omitted_namespaces: names(unnamed.iter().map(of_server)),
        below_minimum,
        below_minimum_omitted: int32(without.len()),
        below_minimum_omitted_namespaces: names(without.iter().map(of_service)),
        ..DirectorHealth::default()
    }
}

/// Returns the services to name in the entry of an unhealthy server. `services`
/// are those for which it is unhealthy, and `checks` is the number of all that
/// check it. If these are the same and many, the entry names no service.
fn named(services: BTreeSet<&ObjectKey>, checks: Option<&usize>) -> Vec<ObjectKey> {
    let is_for_all = checks == Some(&services.len());
    match is_for_all && services.len() > NAMED_SERVICES {
        true => Vec::new(),
        false => services.into_iter().cloned().collect(),
    }
}

fn of_server(entry: &UnhealthyServer) -> &str {
    &entry.real_server.namespace
}

fn of_service(entry: &ServiceBelowMinimum) -> &str {
    &entry.virtual_service.namespace
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

#[cfg(test)]
mod tests {
    use super::*;

    fn down(namespace: &str, number: usize) -> UnhealthyServer {
        let key = |kind: &str| ObjectKey::new(namespace, format!("{kind}{number}"));
        UnhealthyServer {
            real_server: key("server"),
            virtual_services: vec![key("service")],
            state: UnhealthyState::Down,
            since: Time(Timestamp::UNIX_EPOCH),
            message: "connection refused".to_owned(),
        }
    }

    fn below(namespace: &str, number: usize) -> ServiceBelowMinimum {
        ServiceBelowMinimum {
            virtual_service: ObjectKey::new(namespace, format!("service{number}")),
            action: "FailOpen".to_owned(),
            healthy: 0,
            total: 1,
            minimum: 1,
            since: Time(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn one_namespace_in_which_all_is_down_hides_nothing_of_another() {
        let all = || {
            (0..5000)
                .map(|number| ("evil", number))
                .chain([("shop", 1)])
        };
        let report = within_room(
            all().map(|(name, number)| down(name, number)).collect(),
            all().map(|(name, number)| below(name, number)).collect(),
        );
        assert_eq!(report.unhealthy.len(), 301);
        assert_eq!(report.unhealthy.last(), Some(&down("shop", 1)));
        assert_eq!(report.unhealthy_omitted, 4700);
        assert_eq!(report.unhealthy_omitted_namespaces, ["evil"]);
        assert_eq!(report.below_minimum.len(), 301);
        assert_eq!(report.below_minimum.last(), Some(&below("shop", 1)));
        assert_eq!(report.below_minimum_omitted, 4700);
        assert_eq!(report.below_minimum_omitted_namespaces, ["evil"]);
    }
}
