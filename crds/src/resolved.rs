//! What the objects mean together: values of these types cannot be wrong.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    Availability, ForwardingRule, HealthCheck, Kind, ObjectKey, PersistenceRule, Rejection,
    ServiceId, api::Scheduler,
};

/// Every object's fate: it is accepted or rejected, and every server that a
/// service selects is linked or refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// What is to be in the kernel of each group's directors. A service whose
    /// newest version was rejected stands here with its last good one.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Objects that are not accepted as they are now.
    pub rejected: BTreeMap<(Kind, ObjectKey), Rejection>,
    /// (service, server): selected, but not fitting.
    pub refused: BTreeMap<(ObjectKey, ObjectKey), Rejection>,
    /// Groups that services name and that were seen, and are gone.
    pub gone_groups: Vec<String>,
}

impl Resolved {
    /// The servers that a service selects and that do not fit it.
    pub fn refused_by<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Rejection)> {
        let first = ObjectKey::new("", "");
        self.refused
            .range((service.clone(), first)..)
            .take_while(move |((of, _), _)| of == service)
            .map(|((_, server), rejection)| (server, rejection))
    }

    /// Why an object is not accepted as it is now; None where it is.
    pub fn rejection(&self, kind: Kind, key: &ObjectKey) -> Option<&Rejection> {
        self.rejected.get(&(kind, key.clone()))
    }
}

/// A virtual service that can be programmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The DirectorGroup.
    pub group: String,
    /// What the kernel knows it by.
    pub id: ServiceId,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// sh-fallback or mh-fallback.
    pub fallback: bool,
    /// sh-port or mh-port.
    pub hash_port: bool,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// Persistence, if any.
    pub persistence: Option<PersistenceRule>,
    /// How its servers are checked, if they are.
    pub health_check: Option<Arc<HealthCheck>>,
    /// What becomes of those that fail.
    pub availability: Availability,
    /// Its servers, oldest first, each (address, port) once.
    pub servers: Vec<Server>,
}

/// A real server as one service uses it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The RealServer object.
    pub object: ObjectKey,
    /// The RIP.
    pub address: IpAddr,
    /// Its port; the service's own for DR and TUN; 0 behind a firewall mark or
    /// a service of every port, unless said otherwise.
    pub port: u16,
    /// 0 to 65535.
    pub weight: u16,
    /// How packets reach it.
    pub forwarding: ForwardingRule,
    /// 0 is off.
    pub upper_threshold: u32,
    /// 0 is three quarters of the upper one.
    pub lower_threshold: u32,
}
