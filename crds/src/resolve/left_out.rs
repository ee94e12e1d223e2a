//! Decides how the result reports the servers that budgets leave out. The
//! result names some of these servers, and only counts the others.

use std::collections::HashSet;

use crate::ObjectKey;

/// The servers that budgets leave out. A namespace may have a million pairs of
/// a service and a server. So `is_named` picks only the first pair of each
/// service and the first pair of each server. [`crate::Service::left_out`]
/// counts pairs that are not named.
#[derive(Default)]
pub(super) struct LeftOut {
    services: HashSet<ObjectKey>,
    servers: HashSet<ObjectKey>,
}

impl LeftOut {
    /// Records that a budget leaves a server out of a service. Returns whether
    /// the result names this pair of a service and a server. The result only
    /// counts pairs that it does not name.
    pub(super) fn is_named(&mut self, service: &ObjectKey, server: &ObjectKey) -> bool {
        let is_first = |named: &mut HashSet<ObjectKey>, key: &ObjectKey| {
            !named.contains(key) && named.insert(key.clone())
        };
        let is_first_of_service = is_first(&mut self.services, service);
        is_first(&mut self.servers, server) || is_first_of_service
    }
}
