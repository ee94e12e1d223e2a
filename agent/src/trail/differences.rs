//! Compares what the trail knows with what is on the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipvs::{ActualService, ServiceKey};

use super::{
    ours::{OurService, Ours},
    round::Host,
};
use crate::act::Difference;

/// Returns the differences between `known` and the host. `services` has the
/// services that were looked at, each as far as it is ours. If `is_whole` is
/// true, all other services are not ours.
pub(super) fn differences(
    known: &Ours,
    services: &BTreeMap<ServiceKey, Option<ActualService>>,
    is_whole: bool,
    host: &Host,
) -> Vec<Difference> {
    let mut found = Vec::new();
    if is_whole {
        let gone = known.services.keys();
        for key in gone.filter(|key| !services.contains_key(key)) {
            of_service(*key, known.services.get(key), None, &mut found);
        }
    }
    for (key, now) in services {
        of_service(*key, known.services.get(key), now.as_ref(), &mut found);
    }
    let addresses = known.addresses.keys().chain(host.addresses.keys());
    for address in addresses.copied().collect::<BTreeSet<IpAddr>>() {
        let old = known.addresses.get(&address);
        let new = host.addresses.get(&address);
        if old != new {
            found.push(Difference::Address {
                address,
                old: old.cloned(),
                new: new.cloned(),
            });
        }
    }
    let sysctls = known.sysctls.keys().chain(host.sysctls.keys());
    for name in sysctls.collect::<BTreeSet<_>>() {
        let old = known.sysctls.get(name);
        let now = host.sysctls.get(name);
        let new = now.and_then(|value| value.as_ref().or(old));
        if old != new {
            found.push(Difference::Sysctl {
                name: name.clone(),
                old: old.cloned(),
                new: new.cloned(),
                ours: new.is_some(),
            });
        }
    }
    if let Some(new) = host.timeouts
        && new != known.timeouts
    {
        found.push(Difference::Timeouts {
            old: known.timeouts,
            new,
            ours: new,
        });
    }
    if host.device != known.device {
        let gone = known.device.clone().map(|name| (name, false));
        let new = host.device.clone().map(|name| (name, true));
        found.extend(
            gone.into_iter()
                .chain(new)
                .map(|(name, exists)| Difference::Device { name, exists }),
        );
    }
    found
}

fn of_service(
    service: ServiceKey,
    known: Option<&OurService>,
    now: Option<&ActualService>,
    found: &mut Vec<Difference>,
) {
    let old = known.map(|known| &known.config);
    let new = now.map(|now| &now.config);
    if old != new {
        found.push(Difference::Service {
            service,
            old: old.cloned(),
            new: new.cloned(),
        });
    }
    let Some(now) = now else {
        return;
    };
    let known_of = |key| known.and_then(|known| known.destinations.get(key));
    if let Some(known) = known {
        let gone = known.destinations.iter();
        let gone = gone.filter(|(key, _)| !now.destinations.contains_key(*key));
        found.extend(gone.map(|(key, known)| Difference::Destination {
            service,
            destination: *key,
            old: Some(known.config),
            new: None,
        }));
    }
    for (key, config) in &now.destinations {
        let old = known_of(key).map(|known| known.config);
        if old != Some(*config) {
            found.push(Difference::Destination {
                service,
                destination: *key,
                old,
                new: Some(*config),
            });
        }
    }
}
