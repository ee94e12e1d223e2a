use crds::{Checked, CheckedGroup, api::DirectorGroupSpec};

use super::*;

/// The engine's default number of places.
const MANY: usize = 16 << 10;
/// The engine's number of places with a hard limit of 1,024 open files.
const FEW: usize = 512;
/// The greatest lateness, in simulated time, with which a probe counts as on
/// time. Within this time, the probes of a few other namespaces may begin
/// first.
const LATE: Duration = Duration::from_millis(60);
const MINUTE: Duration = Duration::from_secs(60);
/// The id of a target in the namespace that behaves normally.
const GOOD: ProbeId = ProbeId(1_000_000);

/// Returns how long a probe of a target takes. A target with an id below one
/// million never answers, so its probe takes a minute.
fn silent_below_a_million(id: ProbeId) -> Duration {
    if id < GOOD { MINUTE } else { MILLISECOND }
}

fn good() -> std::ops::Range<u64> {
    GOOD.0..GOOD.0 + 1
}

impl World {
    fn in_flight_below_a_million(&self) -> usize {
        self.in_flight.keys().filter(|(_, id)| *id < GOOD).count()
    }

    fn late(&self) -> BTreeMap<(String, Excess), usize> {
        let late = self.schedule.late();
        late.map(|(namespace, excess, count)| ((namespace.to_string(), excess), count))
            .collect()
    }
}

#[test]
fn silent_targets_of_one_namespace_keep_no_other_from_being_probed() {
    for places in [MANY, FEW] {
        let mut world = World::new(with_places(places, 1), silent_below_a_million);
        world.insert_in("silent", 0..32_000, MINUTE);
        world.run(MINUTE);
        world.insert_in("shop", good(), 5 * SECOND);
        world.run(165 * SECOND);
        let times = &world.began[&GOOD];
        let count = times.len();
        assert!((33..=34).contains(&count), "{count} of 33");
        let late = world.lateness[&GOOD];
        assert!(late <= LATE, "{late:?} with {places} places");
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = pauses.max().unwrap();
        assert!(longest <= 5100 * MILLISECOND, "{longest:?}");
        let used = world.in_flight_below_a_million();
        assert!(
            used >= places * 7 / 8 - 2,
            "{used} of {places}: the others may use what one does not need"
        );
        let late = world.late();
        assert_eq!(late.len(), 1, "{late:?}");
        let late = late[&("silent".to_owned(), Excess::Places)];
        assert!(late > 1_000, "{late} are late in each period");
    }
}

#[test]
fn a_namespace_gets_its_places_back_and_leaves_them_to_others_when_it_is_gone() {
    let mut world = World::new(with_places(FEW, 1), silent_below_a_million);
    let held_by = |world: &World, ids: std::ops::Range<u64>| {
        let held = world.in_flight.keys();
        held.filter(|(_, id)| ids.contains(&id.0)).count()
    };
    world.insert_in("one", 0..10_000, MINUTE);
    world.run(2 * MINUTE);
    assert_eq!(held_by(&world, 0..10_000), FEW * 7 / 8);
    world.insert_in("other", 10_000..20_000, MINUTE);
    world.run(SECOND);
    let at_once = held_by(&world, 10_000..20_000);
    assert!(at_once >= FEW / 16, "{at_once} of the reserve");
    world.run(2 * MINUTE);
    for ids in [0..10_000, 10_000..20_000] {
        assert_eq!(held_by(&world, ids), FEW * 7 / 16);
    }
    for id in 10_000..20_000 {
        world.schedule.remove(ProbeId(id));
    }
    world.run(2 * MINUTE);
    assert_eq!(held_by(&world, 0..10_000), FEW * 7 / 8);
}

#[test]
fn one_namespace_after_another_finds_a_place_at_once() {
    let mut world = World::new(with_places(FEW, 1), silent_below_a_million);
    for number in 0..5 {
        let ids = number * 10_000..(number + 1) * 10_000;
        let name = format!("silent{number}");
        world.insert_in(&name, ids.clone(), MINUTE);
        world.run(SECOND);
        let began = world.began.keys().filter(|id| ids.contains(&id.0)).count();
        assert!(began > 0, "the probes of {name} begin while others hold on");
    }
}

#[test]
fn more_probes_than_a_share_are_late_for_their_own_namespace_alone() {
    let mut world = World::new(with_places(MANY, 1), |_| MILLISECOND);
    world.insert_in("greedy", 0..50_000, 5 * SECOND);
    world.insert_in("shop", GOOD.0..GOOD.0 + 100, 5 * SECOND);
    world.run(10 * SECOND);
    world.began.clear();
    world.lateness.clear();
    world.run(50 * SECOND);
    let (good, greedy): (Vec<_>, Vec<_>) = world.began.iter().partition(|(id, _)| **id >= GOOD);
    let greedy: usize = greedy.iter().map(|(_, times)| times.len()).sum();
    assert!(
        (99_000..=101_000).contains(&greedy),
        "2000 a second: {greedy}"
    );
    for (id, times) in good {
        assert!((9..=11).contains(&times.len()), "{times:?}");
        let late = world.lateness[id];
        assert!(late <= LATE, "{id:?} {late:?}");
    }
    let late = world.late();
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(
        late[&("greedy".to_owned(), Excess::Rate)] > 40_000,
        "{late:?}"
    );
    for id in 8_000..50_000 {
        world.schedule.remove(ProbeId(id));
    }
    world.run(60 * SECOND);
    assert_eq!(world.late(), BTreeMap::new(), "it is over");
}

/// Returns the probe rates of a group whose spec has the given budgets.
fn rates(budgets: &serde_json::Value) -> Rates {
    let spec = serde_json::json!({"budgets": budgets});
    let spec: DirectorGroupSpec = serde_json::from_value(spec).unwrap();
    Rates::from(&CheckedGroup::check(&spec).unwrap().budgets)
}

