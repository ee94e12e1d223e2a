mod fairness;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn schedule(seed: u64) -> Schedule {
    with_places(usize::MAX, seed)
}

fn with_places(places: usize, seed: u64) -> Schedule {
    let random = fastrand::Rng::with_seed(seed);
    Schedule::new(Budget::with_places(places), random)
}

fn shop() -> Arc<str> {
    "shop".into()
}

/// A schedule in simulated time, with the start times of its probes.
struct World {
    schedule: Schedule,
    now: Duration,
    /// Returns how long a probe of this target takes.
    answers_after: fn(ProbeId) -> Duration,
    in_flight: BTreeMap<(Duration, ProbeId), Flight>,
    began: BTreeMap<ProbeId, Vec<Duration>>,
    /// The greatest lateness of each target's probes.
    lateness: BTreeMap<ProbeId, Duration>,
}

impl World {
    fn new(schedule: Schedule, answers_after: fn(ProbeId) -> Duration) -> Self {
        Self {
            schedule,
            now: Duration::ZERO,
            answers_after,
            in_flight: BTreeMap::new(),
            began: BTreeMap::new(),
            lateness: BTreeMap::new(),
        }
    }

    fn insert(&mut self, ids: std::ops::Range<u64>, period: Duration) {
        self.insert_in("shop", ids, period);
    }

    fn insert_in(&mut self, namespace: &str, ids: std::ops::Range<u64>, period: Duration) {
        let namespace = namespace.into();
        for id in ids {
            let id = ProbeId(id);
            self.schedule.insert(id, &namespace, period, self.now);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let ends = self.in_flight.first_key_value().map(|((end, _), _)| *end);
            let next = self.schedule.next_deadline().into_iter().chain(ends).min();
            let Some(next) = next.filter(|next| *next < end) else {
                break;
            };
            self.now = self.now.max(next);
            while self
                .in_flight
                .first_key_value()
                .is_some_and(|((end, _), _)| *end <= self.now)
            {
                let (_, flight) = self.in_flight.pop_first().unwrap();
                self.schedule.ended(flight, self.now);
            }
            while let Some(flight) = self.schedule.take(self.now) {
                let is_in_flight = self.in_flight.values().any(|other| other.id == flight.id);
                assert!(!is_in_flight, "{flight:?} is the second at once");
                let ends = self.now + (self.answers_after)(flight.id);
                self.in_flight.insert((ends, flight.id), flight);
                let lateness = self.lateness.entry(flight.id).or_default();
                *lateness = (*lateness).max(flight.lateness.unwrap_or_default());
                self.began.entry(flight.id).or_default().push(self.now);
            }
        }
        self.now = end;
    }

    fn began_between(&self, from: Duration, to: Duration) -> usize {
        let times = self.began.values().flatten();
        times.filter(|time| from <= **time && **time < to).count()
    }

    /// Returns the shortest and the longest time between two probes of a
    /// target.
    fn gaps(&self) -> (Duration, Duration) {
        let gaps = self
            .began
            .values()
            .flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
        let gaps: Vec<_> = gaps.collect();
        (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap())
    }
}

#[test]
fn a_new_target_is_probed_at_once_and_then_once_a_period() {
    for seed in 0..20 {
        let mut world = World::new(schedule(seed), |_| MILLISECOND);
        world.insert(0..1, 5 * SECOND);
        world.run(60 * SECOND);
        let times = &world.began[&ProbeId(0)];
        assert_eq!(times[0], Duration::ZERO);
        assert!((12..=14).contains(&times.len()), "{times:?}");
        let (least, greatest) = world.gaps();
        assert!(least >= 2500 * MILLISECOND, "{times:?}");
        assert!(greatest <= 5100 * MILLISECOND, "{times:?}");
    }
}

#[test]
fn many_new_targets_begin_close_together_and_not_all_at_once() {
    for (count, within) in [(50, SECOND), (250, 5 * SECOND), (10_000, 5 * SECOND)] {
        let mut world = World::new(schedule(1), |_| MILLISECOND);
        world.insert(0..count, 5 * SECOND);
        world.run(within);
        assert_eq!(world.began.len() as u64, count, "all of them in {within:?}");
        let at_once = world.began_between(Duration::ZERO, 20 * MILLISECOND);
        assert!(at_once <= 260, "{at_once} of {count} at once");
    }
}

#[test]
fn the_probes_of_many_targets_are_spread_over_the_period() {
    for seed in 0..5 {
        let mut world = World::new(schedule(seed), |_| MILLISECOND);
        // The test later removes a third of the targets. The slots of the
        // removed targets are consecutive.
        world.insert(0..1000, 5 * SECOND);
        world.run(7 * SECOND);
        world.insert(1000..1500, 5 * SECOND);
        for id in 300..800 {
            world.schedule.remove(ProbeId(id));
        }
        world.run(13 * SECOND);
        for tenth in 0..40 {
            let from = 20 * SECOND + tenth * SECOND / 2;
            world.run(SECOND / 2);
            let count = world.began_between(from, from + SECOND / 2);
            assert!((75..=125).contains(&count), "{count} in tenth {tenth}");
        }
    }
}

