//! Tests of a DirectorGroup's grants. New objects without a grant are not
//! served. Objects that are already served stay, even without a grant.

use super::*;

const START: Duration = Duration::from_secs(1);

/// Returns the group with the given spec.
fn group_with(spec: &serde_json::Value, generation: i64) -> Loose<DirectorGroup> {
    serde_json::from_value(json!({
        "metadata": {"name": "default", "uid": "group", "generation": generation},
        "spec": spec,
    }))
    .expect("an envelope that parses")
}

/// Returns the event that gives the group the given spec.
fn edited(spec: &serde_json::Value, generation: i64) -> Event {
    Event::DirectorGroup(Change::Apply(group_with(spec, generation)))
}

/// Returns the events that list two services of one VIP with two servers, and a
/// group with the given spec.
fn listed(spec: &serde_json::Value) -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    events.extend(services([service(80, "wrr", 1), service(443, "wrr", 1)]));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group_with(spec, 1)]));
    events
}

fn all() -> serde_json::Value {
    json!({"addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}]})
}

fn agent(world: &ModelWorld, events: Vec<Event>) -> Loop {
    let mut agent = director(&Doors::default(), world);
    events.into_iter().for_each(|event| agent.note(event));
    agent
}

/// Returns a director that serves both services of the test.
fn serving(world: &ModelWorld) -> Loop {
    let mut agent = agent(world, listed(&all()));
    agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 6, "both services are served");
    world.news();
    agent
}

/// Returns the objects that the director reports as still served without a
/// grant.
fn still_served(observed: &Observed) -> Vec<String> {
    let exceptions = observed.protection.exceptions.iter();
    exceptions
        .map(|exception| {
            assert_eq!(exception.reason, "AddressNotGranted", "{exception:?}");
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

#[test]
fn without_a_grant_nothing_is_made_and_no_vip_is_put_up() {
    let world = ModelWorld::new();
    let mut agent = agent(&world, listed(&json!({})));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.table(), [""; 0]);
    assert_eq!(world.interfaces_with(ip(VIP)), [""; 0]);
    assert_eq!(still_served(&observed), [""; 0]);
    agent.note(edited(&all(), 2));
    agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 6, "the grant brings both services");
}

#[test]
fn when_the_grant_goes_what_is_served_stays_until_removals_are_allowed() {
    let world = ModelWorld::new();
    let mut agent = serving(&world);
    agent.note(edited(&json!({}), 2));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.news(), [""; 0], "nothing is written to the kernel");
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
    assert_eq!(still_served(&observed), ["shop/web80", "shop/web443"]);
    assert_eq!(
        observed.removals_held,
        [],
        "they are not held: they are kept"
    );

    // Existing services stay without a grant, but a new service is not created.
    agent.note(Event::VirtualService(Change::Apply(service(81, "wrr", 1))));
    agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 6, "the new service is not made");

    let until = (crate::fixtures::NOON + jiff::SignedDuration::from_mins(10)).to_string();
    let released = json!({"removals": {"allowUntil": until}});
    agent.note(edited(&released, 3));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.table(), [""; 0], "the administrator allowed it");
    assert_eq!(world.interfaces_with(ip(VIP)), [""; 0]);
    assert_eq!(still_served(&observed), [""; 0]);
}

#[test]
fn a_service_without_a_grant_goes_with_its_object() {
    let world = ModelWorld::new();
    let mut agent = serving(&world);
    agent.note(edited(&json!({}), 2));
    agent.act(START).expect("a round");
    let key = ObjectKey::new("shop", "web80");
    agent.note(Event::VirtualService(Change::Delete(key)));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.table().len(), 3, "only the other service is left");
    assert_eq!(still_served(&observed), ["shop/web443"]);
}

#[test]
fn after_an_upgrade_to_a_build_with_grants_everything_is_still_served() {
    let world = ModelWorld::new();
    drop(serving(&world));
    let mut upgraded = agent(&world, listed(&json!({})));
    let observed = upgraded.act(START).expect("a round");
    assert_eq!(world.news(), [""; 0], "nothing is written to the kernel");
    assert_eq!(world.table().len(), 6);
    assert_eq!(still_served(&observed), ["shop/web80", "shop/web443"]);
}

#[test]
fn a_strangers_service_without_a_grant_is_left_alone() {
    let world = ModelWorld::new();
    let theirs = kernel_service("sed", &[(9, 9)]);
    world.parts().kernel.table.insert(tcp(VIP, 80), theirs);
    let mut agent = agent(&world, listed(&json!({})));
    let observed = agent.act(START).expect("a round");
    assert_eq!(
        world.table().first().map(String::as_str),
        Some("-A -t 192.0.2.10:80 -s sed")
    );
    assert_eq!(world.table().len(), 2, "and nothing is added to it");
    assert_eq!(still_served(&observed), [""; 0]);
}

#[test]
fn a_server_whose_grant_goes_stays_and_a_new_one_is_not_added() {
    let world = ModelWorld::new();
    let mut agent = serving(&world);
    let mut spec = all();
    spec["realServerAddresses"] = json!([{"name": "one", "cidrs": ["198.51.100.1/32"]}]);
    agent.note(edited(&spec, 2));
    agent.note(Event::RealServer(Change::Apply(server(3))));
    let observed = agent.act(START).expect("a round");
    assert_eq!(world.news(), [""; 0], "nothing is written to the kernel");
    assert_eq!(
        still_served(&observed),
        ["shop/web80 shop/web2", "shop/web443 shop/web2"]
    );
}

#[test]
fn a_grant_that_comes_back_ends_the_exception_and_writes_nothing() {
    let world = ModelWorld::new();
    let mut agent = serving(&world);
    agent.note(edited(&json!({}), 2));
    agent.act(START).expect("a round");
    agent.note(edited(&all(), 3));
    let observed = agent.act(START).expect("a round");
    assert_eq!(still_served(&observed), [""; 0]);
    assert_eq!(world.news(), [""; 0]);
}