#[test]
fn a_namespace_makes_as_many_probes_as_its_budget_has() {
    let mut world = World::new(with_places(MANY, 1), |_| MILLISECOND);
    world.insert_in("large", 0..10_000, 2 * SECOND);
    world.insert_in("small", 10_000..11_000, SECOND);
    world.schedule.set_rates(rates(&serde_json::json!({
        "perNamespace": {"probesPerSecond": 5000},
        "namespaces": [{"name": "small", "probesPerSecond": 100}],
    })));
    world.run(5 * SECOND);
    world.began.clear();
    world.run(20 * SECOND);
    let made = |ids: std::ops::Range<u64>| -> usize {
        let began = world.began.range(ProbeId(ids.start)..ProbeId(ids.end));
        began.map(|(_, times)| times.len()).sum()
    };
    let (large, small) = (made(0..10_000), made(10_000..11_000));
    assert!(
        (99_000..=101_000).contains(&large),
        "5000 a second: {large}"
    );
    assert!((1_950..=2_050).contains(&small), "100 a second: {small}");
}

#[test]
fn many_namespaces_share_the_prober_and_the_small_ones_get_what_they_need() {
    let mut world = World::new(with_places(MANY, 1), |_| MILLISECOND);
    for number in 0..8 {
        let ids = number * 10_000..(number + 1) * 10_000;
        world.insert_in(&format!("greedy{number}"), ids, 5 * SECOND);
    }
    world.insert_in("shop", good(), SECOND);
    world.run(10 * SECOND);
    world.began.clear();
    world.lateness.clear();
    world.run(30 * SECOND);
    let all: usize = world.began.values().map(Vec::len).sum();
    assert!((237_000..=243_000).contains(&all), "8000 a second: {all}");
    for number in 0..8 {
        let ids = ProbeId(number * 10_000)..ProbeId((number + 1) * 10_000);
        let made: usize = world.began.range(ids).map(|(_, times)| times.len()).sum();
        assert!((29_500..=30_500).contains(&made), "an eighth: {made}");
    }
    let late = world.lateness[&GOOD];
    assert!(late <= LATE, "{late:?}");
}

#[test]
fn many_new_targets_of_one_namespace_delay_no_other() {
    let mut world = World::new(with_places(MANY, 1), |_| MILLISECOND);
    world.insert_in("shop", GOOD.0..GOOD.0 + 10, SECOND);
    world.run(10 * SECOND);
    world.lateness.clear();
    for number in 0..20 {
        let ids = number * 500..(number + 1) * 500;
        world.insert_in(&format!("new{number}"), ids, 60 * SECOND);
    }
    world.run(20 * SECOND);
    for (id, late) in world.lateness.range(GOOD..) {
        assert!(*late <= LATE, "{id:?} {late:?}");
    }
}

#[test]
fn the_probes_of_removed_targets_hold_places_of_their_own_namespace_only() {
    let mut world = World::new(with_places(FEW, 1), silent_below_a_million);
    world.insert_in("shop", good(), 5 * SECOND);
    // Each edit of a check leaves probes of the old check in flight.
    for edit in 0..40 {
        let ids = edit * 1000..(edit + 1) * 1000;
        world.insert_in("edits", ids.clone(), MINUTE);
        world.run(5 * SECOND);
        for id in ids {
            world.schedule.remove(ProbeId(id));
        }
    }
    let count = world.began[&GOOD].len();
    assert!((40..=41).contains(&count), "{count} in 200 s");
    let late = world.lateness[&GOOD];
    assert!(late <= LATE, "{late:?}");
    world.run(2 * MINUTE);
    assert_eq!(
        world.schedule.shares.len(),
        1,
        "and nothing is left of them"
    );
}

/// The load of another namespace: the number of targets, their period, the
/// duration of their probes, and how long the namespace keeps the targets.
/// Times are in seconds.
type Load = (u64, u64, u64, u64);

proptest! {
    #[test]
    fn whatever_others_do_a_small_namespace_is_probed_on_time(
        seed: u64,
        places in 64usize..600,
        loads in prop::collection::vec((1u64..600, 1u64..60, 0u64..60, 1u64..20), 1..5),
    ) {
        // Each probe of a load takes `id % 64` seconds, where `id` is the
        // target's id. So the test chooses each load's ids to get the load's
        // probe duration.
        let mut world = World::new(with_places(places, seed), |id| {
            if id >= GOOD { MILLISECOND } else { SECOND * (id.0 % 64) as u32 }
        });
        world.insert_in("shop", GOOD.0..GOOD.0 + 3, SECOND);
        world.run(3 * SECOND);
        world.lateness.clear();
        let mut used = 0;
        for (number, (count, period, takes, keeps)) in loads.into_iter().enumerate() {
            let load: Load = (count, period, takes, keeps);
            let ids: Vec<_> = (0..count).map(|id| used + id * 64 + takes).collect();
            used += count * 64;
            let name = format!("other{}", number % 3);
            for id in &ids {
                world.insert_in(&name, *id..*id + 1, SECOND * period.max(takes) as u32);
            }
            world.run(SECOND * keeps as u32);
            if number % 2 == 0 {
                for id in ids {
                    world.schedule.remove(ProbeId(id));
                }
            }
            for (id, late) in world.lateness.range(GOOD..) {
                prop_assert!(*late <= LATE, "{id:?} {late:?} {load:?}");
            }
        }
        world.run(20 * SECOND);
        for (id, late) in world.lateness.range(GOOD..) {
            prop_assert!(*late <= LATE, "{id:?} {late:?}");
        }
    }
}
