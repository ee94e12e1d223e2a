//! One service with a health check, and its servers.

use std::sync::Arc;

use crds::BelowMinimum;
use indexmap::IndexMap;
use ipvs::{ActualService, DestinationConfig, DestinationKey, Destinations, WantedService};
use jiff::Timestamp;

use super::{
    policy::{self, Count, Server},
    server::{Health, ServerState},
};
use crate::{
    decide::{departures::GRACE, desired::CheckPolicy},
    event::probed::ProbeId,
};

#[derive(Debug)]
pub(super) struct Service {
    pub(super) policy: Arc<CheckPolicy>,
    pub(super) servers: IndexMap<DestinationKey, Member>,
    /// When the service fell below its minimum of healthy servers, or none
    /// while the service has enough healthy servers.
    pub(super) below_since: Option<Timestamp>,
    /// When the service recovered. After a recovery, the sorry server stays for
    /// a while without new connections. Once the sorry server is gone, the
    /// field is none.
    pub(super) recovered: Option<Timestamp>,
    /// Whether the first probe results of some servers are missing, and may
    /// still bring the service above or below its minimum.
    pub(super) is_waiting: bool,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) probe: ProbeId,
    /// The weight that the administrator gave the server.
    pub(super) weight: u32,
    pub(super) state: ServerState,
    /// Whether the server was in the kernel when its health check began.
    pub(super) was_there: bool,
}

impl Member {
    pub(super) fn server(&self) -> Server<'_> {
        Server {
            weight: self.weight,
            state: &self.state,
            was_there: self.was_there,
        }
    }
}

/// The state of a service in the kernel when its health check begins.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The service in the kernel, or none if the kernel does not have it.
    pub service: Option<&'a ActualService>,
    /// Whether the service was already ours in this boot of the host. If a
    /// server is missing from a service of ours, a health check removed the
    /// server.
    pub is_ours: bool,
}

impl Found<'_> {
    pub(super) fn has(&self, server: &DestinationKey) -> bool {
        let destinations = self.service.map(|service| &service.destinations);
        destinations.is_some_and(|destinations| destinations.contains_key(server))
    }

    pub(super) fn serves(&self, server: &DestinationKey) -> bool {
        let found = self
            .service
            .and_then(|service| service.destinations.get(server));
        found.is_some_and(|found| found.weight > 0)
    }
}

impl Service {
    pub(super) fn count(&self) -> Count {
        Count::of(self.servers.values().map(Member::server))
    }

    /// Counts the servers like [`Self::count`]. However, a server counts as
    /// healthy only if the current run has probed it. A service below its
    /// minimum must not recover because of old health from a previous run.
    fn probed_count(&self) -> Count {
        let is_probed = |member: &&Member| member.state.is_probed();
        let probed = self.servers.values().filter(is_probed).map(Member::server);
        Count {
            healthy: Count::of(probed).healthy,
            ..self.count()
        }
    }

    /// Returns the time until which the service waits for its servers' first
    /// probe results, or none if the service waits for no result.
    pub(super) fn first_results_due(&self, now: Timestamp) -> Option<Timestamp> {
        let members = self.servers.values().filter(|member| member.weight > 0);
        let due = members.filter_map(|member| member.state.first_result_due(&self.policy.check));
        due.filter(|due| *due > now).max()
    }

