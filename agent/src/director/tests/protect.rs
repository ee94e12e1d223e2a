//! Tests that services and servers that would take the host's own traffic are
//! refused.

use ipvs::Protocol;

use super::*;
use crate::{
    decide::refusals::QUIET,
    director::protect::{DIRECTORS_GRACE, LOOK_INTERVAL, REFUSED_INTERVAL},
    disk::checkpoint::Note,
    host::listeners::Listener,
};

/// The model host's own address, on eth0.
pub(super) const OWN: &str = "192.0.2.1";
pub(super) const START: Duration = Duration::from_secs(1);

/// Returns a host on which a program listens on `port` of every address.
pub(super) fn listening(port: u16) -> ModelWorld {
    let world = ModelWorld::new();
    world.parts().listeners.push(Listener {
        protocol: Protocol::TCP,
        address: ip("0.0.0.0"),
        port,
        is_v6_only: false,
    });
    world
}

/// Returns a service at `port` of the host's own address.
pub(super) fn own_service(port: i32) -> Loose<VirtualService> {
    let mut service = service(port, "wrr", 1);
    let spec = service.spec.as_mut().expect("a spec that parses");
    spec.vip.as_mut().expect("it has a VIP").address = OWN.to_owned();
    service
}

fn forwarded(service: Loose<VirtualService>, method: &str) -> Loose<VirtualService> {
    let mut service = service;
    let forwarding = serde_json::from_value(json!({"method": method})).expect("a method");
    let spec = service.spec.as_mut().expect("a spec that parses");
    spec.forwarding = Some(forwarding);
    service
}

/// Returns the events that list all objects, with the services `all`.
pub(super) fn listed(all: impl IntoIterator<Item = Loose<VirtualService>>) -> Vec<Event> {
    let mut events = vec![directors(&["a"])];
    events.extend(services(all));
    events.extend(servers([server(1), server(2)]));
    events.extend(groups([group(None)]));
    events
}

pub(super) fn agent(world: &ModelWorld, events: Vec<Event>) -> Loop {
    agent_that(false, world, events)
}

fn agent_that(may_hijack: bool, world: &ModelWorld, events: Vec<Event>) -> Loop {
    let doors = Doors {
        may_hijack,
        ..Doors::default()
    };
    let mut agent = director(&doors, world);
    events.into_iter().for_each(|event| agent.note(event));
    agent
}

pub(super) fn act(agent: &mut Loop, now: Duration) -> Observed {
    agent.act(now).expect("a round")
}

/// Lets the time `long` pass, and makes the agent check its host every
/// [`REFUSED_INTERVAL`]. Returns the agent's last findings.
pub(super) fn act_for(agent: &mut Loop, from: Duration, long: Duration) -> Observed {
    let (mut now, mut last) = (from, None);
    while now < from + long {
        now += REFUSED_INTERVAL;
        last = agent.act(now).or(last);
    }
    last.expect("a round")
}

/// Returns one text for each exception: the service, and the server if the
/// exception names a server. All exceptions in `observed` must have the reason
/// WouldHijackDirector.
pub(super) fn refused(observed: &Observed) -> Vec<String> {
    let exceptions = observed.protection.exceptions.iter();
    exceptions
        .map(|exception| {
            assert_eq!(exception.reason, "WouldHijackDirector", "{exception:?}");
            let service = &exception.virtual_service;
            match &exception.real_server {
                Some(server) => format!("{service} {server}"),
                None => service.to_string(),
            }
        })
        .collect()
}

#[test]
fn a_refused_service_is_not_made_gets_no_vip_and_holds_up_no_other() {
    let world = listening(22);
    let events = listed([own_service(22), service(80, "wrr", 1)]);
    let mut agent = agent(&world, events);
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web22"]);
    assert_eq!(world.table()[0], "-A -t 192.0.2.10:80 -s wrr");
    assert_eq!(world.parts().kernel.table.len(), 1, "{:?}", world.table());
    let outcome = observed.outcome.expect("a round");
    assert_eq!(outcome.vips.keys().collect::<Vec<_>>(), [&ip(VIP)]);
}

#[test]
fn a_service_in_the_kernel_is_not_removed_for_what_listens_later_or_for_a_restart() {
    let world = listening(25);
    let mut first = agent(&world, listed([own_service(22)]));
    act(&mut first, START);
    assert_eq!(world.table().len(), 3);
    world.parts().listeners[0].port = 22;
    let before = world.table();
    let observed = act(&mut first, START + LOOK_INTERVAL);
    let told = |observed: &Observed| {
        assert_eq!(refused(observed), [""; 0]);
        let [notice] = observed.protection.notices.as_slice() else {
            panic!("one notice: {:?}", observed.protection);
        };
        assert!(
            notice.contains("shop/web22") && notice.contains("stays"),
            "{notice}"
        );
    };
    told(&observed);

    // A service that is edited does not count as new.
    let mut edited = own_service(22);
    edited.metadata.generation = Some(2);
    first.note(Event::VirtualService(Change::Apply(edited)));
    told(&act(&mut first, START + LOOK_INTERVAL));
    drop(first);

    world.news();
    let mut again = agent(&world, listed([own_service(22)]));
    told(&act(&mut again, START));
    assert_eq!(world.news(), [""; 0], "nothing is written");
    assert_eq!(world.table(), before);
}

