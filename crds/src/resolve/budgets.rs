//! Finds the objects that a DirectorGroup's budgets leave out. Budgets leave
//! out the newest objects.
//!
//! A server in a service is as old as the younger of two objects: the
//! VirtualService and the RealServer. So a new object never displaces an older
//! object.

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap},
    fmt::Arguments,
};

use super::{Candidate, by_label::ServersByLabel};
use crate::{
    BudgetRule, HealthCheck, NamespaceRule, ObjectKey, Rejection, condition::reason, fair_limit,
};

/// The key that sorts the servers of services by age. The key consists of the
/// creation time of the younger object, the service's key, and the server's
/// creation time and key. `ServersByLabel` returns the servers of a service in
/// this order.
pub(super) type Aged<'a> = (i64, &'a ObjectKey, (i64, &'a ObjectKey));

/// The number of millionths in one probe. Probe rates are in millionths of a
/// probe per second.
pub(super) const MICRO: u64 = 1_000_000;

/// The budget that leaves a server out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Excess {
    /// The service selects more servers than the budget per service allows.
    Service,
    /// The services of the namespace have more destinations than the
    /// namespace's budget allows.
    Namespace,
    /// All namespaces together have more destinations than the total budget
    /// allows. The field is the namespace's fair share of the total budget, in
    /// destinations.
    Total(usize),
    /// The health checks of the namespace have more targets than the
    /// namespace's budget allows.
    ProbeTargets,
    /// The health checks of the namespace make more probes per second than the
    /// namespace's budget allows.
    ProbeRate,
}

/// The limits of one namespace in one group.
#[derive(Debug)]
pub(super) struct Limit<'a> {
    /// The newest server within the budget. `None` means that the budget leaves
    /// out no server. `Some(None)` means that the budget leaves out every
    /// server.
    newest: Option<Option<Aged<'a>>>,
    pub(super) excess: Excess,
    /// How many destinations the namespace may have in all.
    pub(super) most: usize,
    /// How many destinations a director may keep for rejected services that it
    /// still serves. The destinations of accepted services do not count.
    room: usize,
    /// An upper bound for the number of the namespace's probe targets.
    targets: usize,
    /// An upper bound for the namespace's probe rate, in millionths of a probe
    /// per second.
    micro_probes: u64,
}

/// The limits of each namespace in each group, by (group, namespace).
pub(super) type Limits<'a> = HashMap<(&'a str, &'a str), Limit<'a>>;

impl<'a> Limit<'a> {
    /// Decides whether a server is within the namespace's budget. `is_accepted`
    /// is false if the server's service is rejected but still served.
    pub(super) fn admit(&mut self, server: Aged<'a>, is_accepted: bool) -> Result<(), Excess> {
        let is_within = match is_accepted {
            true => self
                .newest
                .is_none_or(|newest| newest.is_some_and(|newest| server <= newest)),
            false => self.room > 0,
        };
        if !is_within {
            return Err(self.excess);
        }
        if !is_accepted {
            self.room -= 1;
        }
        Ok(())
    }

    /// Adds the targets and the probe rate of a service's health check.
    pub(super) fn expect_probes(&mut self, servers: usize, check: &HealthCheck) {
        self.targets += servers;
        self.micro_probes += micro_probes(check) * servers as u64;
    }

    /// Returns whether the namespace's health checks could exceed `budget`.
    /// `targets` and `micro_probes` are upper bounds, because a target that
    /// several services share counts once for each service.
    pub(super) fn may_exceed(&self, budget: NamespaceRule) -> bool {
        self.targets > budget.probe_targets
            || self.micro_probes > MICRO * u64::from(budget.probes_per_second)
    }
}

/// Returns the probe rate of one target, in millionths of a probe per second.
pub(super) fn micro_probes(check: &HealthCheck) -> u64 {
    let period = u64::try_from(check.period.as_millis()).unwrap_or(u64::MAX);
    MICRO * 1000 / period.max(1)
}

/// The accepted services of one group that count toward the group's budgets.
struct Group<'a, 'b> {
    budgets: &'a BudgetRule,
    namespaces: BTreeMap<&'a str, Vec<&'b Candidate<'a>>>,
}

