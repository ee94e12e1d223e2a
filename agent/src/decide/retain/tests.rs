use super::*;
use crate::{
    decide::{
        addresses::Holding,
        desired::{Addresses, CheckPolicy},
        idle::Idle,
        serving::Serving,
    },
    fixtures::{health, ip, server, service, tcp, weight, wish},
};
use ipvs::{OnConflict, WantedTable};

mod graces;
mod periods;
mod property;
mod walks;

const WEB: &str = "192.0.2.10";
/// The time since the host's start at which a scene begins.
const UPTIME: Duration = Duration::from_secs(1000);

/// Returns a wish for the `desired` state, with default settings of the group.
fn wish_for(desired: Desired) -> Wish {
    Wish {
        desired: Arc::new(desired),
        addresses: Addresses {
            holding: Holding::Take,
            ..Addresses::default()
        },
        on_conflict: OnConflict::Adopt,
        timeouts: None,
        tuning: None,
        kept_sysctls: BTreeSet::new(),
    }
}

/// The entries that are ours, the kernel's table, and the memory of the
/// retention stage.
struct Scene {
    ours: Remembered,
    kernel: ActualTable,
    retention: Retention,
    looks: ClusterLooks,
    now: Duration,
    /// The connections that were read, or none if no entry has connections.
    idle: Option<Idle>,
    serving: Serving,
}

impl Scene {
    /// Returns a scene in which no entry is ours, with the given retention stage.
    fn empty(retention: Retention) -> Self {
        Self {
            ours: Remembered::default(),
            kernel: ActualTable::default(),
            retention,
            looks: ClusterLooks::default(),
            now: Duration::ZERO,
            idle: None,
            serving: Serving::default(),
        }
    }

    /// Returns a scene in which the whole table is ours and in the kernel.
    /// Allowed removals in the scene have no grace.
    fn with(table: &WantedTable) -> Self {
        let mut scene = Self::empty(Retention::immediate());
        for (key, wanted) in table {
            scene.ours.table.add(*key, None);
            for server in wanted.destinations.keys() {
                scene.ours.table.add(*key, Some(*server));
            }
            let found = ipvs::ActualService {
                config: wanted.config.clone(),
                destinations: wanted.destinations.clone(),
            };
            scene.kernel.insert(*key, found);
        }
        scene
    }

    fn retain(&mut self, wanted: &Desired, removals: Removals) -> Retained {
        let before = Before {
            ours: &self.ours,
            kernel: &self.kernel,
            changed: None,
            absence: &Absence::default(),
            looks: self.looks,
            uptime: UPTIME + self.now,
            traffic: match &self.idle {
                None => Traffic::None,
                Some(idle) => Traffic::Read {
                    idle,
                    serving: &self.serving,
                },
            },
        };
        let wanted = wish_for(wanted.clone());
        self.retention.retain(wanted, before, removals, self.now)
    }

    /// Removes entries from the kernel's table and from the entries that are
    /// ours, as a round does.
    fn remove(&mut self, removals: &[Op]) {
        for op in removals {
            op.apply_to(&mut self.kernel);
        }
        let removals: Vec<_> = removals.iter().collect();
        self.ours.table.acknowledge(&removals);
    }

    /// Returns the removals that a round would plan if `in_force` were in
    /// force.
    fn removals(&self, in_force: &Wish) -> Vec<String> {
        let table = &in_force.desired.table;
        let plan = ipvs::plan(table, &self.kernel, &self.ours.table, OnConflict::Adopt);
        let removals = plan.ops.iter().filter(|op| op.removes());
        removals.map(ToString::to_string).collect()
    }
}

fn web(servers: &[(u8, u32)]) -> Desired {
    wish(&[(tcp(WEB, 80), "sh", servers)])
}

/// Returns the wish of [`web`], but with a health check and the sorry server
/// 192.0.2.99.
fn checked(servers: &[(u8, u32)]) -> Desired {
    let mut desired = web(servers);
    let policy = CheckPolicy {
        check: Arc::new(health::check()),
        namespace: "shop".into(),
        quotable: BTreeSet::new(),
        availability: health::availability(),
        sorry: Some((server(99), weight(1))),
        quiesce_only: BTreeSet::new(),
        drained: BTreeSet::new(),
    };
    desired.checks.insert(tcp(WEB, 80), Arc::new(policy));
    desired
}

#[test]
fn before_all_objects_are_known_everything_of_ours_stays_and_nothing_counts_as_held() {
    let mut scene = Scene::with(&web(&[(1, 1), (2, 2)]).table);
    scene.ours.addresses.insert(ip(WEB), "eth0".to_owned());
    scene.ours.device = Some("ipvs-vips".to_owned());
    let sysctl = "net.ipv4.vs.conntrack".to_owned();
    scene.ours.sysctls.insert(sysctl.clone(), "0".to_owned());
    let Retained { in_force, held, .. } =
        scene.retain(&wish(&[]), Removals::NotYet { is_late: false });
    assert_eq!(scene.removals(&in_force), [""; 0]);
    assert!(in_force.desired.vips.contains_key(&ip(WEB)), "its VIP");
    assert_eq!(in_force.addresses.kept, scene.ours.addresses);
    assert!(in_force.addresses.is_device_kept);
    assert_eq!(in_force.kept_sysctls, [sysctl].into());
    assert_eq!(held, []);

    let Retained { in_force, held, .. } = scene.retain(&wish(&[]), Removals::Guarded);
    assert_eq!(scene.removals(&in_force), ["-D -t 192.0.2.10:80"]);
    assert_eq!(in_force.addresses.kept.len(), 0);
    assert_eq!(in_force.kept_sysctls.len(), 0);
    assert_eq!(held, [], "one is within the budget");
}

