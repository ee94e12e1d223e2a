//! The reports of one group's live directors about the health of servers.

use std::collections::{HashMap, HashSet};

use crds::{
    Availability, ObjectKey, Service,
    api::{DirectorHealth, ServiceBelowMinimum, UnhealthyServer},
    condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{DirectorView, Group};
use crate::{history::Positions, need::Need};

/// The directors that find a server unhealthy, each with its report about the
/// server.
type Unhealthy<'a> = Vec<(&'a DirectorView<'a>, &'a UnhealthyServer)>;

/// The health reports of one group, by service. A report may be incomplete for
/// a namespace. The health of services and servers that the report does not
/// name in that namespace is then unknown.
#[derive(Debug, Default)]
pub(super) struct HealthReports<'a> {
    /// The directors that report health. All other directors check no servers.
    pub(super) checking: HashSet<&'a str>,
    /// The servers that are unhealthy for certain services, by service.
    unhealthy: HashMap<&'a ObjectKey, HashMap<&'a ObjectKey, Unhealthy<'a>>>,
    /// The servers that are unhealthy for all services of a director.
    unhealthy_for_all: HashMap<&'a ObjectKey, Unhealthy<'a>>,
    /// The directors on which a service has fewer healthy servers than its
    /// minimum, by service.
    below: HashMap<&'a ObjectKey, Vec<(&'a DirectorView<'a>, &'a ServiceBelowMinimum)>>,
    /// The directors whose health reports leave entries out.
    leaving_out: Vec<(&'a DirectorView<'a>, &'a DirectorHealth)>,
}

/// The health of one server of one service, according to the reports of all
/// live directors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// At least one director has the server in its table, and no director
    /// reports the server unhealthy.
    Healthy,
    /// At least one director reports the server unhealthy.
    Unhealthy,
    /// The server's health is unknown. Either no director has the server in its
    /// table yet, or a director left servers out of its report.
    Nothing,
}

impl<'a> HealthReports<'a> {
    /// Adds the health report of a live director.
    pub(super) fn hear(&mut self, director: &'a DirectorView<'a>, health: &'a DirectorHealth) {
        self.checking.insert(director.name);
        for entry in &health.unhealthy {
            for service in &entry.virtual_services {
                let of_service = self.unhealthy.entry(service).or_default();
                let of_server = of_service.entry(&entry.real_server).or_default();
                of_server.push((director, entry));
            }
            if entry.is_for_all() {
                let of_server = self.unhealthy_for_all.entry(&entry.real_server);
                of_server.or_default().push((director, entry));
            }
        }
        for entry in &health.below_minimum {
            let of_service = self.below.entry(&entry.virtual_service).or_default();
            of_service.push((director, entry));
        }
        if health.unhealthy_omitted > 0 || health.below_minimum_omitted > 0 {
            self.leaving_out.push((director, health));
        }
    }

    /// Returns the directors whose reports leave out unhealthy servers of a
    /// namespace.
    pub(super) fn leaving_servers_out(&self, namespace: &str) -> impl Iterator<Item = &'a str> {
        let leaving_out = self.leaving_out.iter();
        leaving_out
            .filter(move |(_, health)| health.leaves_out_unhealthy_of(namespace))
            .map(|(director, _)| director.name)
    }

    /// Returns the directors whose reports leave out services below their
    /// minimum. Only services of `namespace` count.
    fn leaving_services_out(&self, namespace: &str) -> impl Iterator<Item = &'a DirectorView<'a>> {
        let leaving_out = self.leaving_out.iter();
        leaving_out
            .filter(move |(_, health)| health.leaves_out_below_minimum_of(namespace))
            .map(|(director, _)| *director)
    }
}

/// What is known about the servers of one service that has a health check.
pub(super) struct Servers<'b, 'a> {
    group: &'b Group<'a>,
    need: Option<&'b Need>,
    unhealthy: Option<&'b HashMap<&'a ObjectKey, Unhealthy<'a>>>,
    /// Whether every director's report names all unhealthy servers of the
    /// service's namespace.
    are_all_named: bool,
}

impl<'b, 'a> Servers<'b, 'a> {
    pub(super) fn of(key: &'b ObjectKey, need: Option<&'b Need>, group: &'b Group<'a>) -> Self {
        Self {
            group,
            need,
            unhealthy: group.health.unhealthy.get(key),
            are_all_named: group
                .health
                .leaving_servers_out(&key.namespace)
                .next()
                .is_none(),
        }
    }

    pub(super) fn known(&self, server: &'b ObjectKey) -> Known {
        if self.unhealthy(server).next().is_some() {
            Known::Unhealthy
        } else if self.are_all_named && self.is_with_any(server) {
            Known::Healthy
        } else {
            Known::Nothing
        }
    }

