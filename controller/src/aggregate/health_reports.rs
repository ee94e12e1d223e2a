//! What the live directors of one group say about the health of servers.

use std::collections::{BTreeSet, HashMap, HashSet};

use crds::{
    Availability, ObjectKey, Service,
    api::{DirectorHealth, ServiceBelowMinimum, UnhealthyServer},
    condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{DirectorView, Group};
use crate::{history::Positions, need::Need};

/// Namespace and name of an object, which directors write with a slash between.
type Name<'a> = (&'a str, &'a str);

/// Who does not see a server healthy, and what they say.
type Unhealthy<'a> = Vec<(&'a DirectorView<'a>, &'a UnhealthyServer)>;

/// The reports of one group, by what they are about. A director that left
/// something out proves nothing about what it does not name.
#[derive(Debug, Default)]
pub(super) struct HealthReports<'a> {
    /// Those that report any health at all. Others check nothing.
    pub(super) checking: HashSet<&'a str>,
    /// By service, its servers that are not healthy.
    unhealthy: HashMap<Name<'a>, HashMap<Name<'a>, Unhealthy<'a>>>,
    /// Services below their minimum.
    below: HashMap<Name<'a>, Vec<(&'a DirectorView<'a>, &'a ServiceBelowMinimum)>>,
    /// Those that left unhealthy servers out.
    pub(super) leaving_servers_out: BTreeSet<&'a str>,
    /// Those that left services below their minimum out.
    leaving_services_out: Vec<&'a DirectorView<'a>>,
}

/// What is known of one server behind one service, all live directors together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// At least one has it, and none sees it otherwise than healthy.
    Healthy,
    /// At least one does not see it healthy.
    Unhealthy,
    /// Nobody has it so far, or one left something out.
    Nothing,
}

impl<'a> HealthReports<'a> {
    /// Takes in the report of a live director.
    pub(super) fn hear(&mut self, director: &'a DirectorView<'a>, health: &'a DirectorHealth) {
        self.checking.insert(director.name);
        let mut left_out = health.unhealthy_omitted > 0;
        for entry in &health.unhealthy {
            for service in &entry.virtual_services {
                match (name(service), name(&entry.real_server)) {
                    (Some(service), Some(server)) => self
                        .unhealthy
                        .entry(service)
                        .or_default()
                        .entry(server)
                        .or_default()
                        .push((director, entry)),
                    _ => left_out = true,
                }
            }
        }
        if left_out {
            self.leaving_servers_out.insert(director.name);
        }
        let mut left_out = health.below_minimum_omitted > 0;
        for entry in &health.below_minimum {
            match name(&entry.virtual_service) {
                Some(service) => self
                    .below
                    .entry(service)
                    .or_default()
                    .push((director, entry)),
                None => left_out = true,
            }
        }
        if left_out {
            self.leaving_services_out.push(director);
        }
    }
}

/// What is known of the servers behind one checked service.
pub(super) struct Servers<'b, 'a> {
    group: &'b Group<'a>,
    need: Option<&'b Need>,
    unhealthy: Option<&'b HashMap<Name<'a>, Unhealthy<'a>>>,
}

impl<'b, 'a> Servers<'b, 'a> {
    pub(super) fn of(key: &'b ObjectKey, need: Option<&'b Need>, group: &'b Group<'a>) -> Self {
        Self {
            group,
            need,
            unhealthy: named(&group.health.unhealthy, key),
        }
    }

    pub(super) fn known(&self, server: &'b ObjectKey) -> Known {
        if !self.unhealthy(server).is_empty() {
            Known::Unhealthy
        } else if self.group.health.leaving_servers_out.is_empty() && self.is_with_any(server) {
            Known::Healthy
        } else {
            Known::Nothing
        }
    }

    /// The directors that do not see it healthy, and what they say.
    pub(super) fn unhealthy(
        &self,
        server: &'b ObjectKey,
    ) -> &'b [(&'a DirectorView<'a>, &'a UnhealthyServer)] {
        self.unhealthy
            .and_then(|all| named(all, server))
            .map_or(&[], Vec::as_slice)
    }

    /// The live directors that have yet to report that they have it.
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

/// Not Ready, because a director has too few healthy servers, or may have; None
/// where none has.
pub(super) fn below_minimum(
    group: &Group<'_>,
    key: &ObjectKey,
    service: &Service,
    generation: i64,
) -> Option<Condition> {
    service.health_check.as_ref()?;
    let health = &group.health;
    let below = named(&health.below, key).map(Vec::as_slice);
    if let Some([(director, entry), others @ ..]) = below {
        let (name, others) = (director.name, others.len());
        return Some(condition::below_minimum(name, entry, others, generation));
    }
    let servers = Servers::of(key, None, group);
    if servers.unhealthy.is_none() && health.leaving_services_out.is_empty() {
        return None;
    }
    let weighted = || service.servers.iter().filter(|server| server.weight > 0);
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
    let may_be_below = health.leaving_services_out.iter().filter(|director| {
        health.leaving_servers_out.contains(director.name)
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
        // Below it, it would be reported so, but for first results.
        (false, _) => Some(condition::first_results(names, generation)),
    }
}

/// Whether a service with so many healthy servers is not below its minimum,
/// whatever was before.
fn has_enough(availability: &Availability, healthy: usize, total: usize) -> bool {
    healthy >= availability.minimum_of(total)
        && (availability.recover_above.is_none() || healthy == total)
}

fn name(text: &str) -> Option<Name<'_>> {
    text.split_once('/')
}

/// What a map has about an object.
fn named<'b, V>(map: &'b HashMap<Name<'_>, V>, key: &'b ObjectKey) -> Option<&'b V> {
    map.get::<Name<'b>>(&(&key.namespace, &key.name))
}
