//! Tests which Lease counts when a director has one in each namespace.

use serde_json::json;

use super::*;
use crate::liveness::Life;

use Place::{Controller, Directors};

const fn s(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

fn lease(name: &str, minute: u64) -> Lease {
    let lease = json!({
        "metadata": {"name": name},
        "spec": {
            "leaseDurationSeconds": 40,
            "renewTime": format!("2026-01-01T00:{minute:02}:00.000000Z"),
        },
    });
    serde_json::from_value(lease).unwrap()
}

/// A controller that watches both namespaces and knows director `a`.
#[derive(Default)]
struct Scene {
    renewals: Renewals,
    liveness: Liveness,
}

impl Scene {
    /// Lists both namespaces at second 0. Each namespace may have a Lease of
    /// director `a`, renewed in the given minute.
    fn started(directors: Option<u64>, controller: Option<u64>) -> Self {
        let mut scene = Self::default();
        scene.liveness.director("a", false, s(0));
        scene.list(Directors, directors, 0);
        scene.list(Controller, controller, 0);
        scene
    }

    fn take(&mut self, place: Place, event: watcher::Event<Lease>, second: u64) {
        self.renewals
            .take(place, event, &mut self.liveness, s(second));
    }

    fn list(&mut self, place: Place, minute: Option<u64>, second: u64) {
        self.take(place, watcher::Event::Init, second);
        if let Some(minute) = minute {
            let event = watcher::Event::InitApply(lease("a", minute));
            self.take(place, event, second);
        }
        self.take(place, watcher::Event::InitDone, second);
    }

    fn renew(&mut self, place: Place, minute: u64, second: u64) {
        self.take(place, watcher::Event::Apply(lease("a", minute)), second);
    }

    fn delete(&mut self, place: Place, second: u64) {
        self.take(place, watcher::Event::Delete(lease("a", 0)), second);
    }

    /// Renews the leader's Lease every 5 s, so that the watches do not count as
    /// broken.
    fn pass(&mut self, seconds: std::ops::RangeInclusive<u64>) {
        for second in seconds.step_by(5) {
            let leaders = watcher::Event::Apply(lease("ipvs-controller", second % 60));
            self.take(Controller, leaders, second);
        }
    }

    fn life(&self, second: u64) -> Life {
        self.liveness.life("a", s(second))
    }

    fn last(&self, second: u64) -> Option<String> {
        match self.life(second) {
            Life::Expired { last, .. } => last,
            other => panic!("the director is expected to be dead: {other:?}"),
        }
    }
}

#[test]
fn a_renewal_in_either_namespace_keeps_a_director_alive() {
    for place in PLACES {
        let mut scene = Scene::started(None, None);
        for (minute, second) in [(1, 10), (2, 40), (3, 70)] {
            scene.renew(place, minute, second);
            scene.pass(second..=second + 25);
            assert_eq!(scene.life(second + 25), Life::Alive, "{place:?}");
        }
        scene.pass(100..=120);
        assert!(!scene.life(110).is_live(), "{place:?}: no renewal for 40 s");
    }
}

#[test]
fn nothing_is_listed_before_both_namespaces_are() {
    for (first, second) in [(Directors, Controller), (Controller, Directors)] {
        let mut scene = Scene::default();
        scene.list(first, Some(1), 0);
        assert!(!scene.renewals.is_listed());
        scene.list(second, None, 1);
        assert!(scene.renewals.is_listed());
    }
}

#[test]
fn an_old_lease_that_an_upgrade_leaves_makes_no_live_director_look_dead() {
    let mut scene = Scene::started(None, Some(1));
    scene.renew(Controller, 2, 5);
    // The newer agent starts, and no longer renews the old Lease.
    for (minute, second) in [(3, 15), (4, 45), (5, 75)] {
        scene.renew(Directors, minute, second);
        scene.pass(second..=second + 25);
        assert_eq!(scene.life(second + 25), Life::Alive);
    }
    scene.list(Controller, Some(2), 101);
    assert_eq!(
        scene.life(101),
        Life::Alive,
        "the old Lease is listed again"
    );
}

#[test]
fn an_old_lease_that_an_upgrade_leaves_keeps_no_director_alive() {
    for (directors, controller) in [(Some(9), Some(2)), (Some(2), Some(9))] {
        let mut scene = Scene::started(directors, controller);
        assert_eq!(
            scene.life(1),
            Life::Presumed,
            "a first listing proves nothing"
        );
        scene.pass(5..=40);
        let last = Some("2026-01-01T00:09:00Z".to_owned());
        assert_eq!(scene.last(40), last, "the later renewal is reported");
        scene.list(Directors, directors, 41);
        scene.list(Controller, controller, 42);
        assert_eq!(scene.last(43), last, "it was listed again and not renewed");
    }
}

#[test]
fn a_director_that_was_reported_dead_needs_a_renewal() {
    let mut scene = Scene::default();
    scene.liveness.director("a", true, s(0));
    scene.list(Controller, Some(1), 0);
    scene.list(Directors, Some(2), 1);
    assert!(!scene.life(1).is_live(), "both Leases may be old");
    scene.renew(Controller, 3, 2);
    assert_eq!(scene.life(2), Life::Alive);
}

#[test]
fn a_rollback_that_deletes_the_directors_namespace_makes_nobody_dead() {
    let mut scene = Scene::started(Some(1), Some(1));
    scene.renew(Directors, 2, 5);
    scene.renew(Controller, 2, 5);
    scene.delete(Directors, 10);
    assert!(scene.life(10).is_live());
    scene.renew(Controller, 3, 15);
    assert_eq!(scene.life(15), Life::Alive);
}

#[test]
fn a_lease_that_is_deleted_makes_no_renewal_of_the_other() {
    let mut scene = Scene::started(Some(2), Some(1));
    scene.pass(5..=40);
    assert!(!scene.life(40).is_live());
    scene.delete(Directors, 41);
    scene.list(Controller, Some(1), 42);
    assert!(!scene.life(42).is_live(), "nobody renewed a Lease");
}

#[test]
fn while_one_of_the_watches_is_broken_nobody_dies() {
    for broken in PLACES {
        let mut scene = Scene::started(Some(1), None);
        scene.renew(Directors, 2, 5);
        let liveness = &mut scene.liveness;
        scene.renewals.blind(broken, liveness, s(10));
        let other = match broken {
            Directors => Controller,
            Controller => Directors,
        };
        for second in (15..=200).step_by(5) {
            let event = watcher::Event::Apply(lease("another", second % 60));
            scene.take(other, event, second);
            assert!(scene.life(second).is_live(), "{broken:?} is not watched");
        }
        assert_eq!(scene.liveness.next_deadline(s(202)), None);
        // The watch lists again, and the director has not renewed its Lease.
        let directors = (broken == Directors).then_some(2);
        scene.list(broken, directors, 205);
        scene.pass(205..=250);
        assert!(scene.life(244).is_live(), "{broken:?}: a whole Lease");
        assert!(!scene.life(245).is_live(), "{broken:?} is watched again");
    }
}

#[test]
fn a_refused_report_is_read_from_the_newest_renewal() {
    let mut scene = Scene::started(Some(1), Some(1));
    let mut refused = lease("a", 2);
    let why = "since then: too large".to_owned();
    refused.metadata.annotations = Some([(REPORT_REFUSED.to_owned(), why.clone())].into());
    scene.take(Controller, watcher::Event::Apply(refused), 5);
    assert_eq!(scene.liveness.refused("a"), Some(why.as_str()));
    scene.renew(Directors, 3, 15);
    assert_eq!(scene.liveness.refused("a"), None);
}

#[test]
fn beside_a_broken_watch_a_renewal_concerns_its_own_director_alone() {
    let mut scene = Scene::started(Some(1), None);
    for name in ["b", "c"] {
        scene.liveness.director(name, false, s(1));
    }
    scene.liveness.suspects(s(1));
    scene.renewals.blind(Controller, &mut scene.liveness, s(2));
    scene.renew(Directors, 2, 3);
    let suspects: Vec<_> = scene.liveness.suspects(s(3)).into_iter().collect();
    assert_eq!(suspects, ["a"], "the others' deadlines stay");
}
