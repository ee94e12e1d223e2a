//! Tests of the grace between the permission to remove an entry and its
//! removal.

use super::*;

pub(super) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a scene in which the `desired` state is wanted, ours and in the
/// kernel.
pub(super) fn served(desired: &Desired) -> Scene {
    let mut scene = Scene::with(&desired.table);
    scene.retention = Retention::default();
    scene.retain(desired, Removals::Guarded);
    scene
}

impl Scene {
    pub(super) fn at(&mut self, now: Duration, wanted: &Desired) -> Retained {
        self.now = now;
        self.retain(wanted, Removals::Guarded)
    }

    /// Applies the state in force to the kernel, and returns the operations.
    pub(super) fn apply(&mut self, in_force: &Wish) -> Vec<String> {
        let table = &in_force.desired.table;
        let plan = ipvs::plan(table, &self.kernel, &self.ours.table, OnConflict::Adopt);
        for op in &plan.ops {
            op.apply_to(&mut self.kernel);
        }
        let ops: Vec<_> = plan.ops.iter().collect();
        self.ours.table.acknowledge(&ops);
        plan.ops.iter().map(ToString::to_string).collect()
    }
}

fn weights(in_force: &Wish) -> Vec<u32> {
    let service = &in_force.desired.table[&tcp(WEB, 80)];
    let servers = service.destinations.values();
    servers.map(|config| config.weight).collect()
}

#[test]
fn a_deleted_service_serves_on_for_ten_seconds_and_then_goes() {
    let mut scene = served(&checked(&[(1, 5), (2, 5)]));
    for now in [1, 5, 10] {
        let Retained { in_force, held, .. } = scene.at(s(now), &wish(&[]));
        assert_eq!(held, [], "it is not held");
        assert_eq!(weights(&in_force), [5, 5], "after {now} s");
        assert!(in_force.desired.vips.contains_key(&ip(WEB)), "its VIP");
        let is_checked = in_force.desired.checks.contains_key(&tcp(WEB, 80));
        assert!(is_checked, "its check");
        assert_eq!(scene.apply(&in_force), [""; 0], "after {now} s");
        assert_eq!(scene.retention.next_deadline(), Some(s(11)));
    }
    let Retained {
        in_force, changed, ..
    } = scene.at(s(11), &wish(&[]));
    assert_eq!(changed, [tcp(WEB, 80)].into(), "so that it is planned");
    assert_eq!(scene.apply(&in_force), ["-D -t 192.0.2.10:80"]);
    scene.at(s(12), &wish(&[]));
    assert_eq!(scene.retention.next_deadline(), None);
}

#[test]
fn a_service_that_is_made_again_within_its_grace_never_changes() {
    let web = checked(&[(1, 5), (2, 5)]);
    let mut scene = served(&web);
    let Retained { in_force, .. } = scene.at(s(1), &wish(&[]));
    scene.apply(&in_force);
    let Retained { in_force, .. } = scene.at(s(10), &web);
    assert_eq!(scene.apply(&in_force), [""; 0]);
    assert_eq!(scene.retention.next_deadline(), None);
    let Retained { in_force, .. } = scene.at(s(11), &wish(&[]));
    assert_eq!(scene.apply(&in_force), [""; 0], "a new grace begins");
    assert_eq!(scene.retention.next_deadline(), Some(s(21)));
}

#[test]
fn a_deleted_server_gets_no_new_connections_at_once_and_leaves_after_ten_seconds() {
    for (before, after) in [
        (web(&[(1, 5), (2, 5)]), web(&[(2, 5)])),
        (checked(&[(1, 5), (2, 5)]), checked(&[(2, 5)])),
    ] {
        let mut scene = served(&before);
        let Retained { in_force, .. } = scene.at(s(1), &after);
        assert_eq!(weights(&in_force), [0, 5], "in its place");
        scene.apply(&in_force);
        let Retained { in_force, .. } = scene.at(s(10), &after);
        assert_eq!(weights(&in_force), [0, 5]);
        let Retained { in_force, .. } = scene.at(s(11), &after);
        let gone = "-d -t 192.0.2.10:80 -r 198.51.100.1:80";
        assert_eq!(scene.apply(&in_force), [gone]);
    }
}

#[test]
fn a_server_that_is_made_again_within_its_grace_has_its_weight_again() {
    let before = checked(&[(1, 5), (2, 5)]);
    let mut scene = served(&before);
    let Retained { in_force, .. } = scene.at(s(1), &checked(&[(2, 5)]));
    scene.apply(&in_force);
    let Retained { in_force, .. } = scene.at(s(2), &before);
    assert_eq!(weights(&in_force), [5, 5]);
    scene.apply(&in_force);
    let Retained { in_force, .. } = scene.at(s(11), &before);
    assert_eq!(scene.apply(&in_force), [""; 0]);
}