    /// The directors that report the server unhealthy, and their reports. A
    /// report for all services does not count if the director cannot know yet
    /// that this service has the server.
    pub(super) fn unhealthy(
        &self,
        server: &ObjectKey,
    ) -> impl Iterator<Item = (&'a DirectorView<'a>, &'a UnhealthyServer)> + use<'b, 'a> {
        let since = self.since(server);
        let named = self.unhealthy.and_then(|all| all.get(server));
        let for_all = self.group.health.unhealthy_for_all.get(server);
        let for_all = for_all.into_iter().flatten();
        let for_all = for_all.filter(move |(director, _)| {
            let position = director.places.position();
            position.is_none_or(|at| at.has_reached(&since))
        });
        named.into_iter().flatten().chain(for_all).copied()
    }

    /// The live directors that possibly do not have the server yet, according
    /// to their reports.
    pub(super) fn waiting(&self, server: &ObjectKey) -> impl Iterator<Item = &'b DirectorView<'a>> {
        let since = self.since(server);
        let all = match self.group.has_reached(&since) {
            true => &[],
            false => &self.group.live[..],
        };
        all.iter()
            .copied()
            .filter(move |director| !director.places.has_reached(&since))
    }

    fn is_with_any(&self, server: &ObjectKey) -> bool {
        let since = self.since(server);
        let mut live = self.group.live.iter();
        live.any(|director| director.places.has_reached(&since))
    }

    fn since(&self, server: &ObjectKey) -> Positions {
        let servers = self.need.map(|need| &need.servers);
        servers
            .and_then(|servers| servers.get(server).copied())
            .unwrap_or_default()
    }
}

/// Returns a condition Ready if a director does not certainly have enough
/// healthy servers for the service. The condition is False or Unknown. Returns
/// `None` if every director has enough healthy servers.
pub(super) fn below_minimum(
    group: &Group<'_>,
    key: &ObjectKey,
    service: &Service,
    need: Option<&Need>,
    generation: i64,
) -> Option<Condition> {
    service.health_check.as_ref()?;
    let health = &group.health;
    let servers = Servers::of(key, need, group);
    let below = health.below.get(key).map(Vec::as_slice);
    if let Some([(director, entry), others @ ..]) = below {
        let (name, others) = (director.name, others.len());
        let names = service.servers.iter().map(|server| &server.object);
        let of_director = names.filter(|server| {
            let mut unhealthy = servers.unhealthy(server);
            unhealthy.any(|(by, _)| by.name == name)
        });
        let mut unhealthy: Vec<&str> = of_director.map(|server| &*server.name).collect();
        unhealthy.sort_unstable();
        return Some(condition::below_minimum(
            name, entry, &unhealthy, others, generation,
        ));
    }
    let namespace = &*key.namespace;
    let leaving_services_out: Vec<_> = health.leaving_services_out(namespace).collect();
    let is_well = |server: &crds::Server| servers.unhealthy(&server.object).next().is_none();
    if service.servers.iter().all(is_well) && leaving_services_out.is_empty() {
        return None;
    }
    let leaving_servers_out: HashSet<&str> = health.leaving_servers_out(namespace).collect();
    let weighted = || service.servers.iter().filter(|server| server.share() > 0);
    let mut unhealthy: HashMap<&str, usize> = HashMap::new();
    for server in weighted() {
        for (director, _) in servers.unhealthy(&server.object) {
            *unhealthy.entry(director.name).or_default() += 1;
        }
    }
    let total = weighted().count();
    let healthy = |director: &&DirectorView<'_>| {
        total.saturating_sub(unhealthy.get(director.name).copied().unwrap_or_default())
    };
    let may_be_below = leaving_services_out.iter().filter(|director| {
        leaving_servers_out.contains(director.name)
            || !has_enough(&service.availability, healthy(director), total)
    });
    let names: Vec<&str> = may_be_below.map(|director| director.name).collect();
    if !names.is_empty() {
        return Some(condition::more_below_minimum(names, generation));
    }
    let without_any = group.live.iter().filter(|director| healthy(director) == 0);
    let names: Vec<&str> = without_any.map(|director| director.name).collect();
    match (names.is_empty(), service.availability.minimum_of(total)) {
        (true, _) => None,
        (false, 0) => Some(condition::none_healthy(names, generation)),
        // A director reports every service that is below its minimum of healthy
        // servers, except while it waits for the service's first probe results.
        // So the directors in `names` still wait for these results.
        (false, _) => Some(condition::first_results(names, generation)),
    }
}

/// Whether `healthy` of `total` servers are certainly enough for the service.
/// A service that had too few healthy servers may need more than its minimum to
/// recover.
fn has_enough(availability: &Availability, healthy: usize, total: usize) -> bool {
    healthy >= availability.minimum_of(total)
        && (availability.recover_above.is_none() || healthy == total)
}
