//! Tests that a new service stays out of the kernel while its VIP cannot be on
//! this host.

use super::*;

/// Returns the event that makes the group put its VIPs on `interface`.
fn group_on(interface: &str, generation: i64) -> Event {
    let mut group = group(None);
    let addresses = json!({"interface": interface});
    let spec = group.spec.as_mut().expect("it parses");
    spec.addresses = Some(serde_json::from_value(addresses).expect("addresses"));
    group.metadata.generation = Some(generation);
    Event::DirectorGroup(Change::Apply(group))
}

#[test]
fn a_new_service_waits_for_its_interface_and_one_in_the_kernel_stays() {
    let world = ModelWorld::new();
    let mut agent = director(&Doors::default(), &world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.note(group_on("eth9", 2));
    let outcome = |agent: &mut Loop, seconds| {
        let observed = agent.act(Duration::from_secs(seconds));
        observed.expect("there is news").outcome.expect("a round")
    };
    let none = Missing::NoInterface("eth9".to_owned());

    let waiting = outcome(&mut agent, 0);
    assert_eq!(world.table(), [""; 0], "eth9 does not exist");
    assert_eq!(waiting.missing, [(ip(VIP), none)].into());

    agent.note(group_on("eth0", 3));
    let programmed = outcome(&mut agent, 1);
    assert_eq!(programmed.services, 2);
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
    assert_eq!(programmed.missing, [].into());

    agent.note(group_on("eth9", 4));
    let mistaken = outcome(&mut agent, 2);
    assert_eq!(mistaken.services, 2, "services in the kernel stay");
    assert_eq!(
        world.interfaces_with(ip(VIP)),
        ["eth0"],
        "and so does the VIP"
    );
}
