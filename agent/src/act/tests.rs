use super::*;
use crate::{
    decide::{
        absence::Absence,
        addresses::Holding,
        desired::{Addresses, Desired, changed_services},
        ours::Remembered,
        retain::{Before, ClusterLooks, Removals, Retention, Traffic},
        sysctls::Tuning,
    },
    fixtures::{ModelWorld, ip, server, service, tcp, wish},
    heartbeat::Heartbeat,
};
use crds::AddressRule;
use ipvs::Timeouts;
use std::sync::Arc;

mod conflicts;
mod deaths;
mod failures;
mod guarded;
mod late;
mod property;
mod segments;
mod sysctls;
mod timeouts;

const WEB: &str = "192.0.2.10";

/// One run of an agent on a modelled host.
struct Agent {
    world: ModelWorld,
    journal: Box<dyn Journal>,
    state: State,
    retention: Retention,
    /// The removals that the agent's last round held, because they were not
    /// allowed yet.
    held: Vec<Op>,
    now: Duration,
    rule: AddressRule,
    removals: Removals,
    on_conflict: OnConflict,
    timeouts: Timeouts,
    tuning: Tuning,
    /// The wanted state in the agent's last round.
    wished: Desired,
}

impl Agent {
    /// Starts an agent with the records on the modelled host's disk.
    fn start(world: &ModelWorld) -> Self {
        let remembered = world.parts().disk.remembered();
        Self::with(world, Box::new(world.clone()), remembered)
    }

    /// Starts an agent with a journal and the records that were found in it.
    fn with(world: &ModelWorld, journal: Box<dyn Journal>, remembered: Remembered) -> Self {
        Self {
            world: world.clone(),
            journal,
            state: State::new(remembered),
            retention: Retention::immediate(),
            held: Vec::new(),
            now: Duration::ZERO,
            rule: AddressRule::Subnet,
            removals: Removals::Guarded,
            on_conflict: OnConflict::Adopt,
            timeouts: Timeouts::default(),
            tuning: Tuning::default(),
            wished: Desired::default(),
        }
    }

    fn try_round(&mut self, wish: &Desired, holding: Holding) -> Result<Outcome, ipvs::Error> {
        let mut handles = [(); 5].map(|()| self.world.clone());
        let [kernel, links, sysctls, segments, surroundings] = &mut handles;
        let mut edges = Edges {
            kernel,
            links,
            journal: self.journal.as_mut(),
            sysctls,
            segments,
            surroundings,
            heartbeat: &Heartbeat::default(),
        };
        let changed = changed_services(&self.wished, wish);
        self.state.wish_changed(changed);
        self.wished = wish.clone();
        let timeouts = Some(self.timeouts);
        let wish = Wish {
            desired: Arc::new(wish.clone()),
            addresses: Addresses {
                rule: self.rule.clone(),
                holding,
                ..Addresses::default()
            },
            on_conflict: self.on_conflict,
            timeouts,
            tuning: Some(self.tuning.clone()),
            kept_sysctls: BTreeSet::new(),
        };
        read(&mut self.state, &mut edges, timeouts, self.now)?;
        let before = Before {
            ours: self.state.ours(),
            kernel: self.state.believed().expect("the kernel was just read"),
            changed: self.state.dirty(),
            absence: &Absence::default(),
            looks: ClusterLooks::default(),
            uptime: self.now,
            traffic: Traffic::None,
        };
        let retained = self.retention.retain(wish, before, self.removals, self.now);
        self.held = retained.held;
        self.state.in_force_changed(retained.changed);
        let in_force = retained.in_force;
        let table = &in_force.desired.table;
        let outcome = run(&mut self.state, &mut edges, &in_force, table, self.now);
        if outcome.is_ok() {
            self.assert_nothing_is_overlooked(&in_force);
        }
        outcome
    }

    /// Plans all services. Checks that the plan has operations only for
    /// services in `state.unfinished`.
    fn assert_nothing_is_overlooked(&self, wish: &Wish) {
        let state = &self.state;
        let believed = state.believed.as_ref().expect("there was a round");
        let all = ipvs::plan(
            &wish.desired.table,
            believed,
            &state.ours.table,
            wish.on_conflict,
        );
        for op in &all.ops {
            let is_known = state.unfinished.contains(&op.service());
            assert!(is_known, "{op} is due and no round will plan it");
        }
        assert!(all.adopt.is_empty(), "overlooked: {:?}", all.adopt);
        assert_eq!(all.gone, ipvs::Gone::default(), "overlooked");
        let strangers: Vec<_> = state.strangers.values().flatten().collect();
        assert_eq!(all.strangers.len(), strangers.len(), "{strangers:?}");
        assert!(all.misordered.iter().eq(&state.misordered));
    }

