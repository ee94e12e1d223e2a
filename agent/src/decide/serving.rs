//! Decides which servers are in service, and records the reasons. The code is
//! pure: time is an argument.
//!
//! ```text
//! wish, kernel ────▶ wish() ┐                     ┌─▶ take_dirty(): services to plan
//! probes ─▶ tally ─▶ hear() ├─▶ state of each ────┼─▶ weigh(): the wanted service
//! clock ───────────▶ pass() ┘   (service, server) ├─▶ take_orders(): what to probe
//!                                                 ├─▶ take_notes(), report
//!                                                 └─▶ take_news(): for the log
//! ```
//!
//! This module must never depend on the kernel's socket or on the way in which
//! a probe is made.

pub mod memory;
pub mod news;
pub mod policy;
mod ramp;
pub mod report;
pub mod server;
mod service;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use crds::BelowMinimum;
use indexmap::IndexMap;
use ipvs::{DestinationKey, ServiceKey, WantedService};
use jiff::Timestamp;

pub use self::service::Found;
use self::{
    memory::{Memory, ServiceMemory},
    news::News,
    server::{Health, ServerState},
    service::{Member, Service},
    targets::Targets,
};
use crate::{
    decide::desired::CheckPolicy,
    event::probed::{ProbeId, Tally},
    probe::target::{Order, Target},
};

/// The servers of all services that have a health check.
#[derive(Debug, Default)]
pub struct Serving {
    services: BTreeMap<ServiceKey, Service>,
    targets: Targets,
    memory: Memory,
    /// The services whose wanted state in the kernel may have changed.
    dirty: BTreeSet<ServiceKey>,
    /// For each service, the time of the next health change that happens
    /// without a new probe result.
    deadlines: BTreeMap<ServiceKey, Timestamp>,
    notes: BTreeMap<String, Option<String>>,
    /// Whether a new health report would differ from the last one.
    is_report_old: bool,
    /// The news that has not been logged yet, each item with the namespace of
    /// its service.
    news: Vec<(Arc<str>, News)>,
}

impl Serving {
    /// Creates the state of a new run from the health that the previous run
    /// recorded.
    pub fn remember(memory: Memory) -> Self {
        Self {
            memory,
            ..Self::default()
        }
    }

    /// Replaces the wish for a service. The wish is none if the service has no
    /// health check or is no longer wanted.
    pub fn wish(
        &mut self,
        key: ServiceKey,
        wish: Option<(&Arc<CheckPolicy>, &WantedService)>,
        found: Found<'_>,
        now: Timestamp,
    ) {
        self.is_report_old = true;
        let Some((policy, wanted)) = wish else {
            self.drop_service(key);
            return;
        };
        self.dirty.insert(key);
        let before = self.services.remove(&key);
        let recovered = before.as_ref().and_then(|service| service.recovered);
        let drained_before = before.as_ref().map(|service| service.policy.clone());
        let comes_back = |server: &DestinationKey| {
            let was_drained = drained_before.as_ref();
            was_drained.is_some_and(|policy| policy.drained.contains(server))
                && !policy.drained.contains(server)
        };
        let (mut known, below_since, is_new) = match before {
            Some(service) => (service.servers, service.below_since, false),
            None => {
                let memory = self.memory.take(&key);
                // A recorded time in the future comes from a wrong clock.
                let below_since = memory.below_since.map(|since| since.min(now));
                (
                    self.recall(key, memory, wanted, found, now),
                    below_since,
                    true,
                )
            }
        };
        // A service that fails open keeps servers in the kernel even if they
        // may be unhealthy.
        let fails_open =
            below_since.is_some() && policy.availability.below == BelowMinimum::FailOpen;
        let mut servers = IndexMap::with_capacity(wanted.destinations.len());
        for (server, config) in &wanted.destinations {
            let before = known.swap_remove(server);
            let (mut state, was_there, probe_before) = match before {
                Some(member) => (member.state, member.was_there, Some(member.probe)),
                None if found.serves(server) && !fails_open => {
                    (ServerState::served(now), true, None)
                }
                None => (ServerState::unknown(now), found.has(server), None),
            };
            let socket = SocketAddr::new(server.address, server.port);
            let target = Target {
                check: policy.check.clone(),
                address: policy.check.target(socket),
                namespace: policy.namespace.clone(),
                may_quote: policy.quotable.contains(server),
            };
            let probe = self.targets.join(target, (key, *server));
            if let Some(before) = probe_before.filter(|before| *before != probe) {
                self.targets.leave(before, &(key, *server));
                state.probed_otherwise();
            }
            if comes_back(server) {
                state.comes_back(now);
            }
            let member = Member {
                probe,
                weight: config.weight,
                state,
                was_there,
            };
            servers.insert(*server, member);
        }
        for (server, member) in known {
            self.targets.leave(member.probe, &(key, server));
            self.notes.insert(memory::key(key, Some(server)), None);
        }
        let mut service = Service {
            policy: policy.clone(),
            servers,
            below_since,
            recovered,
            is_waiting: false,
        };
        if is_new {
            service.believe(found, now);
            self.notes
                .extend([memory::service_row(key, service.below_since)]);
        }
        for (server, member) in &mut service.servers {
            // If the target was already probed, its results count at once.
            if let Some(tally) = self.targets.tally(member.probe) {
                member.state.hear(tally, &policy.check, now);
            }
            let (name, row) = memory::server_row(key, *server, &member.state);
            self.notes.insert(name, Some(row));
        }
        self.services.insert(key, service);
    }

