//! Compares each round with what the trail knew before, and so finds the
//! records: what changed, for which object, and why. The code is pure: it does
//! no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipvs::{ActualService, DestinationKey, ServiceKey, Timeouts, WantedService};

use super::{
    differences::{of_host, of_service},
    ours::Ours,
    record::{Cause, Objects, Record},
    round::{Host, Round, Wants},
};
use crate::act::{Difference, MOST_WRITES};

/// An entry of the IPVS table: a service, or a destination in it.
type Entry = (ServiceKey, Option<DestinationKey>);

/// What the trail knows.
#[derive(Debug, Default)]
pub struct Book {
    /// What is ours, as the records tell it. It is shared with the lines that
    /// have it as a snapshot.
    pub ours: Arc<Ours>,
    /// What was wanted after the last round, by service.
    pub wants: BTreeMap<ServiceKey, Wants>,
    /// The entries whose wanted state changed but that were not written since,
    /// each with the cause of the change.
    pending: BTreeMap<Entry, Cause>,
    /// Whether this run of the agent has told of a round.
    has_begun: bool,
}

/// What a round adds to the trail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// One record for each difference.
    Records(Vec<Record>),
    /// There are too many differences: what is ours now is recorded as a whole.
    Snapshot {
        /// The number of writes.
        writes: usize,
        /// The cause of most differences.
        cause: Cause,
    },
}

impl Book {
    /// Returns a book that knows what the trail of earlier runs tells.
    pub fn new(ours: Arc<Ours>) -> Self {
        Self {
            ours,
            ..Self::default()
        }
    }

    /// Takes in one round. Returns what it adds to the trail.
    pub fn hear(&mut self, round: Round) -> News {
        let mut seen = round.services;
        if round.is_whole {
            let known = self.ours.services.keys().chain(self.wants.keys());
            for key in known {
                seen.entry(*key).or_default();
            }
        }
        let mut before = BTreeMap::new();
        let mut services = BTreeMap::new();
        for (key, seen) in seen {
            let old = self.wants.remove(&key).unwrap_or_default();
            if self.has_begun {
                self.expect(key, &old, &seen.wants);
            }
            if !seen.wants.is_nothing() {
                self.wants.insert(key, seen.wants);
            }
            before.insert(key, old);
            services.insert(key, seen.ours);
        }
        let host = round.host.unwrap_or_else(|| Host::known(&self.ours));
        let is_full = round.count > MOST_WRITES;
        let mut page = Page::default();
        let mut add = |book: &mut Self, cause, written, difference| {
            let record = Record {
                at: round.at,
                cause,
                written,
                objects: book.objects(&before, &difference),
                difference,
            };
            Arc::make_mut(&mut book.ours).apply(&record);
            page.add(record);
        };
        for write in round.writes {
            let cause = self.cause(&write, &host.taken);
            add(self, cause, true, write);
        }
        // One service at a time: the first round may have 100,000 differences.
        let of_services = services.iter().map(Some).chain([None]);
        for service in of_services {
            let found = match service {
                Some((key, now)) => of_service(*key, self.ours.services.get(key), now.as_ref()),
                None => of_host(&self.ours, &host),
            };
            for difference in found {
                let cause = match is_full {
                    true => self.cause(&difference, &host.taken),
                    false => Cause::Found,
                };
                add(self, cause, is_full, difference);
            }
        }
        self.forget_satisfied(&services);
        self.has_begun = true;
        match is_full || page.is_over() {
            true => News::Snapshot {
                writes: round.count,
                cause: page.cause(),
            },
            false => News::Records(page.records),
        }
    }

    /// Notes why entries of a service are about to change.
    fn expect(&mut self, key: ServiceKey, old: &Wants, new: &Wants) {
        let config = |wanted: &Option<Arc<WantedService>>| {
            wanted.as_ref().map(|wanted| wanted.config.clone())
        };
        if config(&old.desired) != config(&new.desired) {
            self.pending.insert((key, None), Cause::Edit);
        } else if config(&old.in_force) != config(&new.in_force) {
            self.pending.insert((key, None), Cause::Guard);
        }
        let ended = |wants: &Wants, destination| wants.ended.contains(destination);
        let all = [&old.desired, &new.desired, &old.in_force, &new.in_force];
        let all = all.into_iter().flatten();
        let keys: BTreeSet<_> = all
            .flat_map(|service| service.destinations.keys())
            .collect();
        for destination in keys {
            let of = |wanted: &Option<Arc<WantedService>>| {
                let wanted = wanted.as_ref()?;
                wanted.destinations.get(destination).copied()
            };
            let is_sorry = [old.sorry, new.sorry].contains(&Some(*destination));
            let cause = if of(&old.desired) != of(&new.desired) {
                Cause::Edit
            } else if of(&old.in_force) == of(&new.in_force) {
                continue;
            } else if ended(new, destination) != ended(old, destination) {
                Cause::Guard
            } else if of(&new.desired).is_some() || is_sorry {
                Cause::Health
            } else {
                Cause::Guard
            };
            self.pending.insert((key, Some(*destination)), cause);
        }
    }

