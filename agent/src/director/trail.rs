//! Tells the audit trail about a round.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crds::{ObjectKey, Store};
use ipvs::{ActualService, ServiceKey};

use super::Loop;
use crate::{
    act::Outcome,
    decide::{addresses::Missing, desired::Desired},
    trail::{
        record::Object,
        round::{Host, Round, Seen, Wants},
    },
};

impl Loop {
    /// Tells the trail what the last round wrote, and what is ours and wanted
    /// in the services that changed. `outcome` is `None` if the round failed.
    pub(super) fn tell_trail(&mut self, outcome: Option<&Outcome>, now: Duration) {
        if !self.world.trail.is_ready(now) {
            return;
        }
        let writes = self.state.take_writes();
        let wanted = self.health.take_changed();
        let is_whole = writes.is_whole || self.world.trail.is_behind();
        if writes.is_empty() && wanted.is_empty() && !is_whole {
            return;
        }
        // While the kernel's table is not known, the trail hears only of the
        // writes. After the next reading, it gets the whole table.
        let is_known = self.state.believed().is_some();
        let services: BTreeSet<_> = match is_whole {
            _ if !is_known => BTreeSet::new(),
            true => self.all_services(),
            false => writes.services.iter().copied().chain(wanted).collect(),
        };
        let services: BTreeMap<_, _> = services
            .into_iter()
            .map(|key| (key, self.seen(&key)))
            .collect();
        let host = (is_whole || writes.is_host_touched).then(|| {
            let touched = (!is_whole).then_some(&writes.addresses);
            self.host_of(touched, outcome)
        });
        let round = Round {
            at: (self.world.daytime)().here,
            writes: writes.list,
            count: writes.count,
            is_whole: is_whole && is_known,
            services,
            host,
        };
        self.world.trail.tell(round, now);
    }

    fn all_services(&self) -> BTreeSet<ServiceKey> {
        let ours = self.state.ours().table.services.keys();
        let desired = self.places.desired().table.keys();
        let all = ours.chain(desired).chain(self.health.table.keys());
        all.copied().collect()
    }

    fn seen(&self, key: &ServiceKey) -> Seen {
        let desired: &Desired = self.places.desired();
        let servers = desired
            .table
            .get(key)
            .map(|service| service.destinations.keys());
        let servers = servers.into_iter().flatten().filter_map(|server| {
            let object = desired.servers.get(&(*key, *server))?;
            Some((*server, named(object, &self.objects.real_servers)))
        });
        let mut servers: Vec<_> = servers.collect();
        servers.sort_unstable_by_key(|(server, _)| *server);
        let policy = desired.checks.get(key);
        let ended = self.retention.drains().ended_in(key);
        let wanted = desired.table.get(key).cloned().map(Arc::new);
        Seen {
            ours: self.ours_of(key),
            wants: Wants {
                desired: wanted.clone(),
                in_force: match (self.health.table.get(key), wanted) {
                    (Some(in_force), Some(wanted)) if *in_force == *wanted => Some(wanted),
                    (in_force, _) => in_force.cloned().map(Arc::new),
                },
                object: desired
                    .services
                    .get(key)
                    .map(|object| named(object, &self.objects.virtual_services)),
                servers: servers.into(),
                sorry: policy.and_then(|policy| Some(policy.sorry?.0)),
                ended: ended.collect(),
            },
        }
    }

    /// Returns the kernel's service with our destinations, if it is ours.
    fn ours_of(&self, key: &ServiceKey) -> Option<ActualService> {
        let ours = self.state.ours().table.services.get(key)?;
        let found = self.state.believed()?.get(key)?;
        let destinations = found.destinations.iter();
        let destinations = destinations.filter(|(server, _)| ours.contains(*server));
        Some(ActualService {
            config: found.config.clone(),
            destinations: destinations
                .map(|(server, config)| (*server, *config))
                .collect(),
        })
    }

    /// Returns the parts of the host that are ours. `touched` has the addresses
    /// that changed, or is `None` for all addresses.
    fn host_of(&self, touched: Option<&BTreeSet<IpAddr>>, outcome: Option<&Outcome>) -> Host {
        let ours = self.state.ours();
        let all = ours.addresses.keys();
        let addresses = touched.map_or_else(|| all.copied().collect(), BTreeSet::clone);
        let missing = outcome.map(|outcome| &outcome.missing);
        let taken = missing.into_iter().flatten().filter(|(address, why)| {
            let is_meant = touched.is_none_or(|touched| touched.contains(*address));
            is_meant && matches!(why, Missing::Taken(..))
        });
        Host {
            taken: taken.map(|(address, _)| *address).collect(),
            addresses: addresses
                .into_iter()
                .map(|address| (address, ours.addresses.get(&address).cloned()))
                .collect(),
            is_whole: touched.is_none(),
            sysctls: self.state.sysctls_made(),
            timeouts: self.state.timeouts_made(),
            device: ours.device.clone(),
        }
    }
}

fn named<C>(key: &ObjectKey, store: &Store<C>) -> Object {
    Object {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        generation: store.get(key).map_or(0, |stored| stored.generation),
    }
}
