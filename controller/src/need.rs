//! Which states of the world a director must have used before an object counts
//! as programmed.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{Digest, ObjectKey, Service};

use crate::history::Positions;

/// Which state of the world a director must have used before one VirtualService
/// counts as programmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub(crate) fingerprint: Fingerprint,
    /// A director must have reached these positions. The service's current form
    /// began there, or a little later.
    pub since: Positions,
    /// Whether digests can prove that it is programmed: what is in force
    /// depends only on the current objects, and not on earlier ones.
    pub provable: bool,
    /// For a service with a health check: the positions from which each server
    /// belongs to it. A director that has not reached them does not know the
    /// server, so its silence does not mean that the server is healthy.
    pub servers: BTreeMap<ObjectKey, Positions>,
}

/// Everything that decides the form of one VirtualService in the kernel.
/// Digests show a change even if the resulting form is the same, so that a
/// change in one kind is noticed whatever the states of the other kinds are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fingerprint {
    pub(crate) own: Digest,
    pub(crate) servers: Digest,
    pub(crate) accepted: bool,
    pub(crate) group_gone: bool,
}

/// The positions from which each server of a checked service belongs to it.
/// `before` is the service's previous form with its need. Servers of a service
/// that was not checked before have belonged to it long enough.
pub(crate) fn servers(
    service: Option<&Service>,
    before: Option<(&Service, &Need)>,
    now: Positions,
) -> BTreeMap<ObjectKey, Positions> {
    let Some(service) = service.filter(|service| service.health_check.is_some()) else {
        return BTreeMap::new();
    };
    let known: BTreeMap<&ObjectKey, (IpAddr, u16)> = before
        .into_iter()
        .flat_map(|(service, _)| &service.servers)
        .map(|server| (&server.object, (server.address, server.port)))
        .collect();
    let since = |object| {
        before
            .and_then(|(_, need)| need.servers.get(object).copied())
            .unwrap_or_default()
    };
    service
        .servers
        .iter()
        .map(|server| {
            let object = &server.object;
            let is_known = known.get(object) == Some(&(server.address, server.port));
            let since = if is_known { since(object) } else { now };
            (object.clone(), since)
        })
        .collect()
}
