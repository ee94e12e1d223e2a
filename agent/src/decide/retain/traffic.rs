//! Says whether entries still have connections.

use ipvs::{DestinationKey, ServiceKey};

use super::Before;
use crate::decide::{departures::Entry, idle::Idle, serving::Serving};

/// What is known of the connections of entries that leave.
#[derive(Clone, Copy, Debug)]
pub enum Traffic<'a> {
    /// No entry has connections that matter.
    None,
    /// The connections were read from the kernel.
    Read {
        /// The last readings.
        idle: &'a Idle,
        /// The health of the servers.
        serving: &'a Serving,
    },
}

impl Before<'_> {
    /// Whether an entry certainly has no connections that its removal would cut.
    /// The connections to a server that is down are lost anyway.
    pub(super) fn is_free(&self, (service, server): &Entry) -> bool {
        let Traffic::Read { idle, serving } = self.traffic else {
            return true;
        };
        let is_free = |server: &DestinationKey| {
            idle.is_empty(&(*service, *server)) || serving.is_down(service, server)
        };
        match server {
            Some(server) => is_free(server),
            None => self.our_servers(service).all(|server| is_free(&server)),
        }
    }

    /// Returns our servers of a service in the kernel.
    fn our_servers(&self, service: &ServiceKey) -> impl Iterator<Item = DestinationKey> {
        let found = self.kernel.get(service);
        let servers = found
            .into_iter()
            .flat_map(|found| found.destinations.keys());
        let ours = &self.ours.table;
        servers
            .filter(|server| ours.destination(service, server))
            .copied()
    }
}
