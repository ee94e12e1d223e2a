//! Tests that drained and leaving servers end as they should, whatever else
//! happens to them in whatever order.

use std::collections::BTreeMap;

use crds::{
    Availability, BelowMinimum, DrainRule, ForwardingRule, Quantity, SorryServer, api::AtEnd,
};
use ipvs::{DestinationKey, ServiceKey};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{graces::s, *};
use crate::{
    decide::{
        departures::{GRACE, Record},
        serving::Found,
    },
    event::probed::{ProbeId, Tally},
    fixtures::NOON,
    host::reading::{Load, Loads},
    probe::target::Order,
};

/// The drained servers have this time.
const DRAIN: Duration = s(30);
/// The period of the service.
const PERIOD: Duration = s(60);
/// The last of the servers, which is the sorry server too.
const SORRY: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A server is drained, or active again.
    Drain(u8, Option<AtEnd>),
    /// A server is deleted, or made again.
    Want(u8, bool),
    /// A server gets a connection, or its last one ends.
    Connect(u8, bool),
    /// A server fails or recovers.
    Health(u8, bool),
    /// The removals are held, or no longer.
    Hold(bool),
    /// The agent restarts with what the journal has.
    Restart,
    /// Seconds pass.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any_server = 1..=SORRY;
    let ends = select(vec![None, Some(AtEnd::Keep), Some(AtEnd::Disconnect)]);
    prop_oneof![
        3 => (any_server.clone(), ends).prop_map(|(last, end)| Step::Drain(last, end)),
        3 => (1..SORRY, any::<bool>()).prop_map(|(last, is)| Step::Want(last, is)),
        2 => (any_server.clone(), any::<bool>()).prop_map(|(last, is)| Step::Connect(last, is)),
        2 => (any_server, any::<bool>()).prop_map(|(last, is)| Step::Health(last, is)),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::Restart),
        4 => (1..25_u64).prop_map(Step::Wait),
    ]
}

/// One service on a modelled kernel, with what is expected of its servers.
struct Walk {
    scene: Scene,
    policy: CheckPolicy,
    wanted: BTreeSet<u8>,
    /// The drained servers, each with the time at which its drain began.
    drained: BTreeMap<u8, (AtEnd, Duration)>,
    /// The servers that leave, each with the time at which this was allowed.
    leaving: BTreeMap<u8, Option<Duration>>,
    connected: BTreeSet<u8>,
    probes: BTreeMap<u8, ProbeId>,
    is_held: bool,
    journal: Record,
}

fn key() -> ServiceKey {
    tcp(WEB, 80)
}

impl Walk {
    fn begin() -> Self {
        let all: Vec<_> = (1..=SORRY).map(|last| (last, 10)).collect();
        let mut policy = CheckPolicy::clone(&checked(&[]).checks[&key()]);
        policy.sorry = Some((server(SORRY), weight(1)));
        policy.availability = Availability {
            minimum: Some(Quantity::Count(2)),
            below: BelowMinimum::Sorry(SorryServer {
                address: server(SORRY).address,
                port: 80,
                forwarding: ForwardingRule::Nat,
            }),
            slow_start: Some(s(20)),
            ..policy.availability
        };
        let mut scene = Scene::with(&web(&all).table);
        scene.retention = Retention::default();
        let mut walk = Self {
            scene,
            policy,
            wanted: (1..=SORRY).collect(),
            drained: BTreeMap::new(),
            leaving: BTreeMap::new(),
            connected: BTreeSet::new(),
            probes: BTreeMap::new(),
            is_held: false,
            journal: Record::default(),
        };
        walk.round();
        walk
    }

    fn take(&mut self, step: &Step) {
        let now = self.scene.now;
        match step {
            Step::Drain(last, Some(end)) => {
                let since = self.drained.get(last).map_or(now, |(_, since)| *since);
                if self.wanted.contains(last) {
                    self.drained.insert(*last, (*end, since));
                }
            }
            Step::Drain(last, None) => _ = self.drained.remove(last),
            Step::Want(last, true) => {
                self.wanted.insert(*last);
                self.leaving.remove(last);
            }
            Step::Want(last, false) => {
                self.wanted.remove(last);
                self.drained.remove(last);
                if self.weight(*last).is_some() {
                    self.leaving.entry(*last).or_default();
                }
            }
            Step::Connect(last, true) => _ = self.connected.insert(*last),
            Step::Connect(last, false) => _ = self.connected.remove(last),
            Step::Health(last, is_well) => {
                let tally = Tally {
                    successes: if *is_well { 3 } else { 0 },
                    failures: if *is_well { 0 } else { 3 },
                    is_flapping: false,
                    why: None,
                };
                if let Some(probe) = self.probes.get(last) {
                    let wall = NOON.checked_add(now).unwrap();
                    self.scene.serving.hear(*probe, &tally, wall);
                }
            }
            Step::Hold(is_held) => self.is_held = *is_held,
            Step::Restart => {
                self.scene.retention = Retention::default();
                self.scene.retention.restore(&self.journal);
            }
            Step::Wait(seconds) => self.scene.now += s(*seconds),
        }
    }

