//! Tests of a DirectorGroup's budgets. New objects beyond a budget are not
//! served. Objects that are already served stay when a budget shrinks.

use super::*;
use crate::probe::target::Rates;

const START: Duration = Duration::from_secs(1);

/// Returns the event that gives the group the given budgets.
fn edited(budgets: &serde_json::Value, generation: i64) -> Event {
    let group = serde_json::from_value(json!({
        "metadata": {"name": "default", "uid": "group", "generation": generation},
        "spec": {
            "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}],
            "budgets": budgets,
        },
    }));
    Event::DirectorGroup(Change::Apply(group.expect("an envelope that parses")))
}

fn small() -> serde_json::Value {
    json!({"perNamespace": {"services": 1, "destinations": 1}})
}

/// Returns a director that serves both services of the test.
fn serving(world: &ModelWorld) -> Loop {
    let mut agent = director(&Doors::default(), world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 6, "both services are served");
    world.news();
    agent
}

/// Returns the objects that the director reports as still served beyond a
/// budget.
fn still_served(observed: &Observed) -> Vec<String> {
    let exceptions = observed.protection.exceptions.iter();
    exceptions
        .map(|exception| {
            assert_eq!(exception.reason, "BudgetExceeded", "{exception:?}");
            assert!(
                exception.message.starts_with("still served"),
                "{exception:?}"
            );
            match &exception.real_server {
                Some(server) => format!("{} {server}", exception.virtual_service),
                None => exception.virtual_service.to_string(),
            }
        })
        .collect()
}

const BEYOND: [&str; 4] = [
    "shop/web80",
    "shop/web80 shop/web1",
    "shop/web80 shop/web2",
    "shop/web443 shop/web2",
];

#[test]
fn nothing_new_is_made_beyond_a_budget() {
    let world = ModelWorld::new();
    let mut agent = director(&Doors::default(), &world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.note(edited(&small(), 2));
    let observed = agent.act(START).expect("a round");
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:443 -s wrr",
            "-a -t 192.0.2.10:443 -r 198.51.100.1:443 -m -w 1",
        ],
        "the first by name, as all are of one age"
    );
    assert_eq!(still_served(&observed), [""; 0]);
    agent.note(edited(&json!({}), 3));
    agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 6, "the budget brings the others");
}

#[test]
fn when_a_budget_shrinks_what_is_served_stays_until_removals_are_allowed() {
    let world = ModelWorld::new();
    let mut agent = serving(&world);
    agent.note(edited(&small(), 2));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.news(), [""; 0], "nothing is written to the kernel");
    assert_eq!(still_served(&observed), BEYOND);

    // A new service is also beyond the budget, so it is not created.
    agent.note(Event::VirtualService(Change::Apply(service(81, "wrr", 1))));
    agent.note(Event::RealServer(Change::Apply(server(3))));
    agent.act(START).expect("a round");
    assert_eq!(world.news(), [""; 0], "nothing is written to the kernel");

    // An edit of a service that is still served takes effect.
    agent.note(Event::VirtualService(Change::Apply(service(80, "rr", 2))));
    agent.act(START).expect("a round");
    assert_eq!(world.news(), ["-E -t 192.0.2.10:80 -s rr"]);
}

#[test]
fn an_agent_that_starts_with_a_smaller_budget_keeps_what_the_previous_run_served() {
    let world = ModelWorld::new();
    drop(serving(&world));
    let mut next = director(&Doors::default(), &world);
    everything().into_iter().for_each(|event| next.note(event));
    next.note(edited(&small(), 2));
    let observed = next.act(START).expect("a round");
    assert_eq!(world.news(), [""; 0], "nothing is written to the kernel");
    assert_eq!(still_served(&observed), BEYOND);
}

#[test]
fn what_is_beyond_a_budget_goes_with_its_object() {
    let world = ModelWorld::new();
    let mut agent = serving(&world);
    agent.note(edited(&small(), 2));
    agent.act(START).expect("a round");
    let key = ObjectKey::new("shop", "web80");
    agent.note(Event::VirtualService(Change::Delete(key)));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 3, "only the other service is left");
    assert_eq!(still_served(&observed), BEYOND[3..]);
}

#[test]
fn the_prober_is_given_the_rates_of_the_group_once() {
    let world = ModelWorld::new();
    let (orders, mut given) = unbounded_channel();
    let doors = Doors {
        orders: Some(orders),
        ..Doors::default()
    };
    let mut agent = director(&doors, &world);
    everything().into_iter().for_each(|event| agent.note(event));
    let budgets = json!({
        "perNamespace": {"probesPerSecond": 10},
        "namespaces": [{"name": "shop", "probesPerSecond": 500}],
    });
    for generation in 2..4 {
        agent.note(edited(&budgets, generation));
        agent.act(START).expect("a round");
    }
    let mut rates: Vec<Rates> = Vec::new();
    while let Ok(order) = given.try_recv() {
        match order {
            Order::Rates(given) => rates.push(given),
            other => panic!("no service is checked: {other:?}"),
        }
    }
    let [rates] = rates.as_slice() else {
        panic!("the rates are given once: {rates:?}");
    };
    assert_eq!((rates.of("bank"), rates.of("shop")), (10.0, 500.0));
}

#[test]
fn an_older_service_waits_until_a_newer_one_that_is_served_is_deleted() {
    let world = ModelWorld::new();
    let mut agent = director(&Doors::default(), &world);
    let budgets = json!({"perNamespace": {"services": 1}});
    let mut events = vec![directors(&["a"])];
    events.extend(services([service(80, "wrr", 1)]));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group(None)]));
    events.push(edited(&budgets, 2));
    events.into_iter().for_each(|event| agent.note(event));
    agent.act(START).expect("a round");
    let before = world.table();
    assert_eq!(before.len(), 3);

    // Both services have the same creation time. The new service comes first by
    // name, but must wait, because the other service is already served.
    let new = Event::VirtualService(Change::Apply(service(443, "wrr", 1)));
    agent.note(new);
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.table(), before);
    assert_eq!(still_served(&observed)[0], "shop/web80");
    let waits = &observed.unreadable[0];
    assert_eq!(waits.virtual_service.to_string(), "shop/web443");
    assert_eq!(waits.reason, "BudgetExceeded");

    let key = ObjectKey::new("shop", "web80");
    agent.note(Event::VirtualService(Change::Delete(key)));
    let observed = agent.act(START).expect("a round");
    assert_eq!(observed.unreadable, []);
    let table = world.table();
    assert!(
        table.contains(&"-A -t 192.0.2.10:443 -s wrr".to_owned()),
        "{table:?}"
    );
}
