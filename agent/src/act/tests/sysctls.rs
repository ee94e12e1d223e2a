//! Tests of the sysctls that services need.

mod others;

use std::sync::Arc;

use super::*;
use crate::{
    decide::desired::CheckPolicy,
    fixtures::health::{availability, check},
};

const NAMES: [&str; 2] = [
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
];
const FORWARDING: &str = "net.ipv4.conf.eth1.forwarding";
const LOOK: Duration = Duration::from_secs(10);

/// Returns a wish for a service with a health check.
fn checked() -> Desired {
    let mut desired = wish(&[]);
    let policy = CheckPolicy {
        check: Arc::new(check()),
        namespace: "shop".into(),
        quotable: Default::default(),
        availability: availability(),
        sorry: None,
        quiesce_only: Default::default(),
        drained: Default::default(),
    };
    let key = tcp("192.0.2.10", 80);
    desired.checks.insert(key, Arc::new(policy));
    desired
}

/// Returns a wish for a service with a NAT server behind eth1.
fn nat() -> Desired {
    wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])])
}

fn value(world: &ModelWorld, name: &str) -> String {
    world.parts().sysctls[name].clone()
}

fn values(world: &ModelWorld) -> [String; 2] {
    NAMES.map(|name| value(world, name))
}

/// Sets a sysctl as another process would.
fn put(world: &ModelWorld, name: &str, value: &str) {
    world.parts().sysctls.insert(name.into(), value.into());
}

/// Returns the previous value that the journal records for a sysctl.
fn before(world: &ModelWorld, name: &str) -> Option<String> {
    let remembered = world.parts().disk.remembered();
    remembered.sysctls.get(name).cloned()
}

/// Returns the reported status of a sysctl.
#[track_caller]
fn told<'a>(outcome: &'a Outcome, name: &str) -> &'a crds::api::SysctlStatus {
    let all = &outcome.sysctls.all;
    let found = all.iter().find(|sysctl| sysctl.name == name);
    found.unwrap_or_else(|| panic!("{name} should be reported, among {all:#?}"))
}

#[track_caller]
fn problem(outcome: &Outcome, name: &str) -> String {
    let told = told(outcome, name);
    let problem = told.problem.clone();
    problem.unwrap_or_else(|| panic!("{name} should be reported as a problem: {told:?}"))
}

impl Agent {
    /// Runs a round when the next check of the sysctls is due.
    fn later(&mut self, wish: &Desired) -> Outcome {
        self.now += LOOK;
        self.round(wish)
    }
}

#[test]
fn they_are_set_for_a_check_and_restored_without_one() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&wish(&[]));
    assert_eq!(world.news(), [""; 0], "no service needs them");
    agent.round(&checked());
    assert_eq!(values(&world), ["1", "1"]);
    world.news();

    let mut next = Agent::start(&world);
    next.round(&checked());
    assert_eq!(world.news(), [""; 0], "a restart sets nothing");
    next.later(&wish(&[]));
    assert_eq!(values(&world), ["0", "0"], "as they were found");
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn one_that_had_the_wanted_value_before_is_not_ours_and_stays() {
    let world = ModelWorld::new();
    put(&world, NAMES[0], "1");
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    agent.later(&wish(&[]));
    assert_eq!(values(&world), ["1", "0"]);
}

#[test]
fn one_that_another_process_sets_back_is_put_right_and_counted() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    put(&world, NAMES[1], "0");
    agent.round(&checked());
    assert_eq!(
        values(&world),
        ["1", "0"],
        "the change is not seen before the next look"
    );
    let outcome = agent.later(&checked());
    assert_eq!(values(&world), ["1", "1"]);
    assert_eq!(outcome.repairs.count, 1);
    assert_eq!(
        outcome.repairs.latest,
        ["sysctl net.ipv4.vs.expire_quiescent_template=1"]
    );
}

#[test]
fn one_that_another_process_keeps_setting_back_is_left_and_reported() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    for time in 1..=3 {
        put(&world, NAMES[0], "0");
        let outcome = agent.later(&checked());
        assert_eq!(values(&world), ["1", "1"], "put right for the {time}. time");
        assert_eq!(told(&outcome, NAMES[0]).problem, None);
    }
    world.news();
    put(&world, NAMES[0], "0");
    for _ in 0..100 {
        let outcome = agent.later(&checked());
        let problem = problem(&outcome, NAMES[0]);
        assert!(
            problem.contains("another program sets it to 0"),
            "{problem}"
        );
        assert_eq!(
            outcome.failures,
            BTreeMap::new(),
            "a fight over a sysctl is no failure"
        );
    }
    assert_eq!(world.news(), [""; 0], "it is left alone");

    put(&world, NAMES[0], "1");
    let outcome = agent.later(&checked());
    assert_eq!(
        told(&outcome, NAMES[0]).problem,
        None,
        "the other process set the wanted value"
    );
    put(&world, NAMES[0], "0");
    agent.later(&wish(&[]));
    assert_eq!(
        values(&world),
        ["0", "0"],
        "both have their previous values"
    );
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn a_value_that_another_process_set_meanwhile_stays() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&checked());
    put(&world, NAMES[0], "2");
    agent.later(&wish(&[]));
    assert_eq!(values(&world), ["2", "0"]);
    assert_eq!(
        world.parts().disk.owned.len(),
        0,
        "and the sysctl is not ours"
    );
}

