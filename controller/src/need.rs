//! Decides which positions in [`crate::history`] a director must reach before a
//! VirtualService counts as programmed.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{Digest, ObjectKey, Service};

use crate::history::Positions;

/// The states of the API's objects that a director must have used before one
/// VirtualService counts as programmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub(crate) fingerprint: Fingerprint,
    /// The positions that a director must have reached. The controller had
    /// reached these positions when it last noticed a change of the service or
    /// of its servers.
    pub since: Positions,
    /// Whether digests can prove that the service is programmed. Digests prove
    /// nothing if the service depends on an earlier version of an object. For
    /// example, the current version may be invalid.
    pub provable: bool,
    /// For each server of a service that has a health check: the positions at
    /// which the server joined the service. A director that has not reached
    /// these positions does not have the server yet. Until then, the director
    /// may not report the server even if the server is unhealthy.
    pub servers: BTreeMap<ObjectKey, Positions>,
    /// For each drained server: the positions at which its drain was declared. A
    /// director that has not reached these positions does not drain the server
    /// yet.
    pub drained: BTreeMap<ObjectKey, Positions>,
}

/// Everything on which the kernel's entries for one VirtualService depend. A
/// changed object changes a digest in the fingerprint, even if the controller
/// computes the same entries from the changed object. A director may compute
/// other entries than the controller, because its objects of other kinds may be
/// older or newer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fingerprint {
    pub(crate) own: Digest,
    pub(crate) servers: Digest,
    /// The digest over the group and all objects of the service's namespace, if
    /// a budget leaves servers out of the service. Any of these objects may
    /// decide which servers the budget leaves out.
    pub(crate) rivals: Option<Digest>,
    pub(crate) accepted: bool,
    pub(crate) group_gone: bool,
}

/// Returns the positions at which the drain of each drained server of `service`
/// was declared. `before` is the service's previous form with its previous
/// [`Need`].
pub(crate) fn drained(
    service: Option<&Service>,
    before: Option<(&Service, &Need)>,
    now: Positions,
) -> BTreeMap<ObjectKey, Positions> {
    let servers = service.into_iter().flat_map(|service| &service.servers);
    let drained = servers.filter(|server| server.drain.is_some());
    let known = places(before.map(|(service, _)| service));
    drained
        .map(|server| {
            let object = &server.object;
            let is_known = known.get(object) == Some(&(server.address, server.port));
            let since = before.and_then(|(_, need)| need.drained.get(object).copied());
            let since = since.filter(|_| is_known).unwrap_or(now);
            (object.clone(), since)
        })
        .collect()
}

/// Returns the address and port of each server of a service.
fn places(service: Option<&Service>) -> BTreeMap<&ObjectKey, (IpAddr, u16)> {
    let servers = service.into_iter().flat_map(|service| &service.servers);
    servers
        .map(|server| (&server.object, (server.address, server.port)))
        .collect()
}

/// Returns the positions at which each server joined `service`, if the service
/// has a health check. `before` is the service's previous form with its
/// previous [`Need`]. A server that joined before the service had a health
/// check gets position 0 of every kind. Every director has reached position 0.
pub(crate) fn servers(
    service: Option<&Service>,
    before: Option<(&Service, &Need)>,
    now: Positions,
) -> BTreeMap<ObjectKey, Positions> {
    let Some(service) = service.filter(|service| service.health_check.is_some()) else {
        return BTreeMap::new();
    };
    let known = places(before.map(|(service, _)| service));
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