#[test]
fn several_directors_are_not_in_step() {
    let first = |seed| {
        let mut world = World::new(schedule(seed), |_| MILLISECOND);
        world.insert(0..1, 5 * SECOND);
        world.run(20 * SECOND);
        world.began[&ProbeId(0)][2].as_millis() % 5000
    };
    let phases: BTreeSet<_> = (0..20).map(|seed| first(seed) / 500).collect();
    assert!(phases.len() > 5, "{phases:?}");
}

#[test]
fn a_server_that_never_answers_is_probed_each_period_also_when_that_is_the_timeout() {
    let mut world = World::new(schedule(3), |_| SECOND);
    world.insert(0..1, SECOND);
    world.run(100 * SECOND);
    let count = world.began[&ProbeId(0)].len();
    assert!((98..=101).contains(&count), "{count} in 100 periods");
}

#[test]
fn what_does_not_fit_waits_and_begins_late() {
    let mut schedule = with_places(2, 1);
    for id in 0..3 {
        schedule.insert(ProbeId(id), &shop(), SECOND, Duration::ZERO);
    }
    let first = schedule.take(Duration::ZERO).unwrap();
    let second = schedule.take(Duration::ZERO).unwrap();
    assert_eq!(schedule.take(Duration::ZERO), None);
    assert_eq!(schedule.next_deadline(), None, "until one has ended");
    assert!(schedule.ended(first, MILLISECOND));
    assert_eq!(schedule.take(MILLISECOND).unwrap().id, ProbeId(2));
    assert!(schedule.take(10 * SECOND).is_none(), "two are in flight");
    assert!(schedule.ended(second, 10 * SECOND));
    let late = schedule.take(10 * SECOND).unwrap().lateness.unwrap();
    assert!(late > 8 * SECOND, "{late:?}");
}

#[test]
fn after_a_time_of_standing_still_nothing_is_made_up_for() {
    let mut world = World::new(schedule(1), |_| MILLISECOND);
    world.insert(0..1000, 5 * SECOND);
    world.run(20 * SECOND);
    let before = world.began_between(Duration::ZERO, 20 * SECOND);
    world.now += 60 * SECOND;
    world.run(SECOND);
    let after = world.began_between(20 * SECOND, 100 * SECOND);
    assert!((300..=450).contains(&after), "twice the average: {after}");
    world.run(4 * SECOND);
    let made = world.began_between(Duration::ZERO, 100 * SECOND) - before;
    assert!((1000..=1800).contains(&made), "{made}");
}

#[test]
fn what_is_no_longer_wanted_is_not_reported() {
    let mut schedule = schedule(1);
    schedule.insert(ProbeId(1), &shop(), SECOND, Duration::ZERO);
    let flight = schedule.take(Duration::ZERO).unwrap();
    schedule.remove(ProbeId(1));
    assert!(!schedule.ended(flight, MILLISECOND));
    assert_eq!(schedule.next_deadline(), None);

    schedule.insert(ProbeId(1), &shop(), SECOND, Duration::ZERO);
    let flight = schedule.take(SECOND).unwrap();
    schedule.insert(ProbeId(1), &shop(), SECOND, SECOND);
    assert_eq!(schedule.take(SECOND), None, "there are never two at once");
    assert!(
        !schedule.ended(flight, SECOND),
        "the probe belongs to the earlier target"
    );
    assert!(schedule.take(SECOND).is_some());
}

proptest! {
    #[test]
    fn every_target_is_probed_every_period_and_never_twice_at_once(
        seed: u64,
        steps in prop::collection::vec((0u64..40, 0usize..4, 0u32..4000), 1..40),
    ) {
        const PERIODS: [u32; 3] = [1, 5, 7];
        let mut world = World::new(schedule(seed), |id| MILLISECOND * 25 * id.0 as u32);
        let mut periods = BTreeMap::new();
        for (id, period, rest) in steps {
            match PERIODS.get(period) {
                Some(seconds) => {
                    world.insert(id..id + 1, SECOND * *seconds);
                    periods.insert(ProbeId(id), SECOND * *seconds);
                }
                None => {
                    world.schedule.remove(ProbeId(id));
                    periods.remove(&ProbeId(id));
                }
            }
            // A probe takes less than 1 s. So a probe of a removed target ends
            // before the next step.
            world.run(SECOND + MILLISECOND * rest);
        }
        let from = world.now;
        world.began.clear();
        world.run(30 * SECOND);
        for (id, period) in periods {
            let times = &world.began[&id];
            let from_to = times.iter().copied().chain([from + 30 * SECOND]);
            let mut before = from;
            for time in from_to {
                let slack = period / JITTER + 400 * MILLISECOND;
                prop_assert!(time - before <= period + slack, "{id:?} {period:?} {times:?}");
                before = time;
            }
        }
    }
}