#[test]
fn what_is_held_is_never_planned_and_is_removed_when_it_is_released() {
    let mut scene = Scene::with(&web(&[(1, 1), (2, 2)]).table);
    let held = Removals::Held { lasting: true };
    for removals in [held, Removals::Guarded] {
        let fewer = scene.retain(&web(&[(1, 1)]), removals);
        assert_eq!(scene.removals(&fewer.in_force), [""; 0]);
        let held: Vec<_> = fewer.held.iter().map(ToString::to_string).collect();
        assert_eq!(held, ["-d -t 192.0.2.10:80 -r 198.51.100.2:80"]);
    }
    let released = scene.retain(&web(&[(1, 1)]), Removals::Released);
    assert_eq!(
        scene.removals(&released.in_force),
        ["-d -t 192.0.2.10:80 -r 198.51.100.2:80"]
    );
    assert_eq!(released.held, []);
    assert_eq!(released.changed, [tcp(WEB, 80)].into());
}

#[test]
fn a_retained_server_keeps_its_place_so_that_the_order_stays_the_wanted_one() {
    let before = web(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
    for (fewer, expected) in [
        (vec![(2, 1), (4, 1)], vec![1, 2, 3, 4]),
        (vec![(1, 1), (3, 1)], vec![1, 2, 3, 4]),
        (vec![], vec![1, 2, 3, 4]),
        (vec![(3, 1), (5, 1)], vec![1, 2, 3, 4, 5]),
    ] {
        let mut scene = Scene::with(&before.table);
        let held = Removals::Held { lasting: false };
        let Retained { in_force, .. } = scene.retain(&web(&fewer), held);
        let table = &in_force.desired.table;
        let order = table[&tcp(WEB, 80)].destinations.keys();
        let expected = expected.into_iter().map(server);
        assert!(order.copied().eq(expected), "{fewer:?} and what is held");
        let plan = ipvs::plan(table, &scene.kernel, &scene.ours.table, OnConflict::Adopt);
        assert_eq!(plan.misordered, [], "{fewer:?} and what is held");
    }
}

#[test]
fn what_another_process_deleted_or_made_is_not_retained() {
    let mut scene = Scene::with(&web(&[(1, 1), (2, 2)]).table);
    let theirs = service("sh", &[(1, 1), (9, 5)]);
    scene.kernel.insert(tcp(WEB, 80), theirs);
    let held = Removals::Held { lasting: false };
    let Retained { in_force, .. } = scene.retain(&wish(&[]), held);
    let servers = &in_force.desired.table[&tcp(WEB, 80)].destinations;
    assert!(servers.keys().eq([&server(1)]), "{servers:?}");

    scene.kernel.clear();
    let Retained { in_force, held, .. } = scene.retain(&wish(&[]), held);
    assert!(in_force.desired.table.is_empty(), "the service is gone");
    assert_eq!(held, []);
}

#[test]
fn a_retained_server_keeps_its_check_and_its_weight_and_is_never_taken_out() {
    let mut scene = Scene::with(&web(&[(1, 10), (2, 20)]).table);
    scene.retain(&checked(&[(1, 10), (2, 20)]), Removals::Guarded);
    // Before the next decision, server 2 fails, and the sorry server joins the table.
    let found = scene.kernel.get_mut(&tcp(WEB, 80)).expect("it is there");
    found.destinations[1].weight = 0;
    found.destinations.insert(server(99), weight(1));
    scene.ours.table.add(tcp(WEB, 80), Some(server(99)));

    let held = Removals::Held { lasting: false };
    for wanted in [checked(&[(1, 10)]), wish(&[])] {
        let Retained { in_force, .. } = scene.retain(&wanted, held);
        let service = &in_force.desired.table[&tcp(WEB, 80)];
        assert_eq!(service.destinations[&server(2)], weight(20));
        let sorry = service.destinations.get(&server(99));
        assert_eq!(sorry, None, "the check puts it in and takes it out");
        let policy = &in_force.desired.checks[&tcp(WEB, 80)];
        assert!(policy.quiesce_only.contains(&server(2)));
        let stays = policy.quiesce_only.contains(&server(1));
        assert_eq!(
            stays,
            wanted.table.is_empty(),
            "it stays if the service is not wanted either"
        );
    }
}

#[test]
fn what_the_previous_run_left_stays_as_the_kernel_has_it() {
    let mut scene = Scene::with(&web(&[(1, 1), (2, 0)]).table);
    let held = Removals::Held { lasting: false };
    let Retained { in_force, .. } = scene.retain(&checked(&[(1, 1)]), held);
    let service = &in_force.desired.table[&tcp(WEB, 80)];
    assert_eq!(service.destinations[&server(2)], weight(0));
    assert!(in_force.desired.is_checked(&tcp(WEB, 80), &server(2)));
}

#[test]
fn what_checks_took_out_does_not_concern_the_guard() {
    let many = |servers: u8| checked(&(1..=servers).map(|last| (last, 1)).collect::<Vec<_>>());
    let mut scene = Scene::with(&many(40).table);
    scene.retain(&many(40), Removals::Guarded);
    let servers = |range: std::ops::RangeInclusive<u8>| -> Vec<_> {
        let servers = range.map(server);
        servers
            .map(|server| Op::DeleteDestination(tcp(WEB, 80), server))
            .collect()
    };
    scene.remove(&servers(1..=8));
    scene.retain(&many(40), Removals::Guarded);
    let fewer = scene.retain(&many(35), Removals::Guarded);
    assert_eq!(fewer.held, [], "5 of 32 are within the budget");

    // The guard counts the removals of five servers that are not wanted.
    scene.remove(&servers(36..=40));
    let fewer = scene.retain(&many(29), Removals::Guarded);
    assert_eq!(fewer.held.len(), 6, "11 within a minute are not");
}
