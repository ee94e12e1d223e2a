//! The changes of ownership that the journal does not record yet. While the
//! disk refuses writes, changes of the same entry are merged. Because of the
//! merging, the number of unrecorded changes is limited by the number of
//! entries, even if entries change often.

use std::{
    collections::{BTreeMap, btree_map::Entry as Place},
    net::IpAddr,
};

use ipvs::{DestinationKey, ServiceKey};

use crate::decide::ours::{Change, Entry, Remembered};

/// Up to this number, changes are not merged, because merging would save
/// little.
const FEW: usize = 16;

/// The changes that the journal does not record yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    changes: Vec<Change>,
    /// The number of changes that were left after the last merge.
    merged: usize,
}

impl Unsettled {
    pub(super) fn add(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Adds changes of ownership. There are at most `most` changes.
    pub(super) fn extend(&mut self, changes: impl IntoIterator<Item = Change>, most: usize) {
        self.changes.reserve(most);
        self.changes.extend(changes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Replaces the unrecorded changes by one change for each entry that is
    /// ours. The caller needs this if the journal has lost its content.
    pub(super) fn everything(&mut self, ours: &Remembered) {
        self.changes = ours.entries().collect();
        self.merged = self.changes.len();
    }

    /// Whether any unrecorded change has an entry for which `is_such` is true.
    pub(super) fn has(&self, is_such: impl Fn(&Entry) -> bool) -> bool {
        self.changes.iter().any(|change| {
            let (Change::Own(entry) | Change::Disown(entry)) = change;
            is_such(entry)
        })
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Forgets all changes, because the journal has recorded them.
    pub(super) fn settled(&mut self) {
        self.changes.clear();
        self.merged = 0;
    }

    /// Notes that the journal could not record the changes. Merges the
    /// unrecorded changes if there are many more than after the last merge.
    pub(super) fn refused(&mut self) {
        if self.changes.len() > FEW.max(self.merged * 2) {
            self.changes = merged(std::mem::take(&mut self.changes));
            self.merged = self.changes.len();
        }
    }
}

/// The merged changes of a service and its destinations.
#[derive(Default)]
struct ServiceChanges {
    /// Whether the service ceased to be ours, with all its destinations. The
    /// other fields then describe only the changes after this loss.
    is_disowned: bool,
    /// Whether the service became ours. If `is_disowned` is true as well, the
    /// service ceased to be ours first.
    is_owned: bool,
    /// Whether the service is marked as adopted now. None means that the mark
    /// did not change.
    adopted: Option<bool>,
    /// The changed destinations: true if the destination became ours, false if
    /// it ceased to be ours.
    destinations: BTreeMap<DestinationKey, bool>,
}

/// The identity of an entry that is neither a service nor a destination.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Name {
    Address(IpAddr),
    Timeouts,
    Sysctl(String),
    Device,
}

/// Merges `changes` without changing their result. At most two changes are left
/// for each entry.
fn merged(changes: Vec<Change>) -> Vec<Change> {
    let mut services = BTreeMap::<ServiceKey, ServiceChanges>::new();
    let mut others = BTreeMap::<Name, Change>::new();
    for change in changes {
        let is_own = matches!(change, Change::Own(_));
        let (Change::Own(entry) | Change::Disown(entry)) = &change;
        let name = match entry {
            Entry::Service(key) => {
                let service = services.entry(*key).or_default();
                if !is_own {
                    service.is_disowned = true;
                    service.adopted = None;
                    service.destinations.clear();
                }
                service.is_owned = is_own;
                continue;
            }
            Entry::Adopted(key) => {
                services.entry(*key).or_default().adopted = Some(is_own);
                continue;
            }
            Entry::Destination(key, destination) => {
                let service = services.entry(*key).or_default();
                service.destinations.insert(*destination, is_own);
                // If a destination is ours, its service is ours too.
                service.is_owned |= is_own;
                continue;
            }
            Entry::Address(address, _) => Name::Address(*address),
            Entry::Timeouts(_) => Name::Timeouts,
            Entry::Sysctl(name, _) => Name::Sysctl(name.clone()),
            Entry::Device(_) => Name::Device,
        };
        match others.entry(name) {
            Place::Occupied(mut earlier) => drop(earlier.insert(change)),
            Place::Vacant(place) => drop(place.insert(change)),
        }
    }
    let services = services.into_iter().flat_map(|(key, service)| {
        let disowned = service
            .is_disowned
            .then_some(Change::Disown(Entry::Service(key)));
        let owned = service.is_owned.then_some(Change::Own(Entry::Service(key)));
        let change = |(entry, is_own)| match is_own {
            true => Change::Own(entry),
            false => Change::Disown(entry),
        };
        let adopted = service.adopted.map(|is_own| (Entry::Adopted(key), is_own));
        let destinations = service.destinations.into_iter();
        let destinations = destinations
            .map(move |(destination, is_own)| (Entry::Destination(key, destination), is_own));
        let contents = adopted.into_iter().chain(destinations).map(change);
        disowned.into_iter().chain(owned).chain(contents)
    });
    services.chain(others.into_values()).collect()
}

#[cfg(test)]
mod tests {
    use ipvs::Timeouts;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::fixtures::{ip, server, tcp};

    fn entry() -> impl Strategy<Value = Entry> {
        let service = select(vec![80, 443]).prop_map(|port| tcp("192.0.2.10", port));
        let destination = (service.clone(), 1..4_u8);
        let address = (
            select(vec!["192.0.2.10", "192.0.2.11"]),
            select(vec!["eth0", "eth1"]),
        );
        let timeouts = (0..3_u32).prop_map(|tcp| Timeouts {
            tcp,
            ..Timeouts::default()
        });
        let sysctl = (select(vec!["a", "b"]), select(vec!["0", "1"]));
        prop_oneof![
            3 => service.clone().prop_map(Entry::Service),
            2 => service.prop_map(Entry::Adopted),
            6 => destination.prop_map(|(key, last)| Entry::Destination(key, server(last))),
            2 => address.prop_map(|(address, on)| Entry::Address(ip(address), on.to_owned())),
            1 => timeouts.prop_map(Entry::Timeouts),
            1 => sysctl.prop_map(|(name, was)| Entry::Sysctl(name.to_owned(), was.to_owned())),
            1 => select(vec!["ipvs0", "ipvs1"]).prop_map(|name| Entry::Device(name.to_owned())),
        ]
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = (entry(), any::<bool>()).prop_map(|(entry, is_own)| match is_own {
            true => Change::Own(entry),
            false => Change::Disown(entry),
        });
        vec(change, 0..30)
    }

    fn after(before: &Remembered, changes: &[Change]) -> Remembered {
        let mut after = before.clone();
        changes.iter().for_each(|change| after.apply(change));
        after
    }

    proptest! {
        #[test]
        fn merged_changes_have_the_result_of_all_of_them(
            before in changes(),
            changes in changes(),
        ) {
            let before = after(&Remembered::default(), &before);
            let fewer = merged(changes.clone());
            prop_assert_eq!(after(&before, &fewer), after(&before, &changes));
            prop_assert!(fewer.len() <= 2 * 3 + 2 * 3 + 2 + 1 + 2 + 1, "{fewer:?}");
        }
    }

    #[test]
    fn entries_that_change_all_the_time_stay_few() {
        let mut unsettled = Unsettled::default();
        let (service, server) = (tcp("192.0.2.10", 80), server(1));
        for _ in 0..1000 {
            unsettled.add(Change::Disown(Entry::Destination(service, server)));
            unsettled.add(Change::Own(Entry::Destination(service, server)));
            unsettled.refused();
        }
        assert!(unsettled.changes().len() <= FEW + 2);
    }
}
