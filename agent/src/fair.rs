//! Divides the space of a list in the Director's status fairly among
//! namespaces. No namespace's entries can take another namespace's share of the
//! space.

use std::{
    collections::{BTreeSet, HashMap},
    io,
};

use crds::fair_limit;
use serde::Serialize;

/// The maximum number of namespaces that [`names`] returns.
const MOST_NAMES: usize = 200;

/// The size limits of a list in the Director's status.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The maximum size of all entries of the list together, in bytes of JSON.
    pub bytes: usize,
    /// The maximum number of entries of each namespace in the list.
    pub each: usize,
}

/// The entries that one namespace wants to have in a list.
#[derive(Default)]
struct Demand {
    entries: usize,
    bytes: usize,
}

/// Separates the entries that fit into the list from the entries that are left
/// out. Each namespace's first entries are kept, up to the namespace's fair
/// share of the bytes ([`fair_limit`]). If bytes remain, each further entry
/// that fits is kept, in the order of `entries`.
pub fn keep<T: Serialize>(
    entries: Vec<T>,
    namespace: impl Fn(&T) -> &str,
    room: Room,
) -> (Vec<T>, Vec<T>) {
    let mut demands: HashMap<&str, Demand> = HashMap::new();
    let sizes = entries.iter().map(|entry| {
        let demand = demands.entry(namespace(entry)).or_default();
        demand.entries += 1;
        if demand.entries > room.each {
            return None;
        }
        let bytes = json_size(entry);
        demand.bytes += bytes;
        Some(bytes)
    });
    let sizes: Vec<Option<usize>> = sizes.collect();
    let wanted = demands.values().map(|demand| demand.bytes as u64);
    let limit = fair_limit(wanted, room.bytes as u64);
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let mut used: HashMap<&str, usize> = HashMap::new();
    let is_kept = entries.iter().zip(&sizes).map(|(entry, size)| {
        let used = used.entry(namespace(entry)).or_default();
        let after = size.and_then(|size| used.checked_add(size));
        let after = after.filter(|after| *after <= limit);
        // After an entry that does not fit, the namespace's later entries are
        // left out too.
        *used = after.unwrap_or(usize::MAX);
        after.is_some()
    });
    let mut is_kept: Vec<bool> = is_kept.collect();
    let kept = sizes.iter().zip(&is_kept).filter(|(_, is_kept)| **is_kept);
    let kept: usize = kept.filter_map(|(size, _)| *size).sum();
    let mut left = room.bytes - kept;
    for (size, is_kept) in sizes.iter().zip(&mut is_kept) {
        if let (Some(size), false) = (*size, *is_kept)
            && size <= left
        {
            left -= size;
            *is_kept = true;
        }
    }
    let mut is_kept = is_kept.into_iter();
    let is_kept = |_: &T| is_kept.next().expect("each entry was looked at");
    entries.into_iter().partition(is_kept)
}

/// Returns the namespaces of the entries that were left out. If there are more
/// than `MOST_NAMES` such namespaces, returns an empty list. In that case,
/// entries of any namespace may be missing from the status.
pub fn names<'a>(namespaces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names = namespaces.into_iter().filter(|name| !name.is_empty());
    let names: BTreeSet<&str> = names.collect();
    match names.len() <= MOST_NAMES {
        true => names.into_iter().map(str::to_owned).collect(),
        false => Vec::new(),
    }
}

/// Returns the size of a list's entry as JSON in bytes, including the comma.
fn json_size(entry: &impl Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(1);
    serde_json::to_writer(&mut counter, entry).expect("an entry of a status is JSON");
    counter.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize)]
    struct Entry(String);

    /// An entry that takes 100 bytes: a text in quotes, and a comma.
    fn entry(namespace: &str, number: usize) -> Entry {
        Entry(format!("{:97}", format!("{namespace}/{number}")))
    }

    fn entries(namespace: &str, count: usize) -> Vec<Entry> {
        (0..count).map(|number| entry(namespace, number)).collect()
    }

    fn namespace(entry: &Entry) -> &str {
        entry.0.split_once('/').expect("namespace/number").0
    }

    #[test]
    fn of_a_namespace_with_very_many_entries_the_first_are_kept_and_all_of_the_others() {
        let room = Room {
            bytes: 1000,
            each: 200,
        };
        let evil = entries("evil", 500);
        let all = [evil.clone(), entries("shop", 3), entries("bank", 1)].concat();
        let (kept, left_out) = keep(all, namespace, room);
        assert_eq!(
            kept,
            [&evil[..6], &entries("shop", 3), &entries("bank", 1)].concat()
        );
        assert_eq!(left_out, evil[6..]);
        assert_eq!(names(left_out.iter().map(namespace)), ["evil"]);
    }

    #[test]
    fn a_namespace_has_no_more_entries_than_each_may_even_if_there_is_room() {
        let room = Room {
            bytes: 1_000_000,
            each: 2,
        };
        let (kept, left_out) = keep(entries("shop", 3), namespace, room);
        assert_eq!((kept.len(), left_out.len()), (2, 1));
    }

    #[test]
    fn an_entry_that_is_larger_than_all_room_hides_nothing_of_another_namespace() {
        let room = Room {
            bytes: 1000,
            each: 200,
        };
        let large = Entry(format!("evil/{}", "x".repeat(5000)));
        let all = [vec![large.clone()], entries("shop", 4)].concat();
        let (kept, left_out) = keep(all, namespace, room);
        assert_eq!(kept, entries("shop", 4));
        assert_eq!(left_out, [large]);
    }

    #[test]
    fn shares_that_are_smaller_than_an_entry_leave_no_room_unused() {
        let room = Room {
            bytes: 1000,
            each: 200,
        };
        let all = (0..50).flat_map(|number| entries(&format!("n{number}"), 1));
        let (kept, left_out) = keep(all.collect(), namespace, room);
        assert_eq!((kept.len(), left_out.len()), (10, 40));
    }

    #[test]
    fn more_namespaces_than_can_be_named_are_none() {
        let all: Vec<_> = (0..=MOST_NAMES)
            .map(|number| format!("n{number}"))
            .collect();
        let some = names(all[1..].iter().map(String::as_str));
        assert_eq!(some.len(), MOST_NAMES);
        assert_eq!(names(all.iter().map(String::as_str)), [""; 0]);
    }

    proptest! {
        #[test]
        fn what_is_kept_has_room_and_what_fits_into_an_equal_part_is_kept(
            counts in prop::collection::vec(0_usize..40, 1..10),
            bytes in 0_usize..5000,
        ) {
            let all: Vec<_> = counts
                .iter()
                .enumerate()
                .flat_map(|(number, count)| entries(&format!("n{number}"), *count))
                .collect();
            let (kept, left_out) = keep(all.clone(), namespace, Room { bytes, each: 30 });
            prop_assert_eq!(kept.len() + left_out.len(), all.len());
            let size: usize = kept.iter().map(json_size).sum();
            prop_assert!(size <= bytes, "{} of {}", size, bytes);
            for (number, count) in counts.iter().enumerate() {
                let name = format!("n{number}");
                let of_it = kept.iter().filter(|entry| namespace(entry) == name).count();
                if *count <= 30 && count * 100 <= bytes / counts.len() {
                    prop_assert_eq!(of_it, *count, "{} is within its share", name);
                }
            }
        }
    }
}
