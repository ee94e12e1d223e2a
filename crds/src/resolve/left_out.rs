//! Decides how the result reports the servers that budgets leave out. The
//! result names some of these servers, and only counts the others.

use std::collections::{HashMap, HashSet};

use crate::{ObjectKey, check::Selector};

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

/// The counts of the selectors that select more servers than a budget allows.
/// If many services have the same selector, only the first service looks at all
/// servers. The key is a namespace and a selector.
pub(super) type Counted<'a> = HashMap<(&'a str, &'a Selector), Count>;

/// The counts of one selector.
#[derive(Clone, Copy)]
pub(super) struct Count {
    /// How many servers the selector selects.
    selected: usize,
    /// The number of the first server that a budget leaves out of a service,
    /// counted from 1. [`LeftOut`] names this server and all later servers.
    first_left_out: usize,
}

/// The servers of one service that a budget leaves out.
#[derive(Clone, Copy)]
pub(super) struct Rest {
    /// The number of the first of these servers, counted from 1.
    pub(super) first: usize,
    /// The counts of the service's selector, if an earlier service has the same
    /// selector.
    pub(super) before: Option<Count>,
}

impl Rest {
    /// Returns how many servers the selector selects, if the result names all
    /// servers from `number` on already. The service need not look at them.
    pub(super) fn selected_if_named_from(&self, number: usize) -> Option<usize> {
        let before = self.before?;
        let is_named = number > self.first && number >= before.first_left_out;
        is_named.then_some(before.selected)
    }

    /// Returns the counts for the next service with the same selector.
    pub(super) fn count(&self, selected: usize) -> Count {
        let before = self
            .before
            .map_or(self.first, |before| before.first_left_out);
        Count {
            selected,
            first_left_out: self.first.min(before),
        }
    }
}
