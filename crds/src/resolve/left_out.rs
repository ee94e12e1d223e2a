//! Decides which left-out servers are named.

use std::collections::HashSet;

use crate::ObjectKey;

/// The servers that budgets leave out. A namespace may have a million pairs of
/// a service and a server, so only the first pair of each service and of each
/// server is named. The other pairs are counted.
#[derive(Default)]
pub(super) struct LeftOut {
    services: HashSet<ObjectKey>,
    servers: HashSet<ObjectKey>,
}

impl LeftOut {
    /// Records that a budget leaves a server out of a service. Returns whether
    /// this pair is named, and not only counted.
    pub(super) fn is_named(&mut self, service: &ObjectKey, server: &ObjectKey) -> bool {
        let is_first = |named: &mut HashSet<ObjectKey>, key: &ObjectKey| {
            !named.contains(key) && named.insert(key.clone())
        };
        let is_first_of_service = is_first(&mut self.services, service);
        is_first(&mut self.servers, server) || is_first_of_service
    }
}