    /// Returns the servers that are still wanted and that the previous run
    /// knew.
    fn recall(
        &mut self,
        key: ServiceKey,
        mut memory: ServiceMemory,
        wanted: &WantedService,
        found: Found<'_>,
        now: Timestamp,
    ) -> IndexMap<DestinationKey, Member> {
        let mut known = IndexMap::new();
        for (server, config) in &wanted.destinations {
            if let Some(mut state) = memory.servers.remove(server) {
                state.begin(now);
                let member = Member {
                    probe: ProbeId(0),
                    weight: config.weight,
                    state,
                    was_there: found.has(server),
                };
                known.insert(*server, member);
            }
        }
        let gone = memory.servers.into_keys();
        self.notes
            .extend(gone.map(|server| (memory::key(key, Some(server)), None)));
        known
    }

    fn drop_service(&mut self, key: ServiceKey) {
        self.deadlines.remove(&key);
        let Some(service) = self.services.remove(&key) else {
            return;
        };
        self.dirty.insert(key);
        self.notes.insert(memory::key(key, None), None);
        for (server, member) in service.servers {
            self.targets.leave(member.probe, &(key, server));
            self.notes.insert(memory::key(key, Some(server)), None);
        }
    }

    /// Records the tally of a target's probes.
    pub fn hear(&mut self, probe: ProbeId, tally: &Tally, now: Timestamp) {
        for (key, server) in self.targets.note(probe, tally) {
            let Some(service) = self.services.get_mut(&key) else {
                continue;
            };
            let Some(member) = service.servers.get_mut(&server) else {
                continue;
            };
            let check = &service.policy.check;
            let place = |state: &ServerState| (state.health(), state.next_deadline());
            let before = place(&member.state);
            if !member.state.hear(tally, check, now) {
                continue;
            }
            self.is_report_old = true;
            if place(&member.state) != before || service.is_waiting {
                self.dirty.insert(key);
            }
            if member.state.health() != before.0 {
                let news = News::of(key, server, &member.state);
                let namespace = &service.policy.namespace;
                self.news.extend(news.map(|news| (namespace.clone(), news)));
            }
            let (name, row) = memory::server_row(key, server, &member.state);
            self.notes.insert(name, Some(row));
        }
    }

    /// Makes the health changes that are due at `now` without a new probe
    /// result.
    pub fn pass(&mut self, now: Timestamp) {
        let due: Vec<_> = self
            .deadlines
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.deadlines.remove(&key);
            self.dirty.insert(key);
            let Some(service) = self.services.get_mut(&key) else {
                continue;
            };
            for (server, member) in &mut service.servers {
                if member.state.pass(now) {
                    let news = News::of(key, *server, &member.state);
                    let namespace = &service.policy.namespace;
                    self.news.extend(news.map(|news| (namespace.clone(), news)));
                    self.is_report_old = true;
                    let (name, row) = memory::server_row(key, *server, &member.state);
                    self.notes.insert(name, Some(row));
                }
            }
        }
    }

    /// Returns when the next health change is due that happens without a new
    /// probe result, if there is one.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.values().min().copied()
    }

    /// Returns the service to put in the kernel. `wanted` is the same service
    /// with the administrator's weights.
    pub fn weigh(
        &mut self,
        key: ServiceKey,
        wanted: &WantedService,
        now: Timestamp,
    ) -> WantedService {
        let Some(service) = self.services.get_mut(&key) else {
            return wanted.clone();
        };
        let was_below = service.below_since;
        let (weighed, deadline) = service.weigh(wanted, now);
        if service.below_since != was_below {
            self.is_report_old = true;
            let count = service.count();
            let action = report::action(&service.policy.availability.below);
            let news = match service.below_since {
                Some(_) => News::BelowMinimum(key, count, action),
                None => News::Recovered(key, count),
            };
            self.news.push((service.policy.namespace.clone(), news));
            self.notes
                .extend([memory::service_row(key, service.below_since)]);
            // A recovery of the service may end the slow start of its servers. Write the
            // checkpoint rows of these servers again.
            for (server, member) in &service.servers {
                let (name, row) = memory::server_row(key, *server, &member.state);
                self.notes.insert(name, Some(row));
            }
        }
        match deadline {
            Some(deadline) => self.deadlines.insert(key, deadline),
            None => self.deadlines.remove(&key),
        };
        weighed
    }

    /// Whether a server's health check has failed.
    pub fn is_down(&self, service: &ServiceKey, server: &DestinationKey) -> bool {
        let service = self.services.get(service);
        let member = service.and_then(|service| service.servers.get(server));
        member.is_some_and(|member| member.state.health() == Health::Down)
    }

    /// Whether the wanted state of any service in the kernel may have changed.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Returns the services whose wanted state in the kernel may have changed
    /// since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Returns the orders for the prober that were added since the last call.
    pub fn take_orders(&mut self) -> Vec<Order> {
        self.targets.take_orders()
    }

    /// Returns the checkpoint rows that changed since the last call, by key. A
    /// row without content must be deleted. After a restart,
    /// [`Memory::remember`] reads the rows.
    pub fn take_notes(&mut self) -> BTreeMap<String, Option<String>> {
        std::mem::take(&mut self.notes)
    }

    /// Whether the health report has changed since the last call.
    pub fn take_is_report_old(&mut self) -> bool {
        std::mem::take(&mut self.is_report_old)
    }

    /// Returns the news since the last call, for the log, each item with the
    /// namespace of its service.
    pub fn take_news(&mut self) -> impl Iterator<Item = (Arc<str>, News)> {
        self.news.drain(..)
    }

    /// Forgets the previous run's memory of services that are not wanted. The
    /// caller must call this function only when all wanted services are known.
    pub fn forget_the_rest(&mut self) {
        let rows = self.memory.forget().into_iter();
        self.notes.extend(rows.map(|row| (row, None)));
    }
}

#[cfg(test)]
mod tests;
