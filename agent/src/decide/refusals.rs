//! Remembers which entries were refused because they would harm the director.
//! The code is pure: time is an argument.
//!
//! The reason for a refusal can be absent for a moment: a program restarts and
//! does not listen for a second, or the host's programs start after the agent.
//! Once admitted, an entry stays in the kernel. So a short absence of the
//! reason must not admit the entry. A refusal therefore lasts until its reason
//! has been absent for [`QUIET`], or until the DirectorGroup grants exactly the
//! address. The refusal belongs to the entry's key, so the refusal survives the
//! deletion of the object.
//!
//! ```text
//! facts ─▶ reason for each key ─▶ Refusals::look ─▶ waiting entries ─▶ protect::judge
//!                                 Refusals::record ◀──────── refused, admitted ◀┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipvs::{DestinationKey, ServiceKey};

/// How long the reason for a refusal must be absent before the refusal ends.
pub const QUIET: Duration = Duration::from_secs(600);
/// The time between two looks at the host counts toward [`QUIET`]. Of a longer
/// gap between two looks, only this much counts, because the state of the host
/// in the gap is unknown.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// During this time after the host's start, new services may conflict with
/// programs that have not started yet.
pub const AFTER_BOOT: Duration = Duration::from_secs(600);

/// A service, or a server of a service.
pub type Entry = (ServiceKey, Option<DestinationKey>);

/// The refused entries, each with the reason in words.
pub type Refused = BTreeMap<Entry, String>;

/// Whether a look at the host found the reason for a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The reason for the refusal holds.
    Present,
    /// The reason for the refusal does not hold.
    Absent,
    /// The agent could not look at the host.
    Unknown,
}

#[derive(Clone, Debug)]
struct Refusal {
    why: String,
    /// How long the reason for the refusal has been absent, according to the
    /// looks at the host.
    absent_for: Duration,
    /// The time of the last look at the host, if the reason was absent at that
    /// look.
    seen_absent: Option<Duration>,
}

/// The refused entries that the agent remembers.
#[derive(Debug, Default)]
pub struct Refusals {
    entries: BTreeMap<Entry, Refusal>,
    /// The services that were in force before the host's last start, or none if
    /// the journal knows no earlier start.
    before_boot: Option<BTreeSet<ServiceKey>>,
    is_unsaved: bool,
}

impl Refusals {
    /// Adds the refusals that the journal records. For each refusal, the wait
    /// of [`QUIET`] begins again.
    pub fn remember(&mut self, refused: Refused, before_boot: Option<BTreeSet<ServiceKey>>) {
        self.is_unsaved |= !self.entries.is_empty();
        for (entry, why) in refused {
            self.entries.entry(entry).or_insert(Refusal {
                why,
                absent_for: Duration::ZERO,
                seen_absent: None,
            });
        }
        self.before_boot = before_boot;
    }

    /// Returns the services that were in force before the host's last start, if
    /// that start was recent. `uptime` is the time since the start. A service
    /// that was not in force before may conflict with a program that has not
    /// started yet.
    pub fn before_boot(&self, uptime: Duration) -> Option<&BTreeSet<ServiceKey>> {
        self.before_boot.as_ref().filter(|_| uptime < AFTER_BOOT)
    }

