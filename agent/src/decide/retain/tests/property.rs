//! Tests that examining only the changed services has the same result as
//! examining all services. Also tests that no held removal is ever planned.

use ipvs::{ActualService, Destinations, WantedService};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::decide::desired::changed_services;

/// An event that happens before the next decision of the retention stages.
#[derive(Clone, Debug)]
enum Step {
    /// A service is wanted with the given servers, or no longer wanted.
    Want(u16, Option<Vec<u8>>),
    /// Another process deletes a server of a service.
    Delete(u16, u8),
    /// The kernel gets the state in force.
    Apply,
    /// The given number of seconds passes.
    Wait(u64),
    /// Removals wait for the next look at the cluster, or a look ends.
    Look(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let port = 1..4_u16;
    let servers = proptest::option::of(vec(1..6_u8, 0..4));
    prop_oneof![
        4 => (port.clone(), servers).prop_map(|(port, servers)| Step::Want(port, servers)),
        1 => (port, 1..6_u8).prop_map(|(port, last)| Step::Delete(port, last)),
        2 => Just(Step::Apply),
        1 => (1..12_u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Look),
    ]
}

fn removals() -> impl Strategy<Value = Removals> {
    select(vec![
        Removals::Guarded,
        Removals::Guarded,
        Removals::Held { lasting: true },
        Removals::Held { lasting: false },
        Removals::Released,
    ])
}

/// Two retention stages for one host. One stage examines only the changed
/// services, and the other examines all services each time.
struct Twins {
    told: Scene,
    whole: Retention,
    wanted: Arc<Desired>,
    changed: BTreeSet<ServiceKey>,
    /// The number of the last look.
    looks: u64,
}

impl Twins {
    fn step(&mut self, step: &Step, in_force: &Wish) {
        match step {
            Step::Want(port, servers) => {
                let mut wanted = Desired::clone(&self.wanted);
                let key = tcp(WEB, *port);
                wanted.table.remove(&key);
                if let Some(servers) = servers {
                    let servers = servers.iter().map(|last| (server(*last), weight(1)));
                    let service = WantedService {
                        config: crate::fixtures::config("sh"),
                        destinations: servers.collect(),
                    };
                    wanted.table.insert(key, service);
                }
                self.changed.extend(changed_services(&self.wanted, &wanted));
                self.wanted = Arc::new(wanted);
            }
            Step::Delete(port, last) => {
                let key = tcp(WEB, *port);
                if let Some(found) = self.told.kernel.get_mut(&key) {
                    found.destinations.shift_remove(&server(*last));
                    self.changed.insert(key);
                }
            }
            Step::Apply => self.apply(in_force),
            Step::Look(ends) => {
                self.looks += u64::from(!ends);
                match ends {
                    true => _ = self.told.looks.end(self.looks),
                    false => self.told.looks.wait_for(self.looks, false),
                }
            }
            Step::Wait(seconds) => self.told.now += Duration::from_secs(*seconds),
        }
    }

    fn apply(&mut self, in_force: &Wish) {
        let Scene { ours, kernel, .. } = &mut self.told;
        let table = &in_force.desired.table;
        let plan = ipvs::plan(table, kernel, &ours.table, OnConflict::Adopt);
        for op in &plan.ops {
            op.apply_to(kernel);
            self.changed.insert(op.service());
        }
        ours.table.acknowledge(&plan.ops.iter().collect::<Vec<_>>());
    }

    /// Makes both retention stages decide, and compares their results.
    fn decide(&mut self, removals: Removals) -> Wish {
        let changed = std::mem::take(&mut self.changed);
        let Scene {
            ours,
            kernel,
            retention,
            looks,
            now,
            ..
        } = &mut self.told;
        let (looks, now) = (*looks, *now);
        let wish = || Wish {
            desired: self.wanted.clone(),
            ..wish_for(Desired::default())
        };
        let absence = Absence::default();
        let before = |changed| Before {
            ours,
            kernel,
            changed,
            absence: &absence,
            looks,
            uptime: UPTIME + now,
            traffic: Traffic::None,
        };
        let told = retention.retain(wish(), before(Some(&changed)), removals, now);
        let whole = self.whole.retain(wish(), before(None), removals, now);
        assert_eq!(told.held, whole.held);
        assert_eq!(retention.next_deadline(), self.whole.next_deadline());
        let tables = |retained: &Retained| -> Vec<(ServiceKey, WantedService)> {
            let table = retained.in_force.desired.table.clone();
            table.into_iter().collect()
        };
        assert_eq!(tables(&told), tables(&whole));
        let order =
            |service: &WantedService| -> Vec<_> { service.destinations.keys().copied().collect() };
        for ((key, told), (_, whole)) in tables(&told).iter().zip(&tables(&whole)) {
            assert_eq!(order(told), order(whole), "{key}");
        }
        told.in_force
    }

    /// Checks that all entries that are ours and in the kernel are in force
    /// while removals are held. Also checks that all wanted entries are always
    /// in force.
    fn check(&self, in_force: &Wish, held: bool) {
        let table = &in_force.desired.table;
        for (key, wanted) in &self.wanted.table {
            let servers = wanted.destinations.keys();
            for server in servers {
                assert!(table[key].destinations.contains_key(server), "{key}");
            }
        }
        if held {
            assert_eq!(self.told.removals(in_force), [""; 0]);
        }
        let empty = Destinations::default();
        for (key, service) in table {
            let wanted = self.wanted.table.get(key);
            let wanted = wanted.map_or(&empty, |wanted| &wanted.destinations);
            let found = self.told.kernel.get(key);
            let has = |found: &ActualService, server| found.destinations.contains_key(server);
            for server in service.destinations.keys() {
                let is_there = found.is_some_and(|found| has(found, server));
                assert!(
                    wanted.contains_key(server) || is_there,
                    "{server} of {key} is neither wanted nor in the kernel"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn what_changed_is_enough_to_look_at_and_held_removals_are_never_planned(
        unlisted in vec(vec(step(), 0..4), 0..3),
        steps in vec((vec(step(), 0..4), removals()), 1..20),
    ) {
        let mut twins = Twins {
            told: Scene::empty(Retention::default()),
            whole: Retention::default(),
            wanted: Arc::default(),
            changed: BTreeSet::new(),
            looks: 0,
        };
        let mut in_force = wish_for(Desired::default());
        let not_yet = Removals::NotYet { is_late: false };
        let unlisted = unlisted.into_iter().map(|steps| (steps, not_yet));
        for (steps, removals) in unlisted.chain(steps) {
            for step in &steps {
                twins.step(step, &in_force);
            }
            in_force = twins.decide(removals);
            let is_held = matches!(removals, Removals::NotYet { .. } | Removals::Held { .. });
            twins.check(&in_force, is_held);
        }
    }
}
