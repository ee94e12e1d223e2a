//! Delays removals until a look at the cluster has ended. A look reads the
//! cluster and our custom resource definitions ([`crate::input::look`]). An
//! entry that leaves because of a deletion or a listing waits for a look that
//! began afterwards. Each entry waits for its own look: later deletions delay
//! neither an earlier removal nor its grace. The code is pure: it does no I/O.

use std::collections::BTreeMap;

use crate::decide::departures::Entry;

/// The numbers of the looks that removals wait for. All numbers are 0 if the
/// agent uses no API server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClusterLooks {
    /// The look that the last deletion or listing waits for.
    awaited: u64,
    /// The look that the last listing waits for.
    listing: u64,
    /// The last look that has ended.
    ended: u64,
}

impl ClusterLooks {
    /// Notes that removals must wait for the given look. `is_listing` says
    /// whether the reason is a complete listing.
    pub fn wait_for(&mut self, look: u64, is_listing: bool) {
        self.awaited = self.awaited.max(look);
        if is_listing {
            self.listing = self.listing.max(look);
        }
    }

    /// Notes that a look has ended. Returns whether anything waited for it.
    pub fn end(&mut self, look: u64) -> bool {
        let before = self.ended;
        self.ended = before.max(look);
        self.awaited > before
    }

    /// Whether the look that the last listing waits for has not ended. Until
    /// then, it is not known which cluster returned the listing.
    pub fn awaits_listing(&self) -> bool {
        self.listing > self.ended
    }

    /// Whether any look is awaited.
    pub(super) fn awaits_any(&self) -> bool {
        self.awaited > self.ended
    }
}

/// The entries that are no longer wanted, each with the look that its removal
/// waits for.
#[derive(Debug, Default)]
pub(super) struct Waits(BTreeMap<Entry, u64>);

impl Waits {
    /// Notes which entries are leaving. An entry that was not leaving before
    /// waits for the look that is awaited now.
    pub(super) fn note(&mut self, leaving: impl Iterator<Item = Entry>, looks: ClusterLooks) {
        let before = std::mem::take(&mut self.0);
        let look = |entry: &Entry| before.get(entry).copied().unwrap_or(looks.awaited);
        self.0 = leaving.map(|entry| (entry, look(&entry))).collect();
    }

    /// Forgets which looks the entries wait for.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the removal of an entry waits for a look that has not ended.
    pub(super) fn has(&self, entry: &Entry, looks: ClusterLooks) -> bool {
        self.0.get(entry).is_some_and(|look| *look > looks.ended)
    }
}