    /// Corrects the state that the previous run recorded, so that it matches
    /// the kernel. Without the correction, weights in the kernel could change
    /// before the first verdict. The record may be outdated, because the
    /// previous run may have ended before it recorded its last step. After a
    /// reboot, the kernel has no services, and the recorded state stays
    /// unchanged.
    pub(super) fn believe(&mut self, found: Found<'_>, now: Timestamp) {
        if found.service.is_none() {
            return;
        }
        let availability = &self.policy.availability;
        let expected = |member: &Member, is_below: bool| {
            let (weight, _) = policy::weight(member.server(), availability, is_below, now);
            weight.map(|weight| weight > 0)
        };
        let in_kernel = |server: &DestinationKey| found.has(server).then(|| found.serves(server));
        let mut members = self.servers.iter();
        let sorry = self.policy.sorry.map(|(sorry, _)| sorry);
        let sorry = sorry.filter(|sorry| !self.servers.contains_key(sorry));
        if found.is_ours && sorry.is_some_and(|sorry| found.serves(&sorry)) {
            // A sorry server that gets connections shows that the service was below its minimum.
            // If the memory does not record the service as below its minimum, the memory also
            // lacks the failures of the servers.
            if self.below_since.is_none() {
                self.below_since = Some(now);
                for member in self.servers.values_mut() {
                    member.state = ServerState::unknown(now);
                }
            }
        } else if members.any(|(server, member)| expected(member, true) != in_kernel(server)) {
            self.below_since = None;
        }
        if found.is_ours
            && self.below_since.is_none()
            && sorry.is_some_and(|sorry| found.has(&sorry))
        {
            self.recovered = Some(now);
        }
        let is_below = self.below_since.is_some();
        for (server, member) in &mut self.servers {
            if in_kernel(server) == expected(member, is_below) {
                continue;
            }
            match in_kernel(server) {
                Some(true) => member.state = ServerState::served(now),
                // The previous run's memory of the server may be from before a
                // reboot.
                None if !found.is_ours => {}
                Some(false) | None => member.state = ServerState::unknown(now),
            }
        }
    }

    /// Returns when the sorry server leaves the kernel after a recovery, or
    /// none if the sorry server need not stay. Until the sorry server leaves,
    /// its clients can finish.
    fn sorry_leaves(&mut self, now: Timestamp) -> Option<Timestamp> {
        // If the clock was set back since the recovery, the time until the
        // sorry server leaves begins again.
        self.recovered = self.recovered.map(|recovered| recovered.min(now));
        let leaves = self.recovered?.checked_add(GRACE).ok();
        let leaves = leaves.filter(|leaves| *leaves > now);
        if leaves.is_none() {
            self.recovered = None;
        }
        leaves
    }

    pub(super) fn weigh(
        &mut self,
        wanted: &WantedService,
        now: Timestamp,
    ) -> (WantedService, Option<Timestamp>) {
        let availability = &self.policy.availability;
        let awaited = self.first_results_due(now);
        let was_below = self.below_since.is_some();
        let all = self.count();
        let count = if was_below { self.probed_count() } else { all };
        let is_below = policy::is_below(availability, count, was_below, awaited.is_some());
        let has_too_few = count.healthy < availability.minimum_of(count.total);
        self.is_waiting = match is_below {
            true => count.healthy < all.healthy,
            false => has_too_few,
        };
        if is_below != was_below {
            self.below_since = is_below.then_some(now);
            self.recovered = was_below.then_some(now);
        }
        if was_below && !is_below && availability.below == BelowMinimum::FailOpen {
            let up = |member: &&mut Member| member.state.health() == Health::Up;
            let servers = self.servers.values_mut();
            servers
                .filter(up)
                .for_each(|member| member.state.forget_rise());
        }
        let mut weighed = WantedService {
            config: wanted.config.clone(),
            destinations: Destinations::default(),
        };
        weighed.destinations.reserve(wanted.destinations.len() + 1);
        let mut deadline = awaited.filter(|_| self.is_waiting);
        for (server, config) in &wanted.destinations {
            let Some(member) = self.servers.get(server) else {
                continue;
            };
            let (weight, next) = policy::weight(member.server(), availability, is_below, now);
            let is_kept = self.policy.quiesce_only.contains(server);
            if let Some(weight) = weight.or(is_kept.then_some(0)) {
                let config = DestinationConfig { weight, ..*config };
                weighed.destinations.insert(*server, config);
            }
            deadline = [deadline, next, member.state.next_deadline()]
                .into_iter()
                .flatten()
                .min();
        }
        if let Some((sorry, config)) = self.policy.sorry {
            let leaves = self.sorry_leaves(now);
            deadline = [deadline, leaves].into_iter().flatten().min();
            if is_below && !self.policy.drained.contains(&sorry) {
                weighed.destinations.insert(sorry, config);
            } else if self.policy.quiesce_only.contains(&sorry) || leaves.is_some() {
                let quiesced = DestinationConfig {
                    weight: 0,
                    ..config
                };
                weighed.destinations.entry(sorry).or_insert(quiesced);
            }
        }
        (weighed, deadline)
    }
}
