//! The labels of a stored object.

use std::collections::BTreeMap;

/// An object's labels, sorted by key. A sorted slice takes less memory than a
/// map. Most objects have one or two labels, but each node of a B-tree map has
/// room for eleven.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Returns the value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let labels = &self.0;
        let found = labels.binary_search_by(|(label, _)| (**label).cmp(key));
        found.ok().map(|index| &*labels[index].1)
    }

    /// Returns all labels, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        let sorted: BTreeMap<_, _> = labels.into_iter().collect();
        let boxed = |(key, value): (String, String)| (key.into(), value.into());
        Self(sorted.into_iter().map(boxed).collect())
    }
}