    fn round(&mut self, wish: &Desired) -> Outcome {
        self.try_round(wish, Holding::Take)
            .expect("the kernel answers")
    }

    /// Advances the clock to the agent's next deadline, and runs a round.
    fn round_when_due(&mut self, wish: &Desired) -> Outcome {
        self.now = self.state.next_deadline().expect("something waits");
        self.round(wish)
    }
}

/// Returns an agent that has carried out `wish`, and empties the log of the
/// modelled host.
fn settled(world: &ModelWorld, wish: &Desired) -> Agent {
    let mut agent = Agent::start(world);
    let outcome = agent.round(wish);
    assert_eq!(
        outcome.failures,
        BTreeMap::new(),
        "the first round succeeds"
    );
    world.news();
    agent
}

#[test]
fn the_first_round_makes_services_then_destinations_then_the_vip_and_settles() {
    let world = ModelWorld::new();
    let outcome = Agent::start(&world).round(&wish(&[
        (tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)]),
        (tcp(WEB, 443), "rr", &[(1, 1)]),
    ]));
    assert_eq!(
        world.news(),
        [
            "intend",
            "-A -t 192.0.2.10:80 -s wrr",
            "-A -t 192.0.2.10:443 -s rr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 2",
            "-a -t 192.0.2.10:443 -r 198.51.100.1:80 -m -w 1",
            "settle",
            "intend",
            "+ 192.0.2.10 eth0",
            "settle",
        ]
    );
    assert_eq!((outcome.services, outcome.destinations), (2, 3));
    assert_eq!(outcome.vips[&ip(WEB)], "eth0");
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!(world.parts().disk.owned.len(), 6, "all of it is ours");
}

#[test]
fn an_edit_writes_nothing_to_the_journal() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]));
    agent.round(&wish(&[(tcp(WEB, 80), "rr", &[(1, 1), (2, 7)])]));
    assert_eq!(
        world.news(),
        [
            "-E -t 192.0.2.10:80 -s rr",
            "-e -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 7",
        ]
    );
}

#[test]
fn a_round_with_nothing_to_do_reads_no_table_and_writes_nothing() {
    let world = ModelWorld::new();
    let wish = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = settled(&world, &wish);
    let readings = world.parts().kernel.readings;
    let outcome = agent.round(&wish);
    assert_eq!(world.news(), [""; 0]);
    assert_eq!(world.parts().kernel.readings, readings);
    assert_eq!(outcome.vips.len(), 1, "the VIP is still reported");
}

#[test]
fn a_restart_reads_once_and_writes_nothing() {
    let world = ModelWorld::new();
    let wish = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]);
    drop(settled(&world, &wish));
    let readings = world.parts().kernel.readings;
    let outcome = Agent::start(&world).round(&wish);
    assert_eq!(
        world.news(),
        [""; 0],
        "nothing is written to the kernel or the disk"
    );
    assert_eq!(world.parts().kernel.readings, readings + 1);
    assert_eq!((outcome.services, outcome.destinations), (1, 2));
}

#[test]
fn what_a_full_comparison_finds_changed_is_made_right_again() {
    let world = ModelWorld::new();
    let wish = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]);
    let mut agent = settled(&world, &wish);
    let drifted = service("sed", &[(1, 9)]);
    world.parts().kernel.table.insert(tcp(WEB, 80), drifted);
    agent.round(&wish);
    assert_eq!(world.news(), [""; 0], "it believes its last reading");
    agent.state.distrust();
    agent.round(&wish);
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 2",
        ]
    );
}

#[test]
fn the_vip_goes_before_its_service_and_servers_go_with_it() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]));
    let outcome = agent.round(&wish(&[]));
    assert_eq!(
        world.news(),
        ["- 192.0.2.10 eth0", "-D -t 192.0.2.10:80", "settle"]
    );
    assert_eq!(
        world.parts().disk.owned.len(),
        0,
        "nothing is ours afterwards"
    );
    assert_eq!((outcome.services, outcome.destinations), (0, 0));
}

#[test]
fn a_vip_stays_until_its_last_service_goes() {
    let world = ModelWorld::new();
    let both = [
        (tcp(WEB, 80), "wrr", &[(1, 1)][..]),
        (tcp(WEB, 443), "wrr", &[(1, 1)][..]),
    ];
    let mut agent = settled(&world, &wish(&both));
    agent.round(&wish(&both[..1]));
    assert_eq!(world.news(), ["-D -t 192.0.2.10:443", "settle"]);
    agent.round(&wish(&[]));
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
}