#[test]
fn after_a_reboot_a_service_is_new() {
    let world = listening(25);
    let mut first = agent(&world, listed([own_service(22)]));
    act(&mut first, START);
    drop(first);
    let rebooted = listening(22);
    let mut events = listed([own_service(22)]);
    events.retain(|event| !matches!(event, Event::VirtualService(Change::Listed)));
    events.push(Event::Restored);
    let mut again = agent(&rebooted, events);
    assert!(again.act(START).is_none(), "not all has answered");
    assert_eq!(rebooted.table(), [""; 0]);
}

#[test]
fn a_strangers_service_with_that_key_is_refused_and_left_alone() {
    let world = listening(22);
    let theirs = kernel_service("sed", &[]);
    world.parts().kernel.table = [(tcp(OWN, 22), theirs)].into();
    let mut agent = agent(&world, listed([own_service(22)]));
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web22"]);
    assert_eq!(
        world.table(),
        ["-A -t 192.0.2.1:22 -s sed"],
        "only what is ours by the journal may stay for being in the kernel"
    );
}

#[test]
fn listeners_are_read_when_a_service_of_the_hosts_own_address_is_new_and_now_and_then() {
    let world = listening(25);
    let mut agent = agent(&world, listed([service(80, "wrr", 1)]));
    act(&mut agent, START);
    let read = || world.parts().listeners_read;
    assert_eq!(read(), 0, "no service needs the listeners");
    agent.note(Event::VirtualService(Change::Apply(own_service(22))));
    act(&mut agent, START);
    assert_eq!(read(), 1, "one such service is new");
    for weight in 1..10 {
        let mut edited = server(1);
        edited.metadata.generation = Some(weight);
        let spec = edited.spec.as_mut().expect("a spec that parses");
        spec.weight = 1 + i32::try_from(weight).expect("a small number");
        agent.note(Event::RealServer(Change::Apply(edited)));
        act(&mut agent, START);
    }
    assert_eq!(read(), 1, "no such service is new");
    act(&mut agent, START + LOOK_INTERVAL);
    assert_eq!(
        read(),
        2,
        "one that is in the kernel may be in a program's way by now"
    );
}

#[test]
fn one_that_cannot_be_seen_to_be_harmless_waits() {
    let world = ModelWorld::new();
    world.parts().listeners_hidden = true;
    let mut agent = agent(&world, listed([own_service(81), service(80, "wrr", 1)]));
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web81"]);
    assert_eq!(world.parts().kernel.table.len(), 1, "the other is made");
    world.parts().listeners_hidden = false;
    let observed = act(&mut agent, START + REFUSED_INTERVAL);
    assert_eq!(refused(&observed), [""; 0]);
}

#[test]
fn the_api_servers_address_is_not_taken_while_it_is_there() {
    let world = ModelWorld::new();
    let at = |address: &str| {
        let address = address.parse().expect("an address and a port");
        Event::ApiServers([address].into())
    };
    let mut events = listed([service(443, "wrr", 1)]);
    events.insert(0, at("192.0.2.10:443"));
    let mut agent = agent(&world, events);
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web443"]);
    assert_eq!(world.table(), [""; 0]);
    assert_eq!(
        world.interfaces_with(ip(VIP)),
        [""; 0],
        "its VIP is not added either"
    );

    agent.note(at("192.0.2.11:443"));
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web443"], "it may come back");
    let observed = act_for(&mut agent, START, QUIET);
    assert_eq!(refused(&observed), [""; 0]);
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
    agent.note(at("192.0.2.10:443"));
    let observed = act(&mut agent, START + QUIET);
    assert_eq!(
        observed.protection.notices.len(),
        1,
        "what is in the kernel stays"
    );
}

#[test]
fn a_service_is_made_without_the_servers_that_are_directors_of_its_group() {
    let world = ModelWorld::new();
    world.put(ip("198.51.100.1"), "eth1");
    let direct = forwarded(service(80, "wrr", 1), "DR");
    let nat = service(443, "wrr", 1);
    let mut events = listed([direct, nat]);
    let b = BTreeMap::from([
        ("b".to_owned(), [ip("198.51.100.2")].into()),
        // The last report of director a is outdated: director a now reads other
        // addresses from its host.
        ("a".to_owned(), [ip("198.51.100.3")].into()),
    ]);
    events.push(Event::DirectorAddresses(b));
    events.push(Event::RealServer(Change::Apply(server(3))));
    let mut agent = agent(&world, events);
    let observed = act(&mut agent, START);
    assert_eq!(
        refused(&observed),
        ["shop/web80 shop/web1", "shop/web80 shop/web2"]
    );
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.3:80 -g -w 1",
            "-A -t 192.0.2.10:443 -s wrr",
            "-a -t 192.0.2.10:443 -r 198.51.100.1:443 -m -w 1",
            "-a -t 192.0.2.10:443 -r 198.51.100.2:443 -m -w 1",
            "-a -t 192.0.2.10:443 -r 198.51.100.3:443 -m -w 1",
        ]
    );

    // Another host now has the address that director b had.
    agent.note(Event::DirectorAddresses(BTreeMap::new()));
    let observed = act_for(&mut agent, START, QUIET + REFUSED_INTERVAL);
    assert_eq!(refused(&observed), ["shop/web80 shop/web1"]);
    assert_eq!(world.table().len(), 7);
}