#[test]
fn whenever_it_dies_what_was_there_before_is_not_forgotten() {
    for calls in 0..20 {
        let world = ModelWorld::new();
        world.parts().life = Some(calls);
        let _ = Agent::start(&world).try_round(&checked(), Holding::Take);
        world.parts().life = None;
        let mut next = Agent::start(&world);
        next.round(&checked());
        assert_eq!(values(&world), ["1", "1"], "after {calls} calls");
        next.later(&wish(&[]));
        assert_eq!(values(&world), ["0", "0"], "after {calls} calls");
    }
}

#[test]
fn where_they_cannot_be_set_each_is_reported_and_the_rest_goes_on() {
    let world = ModelWorld::new();
    let gone = world.parts().sysctls.remove(NAMES[0]);
    assert!(gone.is_some(), "the sysctl is gone from the kernel");
    world.parts().read_only.insert(NAMES[1].into());
    let mut agent = Agent::start(&world);
    let mut desired = nat();
    desired.checks = checked().checks;
    let outcome = agent.round(&desired);
    let missing = problem(&outcome, NAMES[0]);
    assert!(
        missing.contains("this kernel has no such value"),
        "{missing}"
    );
    let read_only = problem(&outcome, NAMES[1]);
    assert!(read_only.contains("Read-only file system"), "{read_only}");
    assert!(read_only.contains("--sysctl-dir"), "{read_only}");
    assert_eq!(told(&outcome, NAMES[1]).found.as_deref(), Some("0"));
    assert_eq!(told(&outcome, NAMES[1]).before, None, "it was not set");
    assert_eq!(outcome.failures, BTreeMap::new(), "none of it is fatal");
    assert_eq!(world.table().len(), 2, "the table is as wanted");
    assert_eq!(before(&world, NAMES[1]), None);

    world.parts().read_only.clear();
    let outcome = agent.later(&desired);
    assert_eq!(
        told(&outcome, NAMES[1]).problem,
        None,
        "the mount is writable again"
    );
    assert_eq!(value(&world, NAMES[1]), "1");
}

#[test]
fn nothing_is_set_that_could_not_be_written_down() {
    let world = ModelWorld::new();
    world.parts().disk_broken = true;
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&checked());
    let why = problem(&outcome, NAMES[0]);
    assert!(why.contains("state folder"), "{why}");
    assert_eq!(values(&world), ["0", "0"]);
    world.parts().disk_broken = false;
    agent.later(&checked());
    assert_eq!(values(&world), ["1", "1"]);
    agent.later(&wish(&[]));
    assert_eq!(values(&world), ["0", "0"], "what they were was remembered");
}

#[test]
fn shared_ones_stay_when_nothing_needs_them_and_the_journal_has_their_previous_values() {
    let world = ModelWorld::new();
    put(&world, FORWARDING, "0");
    put(&world, "net.ipv4.conf.all.send_redirects", "1");
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&nat());
    assert_eq!(value(&world, FORWARDING), "1");
    assert_eq!(told(&outcome, FORWARDING).before.as_deref(), Some("0"));
    agent.round(&wish(&[]));
    let outcome = agent.later(&wish(&[]));
    assert_eq!(
        value(&world, FORWARDING),
        "1",
        "another program may need it by now"
    );
    assert_eq!(outcome.sysctls, Sysctls::default(), "nothing needs it");
    assert_eq!(before(&world, FORWARDING).as_deref(), Some("0"));
    let redirects = before(&world, "net.ipv4.conf.all.send_redirects");
    assert_eq!(redirects.as_deref(), Some("1"));

    // The journal keeps the value from before the agent first set the sysctl.
    put(&world, FORWARDING, "0");
    Agent::start(&world).round(&nat());
    assert_eq!(before(&world, FORWARDING).as_deref(), Some("0"));
}

#[test]
fn what_is_served_still_keeps_what_it_needs() {
    let world = ModelWorld::new();
    put(&world, "net.ipv4.vs.conntrack", "0");
    world.parts().calls_packets_invalid = true;
    let mut agent = settled(&world, &nat());
    assert_eq!(value(&world, "net.ipv4.vs.conntrack"), "1");
    agent.removals = Removals::Held { lasting: true };
    agent.later(&wish(&[]));
    agent.later(&wish(&[]));
    assert_eq!(
        value(&world, "net.ipv4.vs.conntrack"),
        "1",
        "the service is held"
    );
    agent.removals = Removals::Released;
    agent.later(&wish(&[]));
    agent.later(&wish(&[]));
    assert_eq!(world.table(), [""; 0]);
    assert_eq!(value(&world, "net.ipv4.vs.conntrack"), "0");
}