    /// Returns why a difference came about that the agent wrote. If the host
    /// was not as the trail knew it, another process had changed it.
    fn cause(&mut self, write: &Difference, taken: &BTreeSet<IpAddr>) -> Cause {
        let services = &self.ours.services;
        let is_as_known = match write {
            Difference::Service { service, old, .. } => {
                services.get(service).map(|known| &known.config) == old.as_ref()
            }
            Difference::Destination {
                service,
                destination,
                old,
                ..
            } => {
                let known = services.get(service);
                let known = known.and_then(|known| known.destinations.get(destination));
                known.map(|known| known.config) == *old
            }
            Difference::Address { address, old, .. } => {
                self.ours.addresses.get(address) == old.as_ref()
            }
            Difference::Sysctl { name, old, .. } => {
                let known = self.ours.sysctls.get(name);
                known.is_none_or(|known| Some(known) == old.as_ref())
            }
            Difference::Timeouts { old, .. } => {
                let Timeouts { tcp, tcp_fin, udp } = self.ours.timeouts;
                let known = [(tcp, old.tcp), (tcp_fin, old.tcp_fin), (udp, old.udp)];
                known
                    .iter()
                    .all(|(known, old)| *known == 0 || *old == 0 || known == old)
            }
            Difference::Device { name, exists } => {
                (self.ours.device.as_ref() == Some(name)) != *exists
            }
        };
        let pending = write.entry().and_then(|entry| self.pending.remove(&entry));
        match write {
            _ if !is_as_known && self.has_begun => Cause::Drift,
            _ if !is_as_known => Cause::Found,
            Difference::Address { address, .. } if taken.contains(address) => Cause::Conflict,
            _ => pending.unwrap_or(Cause::Edit),
        }
    }

    /// Returns the objects for which an entry exists. If the entry is no longer
    /// wanted, returns the objects for which it existed.
    fn objects(&self, before: &BTreeMap<ServiceKey, Wants>, difference: &Difference) -> Objects {
        let Some((service, destination)) = difference.entry() else {
            return Objects::default();
        };
        let wants = [self.wants.get(&service), before.get(&service)];
        let wants = || wants.into_iter().flatten();
        let known = self.ours.services.get(&service);
        let virtual_service = wants().find_map(|wants| wants.object.clone());
        let real_server = destination.and_then(|key| {
            let wanted = wants().find_map(|wants| wants.server(&key).cloned());
            wanted.or_else(|| known?.destinations.get(&key)?.object.clone())
        });
        Objects {
            virtual_service: virtual_service.or_else(|| known?.object.clone()),
            real_server,
        }
    }

    /// Forgets the causes for entries that are as they should be.
    fn forget_satisfied(&mut self, services: &BTreeMap<ServiceKey, Option<ActualService>>) {
        if self.pending.is_empty() {
            return;
        }
        for key in services.keys() {
            let wanted = self.wants.get(key);
            let wanted = wanted.and_then(|wants| wants.in_force.as_ref());
            let ours = self.ours.services.get(key);
            let is_satisfied = |destination: &Option<DestinationKey>| match destination {
                None => wanted.map(|wanted| &wanted.config) == ours.map(|ours| &ours.config),
                Some(destination) => {
                    let wanted = wanted.and_then(|wanted| wanted.destinations.get(destination));
                    let ours = ours.and_then(|ours| ours.destinations.get(destination));
                    wanted == ours.map(|ours| &ours.config)
                }
            };
            let of_service: Vec<_> = self
                .pending
                .range((*key, None)..)
                .take_while(|((service, _), _)| service == key)
                .map(|(entry, _)| *entry)
                .collect();
            for entry in of_service.iter().filter(|(_, of)| is_satisfied(of)) {
                self.pending.remove(entry);
            }
        }
    }
}

/// The records of one round.
#[derive(Default)]
struct Page {
    /// The first records, at most [`MOST_WRITES`].
    records: Vec<Record>,
    /// The number of all records, by cause.
    causes: BTreeMap<Cause, usize>,
}

impl Page {
    fn add(&mut self, record: Record) {
        *self.causes.entry(record.cause).or_default() += 1;
        if self.records.len() < MOST_WRITES {
            self.records.push(record);
        }
    }

    /// Whether there are more than [`MOST_WRITES`] records.
    fn is_over(&self) -> bool {
        self.causes.values().sum::<usize>() > MOST_WRITES
    }

    /// Returns the cause of most of the records.
    fn cause(&self) -> Cause {
        let most = self.causes.iter().max_by_key(|(_, count)| **count);
        most.map_or(Cause::Found, |(cause, _)| *cause)
    }
}
