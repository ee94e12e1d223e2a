//! Decides which directors are alive.
//!
//! Every director renews a Lease that has the director's name. A renewal counts
//! from the time when the controller *sees* it. The controller measures this
//! time by its own clock, because other machines' clocks may be wrong. While
//! the controller sees no events at all, no director is declared dead.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The duration of a Lease that has no leaseDurationSeconds.
pub const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(40);

/// If no event of any Lease arrives within this time, the watch of Leases is
/// considered broken. The leader renews its Lease at shorter intervals, so a
/// working watch is never silent for this long.
pub const BLIND_AFTER: Duration = Duration::from_secs(25);

/// A point in time: the time since the process started, by the monotonic clock.
pub type Time = Duration;

/// The parts of a Lease that its director writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Renewal {
    /// The Lease's renewTime as its holder wrote it. The controller shows the
    /// renewTime to users, and never compares it with a clock. Only a changed
    /// renewTime is a renewal: a new label on the Lease, for example, is not.
    pub renew_time: Option<String>,
    /// The Lease's leaseDurationSeconds.
    pub duration: Option<Duration>,
    /// The annotation [`crds::api::REPORT_REFUSED`], if the Lease has it.
    pub refused: Option<String>,
}

/// Whether a director is alive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Life {
    /// A renewal of the director's Lease was seen, and the Lease has not
    /// expired.
    Alive,
    /// The controller has not watched long enough to know whether the director
    /// is alive. Nothing shows that the director is dead.
    Presumed,
    /// The director's Lease has expired since its last renewal.
    Expired {
        /// The last renewTime, as the director wrote it.
        last: Option<String>,
        /// The duration of the expired Lease.
        duration: Duration,
    },
    /// The director has no Lease.
    NoLease,
}

impl Life {
    /// Whether the director counts as live. Reports of other directors do not
    /// count, and no condition waits for them.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Alive | Self::Presumed)
    }
}

/// Follows the Leases of all directors. This type reads no clock: callers pass
/// the time as `now`.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    directors: BTreeMap<String, Watched>,
    leases: BTreeMap<String, Renewal>,
    /// When each director's Lease expires. A fleet renews a hundred Leases a
    /// second, so no renewal may look at every director.
    deadlines: BTreeSet<(Time, String)>,
    /// The directors whose lives may have changed since the last call of
    /// [`Liveness::suspects`].
    touched: BTreeSet<String>,
    /// Deadlines up to this time were in a result of [`Liveness::suspects`].
    suspected_until: Time,
    listed: bool,
    last_event: Time,
    blind_since: Option<Time>,
    /// Whether another watch of Leases is broken, so that no event shows that
    /// every renewal can be seen.
    partly_blind: bool,
}

#[derive(Clone, Debug)]
struct Watched {
    /// The time from which the Lease's duration counts. The duration starts
    /// again when a renewal is seen, when the director is first seen, and when
    /// a broken watch works again.
    since: Time,
    evidence: Evidence,
    /// When the director is declared dead, as in [`Liveness::deadlines`].
    /// `None` if it was dead from the start.
    deadline: Option<Time>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Evidence {
    /// A renewal of the director's Lease was seen.
    Renewed,
    /// The director exists, but no renewal of its Lease was seen yet.
    Presumed,
    /// The Director's published status says that the director is dead, and no
    /// renewal of its Lease was seen yet.
    Dead,
}

impl Liveness {
    /// Adds a director, if it is not known yet. `reported_dead` says whether
    /// the director's published status reports it dead.
    pub fn director(&mut self, name: &str, reported_dead: bool, now: Time) {
        if self.directors.contains_key(name) {
            return;
        }
        let evidence = match reported_dead {
            true => Evidence::Dead,
            false => Evidence::Presumed,
        };
        let watched = Watched {
            since: now,
            evidence,
            deadline: None,
        };
        self.directors.insert(name.to_owned(), watched);
        self.schedule(name);
    }

    /// Forgets a deleted director.
    pub fn director_gone(&mut self, name: &str) {
        let gone = self.directors.remove(name);
        if let Some(deadline) = gone.and_then(|gone| gone.deadline) {
            self.deadlines.remove(&(deadline, name.to_owned()));
        }
        self.touched.remove(name);
    }

    /// Records a Lease that the watch showed.
    pub fn lease(&mut self, name: &str, renewal: Renewal, now: Time) {
        self.see(now);
        // A Lease in the first listing may be old, so it does not count as
        // renewed.
        let renewed = renewal.renew_time.is_some()
            && match self.leases.get(name) {
                Some(before) => before.renew_time != renewal.renew_time,
                None => self.listed,
            };
        if renewed && let Some(watched) = self.directors.get_mut(name) {
            watched.since = now;
            watched.evidence = Evidence::Renewed;
        }
        self.leases.insert(name.to_owned(), renewal);
        self.schedule(name);
    }

