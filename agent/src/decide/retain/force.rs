//! Adds the retained entries to the wanted state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipvs::{ActualTable, DestinationConfig, DestinationKey, ServiceKey};

use super::{Before, Retention, leaving::Leaving, merge};
use crate::decide::{departures::Place, desired::Desired};

/// The part of a service that is retained.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// The whole service, and every server of ours in it.
    Service,
    /// The whole service, whose servers get no new connections.
    Draining,
    /// Servers of a service that is still wanted, in the kernel's order. If
    /// the configuration of a server is none, `merge::keep` chooses it.
    Servers(Vec<(DestinationKey, Option<DestinationConfig>)>),
}

impl Retention {
    /// Returns the retained entries: the held entries, unchanged, and the
    /// entries in their grace.
    fn kept(&self, kernel: &ActualTable, uptime: Duration) -> BTreeMap<ServiceKey, Kept> {
        let server = |key: &ServiceKey, server: &DestinationKey| {
            let entry = (*key, Some(*server));
            if self.graces.is_over(&entry) {
                return None;
            }
            let mut config = self.graces.before(&entry);
            if self.graces.has_begun(&entry) {
                let found = || Some(kernel.get(key)?.destinations[server]);
                config = config.or_else(found).map(quiesced);
            }
            Some((*server, config))
        };
        let kept = |(key, leaving): (&ServiceKey, &Leaving)| match leaving {
            Leaving::Service if self.graces.is_over(&(*key, None)) => None,
            Leaving::Service => Some((
                *key,
                match self.graces.is_draining(&(*key, None), uptime) {
                    true => Kept::Draining,
                    false => Kept::Service,
                },
            )),
            Leaving::Servers(servers) => {
                let kept = servers.iter().filter_map(|found| server(key, found));
                let kept: Vec<_> = kept.collect();
                (!kept.is_empty()).then_some((*key, Kept::Servers(kept)))
            }
        };
        self.leaving.iter().filter_map(kept).collect()
    }

    /// Returns the servers that the wanted state has with their weight, although
    /// the journal knows that they are drained or leave.
    fn recorded(&self, wanted: &Desired, uptime: Duration) -> BTreeSet<Place> {
        let mut recorded: BTreeSet<Place> = self.drains.as_recorded().copied().collect();
        for ((key, server), _) in self.graces.begun() {
            match server {
                Some(server) => _ = recorded.insert((*key, *server)),
                None if self.graces.is_draining(&(*key, None), uptime) => {
                    let service = wanted.table.get(key);
                    let servers = service.into_iter().flat_map(|of| of.destinations.keys());
                    recorded.extend(servers.map(|server| (*key, *server)));
                }
                None => {}
            }
        }
        recorded.retain(|(key, server)| wanted.has_destination(key, server));
        recorded
    }

    /// Builds the state in force from the wanted state. Returns the services
    /// whose retained entries are new or changed.
    pub(super) fn put_in_force(
        &mut self,
        wanted: &Arc<Desired>,
        before: Before<'_>,
    ) -> BTreeSet<ServiceKey> {
        let retained = self.kept(before.kernel, before.uptime);
        let recorded = self.recorded(wanted, before.uptime);
        let drains = self.graces.has_any_stayed();
        let may_differ = |key| before.changed.is_none_or(|changed| changed.contains(key));
        let is_same = Arc::ptr_eq(wanted, &self.wanted)
            && retained == self.retained
            && recorded == self.recorded
            && drains == self.in_force.is_draining
            && !retained.keys().any(may_differ);
        if is_same {
            return BTreeSet::new();
        }
        let changed = retained.keys().chain(self.retained.keys());
        let drained = recorded.iter().chain(&self.recorded);
        let changed = changed.chain(drained.map(|(service, _)| service));
        let changed = changed.copied().collect();
        self.in_force = match retained.is_empty() && recorded.is_empty() && !drains {
            true => wanted.clone(),
            false => {
                let mut in_force = Desired::clone(wanted);
                in_force.is_draining = drains;
                for place in &recorded {
                    in_force.quiesce(place);
                }
                for (key, kept) in &retained {
                    let found = before.kernel.get(key).expect("it is in the kernel");
                    let ours = &before.ours.table;
                    let servers = found.destinations.iter();
                    let servers = servers.filter(|(server, _)| ours.destination(key, server));
                    let servers: Vec<_> = match kept {
                        Kept::Service => servers.map(|(server, _)| (*server, None)).collect(),
                        Kept::Draining => servers
                            .map(|(server, config)| (*server, Some(quiesced(*config))))
                            .collect(),
                        Kept::Servers(servers) => servers.clone(),
                    };
                    merge::keep(&mut in_force, key, &servers, found, &self.in_force);
                    if *kept == Kept::Draining {
                        in_force.drain_sorry_server(key);
                    }
                }
                Arc::new(in_force)
            }
        };
        self.retained = retained;
        self.recorded = recorded;
        self.wanted = wanted.clone();
        changed
    }
}

fn quiesced(config: DestinationConfig) -> DestinationConfig {
    DestinationConfig {
        weight: 0,
        ..config
    }
}
