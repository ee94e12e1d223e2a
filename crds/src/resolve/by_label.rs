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
/// Only a selector that has nothing but NotIn and DoesNotExist searches its
/// whole namespace.
pub(super) struct ServersByLabel<'a> {
    /// All servers, the oldest first.
    servers: Vec<StoredServer<'a>>,
    /// For each namespace, label and value that a selector asks for, the indexes
    /// of the servers that have it. The value `None` means any value.
    by_label: HashMap<(&'a str, &'a str, Option<&'a str>), Vec<usize>>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
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
            for (label, values) in selector.musts() {
                for value in wanted(&values) {
                    by_label.entry((namespace, label, value)).or_default();
                }
            }
        }
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (key, stored)) in servers.iter().enumerate() {
            let namespace = &*key.namespace;
            for (label, value) in stored.labels.iter() {
                for value in [Some(value), None] {
                    if let Some(list) = by_label.get_mut(&(namespace, label, value)) {
                        list.push(index);
                    }
                }
            }
            by_namespace.entry(namespace).or_default().push(index);
        }
        Self {
            servers,
            by_label,
            by_namespace,
        }
    }

    /// Returns all servers that the selector matches, and possibly some other
    /// servers.
    pub(super) fn of(&self, namespace: &'a str, selector: &'a Selector) -> Vec<StoredServer<'a>> {
        let lists = |(label, values): (&'a str, Vec<&'a str>)| {
            let lists = wanted(&values).filter_map(|value| {
                let list = self.by_label.get(&(namespace, label, value));
                list.map(Vec::as_slice)
            });
            lists.collect::<Vec<_>>()
        };
        let shortest = selector
            .musts()
            .map(lists)
            .min_by_key(|lists| lists.iter().map(|list| list.len()).sum::<usize>());
        let all = || self.by_namespace.get(namespace).map(Vec::as_slice);
        let lists = shortest.unwrap_or_else(|| all().into_iter().collect());
        let mut indexes = lists.concat();
        // Each list is in order. A server has one value for a label, so it is
        // in one list only.
        if lists.len() > 1 {
            indexes.sort_unstable();
        }
        indexes
            .into_iter()
            .map(|index| self.servers[index])
            .collect()
    }

    /// Returns the servers that the selector matches.
    pub(super) fn selected(
        &self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = StoredServer<'a>> {
        let all = self.of(namespace, selector).into_iter();
        all.filter(|(_, stored)| selector.matches(&stored.labels))
    }
}

/// Returns the values to look up: `None` stands for any value.
fn wanted<'v, 'a>(values: &'v [&'a str]) -> impl Iterator<Item = Option<&'a str>> + 'v {
    let any = values.is_empty().then_some(None);
    values.iter().copied().map(Some).chain(any)
}