/// Returns the limits of each namespace in each group. The running time grows
/// with the number of selected servers, but the memory grows only with the
/// budgets.
pub(super) fn limits<'a>(candidates: &[Candidate<'a>], servers: &ServersByLabel<'a>) -> Limits<'a> {
    let mut groups: BTreeMap<&str, Group<'a, '_>> = BTreeMap::new();
    for candidate in candidates {
        let group = groups.entry(&candidate.service.group);
        let group = group.or_insert_with(|| Group {
            budgets: candidate.budgets,
            namespaces: BTreeMap::new(),
        });
        let of_namespace = group.namespaces.entry(&candidate.key.namespace);
        let of_namespace = of_namespace.or_default();
        if candidate.takes_part() {
            of_namespace.push(candidate);
        }
    }
    let mut limits = Limits::new();
    for (name, group) in groups {
        for (namespace, limit) in group.limits(servers) {
            limits.insert((name, namespace), limit);
        }
    }
    limits
}

impl<'a> Group<'a, '_> {
    fn limits(&self, servers: &ServersByLabel<'a>) -> Vec<(&'a str, Limit<'a>)> {
        let total = self.budgets.total_destinations;
        let most = |namespace: &str| self.budgets.of(namespace).destinations;
        // Counting with the index by label is fast. The count may be too high,
        // because it includes servers that the selector does not match.
        let mut wanted = self.demands(|candidate| {
            let all = servers.of(&candidate.key.namespace, &candidate.service.selector);
            all.len().min(self.budgets.servers_per_service)
        });
        let is_ample = wanted.iter().all(|(name, wanted)| *wanted <= most(name))
            && wanted.iter().map(|(_, wanted)| wanted).sum::<usize>() <= total;
        if !is_ample {
            wanted = self.demands_up_to(most, servers);
        }
        let demands = wanted
            .iter()
            .map(|(name, wanted)| (*wanted).min(most(name)));
        let share = fair_limit(demands.clone().map(|demand| demand as u64), total as u64);
        let share = share.map_or(usize::MAX, |share| share as usize);
        let left = total - demands.map(|demand| demand.min(share)).sum::<usize>();
        let limits = wanted.iter().map(|(name, wanted)| {
            let most = most(name);
            let given = (*wanted).min(most).min(share);
            let room = (most.min(share) - given).min(left);
            let limit = Limit {
                newest: (*wanted > given).then(|| self.newest(name, given, servers)),
                excess: match share < most {
                    true => Excess::Total(share),
                    false => Excess::Namespace,
                },
                most: given + room,
                room,
                targets: 0,
                micro_probes: 0,
            };
            (*name, limit)
        });
        limits.collect()
    }

    /// Returns how many destinations each namespace wants.
    fn demands(&self, of_service: impl Fn(&Candidate<'a>) -> usize) -> Vec<(&'a str, usize)> {
        let namespaces = self.namespaces.iter();
        let demands = namespaces.map(|(name, services)| {
            let services = services.iter().map(|candidate| of_service(candidate));
            (*name, services.sum::<usize>())
        });
        demands.collect()
    }

    /// Returns how many destinations each namespace wants. Stops counting the
    /// destinations of a namespace when they exceed the namespace's budget.
    fn demands_up_to(
        &self,
        most: impl Fn(&str) -> usize,
        servers: &ServersByLabel<'a>,
    ) -> Vec<(&'a str, usize)> {
        let namespaces = self.namespaces.iter();
        let demands = namespaces.map(|(name, services)| {
            let selected = services.iter();
            let selected = selected.flat_map(|candidate| self.selected(candidate, servers));
            (*name, selected.take(most(name) + 1).count())
        });
        demands.collect()
    }

    /// Returns the servers that a service selects, oldest first, up to the
    /// budget per service.
    fn selected<'s>(
        &'s self,
        candidate: &'s Candidate<'a>,
        servers: &'s ServersByLabel<'a>,
    ) -> impl Iterator<Item = Aged<'a>> + 's {
        let selected = servers.selected(&candidate.key.namespace, &candidate.service.selector);
        let selected = selected.take(self.budgets.servers_per_service);
        selected.map(move |(key, stored)| candidate.aged(key, stored.created))
    }

    /// Takes the `given` oldest servers of a namespace, and returns the newest
    /// of these. Returns None if `given` is 0.
    fn newest(
        &self,
        namespace: &str,
        given: usize,
        servers: &ServersByLabel<'a>,
    ) -> Option<Aged<'a>> {
        let mut oldest = BinaryHeap::new();
        for candidate in &self.namespaces[namespace] {
            for server in self.selected(candidate, servers) {
                if oldest.len() < given {
                    oldest.push(server);
                    continue;
                }
                match oldest.peek_mut() {
                    Some(mut newest) if server < *newest => *newest = server,
                    // The servers are sorted by age, so the service's remaining
                    // servers are newer than this server.
                    _ => break,
                }
            }
        }
        oldest.peek().copied()
    }
}

