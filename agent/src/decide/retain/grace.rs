//! Delays removals that were allowed. An object can therefore be deleted and
//! created again without cutting a connection. The code is pure: time is an
//! argument.

use std::{collections::BTreeMap, time::Duration};

use ipvs::{DestinationConfig, DestinationKey, Op, ServiceKey};

/// How long an entry stays in the kernel after its removal was allowed. During
/// this time, a service serves normally, and a server has weight 0.
pub const GRACE: Duration = Duration::from_secs(10);

/// A service, or a server in a service.
pub(super) type Entry = (ServiceKey, Option<DestinationKey>);

/// The entries whose removal was allowed, each with the start time of its
/// grace.
#[derive(Debug)]
pub(super) struct Graces {
    length: Duration,
    entries: BTreeMap<Entry, Grace>,
}

#[derive(Clone, Copy, Debug)]
struct Grace {
    /// When the entry's removal was allowed, or none if the removal was held
    /// again afterwards.
    since: Option<Duration>,
    /// Whether the entry's grace has ended and the entry may be removed.
    is_over: bool,
    /// The configuration of a server before the grace set its weight to 0.
    before: Option<DestinationConfig>,
}

impl Grace {
    /// Returns when the grace began, if the grace is due to end at `now`. A
    /// grace lasts for `length`.
    fn ends(&self, length: Duration, now: Duration) -> Option<Duration> {
        let since = self.since.filter(|_| !self.is_over);
        since.filter(|since| *since + length <= now)
    }
}

impl Graces {
    /// Returns an empty set of graces. Each grace lasts for `length`.
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            entries: BTreeMap::new(),
        }
    }

    /// Forgets the entries for which `is_leaving` is false, because they are
    /// wanted again or no longer in the kernel.
    pub(super) fn forget_unless(&mut self, is_leaving: impl Fn(&Entry) -> bool) {
        self.entries.retain(|entry, _| is_leaving(entry));
    }

    /// Stops the graces of the entries for which `is_held` is true, because
    /// their removal is held again. A removal that is held again must be
    /// allowed once more.
    pub(super) fn stop_if(&mut self, is_held: impl Fn(&Entry) -> bool) {
        for (entry, grace) in &mut self.entries {
            if is_held(entry) {
                grace.since = None;
                grace.is_over = false;
            }
        }
    }

    /// Begins the grace of an entry at `now`. `before` is the configuration of
    /// a server before the grace. If an earlier grace of the entry was stopped,
    /// the configuration from before the earlier grace stays recorded.
    pub(super) fn begin(&mut self, entry: Entry, before: Option<DestinationConfig>, now: Duration) {
        let grace = self.entries.entry(entry).or_insert(Grace {
            since: None,
            is_over: false,
            before,
        });
        grace.since = Some(now);
        grace.is_over = false;
    }

    /// Ends the graces that are over at `now`. Returns the removals of the
    /// entries whose grace ended, sorted by the time at which each removal was
    /// allowed.
    pub(super) fn end(&mut self, now: Duration) -> Vec<(Duration, Op)> {
        let length = self.length;
        let mut ended = Vec::new();
        for (entry, grace) in &mut self.entries {
            if let Some(since) = grace.ends(length, now) {
                grace.is_over = true;
                ended.push((since, removal(entry)));
            }
        }
        ended.sort_by_key(|(since, _)| *since);
        ended
    }

    /// Whether the removal of an entry was allowed and is not held again.
    pub(super) fn has_begun(&self, entry: &Entry) -> bool {
        let grace = self.entries.get(entry);
        grace.is_some_and(|grace| grace.since.is_some())
    }

    /// Whether the grace of an entry has ended.
    pub(super) fn is_over(&self, entry: &Entry) -> bool {
        let grace = self.entries.get(entry);
        grace.is_some_and(|grace| grace.is_over)
    }

    /// Returns the configuration of a server before its grace, if a grace has
    /// begun or was stopped.
    pub(super) fn before(&self, entry: &Entry) -> Option<DestinationConfig> {
        self.entries.get(entry)?.before
    }

    /// Returns the services (not their servers) whose grace ends at `now`.
    pub(super) fn ending(&self, now: Duration) -> impl Iterator<Item = ServiceKey> {
        let services = self.entries.iter();
        let services = services.filter(|((_, server), _)| server.is_none());
        let ending = services.filter(move |(_, grace)| grace.ends(self.length, now).is_some());
        ending.map(|((service, _), _)| *service)
    }

    /// Returns the removals of the entries that are in their grace.
    pub(super) fn running(&self) -> impl Iterator<Item = Op> {
        let is_running = |grace: &Grace| grace.since.is_some() && !grace.is_over;
        let running = self
            .entries
            .iter()
            .filter(move |(_, grace)| is_running(grace));
        running.map(|(entry, _)| removal(entry))
    }

    /// Returns the removals that were allowed, whether the grace of their
    /// entries is over or not.
    pub(super) fn begun(&self) -> impl Iterator<Item = Op> {
        let begun = self.entries.keys().filter(|entry| self.has_begun(entry));
        begun.map(removal)
    }

    /// Returns when the next grace ends.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let running = self.entries.values().filter(|grace| !grace.is_over);
        let ends = running.filter_map(|grace| grace.since);
        ends.map(|since| since + self.length).min()
    }
}

fn removal((service, server): &Entry) -> Op {
    match server {
        None => Op::DeleteService(*service),
        Some(server) => Op::DeleteDestination(*service, *server),
    }
}
