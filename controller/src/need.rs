//! Decides which states of the world a director must have used before an object
//! counts as programmed.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{Digest, ObjectKey, Service};

use crate::history::Positions;

/// The states of the world that a director must have used before one
/// VirtualService counts as programmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub(crate) fingerprint: Fingerprint,
    /// The positions that a director must have reached. The service's current
    /// form began at these positions, or shortly before them.
    pub since: Positions,
    /// Whether digests can prove that the service is programmed. Digests are a
    /// proof only if the entries in force do not depend on earlier versions of
    /// objects.
    pub provable: bool,
    /// The positions at which each server joined a service that has a health
    /// check. A director that has not reached a server's positions does not
    /// know the server, so the director's silence does not mean that the server
    /// is healthy.
    pub servers: BTreeMap<ObjectKey, Positions>,
}

/// Everything that decides the form of one VirtualService in the kernel. A
/// changed object changes a digest in the fingerprint, even if the service's
/// form stays the same. So a change of one kind of object is noticed in every
/// state of the other kinds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fingerprint {
    pub(crate) own: Digest,
    pub(crate) servers: Digest,
    /// The digest over the group and all objects of the namespace, if a budget
    /// leaves servers out of the service. Any object of the namespace may
    /// decide which servers the budget leaves out.
    pub(crate) rivals: Option<Digest>,
    pub(crate) accepted: bool,
    pub(crate) group_gone: bool,
}

/// Returns the positions at which each server joined `service`, if the service
/// has a health check. `before` is the service's previous form with its
/// previous [`Need`]. A server that joined before the service had a health
/// check gets the default positions, which every director has reached.
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
