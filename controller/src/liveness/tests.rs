use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

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

/// One thing that happens to the directors `a` to `d`.
#[derive(Clone, Debug)]
enum Deed {
    Appears(usize, bool),
    Leaves(usize),
    Renews(usize, Option<u64>),
    Relabelled(usize, Option<String>),
    LosesLease(usize),
    Listed(Vec<usize>),
    Blind,
    Nothing,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn deed() -> impl Strategy<Value = Deed> {
    let who = 0..NAMES.len();
    prop_oneof![
        1 => (who.clone(), any::<bool>()).prop_map(|(who, dead)| Deed::Appears(who, dead)),
        1 => who.clone().prop_map(Deed::Leaves),
        6 => (who.clone(), proptest::option::of(5_u64..60))
            .prop_map(|(who, seconds)| Deed::Renews(who, seconds)),
        1 => (who.clone(), proptest::option::of("[xy]"))
            .prop_map(|(who, refused)| Deed::Relabelled(who, refused)),
        1 => who.clone().prop_map(Deed::LosesLease),
        1 => vec(who, 0..4).prop_map(Deed::Listed),
        1 => Just(Deed::Blind),
        3 => Just(Deed::Nothing),
    ]
}

impl Deed {
    fn happens(self, liveness: &mut Liveness, now: Time) {
        match self {
            Self::Appears(who, dead) => liveness.director(NAMES[who], dead, now),
            Self::Leaves(who) => liveness.director_gone(NAMES[who]),
            Self::Renews(who, seconds) => {
                let renewal = Renewal {
                    duration: seconds.map(s),
                    ..renewal(now.as_secs())
                };
                liveness.lease(NAMES[who], renewal, now);
            }
            Self::Relabelled(who, refused) => {
                let Some(before) = liveness.leases.get(NAMES[who]).cloned() else {
                    return;
                };
                liveness.lease(NAMES[who], Renewal { refused, ..before }, now);
            }
            Self::LosesLease(who) => liveness.lease_gone(NAMES[who], now),
            Self::Listed(there) => {
                liveness.leases_listed(there.into_iter().map(|who| NAMES[who]), now);
            }
            Self::Blind => liveness.blind(now),
            Self::Nothing => {}
        }
    }
}

fn lives(liveness: &Liveness, now: Time) -> BTreeMap<&'static str, (Life, Option<String>)> {
    let life = |name| {
        let refused = liveness.refused(name).map(str::to_owned);
        (name, (liveness.life(name, now), refused))
    };
    let known = NAMES.into_iter();
    let known = known.filter(|name| liveness.directors.contains_key(*name));
    known.map(life).collect()
}

proptest! {
    #[test]
    fn whoever_dies_or_comes_back_is_a_suspect_and_nobody_dies_before_the_deadline(
        deeds in vec((deed(), 0_u64..15), 1..60),
    ) {
        let mut liveness = Liveness::default();
        let mut now = s(0);
        let mut before = lives(&liveness, now);
        for (deed, pause) in deeds {
            deed.clone().happens(&mut liveness, now);
            let after = lives(&liveness, now);
            let suspects = liveness.suspects(now);
            for (name, life) in &after {
                let changed = before.get(name).is_some_and(|before| before != life);
                prop_assert!(!changed || suspects.contains(*name), "{name} after {deed:?}");
            }
            let deadline = liveness.next_deadline(now);
            now += s(pause);
            before = lives(&liveness, now);
            if before != after {
                let deadline = deadline.expect("a death without an event has a deadline");
                prop_assert!(deadline <= now, "{deadline:?} at {now:?}");
            }
            let suspects = liveness.suspects(now);
            for (name, life) in &before {
                prop_assert!(after[name] == *life || suspects.contains(*name), "{name}");
            }
        }
    }
}
