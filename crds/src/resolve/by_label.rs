//! The order of objects by age, and an index of servers by label.

use std::collections::HashMap;

use crate::{
    ObjectKey, Stored,
    check::{CheckedServer, Selector},
};

pub(super) type StoredServer<'a> = (&'a ObjectKey, &'a Stored<CheckedServer>);

/// Sorts objects by age. Objects that were created in the same second are
/// sorted by namespace and name.
pub(super) fn oldest_first<'a, C: 'a>(
    all: impl Iterator<Item = (&'a ObjectKey, &'a Stored<C>)>,
) -> Vec<(&'a ObjectKey, &'a Stored<C>)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(key, stored)| (stored.created, *key));
    all
}

/// An index of servers by label. The index finds the servers that a service's
/// selector may match, without a search through tens of thousands of servers.
pub(super) struct ServersByLabel<'a> {
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<StoredServer<'a>>>,
    by_namespace: HashMap<&'a str, Vec<StoredServer<'a>>>,
}

impl<'a> ServersByLabel<'a> {
    /// Builds the index. [`Self::of`] returns servers in the order of
    /// `servers`.
    pub(super) fn new(
        servers: Vec<StoredServer<'a>>,
        selectors: impl Iterator<Item = (&'a str, &'a Selector)>,
    ) -> Self {
        let mut by_label: HashMap<_, Vec<_>> = HashMap::new();
        for (namespace, selector) in selectors {
            for (label, value) in selector.labels() {
                by_label.entry((namespace, label, value)).or_default();
            }
        }
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for server @ (key, stored) in servers {
            let namespace = &*key.namespace;
            for (label, value) in stored.labels.iter() {
                if let Some(list) = by_label.get_mut(&(namespace, label, value)) {
                    list.push(server);
                }
            }
            by_namespace.entry(namespace).or_default().push(server);
        }
        Self {
            by_label,
            by_namespace,
        }
    }

    /// Returns all servers that the selector matches, and possibly some other
    /// servers.
    pub(super) fn of(&self, namespace: &'a str, selector: &'a Selector) -> &[StoredServer<'a>] {
        selector
            .labels()
            .filter_map(|(label, value)| self.by_label.get(&(namespace, label, value)))
            .min_by_key(|list| list.len())
            .or_else(|| self.by_namespace.get(namespace))
            .map_or(&[], Vec::as_slice)
    }

    /// Returns the servers that the selector matches.
    pub(super) fn selected(
        &self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = StoredServer<'a>> {
        let all = self.of(namespace, selector).iter().copied();
        all.filter(|(_, stored)| selector.matches(&stored.labels))
    }
}