#[test]
fn a_server_that_goes_leaves_the_others_alone() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]));
    agent.round(&wish(&[(tcp(WEB, 80), "wrr", &[(2, 2)])]));
    assert_eq!(
        world.news(),
        ["-d -t 192.0.2.10:80 -r 198.51.100.1:80", "settle"]
    );
}

#[test]
fn a_strangers_service_is_never_touched() {
    let world = ModelWorld::new();
    let theirs = service("sed", &[(9, 5)]);
    world
        .parts()
        .kernel
        .table
        .insert(tcp("192.0.2.99", 80), theirs.clone());
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    agent.state.distrust();
    agent.round(&wish(&[]));
    drop(agent);
    Agent::start(&world).round(&wish(&[]));
    assert_eq!(
        world.parts().kernel.table,
        [(tcp("192.0.2.99", 80), theirs)].into()
    );
}

#[test]
fn a_strangers_server_in_a_service_of_ours_is_reported_and_left() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = settled(&world, &ours);
    let with_theirs = service("wrr", &[(1, 1), (9, 5)]);
    world.parts().kernel.table.insert(tcp(WEB, 80), with_theirs);
    agent.state.distrust();
    let outcome = agent.round(&ours);
    assert_eq!(outcome.strangers, [(tcp(WEB, 80), server(9))]);
    assert_eq!(outcome.destinations, 1, "it does not count as ours");
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn what_is_wanted_and_there_is_noted_as_ours_and_then_edited_in_place() {
    let world = ModelWorld::new();
    let found = service("sed", &[(1, 9), (2, 2)]);
    world.parts().kernel.table.insert(tcp(WEB, 80), found);
    let mut agent = Agent::start(&world);
    agent
        .try_round(
            &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]),
            Holding::Undecided,
        )
        .unwrap();
    assert_eq!(
        world.news(),
        [
            "settle",
            "-E -t 192.0.2.10:80 -s wrr",
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
        ]
    );
    agent.round(&wish(&[]));
    assert_eq!(world.table(), [""; 0], "what was adopted is ours to remove");
}

#[test]
fn an_address_that_was_there_before_is_used_and_never_removed() {
    let world = ModelWorld::new();
    world.put(ip(WEB), "eth1");
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&ours);
    assert_eq!(outcome.vips[&ip(WEB)], "eth1", "wherever it is");
    agent.try_round(&ours, Holding::Release).unwrap();
    agent.round(&wish(&[]));
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth1"]);
    let touched = world.news().iter().any(|line| line.contains("eth"));
    assert!(!touched, "no address was added or removed");
}

#[test]
fn our_vip_is_removed_only_from_the_interface_that_we_put_it_on() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    for holding in [Holding::Take, Holding::Release] {
        let mut agent = settled(&world, &ours);
        world.put(ip(WEB), "lo");
        let left = match holding {
            Holding::Release => ours.clone(),
            _ => wish(&[]),
        };
        agent.try_round(&left, holding).unwrap();
        assert_eq!(world.interfaces_with(ip(WEB)), ["lo"], "{holding:?}");
        world.take(ip(WEB), "lo");
    }
}

#[test]
fn our_vip_that_another_process_moved_is_a_strangers() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    for holding in [Holding::Take, Holding::Release] {
        let mut agent = settled(&world, &ours);
        world.take(ip(WEB), "eth0");
        world.put(ip(WEB), "eth1");
        agent.try_round(&ours, holding).unwrap();
        agent.round(&wish(&[]));
        assert_eq!(world.interfaces_with(ip(WEB)), ["eth1"], "{holding:?}");
        world.take(ip(WEB), "eth1");
    }
}

#[test]
fn a_director_that_is_not_the_holder_serves_without_the_vips() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = Agent::start(&world);
    for (holding, here, missing) in [
        (Holding::Undecided, false, None),
        (Holding::KeepOnly, false, Some(Missing::HolderNotNamed)),
        (Holding::Take, true, None),
        (Holding::KeepOnly, true, None),
        (Holding::Undecided, true, None),
        (Holding::Release, false, None),
    ] {
        let outcome = agent.try_round(&ours, holding).unwrap();
        assert_eq!(outcome.vips.contains_key(&ip(WEB)), here, "{holding:?}");
        assert_eq!(outcome.missing.get(&ip(WEB)), missing.as_ref());
        assert_eq!(!world.interfaces_with(ip(WEB)).is_empty(), here);
        assert_eq!(outcome.services, 1, "the service is there without its VIP");
    }
}