#[test]
fn a_removal_that_is_held_keeps_its_weight_and_its_grace_begins_when_it_is_allowed() {
    let (before, after) = (web(&[(1, 5), (2, 5)]), web(&[(2, 5)]));
    let mut scene = served(&before);
    let held = Removals::Held { lasting: false };
    let Retained { in_force, .. } = scene.retain(&after, held);
    assert_eq!(weights(&in_force), [5, 5]);
    assert_eq!(scene.retention.next_deadline(), None);
    let Retained { in_force, .. } = scene.at(s(100), &after);
    assert_eq!(weights(&in_force), [0, 5]);
    assert_eq!(scene.retention.next_deadline(), Some(s(110)));
}

#[test]
fn a_hold_during_the_grace_gives_the_weight_back_and_the_grace_begins_anew() {
    let (before, after) = (web(&[(1, 5), (2, 5)]), web(&[(2, 5)]));
    let mut scene = served(&before);
    let Retained { in_force, .. } = scene.at(s(1), &after);
    scene.apply(&in_force);
    for now in [5, 60] {
        scene.now = s(now);
        let held = Removals::Held { lasting: false };
        let Retained { in_force, held, .. } = scene.retain(&after, held);
        assert_eq!(weights(&in_force), [5, 5], "after {now} s");
        assert_eq!(held.len(), 1);
        scene.apply(&in_force);
    }
    let Retained { in_force, .. } = scene.at(s(61), &after);
    assert_eq!(weights(&in_force), [0, 5]);
    assert_eq!(scene.retention.next_deadline(), Some(s(71)));
}

/// Returns a service with one server for each of the ports.
fn many(ports: std::ops::Range<u16>) -> Desired {
    let rows: Vec<_> = ports
        .map(|port| (tcp(WEB, port), "sh", &[(1, 1)][..]))
        .collect();
    wish(&rows)
}

#[test]
fn replaced_services_do_not_count_for_the_guard_and_removed_ones_count_from_the_permission() {
    let mut scene = served(&many(0..40));
    for now in 0..8 {
        let without = now * 5..now * 5 + 5;
        let mut fewer = many(0..40);
        fewer.table.retain(|key, _| match key {
            ServiceKey::Address { port, .. } => !without.contains(port),
            ServiceKey::FirewallMark { .. } => true,
        });
        let now = u64::from(now);
        assert_eq!(scene.at(s(now), &fewer).held, [], "5 are deleted");
        assert_eq!(scene.at(s(now), &many(0..40)).held, [], "and made again");
    }
    // Now the first ten services are deleted and not created again.
    assert_eq!(scene.at(s(10), &many(10..40)).held, []);
    let eleventh = scene.at(s(11), &many(11..40));
    assert_eq!(eleventh.held.len(), 1, "those in their grace count");
    assert_eq!(scene.at(s(12), &many(10..40)).held, []);
    let Retained { in_force, .. } = scene.at(s(20), &many(10..40));
    assert_eq!(scene.apply(&in_force).len(), 10);
    assert_eq!(scene.at(s(69), &many(11..40)).held.len(), 1);
    assert_eq!(scene.at(s(69), &many(10..40)).held, []);
    assert_eq!(
        scene.at(s(70), &many(11..40)).held,
        [],
        "a minute after the permission, and not after the removal"
    );
}

#[test]
fn each_removal_waits_for_the_look_that_was_awaited_when_its_entry_left() {
    let all = web(&[(1, 5), (2, 5), (3, 5)]);
    let mut scene = served(&all);
    scene.looks.wait_for(1, false);
    let Retained { in_force, held, .. } = scene.at(s(1), &web(&[(2, 5), (3, 5)]));
    assert_eq!((weights(&in_force), held), (vec![5, 5, 5], vec![]));
    scene.looks.wait_for(2, false);
    scene.at(s(2), &web(&[(3, 5)]));
    scene.looks.end(1);
    let Retained { in_force, held, .. } = scene.at(s(3), &web(&[(3, 5)]));
    assert_eq!((weights(&in_force), held), (vec![0, 5, 5], vec![]));
    scene.looks.end(2);
    let Retained { in_force, .. } = scene.at(s(4), &web(&[(3, 5)]));
    assert_eq!(weights(&in_force), [0, 0, 5]);
    assert_eq!(scene.retention.next_deadline(), Some(s(13)));
}

#[test]
fn a_removal_that_is_due_before_all_is_listed_waits_for_the_listings_look() {
    let mut scene = served(&web(&[(1, 5)]));
    scene.now = s(1);
    scene.retain(&wish(&[]), Removals::NotYet { is_late: false });
    scene.looks.wait_for(1, true);
    scene.at(s(2), &wish(&[]));
    assert_eq!(scene.retention.next_deadline(), None, "it has not begun");
    scene.looks.end(1);
    scene.at(s(3), &wish(&[]));
    assert_eq!(scene.retention.next_deadline(), Some(s(13)));
}