    /// Forgets a deleted Lease. The Lease's director stays live for
    /// [`DEFAULT_LEASE_DURATION`] after the last renewal.
    pub fn lease_gone(&mut self, name: &str, now: Time) {
        self.see(now);
        self.leases.remove(name);
        self.schedule(name);
    }

    /// Records a complete listing of Leases; `names` are the names of all
    /// Leases.
    pub fn leases_listed<'a>(&mut self, names: impl Iterator<Item = &'a str>, now: Time) {
        self.see(now);
        self.listed = true;
        let there: BTreeSet<&str> = names.collect();
        let gone = |name: &&String| !there.contains(name.as_str());
        let gone: Vec<String> = self.leases.keys().filter(gone).cloned().collect();
        for name in gone {
            self.leases.remove(&name);
            self.schedule(&name);
        }
    }

    /// Records that a watch of Leases failed.
    pub fn blind(&mut self, now: Time) {
        self.blind_since.get_or_insert(now);
    }

    /// Says whether one watch of Leases is still broken while another one shows
    /// events. Until none is, no director is declared dead, and events cost no
    /// more than otherwise.
    pub fn set_partly_blind(&mut self, partly_blind: bool) {
        self.partly_blind = partly_blind;
    }

    /// Whether a director is alive. Returns [`Life::NoLease`] if no Director of
    /// this name is known.
    pub fn life(&self, name: &str, now: Time) -> Life {
        let Some(watched) = self.directors.get(name) else {
            return Life::NoLease;
        };
        let lease = self.leases.get(name);
        let duration = duration(lease);
        let seeing = self.seeing(now);
        let counts = watched.deadline.is_some_and(|deadline| seeing < deadline);
        match (counts, lease) {
            (true, Some(_)) if watched.evidence == Evidence::Renewed => Life::Alive,
            (true, _) => Life::Presumed,
            (false, Some(lease)) => Life::Expired {
                last: lease.renew_time.clone(),
                duration,
            },
            (false, None) => Life::NoLease,
        }
    }

    /// Since when and why the API server refuses a director's report, in the
    /// agent's words. `None` if it accepts the report.
    pub fn refused(&self, name: &str) -> Option<&str> {
        self.leases.get(name)?.refused.as_deref()
    }

    /// The time at which the next director is declared dead if no renewal is
    /// seen. Returns `None` while the watch is broken, because a broken watch
    /// cannot show that a director is dead.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.seeing(now) < now {
            return None;
        }
        let mut later = self.deadlines.range((now, String::new())..);
        later.find(|(at, _)| *at > now).map(|(at, _)| *at)
    }

    /// Returns the directors whose [`Liveness::life`] or
    /// [`Liveness::refused`] may have changed since the last call.
    pub fn suspects(&mut self, now: Time) -> BTreeSet<String> {
        let mut suspects = std::mem::take(&mut self.touched);
        let seeing = self.seeing(now);
        let later = self
            .deadlines
            .range((self.suspected_until, String::new())..);
        let expired = later.take_while(|(at, _)| *at <= seeing);
        suspects.extend(expired.map(|(_, name)| name.clone()));
        self.suspected_until = self.suspected_until.max(seeing);
        suspects
    }

    /// Computes the deadline of a director again, and makes the director a
    /// suspect.
    fn schedule(&mut self, name: &str) {
        let Some(watched) = self.directors.get_mut(name) else {
            return;
        };
        let deadline = (watched.evidence != Evidence::Dead)
            .then(|| watched.since + duration(self.leases.get(name)));
        let before = std::mem::replace(&mut watched.deadline, deadline);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, name.to_owned()));
            }
            self.deadlines
                .extend(deadline.map(|deadline| (deadline, name.to_owned())));
        }
        self.touched.insert(name.to_owned());
    }

    /// The last time at which the watch of Leases worked; `now` if the watch
    /// works.
    fn seeing(&self, now: Time) -> Time {
        let until = now.min(self.last_event + BLIND_AFTER);
        self.blind_since.map_or(until, |blind| until.min(blind))
    }

    /// Records that the watch works. If the watch was broken, every live
    /// director gets a whole new Lease duration. The API server may have been
    /// out of reach for the directors too.
    fn see(&mut self, now: Time) {
        if self.partly_blind {
            return;
        }
        let seeing = self.seeing(now);
        if seeing < now {
            let alive = self.deadlines.iter().filter(|(at, _)| *at > seeing);
            let alive: Vec<String> = alive.map(|(_, name)| name.clone()).collect();
            for name in alive {
                if let Some(watched) = self.directors.get_mut(&name) {
                    watched.since = now;
                }
                self.schedule(&name);
            }
        }
        self.blind_since = None;
        self.last_event = now;
    }
}

fn duration(lease: Option<&Renewal>) -> Duration {
    lease
        .and_then(|lease| lease.duration)
        .unwrap_or(DEFAULT_LEASE_DURATION)
}

#[cfg(test)]
mod tests;
