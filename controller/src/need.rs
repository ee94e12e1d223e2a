//! From when on a director must have used the world for what.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{Digest, ObjectKey, Service};

use crate::history::Positions;

/// From when on a director must have used the world for one VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub(crate) fingerprint: Fingerprint,
    /// The state that the service is in began here, or a little earlier.
    pub since: Positions,
    /// Whether digests can prove it: what is in force follows from the objects
    /// as they are now, and not from what they were before.
    pub provable: bool,
    /// Of a service with a health check: since when each server stands behind
    /// it. A director that has not used the world of then does not know the
    /// server, and its silence does not mean that the server is healthy.
    pub servers: BTreeMap<ObjectKey, Positions>,
}

/// Whatever decides over one VirtualService's form in the kernel. Digests and
/// not only the form: with the identity of everything that takes part, a
/// change in one kind shows whatever the other kinds' states are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fingerprint {
    pub(crate) own: Digest,
    pub(crate) servers: Digest,
    pub(crate) accepted: bool,
    pub(crate) group_gone: bool,
}

/// Since when each server of a checked service stands behind it. `before` is
/// the service as it was, with its need; one that was not checked had its
/// servers for long enough.
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