impl<'a> Candidate<'a> {
    /// Returns the key that sorts a server of this service by age.
    pub(super) fn aged(&self, server: &'a ObjectKey, created: i64) -> Aged<'a> {
        (self.created.max(created), self.key, (created, server))
    }
}

/// Why a budget has no room for an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// Older objects use up the budget.
    Newest,
    /// Other objects that the director still serves use up the budget.
    NoRoom,
}

/// Returns the rejection of a service that is beyond the budget of its
/// namespace.
pub(super) fn too_many_services(candidate: &Candidate<'_>, why: Why) -> Rejection {
    let namespace = &*candidate.key.namespace;
    let most = candidate.budgets.of(namespace).services;
    let what = format_args!("serves at most {most} VirtualServices of namespace {namespace}");
    rejection(candidate, "metadata.namespace", what, "services", why)
}

impl Excess {
    /// Returns the rejection of a server that is beyond this budget.
    pub(super) fn rejection(self, candidate: &Candidate<'_>, why: Why) -> Rejection {
        let namespace = &*candidate.key.namespace;
        let budgets = candidate.budgets;
        let of_namespace = budgets.of(namespace);
        let (most, field) = match self {
            Self::Service => {
                let most = budgets.servers_per_service;
                let what = format_args!("gives each VirtualService at most {most} RealServers");
                let path = "spec.realServerSelector";
                let budget = "spec.budgets.serversPerService";
                return named_rejection(candidate, path, what, budget, why);
            }
            Self::Total(share) => {
                let what = format_args!(
                    "has {} destinations for all namespaces, and the fair share of namespace \
                     {namespace} is {share}",
                    budgets.total_destinations
                );
                let path = "metadata.namespace";
                let budget = "spec.budgets.total.destinations";
                return named_rejection(candidate, path, what, budget, why);
            }
            Self::Namespace => (
                format!("at most {} destinations", of_namespace.destinations),
                "destinations",
            ),
            Self::ProbeTargets => (
                format!("at most {} targets of probes", of_namespace.probe_targets),
                "probeTargets",
            ),
            Self::ProbeRate => (
                format!(
                    "at most {} probes per second",
                    of_namespace.probes_per_second
                ),
                "probesPerSecond",
            ),
        };
        let what = format_args!("gives namespace {namespace} {most}");
        rejection(candidate, "metadata.namespace", what, field, why)
    }
}

fn rejection(
    candidate: &Candidate<'_>,
    path: &str,
    what: Arguments<'_>,
    field: &str,
    why: Why,
) -> Rejection {
    let budget = candidate.budgets.path(&candidate.key.namespace, field);
    named_rejection(candidate, path, what, &budget, why)
}

fn named_rejection(
    candidate: &Candidate<'_>,
    path: &str,
    what: Arguments<'_>,
    budget: &str,
    why: Why,
) -> Rejection {
    let group = &candidate.service.group;
    let why = match why {
        Why::Newest => "the newest are left out",
        Why::NoRoom => "this director still serves others, which use it up",
    };
    Rejection {
        reason: reason::BUDGET_EXCEEDED,
        message: format!(
            "{path}: DirectorGroup {group} {what} ({budget}), and {why}; delete what is not \
             needed, or have an administrator raise the budget: kubectl edit directorgroup {group}"
        ),
    }
}
