//! Delays removals that were allowed, until the clients of the entries have
//! finished. An object can also be deleted and created again without cutting a
//! connection. The code is pure: time is an argument, and counts from the
//! host's start.
//!
//! ```text
//! allowed     10 s later ([`GRACE`])         no connection left, or the period over
//!    │  server: weight 0    │                      │
//!    │  service: as before  │  all servers: 0      │ removed
//!    └──────────────────────┴──────────────────────┘
//! ```

use std::{collections::BTreeMap, time::Duration};

use ipvs::{DestinationConfig, Op, ServiceKey};

use crate::decide::departures::{Departure, Entry, GRACE};

/// The entries whose removal was allowed.
#[derive(Debug, Default)]
pub(super) struct Graces {
    entries: BTreeMap<Entry, Grace>,
    /// Whether the journal lacks a change of the departures.
    is_unsaved: bool,
}

#[derive(Clone, Copy, Debug)]
struct Grace {
    /// The entry's departure, or none if the removal was held again after it
    /// had been allowed.
    departure: Option<Departure>,
    /// Whether the entry may be removed.
    is_over: bool,
    /// Whether the entry has stayed for longer than [`GRACE`], because it has
    /// connections.
    has_stayed: bool,
    /// The configuration of a server before the grace set its weight to 0, or
    /// none if the previous run set it.
    before: Option<DestinationConfig>,
}

impl Graces {
    /// Takes the departures that the journal knows.
    pub(super) fn restore(&mut self, departures: &BTreeMap<Entry, Departure>) {
        for (entry, departure) in departures {
            let grace = Grace {
                departure: Some(*departure),
                is_over: false,
                has_stayed: false,
                before: None,
            };
            self.entries.entry(*entry).or_insert(grace);
        }
    }

    /// Forgets the entries for which `is_leaving` is false, because they are
    /// wanted again or no longer in the kernel.
    pub(super) fn forget_unless(&mut self, is_leaving: impl Fn(&Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry, _| is_leaving(entry));
        self.is_unsaved |= self.entries.len() != before;
    }

    /// Stops the graces of the entries for which `is_held` is true, because
    /// their removal is held again. A removal that is held again must be
    /// allowed once more.
    pub(super) fn stop_if(&mut self, is_held: impl Fn(&Entry) -> bool) {
        for (entry, grace) in &mut self.entries {
            if is_held(entry) {
                self.is_unsaved |= grace.departure.is_some();
                grace.departure = None;
                grace.is_over = false;
            }
        }
    }

    /// Begins the grace of an entry. `before` is the configuration of a server
    /// before the grace. If an earlier grace of the entry was stopped, the
    /// configuration from before the earlier grace stays recorded.
    pub(super) fn begin(
        &mut self,
        entry: Entry,
        before: Option<DestinationConfig>,
        departure: Departure,
    ) {
        let grace = self.entries.entry(entry).or_insert(Grace {
            departure: None,
            is_over: false,
            has_stayed: false,
            before,
        });
        grace.departure = Some(departure);
        grace.is_over = false;
        self.is_unsaved = true;
    }

    /// Replaces the periods of running graces. `period` returns none if the
    /// period of an entry stays.
    pub(super) fn set_periods(&mut self, period: impl Fn(&Entry) -> Option<Duration>) {
        for (entry, grace) in &mut self.entries {
            let Some(departure) = &mut grace.departure else {
                continue;
            };
            if let Some(period) = period(entry).filter(|period| *period != departure.period) {
                departure.period = period;
                self.is_unsaved = true;
            }
        }
    }

    /// Ends the graces that are over at `now`. `is_free` says whether an entry
    /// certainly has no connections. Returns the removals of the entries whose
    /// grace ended, sorted by the time at which each removal was allowed.
    pub(super) fn end(
        &mut self,
        is_free: impl Fn(&Entry) -> bool,
        now: Duration,
    ) -> Vec<(Duration, Op)> {
        let mut ended = Vec::new();
        for (entry, grace) in &mut self.entries {
            if let Some(departure) = grace.ends(entry, &is_free, now) {
                grace.is_over = true;
                ended.push((departure.since, removal(entry)));
            }
            let is_late = grace.departure.is_some_and(|it| it.since + GRACE <= now);
            grace.has_stayed |= is_late && !grace.is_over;
        }
        ended.sort_by_key(|(since, _)| *since);
        ended
    }

