//! Finds the leaving entries whose removal is not believed, because a listing
//! left out their objects.

use crds::Kind;
use ipvs::{DestinationKey, ServiceKey};

use super::{
    Before, Retention,
    leaving::{Leaving, Leavings, ops},
};
use crate::decide::{
    absence::{Absence, Cause, Doubtful},
    guard::{Count, is_most},
};

impl Retention {
    /// Returns the leaving entries whose objects are absent and not believed to
    /// be deleted.
    pub(super) fn doubted(&self, before: Before<'_>) -> Leavings {
        if self.leaving.is_empty() {
            return Leavings::new();
        }
        let absence = before.absence;
        let listed = self.part(absence, |cause| cause != Cause::Certain);
        let is_most = is_most(&ops(&listed), Count::owned(&before.ours.table));
        self.part(absence, |cause| {
            cause == Cause::Doubted || is_most && cause == Cause::Unjudged
        })
    }

    /// Returns the leaving entries for which `is_one` is true. The argument of
    /// `is_one` says why an entry is no longer wanted.
    pub(super) fn part(&self, absence: &Absence, is_one: impl Fn(Cause) -> bool) -> Leavings {
        let of_server = |key: &ServiceKey, server: &DestinationKey| {
            let object = self.in_force.servers.get(&(*key, *server));
            let cause = absence.cause(Kind::RealServer, object);
            // The older version of a service may not select all of its servers.
            let service = self.in_force.services.get(key);
            let has_gone_back =
                |service| absence.cause(Kind::VirtualService, Some(service)) == Cause::Doubted;
            is_one(match cause {
                Cause::Certain if service.is_some_and(has_gone_back) => Cause::Doubted,
                cause => cause,
            })
        };
        let parts = self.leaving.iter().filter_map(|(key, leaving)| {
            let part = match leaving {
                Leaving::Service => {
                    let object = self.in_force.services.get(key);
                    let is_part = is_one(absence.cause(Kind::VirtualService, object));
                    is_part.then_some(Leaving::Service)?
                }
                Leaving::Servers(servers) => {
                    let servers = servers.iter().filter(|server| of_server(key, server));
                    let servers: Vec<_> = servers.copied().collect();
                    (!servers.is_empty()).then_some(Leaving::Servers(servers))?
                }
            };
            Some((*key, part))
        });
        parts.collect()
    }

    /// Returns the objects that wanted the leaving entries. The servers of a
    /// leaving service count as part of the service.
    pub(super) fn objects_of(&self, leaving: &Leavings) -> Doubtful {
        let mut found = Doubtful::default();
        let known = &self.in_force;
        for (key, leaving) in leaving {
            let mut servers: Vec<_> = Vec::new();
            match leaving {
                Leaving::Service => {
                    match known.services.get(key) {
                        Some(service) => {
                            let object = (Kind::VirtualService, service.clone());
                            found.objects.insert(object);
                        }
                        None => found.has_orphans = true,
                    }
                    let service = known.table.get(key);
                    let keys = service.map(|service| service.destinations.keys());
                    servers.extend(keys.into_iter().flatten().copied());
                }
                Leaving::Servers(leaving) => {
                    let is_orphan = |server| !known.servers.contains_key(&(*key, server));
                    found.has_orphans |= leaving.iter().copied().any(is_orphan);
                    let service = known.services.get(key);
                    let service = service.map(|service| (Kind::VirtualService, service.clone()));
                    found.objects.extend(service);
                    servers.extend(leaving);
                }
            }
            for server in servers {
                if let Some(object) = known.servers.get(&(*key, server)) {
                    found.objects.insert((Kind::RealServer, object.clone()));
                }
            }
        }
        found
    }
}