    /// Returns the wanted state.
    fn desired(&self) -> Desired {
        let of = |last: &u8| {
            (
                *last,
                if self.drained.contains_key(last) {
                    0
                } else {
                    10
                },
            )
        };
        let mut desired = web(&self.wanted.iter().map(of).collect::<Vec<_>>());
        let drained = self.drained.iter();
        desired.drains = drained
            .map(|(last, (at_end, _))| {
                let rule = DrainRule {
                    timeout: DRAIN,
                    at_end: *at_end,
                };
                ((key(), server(*last)), rule)
            })
            .collect();
        let policy = CheckPolicy {
            drained: self.drained.keys().map(|last| server(*last)).collect(),
            ..self.policy.clone()
        };
        desired.checks.insert(key(), Arc::new(policy));
        desired.periods.insert(key(), PERIOD);
        desired
    }

    /// Runs the stages of a round, and applies the result to the kernel.
    fn round(&mut self) {
        let now = self.scene.now;
        let one = Load {
            active: 1,
            ..Load::default()
        };
        let connected = self.connected.iter().map(|last| (server(*last), one));
        let loads = Loads::from([(key(), connected.collect())]);
        self.scene.idle.get_or_insert_default().hear(now, loads);
        let removals = match self.is_held {
            true => Removals::Held { lasting: false },
            false => Removals::Released,
        };
        let retained = self.scene.retain(&self.desired(), removals);
        if let Some(record) = self.scene.retention.unsaved() {
            self.journal = record;
            self.scene.retention.saved();
        }
        let in_force = retained.in_force.desired;
        let wall = NOON.checked_add(now).unwrap();
        let service = &in_force.table[&key()];
        let found = Found {
            service: self.scene.kernel.get(&key()),
            is_ours: true,
        };
        let serving = &mut self.scene.serving;
        serving.wish(
            key(),
            Some((&in_force.checks[&key()], service)),
            found,
            wall,
        );
        serving.pass(wall);
        for order in serving.take_orders() {
            if let Order::Start(probe, target) = order
                && let std::net::IpAddr::V4(address) = target.address.ip()
            {
                self.probes.insert(address.octets()[3], probe);
            }
        }
        let mut weighed = serving.weigh(key(), service, wall);
        let drains = self.scene.retention.drains();
        let has_ended = |server: &DestinationKey| drains.has_ended(&(key(), *server));
        weighed.destinations.retain(|server, _| !has_ended(server));
        let table = [(key(), weighed)].into();
        let Scene { ours, kernel, .. } = &mut self.scene;
        let plan = ipvs::plan(&table, kernel, &ours.table, OnConflict::Adopt);
        plan.ops.iter().for_each(|op| op.apply_to(kernel));
        ours.table.acknowledge(&plan.ops.iter().collect::<Vec<_>>());
    }

    fn weight(&self, last: u8) -> Option<u32> {
        let service = &self.scene.kernel[&key()];
        let found = service.destinations.get(&server(last));
        found.map(|config| config.weight)
    }

    /// Runs a round, and checks what became of each server.
    fn expect(&mut self) {
        let now = self.scene.now;
        for since in self.leaving.values_mut() {
            match self.is_held {
                true => *since = None,
                false => _ = since.get_or_insert(now),
            }
        }
        let is_down = |last: &u8| self.scene.serving.is_down(&key(), &server(*last));
        let ends = self.leaving.iter().filter_map(|(last, since)| {
            let took = now - (*since)?;
            let is_free = !self.connected.contains(last) || is_down(last);
            (took >= PERIOD || took >= GRACE && is_free).then_some(*last)
        });
        let ends: BTreeSet<_> = ends.collect();
        self.round();
        for (last, (at_end, since)) in &self.drained {
            let is_over = *at_end == AtEnd::Disconnect && now >= *since + DRAIN;
            let expected = if is_over { None } else { Some(0) };
            assert_eq!(
                self.weight(*last),
                expected,
                "drained server {last} at {now:?}"
            );
        }
        for (last, since) in &self.leaving {
            let weight = self.weight(*last);
            match (ends.contains(last), since) {
                (true, _) => assert_eq!(weight, None, "{last} has left at {now:?}"),
                (false, Some(_)) => assert_eq!(weight, Some(0), "{last} leaves at {now:?}"),
                (false, None) => assert!(weight.is_some(), "{last} is held at {now:?}"),
            }
        }
        self.leaving.retain(|last, _| !ends.contains(last));
        for last in &self.wanted {
            let is_there = self.weight(*last).is_some() || self.drained.contains_key(last);
            assert!(is_there, "wanted server {last} at {now:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn drained_and_leaving_servers_end_as_they_should_in_any_order_of_events(
        steps in vec(step(), 1..20),
    ) {
        let mut walk = Walk::begin();
        for step in &steps {
            walk.take(step);
            walk.expect();
        }
    }
}
