//! What is ours on this host, as the trail tells it. A snapshot in the trail is
//! an [`Ours`], and each record changes it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use indexmap::IndexMap;
use ipvs::{
    ActualService, DestinationConfig, DestinationKey, Op, ServiceConfig, ServiceKey, Timeouts,
};
use serde::{Deserialize, Serialize};

use super::record::{Object, Objects, Record};
use crate::act::Difference;

/// Everything that is ours on this host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ours {
    /// Our services in the IPVS table.
    #[serde(with = "pairs")]
    pub services: BTreeMap<ServiceKey, OurService>,
    /// The virtual addresses, each with the name of its interface.
    pub addresses: BTreeMap<IpAddr, String>,
    /// The sysctls that the agent set, each with its value.
    pub sysctls: BTreeMap<String, String>,
    /// The timeouts of connections that the agent set. 0 is a timeout that the
    /// agent did not set.
    pub timeouts: Timeouts,
    /// The agent's own device for virtual addresses.
    pub device: Option<String>,
}

/// A service of ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OurService {
    /// The configuration of the service.
    pub config: ServiceConfig,
    /// The VirtualService that wants the service.
    pub object: Option<Object>,
    /// Our destinations in the service, in the kernel's order.
    #[serde(with = "pairs")]
    pub destinations: IndexMap<DestinationKey, OurDestination>,
}

impl OurService {
    /// Returns the service as the kernel has it, without its objects.
    pub fn actual(&self) -> ActualService {
        let destinations = self.destinations.iter();
        ActualService {
            config: self.config.clone(),
            destinations: destinations.map(|(key, of)| (*key, of.config)).collect(),
        }
    }
}

/// A destination of ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OurDestination {
    /// The configuration of the destination.
    pub config: DestinationConfig,
    /// The RealServer that wants the destination.
    pub object: Option<Object>,
}

impl Ours {
    /// Applies a record, so that `self` is what was ours afterwards.
    pub fn apply(&mut self, record: &Record) {
        let Objects {
            virtual_service,
            real_server,
        } = &record.objects;
        match &record.difference {
            Difference::Service { service, new, .. } => match new {
                None => {
                    self.services.remove(service);
                }
                Some(config) => match self.services.entry(*service) {
                    Entry::Occupied(mut known) => {
                        let known = known.get_mut();
                        known.config = config.clone();
                        known.object.clone_from(virtual_service);
                    }
                    Entry::Vacant(free) => {
                        free.insert(OurService {
                            config: config.clone(),
                            object: virtual_service.clone(),
                            destinations: IndexMap::new(),
                        });
                    }
                },
            },
            Difference::Destination {
                service,
                destination,
                new,
                ..
            } => {
                let Some(known) = self.services.get_mut(service) else {
                    return;
                };
                match new {
                    None => {
                        known.destinations.shift_remove(destination);
                    }
                    Some(config) => {
                        let new = OurDestination {
                            config: *config,
                            object: real_server.clone(),
                        };
                        known.destinations.insert(*destination, new);
                    }
                }
            }
            Difference::Address { address, new, .. } => set(&mut self.addresses, address, new),
            Difference::Sysctl {
                name, new, ours, ..
            } => {
                let new = new.clone().filter(|_| *ours);
                set(&mut self.sysctls, name, &new);
            }
            Difference::Timeouts { ours, .. } => self.timeouts = *ours,
            Difference::Device { name, exists } => {
                self.device = exists.then(|| name.clone());
            }
        }
    }

    /// Returns our part of the IPVS table as the operations that would make it.
    pub fn table(&self) -> Vec<Op> {
        let services = self.services.iter();
        let ops = services.flat_map(|(key, service)| {
            let made = Op::NewService(*key, service.config.clone());
            let destinations = service.destinations.iter();
            let destinations =
                destinations.map(|(server, of)| Op::NewDestination(*key, *server, of.config));
            std::iter::once(made).chain(destinations)
        });
        ops.collect()
    }

    /// Returns the number of services and of destinations.
    pub fn counts(&self) -> (usize, usize) {
        let services = self.services.values();
        let destinations = services.map(|service| service.destinations.len()).sum();
        (self.services.len(), destinations)
    }
}

fn set<K: Clone + Ord, V: Clone>(map: &mut BTreeMap<K, V>, key: &K, value: &Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value.clone()),
        None => map.remove(key),
    };
}

/// Writes a map as a list of pairs: JSON allows only texts as keys.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<'a, M, K, V, S>(map: &'a M, serializer: S) -> Result<S::Ok, S::Error>
    where
        &'a M: IntoIterator<Item = (&'a K, &'a V)>,
        K: Serialize + 'a,
        V: Serialize + 'a,
        S: Serializer,
    {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, M, K, V, D>(deserializer: D) -> Result<M, D::Error>
    where
        M: FromIterator<(K, V)>,
        K: Deserialize<'de>,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let pairs = Vec::<(K, V)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().collect())
    }
}
