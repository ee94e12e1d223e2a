//! Tests which servers are in service after random events. The events happen at
//! the servers and at the agent.

use proptest::prelude::*;

use super::*;

const SERVERS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// One period of the health check passes, with a probe result for each
    /// server: `+` for success, `-` for failure, `.` for none.
    Probe(String),
    /// The given number of seconds passes without probe results.
    Wait(i64),
    /// The agent restarts after the disk lost the writes of the last steps. The
    /// number says how many steps were lost.
    Restart(usize),
    /// The agent restarts after its state folder was lost.
    Forget,
    /// The service's health check is edited.
    Edit(u8),
    /// A server is drained, or no longer drained.
    Drain(usize),
    /// A server leaves the service or joins the service.
    Change(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let results = proptest::collection::vec(
        prop_oneof![3 => Just('+'), 3 => Just('-'), 1 => Just('.')],
        4,
    );
    prop_oneof![
        12 => results.prop_map(|results| Step::Probe(results.into_iter().collect())),
        1 => (1..30_i64).prop_map(Step::Wait),
        2 => (0..4_usize).prop_map(Step::Restart),
        1 => Just(Step::Forget),
        1 => (0..3_u8).prop_map(Step::Edit),
        1 => (0..4_usize).prop_map(Step::Drain),
        1 => (0..4_usize).prop_map(Step::Change),
    ]
}

fn policy() -> impl Strategy<Value = Availability> {
    let below = prop_oneof![Just(BelowMinimum::FailOpen), Just(BelowMinimum::Reject)];
    let on_failure = prop_oneof![Just(OnFailure::Quiesce), Just(OnFailure::Remove)];
    let minimum = proptest::option::of(1..4_u32);
    let above = proptest::option::of(1..4_u32);
    (below, on_failure, minimum, above).prop_map(|(below, on_failure, minimum, above)| {
        Availability {
            on_failure,
            minimum: minimum.map(Quantity::Count),
            recover_above: above.map(Quantity::Count),
            below,
            slow_start: None,
        }
    })
}

/// A scene and the history of its disk: the health rows after each step.
struct Walk {
    scene: Scene,
    availability: Availability,
    disks: Vec<BTreeMap<String, String>>,
}

impl Walk {
    fn take(&mut self, step: &Step) {
        let scene = &mut self.scene;
        match step {
            Step::Probe(results) => {
                scene.probe(results);
            }
            Step::Wait(seconds) => {
                scene.wait(*seconds);
            }
            Step::Restart(lost) => {
                let last = self.disks.len().saturating_sub(1 + lost);
                let rows = self.disks.get(last).cloned().unwrap_or_default();
                self.restart(&rows);
            }
            Step::Forget => {
                self.disks = vec![BTreeMap::new()];
                self.restart(&BTreeMap::new());
            }
            Step::Edit(path) => {
                let path = path.to_string();
                scene.policy = check_policy(self.availability.clone(), &path);
                let before = scene.weights();
                scene.wish();
                assert_eq!(scene.weights(), before, "an edited check is no verdict");
            }
            Step::Drain(index) => {
                if let Some((_, config)) = scene.wanted.destinations.get_index_mut(*index) {
                    config.weight = WEIGHT - config.weight;
                }
                scene.wish();
            }
            Step::Change(index) => {
                let key = server(u8::try_from(*index).unwrap() + 1);
                let all = &mut scene.wanted.destinations;
                if all.shift_remove(&key).is_none() {
                    all.insert(key, weight(WEIGHT));
                }
                scene.wish();
            }
        }
        self.disks.push(self.scene.rows.clone());
        self.check();
    }

    /// Restarts the agent with `rows`, which may be old. Checks that the
    /// restart itself changes no weight.
    fn restart(&mut self, rows: &BTreeMap<String, String>) {
        let before = self.scene.weights();
        let after = self.scene.restart_with(rows);
        assert_eq!(after, before, "a restart is no verdict");
    }

    fn check(&self) {
        let scene = &self.scene;
        let service = &scene.serving.services[&scene.key];
        let kernel = &scene.kernel.as_ref().unwrap().destinations;
        let is_below = service.below_since.is_some();
        let fails_open = is_below && self.availability.below == BelowMinimum::FailOpen;
        let rejects = is_below && !fails_open;
        for (server, member) in &service.servers {
            let found = kernel.get(server).map_or(0, |found| found.weight);
            let is_up = member.state.health() == Health::Up;
            let expected = match is_up || fails_open {
                true if !rejects => member.weight,
                _ => 0,
            };
            assert_eq!(found, expected, "{server}: {member:?}, below: {is_below}");
        }
        let count = service.count();
        if self.availability.below == BelowMinimum::FailOpen && count.total > 0 {
            let is_awaited = service.first_results_due(at(scene.second)).is_some();
            let is_served = kernel.values().any(|found| found.weight > 0);
            assert!(is_served || is_awaited, "a server serves: {service:?}");
        }
        let minimum = self.availability.minimum_of(count.total);
        if !is_below && count.healthy < minimum {
            let is_awaited = service.first_results_due(at(scene.second)).is_some();
            assert!(is_awaited, "too few, and nothing is done: {service:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_weights_follow_verdicts_and_nothing_else(
        availability in policy(),
        is_served in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut scene = Scene::with(SERVERS, availability.clone());
        if is_served {
            scene = scene.served();
        }
        scene.wish();
        let disks = vec![scene.rows.clone()];
        let mut walk = Walk { scene, availability, disks };
        walk.check();
        for step in &steps {
            walk.take(step);
        }
    }
}
