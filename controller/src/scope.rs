//! Says which objects a pass looks at.
//!
//! A fleet has tens of thousands of objects, and after an edit a thousand
//! directors report one after the other. Each report concerns only the objects
//! that the edit changed, so a pass must not look at all objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{ObjectKey, Store, Stored};

use crate::status::{Id, Subject};

/// The objects whose statuses a pass computes again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Every object of every kind.
    All,
    /// Only these objects, by kind. Some of them may not exist any more.
    Only(BTreeMap<Subject, BTreeSet<ObjectKey>>),
}

impl Scope {
    /// The scope without any object.
    pub const fn nothing() -> Self {
        Self::Only(BTreeMap::new())
    }

    /// Whether a pass looks at an object.
    pub fn has(&self, subject: Subject, key: &ObjectKey) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.get(&subject).is_some_and(|keys| keys.contains(key)),
        }
    }

    /// Whether a pass looks at any object of a kind.
    pub fn has_any(&self, subject: Subject) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains_key(&subject),
        }
    }

    /// Lets the pass look at one more object.
    pub fn add(&mut self, id: Id) {
        if let Self::Only(keys) = self {
            keys.entry(id.subject).or_default().insert(id.key);
        }
    }

    /// Returns the objects that a pass looks at, or `None` for all objects.
    pub fn ids(&self) -> Option<impl Iterator<Item = Id>> {
        let Self::Only(keys) = self else {
            return None;
        };
        Some(keys.iter().flat_map(|(subject, keys)| {
            keys.iter().map(|key| Id {
                subject: *subject,
                key: key.clone(),
            })
        }))
    }

    /// Returns the namespaces of the objects of one kind, or `None` for all
    /// objects.
    pub fn namespaces(&self, subject: Subject) -> Option<BTreeSet<&Arc<str>>> {
        let Self::Only(keys) = self else {
            return None;
        };
        let keys = keys.get(&subject).into_iter().flatten();
        Some(keys.map(|key| &key.namespace).collect())
    }

    /// Returns the existing objects of one kind that a pass looks at.
    pub fn of<'a, C>(
        &'a self,
        subject: Subject,
        store: &'a Store<C>,
    ) -> Vec<(&'a ObjectKey, &'a Stored<C>)> {
        match self {
            Self::All => store.iter().collect(),
            Self::Only(keys) => {
                let keys = keys.get(&subject).into_iter().flatten();
                keys.filter_map(|key| Some((key, store.get(key)?)))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> Id {
        Id {
            subject: Subject::RealServer,
            key: ObjectKey::new("shop", name),
        }
    }

    #[test]
    fn a_scope_has_what_was_added_and_the_scope_of_all_objects_stays_that() {
        let mut some = Scope::nothing();
        assert!(!some.has_any(Subject::RealServer));
        some.add(server("a"));
        for (name, is_in) in [("a", true), ("b", false)] {
            assert_eq!(some.has(Subject::RealServer, &server(name).key), is_in);
        }
        assert!(!some.has(Subject::VirtualService, &server("a").key));
        let mut all = Scope::All;
        all.add(server("a"));
        assert_eq!(all, Scope::All);
    }
}