    /// Returns the refused entries, each with the reason for which it was
    /// refused.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, &str)> {
        let entries = self.entries.iter();
        entries.map(|(entry, refusal)| (entry, &*refusal.why))
    }

    /// Records a look at the host at `now`. `reason` returns whether the reason
    /// for an entry's refusal holds. Refusals whose reason has been absent for
    /// [`QUIET`] end.
    pub fn look(&mut self, reason: impl Fn(&Entry) -> Reason, now: Duration) {
        let before = self.entries.len();
        self.entries.retain(|entry, refusal| {
            let seen_absent = refusal.seen_absent.take();
            match reason(entry) {
                Reason::Present => refusal.absent_for = Duration::ZERO,
                Reason::Unknown => {}
                Reason::Absent => {
                    let pause = now.saturating_sub(seen_absent.unwrap_or(now));
                    refusal.absent_for += pause.min(LONGEST_STEP);
                    refusal.seen_absent = Some(now);
                }
            }
            refusal.absent_for < QUIET
        });
        self.is_unsaved |= self.entries.len() != before;
    }

    /// Forgets the entries that `is_admitted` admits. Then records `refused`:
    /// the entries that were refused now for a known reason.
    pub fn record(&mut self, refused: Refused, is_admitted: impl Fn(&Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry, _| !is_admitted(entry));
        self.is_unsaved |= self.entries.len() != before;
        for (entry, why) in refused {
            self.entries.entry(entry).or_insert_with(|| {
                self.is_unsaved = true;
                Refusal {
                    why,
                    absent_for: Duration::ZERO,
                    seen_absent: None,
                }
            });
        }
    }

    /// Returns the refusals that the journal must record, if they differ from
    /// the recorded ones.
    pub fn unsaved(&self) -> Option<Refused> {
        let entries = || self.entries().map(|(entry, why)| (*entry, why.to_owned()));
        self.is_unsaved.then(|| entries().collect())
    }

    /// Notes that the journal has recorded the refusals.
    pub fn saved(&mut self) {
        self.is_unsaved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::tcp;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ssh() -> Entry {
        (tcp("192.0.2.1", 22), None)
    }

    fn holds(refusals: &Refusals) -> bool {
        refusals.entries().any(|(entry, _)| *entry == ssh())
    }

    /// Returns `Refusals` in which `ssh()` is refused.
    fn refused() -> Refusals {
        let mut refusals = Refusals::default();
        let why = "sshd listens there".to_owned();
        refusals.record([(ssh(), why)].into(), |_| false);
        assert!(refusals.unsaved().is_some(), "the journal lacks it");
        refusals.saved();
        refusals
    }

    #[test]
    fn a_refusal_ends_after_ten_minutes_without_its_reason() {
        let mut refusals = refused();
        for now in (105..705).step_by(5) {
            refusals.look(|_| Reason::Absent, s(now));
            assert!(holds(&refusals), "at {now} s");
        }
        assert_eq!(refusals.unsaved(), None, "nothing has changed");
        refusals.look(|_| Reason::Absent, s(705));
        assert!(!holds(&refusals));
        assert_eq!(refusals.unsaved(), Some(Refused::new()));
    }

    #[test]
    fn a_reason_that_comes_back_begins_the_ten_minutes_again() {
        let mut refusals = refused();
        for now in (105..705).step_by(5) {
            refusals.look(|_| Reason::Absent, s(now));
        }
        refusals.look(|_| Reason::Present, s(705));
        for now in (710..1310).step_by(5) {
            refusals.look(|_| Reason::Absent, s(now));
            assert!(holds(&refusals), "at {now} s");
        }
        refusals.look(|_| Reason::Absent, s(1310));
        assert!(!holds(&refusals));
    }

    #[test]
    fn time_without_looks_counts_for_a_minute_and_unknown_looks_do_not_count() {
        let mut refusals = refused();
        refusals.look(|_| Reason::Absent, s(200));
        refusals.look(|_| Reason::Absent, s(100_000));
        assert!(holds(&refusals), "the host was not looked at");
        for now in (100_001..200_000).step_by(1000) {
            refusals.look(|_| Reason::Unknown, s(now));
        }
        // All looks so far count as one minute without the reason.
        for minute in 0..9 {
            refusals.look(|_| Reason::Absent, s(200_000 + 60 * minute));
            assert!(holds(&refusals), "after {minute} more minutes");
        }
        refusals.look(|_| Reason::Absent, s(200_000 + 540));
        assert!(!holds(&refusals), "ten minutes have counted");
    }

    #[test]
    fn an_entry_that_is_admitted_is_forgotten_and_a_restart_begins_the_time_again() {
        let mut refusals = refused();
        let mut again = Refusals::default();
        refusals.is_unsaved = true;
        again.remember(refusals.unsaved().expect("one refusal"), None);
        assert_eq!(again.unsaved(), None, "the journal has it");
        again.look(|_| Reason::Absent, s(1));
        assert!(holds(&again));
        again.record(Refused::new(), |entry| *entry == ssh());
        assert!(!holds(&again), "a grant of exactly the address admits it");
        assert_eq!(again.unsaved(), Some(Refused::new()));
    }

    #[test]
    fn the_services_before_a_boot_matter_for_ten_minutes_of_uptime() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.before_boot(s(1)), None, "a new journal");
        let before = BTreeSet::from([tcp("192.0.2.1", 80)]);
        refusals.remember(Refused::new(), Some(before.clone()));
        assert_eq!(refusals.before_boot(s(599)), Some(&before));
        assert_eq!(refusals.before_boot(s(600)), None);
    }
}