    /// Whether the removal of an entry was allowed and is not held again.
    pub(super) fn has_begun(&self, entry: &Entry) -> bool {
        self.departure(entry).is_some()
    }

    pub(super) fn departure(&self, entry: &Entry) -> Option<Departure> {
        self.entries.get(entry)?.departure
    }

    /// Whether the grace of an entry has ended.
    pub(super) fn is_over(&self, entry: &Entry) -> bool {
        let grace = self.entries.get(entry);
        grace.is_some_and(|grace| grace.is_over)
    }

    /// Whether an entry only waits for its clients to finish at `now`: it can no
    /// longer come back as if nothing had happened.
    pub(super) fn is_draining(&self, entry: &Entry, now: Duration) -> bool {
        let departure = self.departure(entry);
        departure.is_some_and(|departure| departure.since + GRACE <= now)
    }

    /// Whether any entry has stayed for its connections. Such an entry counts
    /// until it is gone.
    pub(super) fn has_any_stayed(&self) -> bool {
        let mut graces = self.entries.values();
        graces.any(|grace| grace.has_stayed && grace.departure.is_some())
    }

    /// Returns the configuration of a server before its grace, if this run
    /// began the grace.
    pub(super) fn before(&self, entry: &Entry) -> Option<DestinationConfig> {
        self.entries.get(entry)?.before
    }

    /// Returns the services (not their servers) whose grace may end at `now`.
    pub(super) fn ending(&self, now: Duration) -> impl Iterator<Item = ServiceKey> {
        let services = self.running();
        let services = services.filter(|((_, server), _)| server.is_none());
        let ending = services.filter(move |(_, departure)| departure.earliest() <= now);
        ending.map(|((service, _), _)| *service)
    }

    /// Returns the entries that are in their grace.
    pub(super) fn running(&self) -> impl Iterator<Item = (&Entry, Departure)> {
        let running = self.entries.iter().filter(|(_, grace)| !grace.is_over);
        running.filter_map(|(entry, grace)| Some((entry, grace.departure?)))
    }

    /// Returns the removals that were allowed, whether the grace of their
    /// entries is over or not.
    pub(super) fn begun(&self) -> impl Iterator<Item = (&Entry, Departure)> {
        let entries = self.entries.iter();
        entries.filter_map(|(entry, grace)| Some((entry, grace.departure?)))
    }

    /// Returns when the next grace ends, or begins to end for an entry without
    /// connections.
    pub(super) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let times = self.running().map(|(_, departure)| {
            let (earliest, latest) = (departure.earliest(), departure.latest());
            if earliest > now { earliest } else { latest }
        });
        times.min()
    }

    /// Whether the grace of any entry could end at `now`, according to
    /// `is_free`.
    pub(super) fn is_any_over(&self, is_free: impl Fn(&Entry) -> bool, now: Duration) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|(entry, grace)| grace.ends(entry, &is_free, now).is_some())
    }

    /// Returns the departures for the journal, if it lacks a change.
    pub(super) fn is_unsaved(&self) -> bool {
        self.is_unsaved
    }

    pub(super) fn saved(&mut self) {
        self.is_unsaved = false;
    }
}

impl Grace {
    /// Returns the entry's departure if its grace is due to end at `now`.
    fn ends(
        &self,
        entry: &Entry,
        is_free: &impl Fn(&Entry) -> bool,
        now: Duration,
    ) -> Option<Departure> {
        let departure = self.departure.filter(|_| !self.is_over)?;
        let is_due = departure.latest() <= now || departure.earliest() <= now && is_free(entry);
        is_due.then_some(departure)
    }
}

pub(super) fn removal((service, server): &Entry) -> Op {
    match server {
        None => Op::DeleteService(*service),
        Some(server) => Op::DeleteDestination(*service, *server),
    }
}