#[test]
fn the_first_round_waits_for_the_groups_directors_but_not_for_ever() {
    let world = ModelWorld::new();
    let mut events = listed([service(80, "wrr", 1)]);
    events.retain(|event| !matches!(event, Event::Directors(_)));
    let mut waiting = agent(&world, events);
    assert!(waiting.act(START).is_none(), "they may be servers");
    let due = waiting.next_deadline(START);
    assert_eq!(due, START + DIRECTORS_GRACE);
    waiting.note(directors(&["a"]));
    act(&mut waiting, START);
    assert_eq!(world.table().len(), 3);

    let world = ModelWorld::new();
    let mut events = listed([service(80, "wrr", 1)]);
    events.retain(|event| !matches!(event, Event::Directors(_)));
    let mut agent = agent(&world, events);
    assert!(agent.act(START).is_none(), "they may be servers");
    act(&mut agent, due);
    assert_eq!(world.table().len(), 3, "the directors stay unknown");
}

#[test]
fn with_may_hijack_the_hosts_traffic_may_be_taken() {
    let world = listening(22);
    let mut agent = agent_that(true, &world, listed([own_service(22)]));
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), [""; 0]);
    assert_eq!(world.table()[0], "-A -t 192.0.2.1:22 -s wrr");
    assert_eq!(
        observed.protection.notices.len(),
        1,
        "and the notice names what it takes"
    );
}

#[test]
fn a_director_reports_its_addresses_before_it_has_a_service() {
    let world = ModelWorld::new();
    let mut agent = agent(&world, listed([]));
    let told = |observed: Observed| observed.protection.addresses.clone();
    let before = [OWN, "2001:db8::1", "198.51.100.254"].map(ip);
    assert_eq!(told(act(&mut agent, START)), before);
    agent.note(Event::VirtualService(Change::Apply(service(80, "wrr", 1))));
    act(&mut agent, START);
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
    world.put(ip("198.51.100.9"), "eth1");
    let later = told(act(&mut agent, START + LOOK_INTERVAL));
    assert_eq!(later[..3], before, "without the VIP, which is ours");
    assert_eq!(later[3..], [ip("198.51.100.9")]);
}

#[test]
fn a_kernel_that_does_not_answer_is_asked_again_and_nothing_is_removed_meanwhile() {
    let world = listening(25);
    let mut agent = agent(&world, listed([own_service(22)]));
    act(&mut agent, START);
    world.parts().listeners[0].port = 22;
    world.parts().kernel.broken = Some(crate::fixtures::broken);
    let now = START + LOOK_INTERVAL;
    let observed = act(&mut agent, now);
    assert!(observed.trouble.is_some(), "{observed:?}");
    world.parts().kernel.broken = None;
    let now = agent.next_deadline(now);
    let observed = act(&mut agent, now);
    assert_eq!(observed.trouble, None);
    assert_eq!(observed.protection.notices.len(), 1);
    assert_eq!(world.table().len(), 3, "the service is still in the kernel");
}

#[test]
fn while_the_hosts_addresses_cannot_be_read_only_what_may_be_in_a_programs_way_waits() {
    let world = listening(22);
    world.parts().links_broken = true;
    let mut agent = agent(
        &world,
        listed([service(22, "wrr", 1), service(80, "wrr", 1)]),
    );
    let observed = act(&mut agent, START);
    assert_eq!(refused(&observed), ["shop/web22"]);
    assert_eq!(world.table()[0], "-A -t 192.0.2.10:80 -s wrr");
    world.parts().links_broken = false;
    let observed = act(&mut agent, START + REFUSED_INTERVAL);
    assert_eq!(
        refused(&observed),
        [""; 0],
        "the VIP is no address of the host's"
    );
    assert_eq!(world.parts().kernel.table.len(), 2);
}

#[test]
fn what_the_previous_run_knew_of_other_directors_is_remembered() {
    let (recorder, notes) = Recorder::new();
    let (clock, world) = (Clock::start(), Doors::default().world(&ModelWorld::new()));
    let (name, group) = ("a".to_owned(), "default".to_owned());
    let mut agent = Loop::new(name, group, clock, world, recorder, Memory::default());
    let servers = BTreeSet::from(["192.0.2.10:443".parse().expect("an address")]);
    let others = BTreeMap::from([("b".to_owned(), [ip("198.51.100.2")].into())]);
    agent.note(Event::ApiServers(servers.clone()));
    agent.note(Event::DirectorAddresses(others.clone()));
    let noted: Vec<_> = notes.try_iter().collect();
    assert_eq!(
        noted,
        [Note::ApiServers(servers), Note::DirectorAddresses(others)]
    );
}
