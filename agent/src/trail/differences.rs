//! Compares what the trail knows with what is on the host.

use std::{collections::BTreeSet, net::IpAddr};

use ipvs::{ActualService, ServiceKey};

use super::{
    ours::{OurService, Ours},
    round::Host,
};
use crate::act::Difference;

/// Returns the differences between `known` and the parts of the host other than
/// the IPVS table.
pub(super) fn of_host(known: &Ours, host: &Host) -> Vec<Difference> {
    let mut found = Vec::new();
    let all = host.is_whole.then(|| known.addresses.keys());
    let addresses = all.into_iter().flatten().chain(host.addresses.keys());
    for address in addresses.copied().collect::<BTreeSet<IpAddr>>() {
        let old = known.addresses.get(&address);
        let new = host.addresses.get(&address).and_then(Option::as_ref);
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

/// Returns the differences between a service as the trail knows it and as it is
/// on the host. `None` is a service that is not ours.
pub(super) fn of_service(
    service: ServiceKey,
    known: Option<&OurService>,
    now: Option<&ActualService>,
) -> Vec<Difference> {
    let mut found = Vec::new();
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
        return found;
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
    found
}
