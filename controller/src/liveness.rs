//! Decides which directors are alive.
//!
//! Every director renews a Lease that has the director's name. A renewal counts
//! from the time when the controller *sees* it. The controller measures this
//! time by its own clock, because other machines' clocks may be wrong. While
//! the controller sees no events at all, no director is declared dead.

use std::{collections::BTreeMap, time::Duration};

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
    listed: bool,
    last_event: Time,
    blind_since: Option<Time>,
}

#[derive(Clone, Debug)]
struct Watched {
    /// The time from which the Lease's duration counts. The duration starts
    /// again when a renewal is seen, when the director is first seen, and when
    /// a broken watch works again.
    since: Time,
    evidence: Evidence,
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
        self.directors
            .entry(name.to_owned())
            .or_insert_with(|| Watched {
                since: now,
                evidence: if reported_dead {
                    Evidence::Dead
                } else {
                    Evidence::Presumed
                },
            });
    }

    /// Forgets a deleted director.
    pub fn director_gone(&mut self, name: &str) {
        self.directors.remove(name);
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
            *watched = Watched {
                since: now,
                evidence: Evidence::Renewed,
            };
        }
        self.leases.insert(name.to_owned(), renewal);
    }

    /// Forgets a deleted Lease. The Lease's director stays live for
    /// [`DEFAULT_LEASE_DURATION`] after the last renewal.
    pub fn lease_gone(&mut self, name: &str, now: Time) {
        self.see(now);
        self.leases.remove(name);
    }

    /// Records a complete listing of Leases; `names` are the names of all
    /// Leases.
    pub fn leases_listed<'a>(&mut self, names: impl Iterator<Item = &'a str>, now: Time) {
        self.see(now);
        self.listed = true;
        let there: std::collections::BTreeSet<&str> = names.collect();
        self.leases.retain(|name, _| there.contains(name.as_str()));
    }

    /// Records that the watch of Leases failed.
    pub fn blind(&mut self, now: Time) {
        self.blind_since.get_or_insert(now);
    }

    /// Whether a director is alive. Returns [`Life::NoLease`] if no Director of
    /// this name is known.
    pub fn life(&self, name: &str, now: Time) -> Life {
        let Some(watched) = self.directors.get(name) else {
            return Life::NoLease;
        };
        let lease = self.leases.get(name);
        let duration = duration(lease);
        let counts = watched.evidence != Evidence::Dead
            && self.seeing(now).saturating_sub(watched.since) < duration;
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
        self.directors
            .iter()
            .filter(|(name, _)| self.life(name, now).is_live())
            .map(|(name, watched)| watched.since + duration(self.leases.get(name)))
            .min()
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
        let seeing = self.seeing(now);
        if seeing < now {
            let alive: Vec<String> = self
                .directors
                .keys()
                .filter(|name| self.life(name, now).is_live())
                .cloned()
                .collect();
            for name in alive {
                if let Some(watched) = self.directors.get_mut(&name) {
                    watched.since = now;
                }
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
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    fn renewal(number: u64) -> Renewal {
        Renewal {
            renew_time: Some(format!("renewed-{number}")),
            duration: Some(s(40)),
            refused: None,
        }
    }

    /// Returns a `Liveness` that saw director `a` and its Lease at second 0, in
    /// the first listing.
    fn started(reported_dead: bool) -> Liveness {
        let mut liveness = Liveness::default();
        liveness.director("a", reported_dead, s(0));
        liveness.lease("a", renewal(1), s(0));
        liveness.leases_listed(["a"].into_iter(), s(0));
        liveness
    }

    /// Renews other Leases, so that the watch is not considered broken.
    fn others(liveness: &mut Liveness, seconds: std::ops::RangeInclusive<u64>) {
        for second in seconds.step_by(5) {
            liveness.lease("other", renewal(second + 1000), s(second));
        }
    }

    fn expired() -> Life {
        Life::Expired {
            last: Some("renewed-1".to_owned()),
            duration: s(40),
        }
    }

    #[test]
    fn right_after_start_a_director_is_presumed_alive_until_its_time_has_passed() {
        let mut liveness = started(false);
        others(&mut liveness, 5..=40);
        assert_eq!(liveness.life("a", s(39)), Life::Presumed);
        assert_eq!(liveness.next_deadline(s(39)), Some(s(40)));
        assert_eq!(liveness.life("a", s(40)), expired());
        assert_eq!(liveness.next_deadline(s(40)), None);
    }

    #[test]
    fn a_director_reported_dead_stays_so_until_it_renews() {
        let mut liveness = started(true);
        assert_eq!(liveness.life("a", s(1)), expired());
        liveness.lease("a", renewal(1), s(2));
        assert_eq!(liveness.life("a", s(2)), expired());
        liveness.lease("a", renewal(2), s(3));
        assert_eq!(liveness.life("a", s(3)), Life::Alive);
    }

    #[test]
    fn a_write_to_a_lease_that_renews_nothing_brings_nobody_back() {
        let mut liveness = started(true);
        let longer = Renewal {
            duration: Some(s(60)),
            ..renewal(1)
        };
        liveness.lease("a", longer, s(2));
        assert!(!liveness.life("a", s(2)).is_live());
        let emptied = Renewal {
            renew_time: None,
            duration: None,
            refused: None,
        };
        liveness.lease("a", emptied, s(3));
        assert!(!liveness.life("a", s(3)).is_live());
    }

    #[test]
    fn every_renewal_counts_from_when_it_is_seen() {
        let mut liveness = started(false);
        liveness.lease("a", renewal(2), s(10));
        assert_eq!(liveness.life("a", s(10)), Life::Alive);
        others(&mut liveness, 15..=50);
        assert_eq!(liveness.life("a", s(49)), Life::Alive);
        assert!(!liveness.life("a", s(50)).is_live());
    }

    #[test]
    fn a_lease_that_is_made_while_watching_is_a_renewal() {
        let mut liveness = Liveness::default();
        liveness.director("a", true, s(0));
        liveness.leases_listed(std::iter::empty(), s(0));
        assert_eq!(liveness.life("a", s(1)), Life::NoLease);
        liveness.lease("a", renewal(1), s(2));
        assert_eq!(liveness.life("a", s(2)), Life::Alive);
    }

    #[test]
    fn a_director_without_a_lease_dies_after_the_same_time() {
        let mut liveness = Liveness::default();
        liveness.leases_listed(std::iter::empty(), s(0));
        liveness.director("a", false, s(0));
        others(&mut liveness, 5..=45);
        assert_eq!(liveness.life("a", s(39)), Life::Presumed);
        assert_eq!(liveness.life("a", s(40)), Life::NoLease);
    }

    #[test]
    fn a_shorter_lease_counts_shorter() {
        let mut liveness = started(false);
        let short = Renewal {
            duration: Some(s(5)),
            ..renewal(2)
        };
        liveness.lease("a", short, s(1));
        assert!(liveness.life("a", s(5)).is_live());
        assert!(!liveness.life("a", s(6)).is_live());
    }

    #[test]
    fn while_the_watch_is_broken_nobody_dies() {
        let mut liveness = started(false);
        liveness.lease("a", renewal(2), s(1));
        liveness.blind(s(10));
        assert_eq!(liveness.life("a", s(1000)), Life::Alive);
        assert_eq!(liveness.next_deadline(s(1000)), None);
        // The watch works again, so director `a` gets a whole Lease duration
        // from now.
        others(&mut liveness, 1000..=1040);
        assert_eq!(liveness.life("a", s(1039)), Life::Alive);
        assert!(!liveness.life("a", s(1040)).is_live());
    }

    #[test]
    fn a_watch_that_shows_nothing_at_all_is_taken_for_broken() {
        let mut liveness = started(false);
        liveness.lease("a", renewal(2), s(1));
        assert_eq!(liveness.life("a", s(1000)), Life::Alive);
        assert_eq!(liveness.next_deadline(s(26)), Some(s(41)));
        assert_eq!(liveness.next_deadline(s(27)), None);
        liveness.lease("a", renewal(3), s(1000));
        assert_eq!(liveness.life("a", s(1001)), Life::Alive);
    }

    #[test]
    fn the_dead_do_not_rise_because_sight_is_back() {
        let mut liveness = started(false);
        others(&mut liveness, 5..=45);
        assert!(!liveness.life("a", s(45)).is_live());
        liveness.blind(s(46));
        liveness.leases_listed(["a", "other"].into_iter(), s(100));
        assert!(!liveness.life("a", s(100)).is_live());
    }

    #[test]
    fn a_deleted_lease_is_none() {
        let mut liveness = started(false);
        liveness.lease("a", renewal(2), s(1));
        liveness.lease_gone("a", s(2));
        assert_eq!(liveness.life("a", s(2)), Life::Presumed);
        others(&mut liveness, 5..=45);
        assert_eq!(liveness.life("a", s(41)), Life::NoLease);
    }
}
