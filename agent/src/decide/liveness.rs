//! Decides which directors are live, by the renewals of their Leases. The code
//! is pure: time is an argument. The time always comes from this host's own
//! clock, so the clocks of the directors need not agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a director counts as live after a renewal of its Lease was seen.
/// Agents renew their Leases every 10 s, and the Leases are valid for 40 s.
pub const VALID: Duration = Duration::from_secs(40);
/// A director counts as out if its Lease was not renewed for this time.
pub const OUT: Duration = Duration::from_secs(300);
/// If the agent did not look at a Lease for longer than this, it counts [`OUT`]
/// from the start again. The API server was probably away, so no director could
/// renew its Lease. While the API server answers, the agent looks at each Lease
/// at least once a minute.
pub const GAP: Duration = Duration::from_secs(150);

/// This agent's observations of the directors' Leases.
#[derive(Debug, Default)]
pub struct Liveness {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The renewal time in the Lease, or none if there is no Lease.
    renewal: Option<String>,
    /// When the newest renewal of the Lease was first seen (`since`), and when
    /// it was last seen (`last`).
    since: Duration,
    last: Duration,
    /// The time from which the agent counts [`OUT`]: the first look at this
    /// renewal, or the first look after a gap of more than [`GAP`].
    unrenewed_since: Duration,
    /// Whether the agent saw a change of the renewal time. The first renewal
    /// that the agent sees may be of any age.
    is_renewed: bool,
}

impl Liveness {
    /// Forgets the Lease of every director that is not in `names`.
    pub fn keep(&mut self, names: &BTreeSet<String>) {
        self.seen.retain(|name, _| names.contains(name));
    }

    /// Records a look at a director's Lease at `now`. `renewal` is the renewal
    /// time in the Lease, or none if there is no Lease.
    pub fn hear(&mut self, name: String, renewal: Option<String>, now: Duration) {
        let before = self.seen.get_mut(&name);
        let is_renewed = before.is_some() && renewal.is_some();
        if let Some(before) = before.filter(|before| before.renewal == renewal) {
            if now > before.last + GAP {
                before.unrenewed_since = now;
            }
            before.last = now;
            return;
        }
        let seen = Seen {
            renewal,
            since: now,
            last: now,
            unrenewed_since: now,
            is_renewed,
        };
        self.seen.insert(name, seen);
    }

    /// Whether a renewal of the director's Lease was seen within the last
    /// [`VALID`].
    pub fn is_live(&self, name: &str, now: Duration) -> bool {
        let seen = self.seen.get(name);
        seen.is_some_and(|seen| seen.is_renewed && now < seen.since + VALID)
    }

    /// Whether the agent has seen no renewal of the director's Lease for the
    /// time [`OUT`]. While the API server does not answer, the agent declares
    /// no further director out.
    pub fn is_out(&self, name: &str) -> bool {
        let seen = self.seen.get(name);
        seen.is_some_and(|seen| seen.last >= seen.unrenewed_since + OUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hear(liveness: &mut Liveness, renewal: Option<&str>, now: u64) {
        let renewal = renewal.map(ToOwned::to_owned);
        liveness.hear("b".to_owned(), renewal, s(now));
    }

    #[test]
    fn a_director_is_live_once_a_renewal_was_seen_and_for_forty_seconds() {
        let mut liveness = Liveness::default();
        assert!(!liveness.is_live("b", s(0)), "nothing is known");
        hear(&mut liveness, Some("12:00:00"), 0);
        assert!(!liveness.is_live("b", s(0)), "the Lease may be old");
        hear(&mut liveness, Some("12:00:00"), 10);
        assert!(!liveness.is_live("b", s(10)), "it was not renewed");
        hear(&mut liveness, Some("12:00:10"), 20);
        assert!(liveness.is_live("b", s(59)));
        assert!(!liveness.is_live("b", s(60)), "no renewal for 40 s");
        assert!(!liveness.is_live("c", s(20)), "another director");
        hear(&mut liveness, Some("12:05:00"), 300);
        assert!(liveness.is_live("b", s(300)), "it is back");
    }

    #[test]
    fn a_director_is_out_after_five_minutes_of_looks_without_a_renewal() {
        for renewal in [Some("12:00:00"), None] {
            let mut liveness = Liveness::default();
            hear(&mut liveness, renewal, 10);
            assert!(!liveness.is_out("b"), "one look shows nothing");
            for look in [70, 130, 190, 250, 309] {
                hear(&mut liveness, renewal, look);
                assert!(!liveness.is_out("b"), "at {look} s");
            }
            hear(&mut liveness, renewal, 310);
            assert!(liveness.is_out("b"), "{renewal:?}");
            hear(&mut liveness, Some("12:07:00"), 320);
            assert!(!liveness.is_out("b"), "it is back");
        }
    }

    #[test]
    fn the_time_in_which_the_api_server_was_away_makes_no_director_out() {
        let mut liveness = Liveness::default();
        hear(&mut liveness, Some("12:00:00"), 0);
        hear(&mut liveness, Some("12:00:10"), 10);
        hear(&mut liveness, Some("12:00:10"), 400);
        assert!(!liveness.is_out("b"), "it had no time to renew its Lease");
        assert!(
            !liveness.is_live("b", s(400)),
            "and did not renew it either"
        );
        for look in (460..700).step_by(60) {
            hear(&mut liveness, Some("12:00:10"), look);
            assert!(!liveness.is_out("b"), "at {look} s");
        }
        hear(&mut liveness, Some("12:00:10"), 700);
        assert!(
            liveness.is_out("b"),
            "five minutes after the API server's return"
        );
    }

    #[test]
    fn a_director_whose_lease_is_missing_or_new_is_not_live_yet() {
        let mut liveness = Liveness::default();
        hear(&mut liveness, Some("12:00:00"), 0);
        hear(&mut liveness, None, 10);
        assert!(!liveness.is_live("b", s(10)), "its Lease was deleted");
        let mut liveness = Liveness::default();
        hear(&mut liveness, Some("12:00:00"), 0);
        hear(&mut liveness, Some("12:00:10"), 10);
        liveness.keep(&BTreeSet::new());
        assert!(!liveness.is_live("b", s(10)), "it was forgotten");
    }
}
