//! Tests that a refused entry stays refused if the reason for the refusal is
//! absent only for a moment.

use super::{
    protect::{OWN, START, act, act_for, agent, listed, listening, own_service, refused},
    *,
};
use crate::{
    decide::refusals::{AFTER_BOOT, QUIET},
    director::protect::{LOOK_INTERVAL, REFUSED_INTERVAL},
};

/// Returns the event that gives the group a grant for exactly the host's own
/// address.
fn granted_by_itself() -> Event {
    let mut group = group(None);
    let pools = json!([
        {"name": "all", "cidrs": ["0.0.0.0/0"]},
        {"name": "own", "cidrs": [format!("{OWN}/32")]},
    ]);
    let spec = group.spec.as_mut().expect("it parses");
    spec.address_pools = Some(serde_json::from_value(pools).expect("pools"));
    group.metadata.generation = Some(2);
    Event::DirectorGroup(Change::Apply(group))
}

/// Returns the world after a reboot of its host. The table and the addresses of
/// the agent are gone, and the disk is unchanged.
fn rebooted(world: &ModelWorld, uptime: Duration) -> ModelWorld {
    let after = ModelWorld::new();
    let disk = world.parts().disk.rebooted();
    after.parts().disk = disk;
    after.parts().uptime = uptime;
    after
}

#[test]
fn a_refused_service_waits_until_nothing_has_listened_there_for_ten_minutes() {
    let world = listening(22);
    let mut agent = agent(&world, listed([own_service(22)]));
    act(&mut agent, START);
    let due = agent.next_deadline(START);
    assert_eq!(
        due,
        START + REFUSED_INTERVAL,
        "the host is checked again soon"
    );

    // The program on port 22 restarts. When the agent looks at the sockets, no
    // program listens on the port.
    world.parts().listeners.clear();
    let observed = act(&mut agent, due);
    assert_eq!(refused(&observed), ["shop/web22"]);
    let message = &observed.protection.exceptions[0].message;
    for words in ["192.0.2.1/32", "10 minutes", "listens on 0.0.0.0:22"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(world.parts().disk.refused.len(), 1, "it is on the disk");

    let before = act_for(&mut agent, due, QUIET - REFUSED_INTERVAL);
    assert_eq!(refused(&before), ["shop/web22"]);
    assert_eq!(world.table(), [""; 0]);
    let now = due + QUIET;
    let observed = act(&mut agent, now);
    assert_eq!(refused(&observed), [""; 0]);
    assert_eq!(world.table()[0], "-A -t 192.0.2.1:22 -s wrr");
    assert_eq!(agent.protection.next_deadline(), Some(now + LOOK_INTERVAL));
    assert!(world.parts().disk.refused.is_empty());
}

#[test]
fn an_edited_or_new_object_does_not_end_a_refusal_and_a_grant_of_exactly_the_address_does() {
    let world = listening(22);
    let mut agent = agent(&world, listed([own_service(22)]));
    act(&mut agent, START);
    world.parts().listeners.clear();

    let mut edited = own_service(22);
    edited.metadata.generation = Some(2);
    agent.note(Event::VirtualService(Change::Apply(edited)));
    assert_eq!(refused(&act(&mut agent, START)), ["shop/web22"]);

    let key = ObjectKey::of(&own_service(22));
    agent.note(Event::VirtualService(Change::Delete(key)));
    assert_eq!(refused(&act(&mut agent, START)), [""; 0]);
    let mut other = own_service(22);
    other.metadata.name = Some("another".to_owned());
    other.metadata.uid = Some("another".to_owned());
    agent.note(Event::VirtualService(Change::Apply(other)));
    assert_eq!(refused(&act(&mut agent, START)), ["shop/another"]);

    agent.note(granted_by_itself());
    assert_eq!(refused(&act(&mut agent, START)), [""; 0]);
    assert_eq!(world.table()[0], "-A -t 192.0.2.1:22 -s wrr");
    assert!(world.parts().disk.refused.is_empty(), "the refusal is over");
}

#[test]
fn a_refusal_outlives_the_agent_and_the_host() {
    let world = listening(22);
    let mut first = agent(&world, listed([own_service(22)]));
    act(&mut first, START);
    drop(first);
    world.parts().listeners.clear();
    let mut again = agent(&world, listed([own_service(22)]));
    assert_eq!(refused(&act(&mut again, START)), ["shop/web22"]);
    drop(again);

    let world = rebooted(&world, AFTER_BOOT);
    let mut again = agent(&world, listed([own_service(22)]));
    assert_eq!(refused(&act(&mut again, START)), ["shop/web22"]);
}

#[test]
fn after_a_boot_the_hosts_own_addresses_are_taken_for_services_that_were_not_in_force() {
    let world = ModelWorld::new();
    let mut first = agent(&world, listed([own_service(81)]));
    act(&mut first, START);
    assert_eq!(world.table()[0], "-A -t 192.0.2.1:81 -s wrr");
    drop(first);

    let all = || listed([own_service(81), own_service(82), service(80, "wrr", 1)]);
    for (uptime, expected) in [
        (Duration::from_secs(30), vec!["shop/web82"]),
        (AFTER_BOOT, vec![]),
    ] {
        let world = rebooted(&world, uptime);
        let mut again = agent(&world, all());
        assert_eq!(refused(&act(&mut again, START)), expected, "{uptime:?}");
        world.parts().uptime += QUIET;
        let observed = act_for(&mut again, START, QUIET + REFUSED_INTERVAL);
        assert_eq!(refused(&observed), [""; 0], "ten minutes later");
        assert_eq!(world.parts().kernel.table.len(), 3);
    }
}

#[test]
fn on_a_disk_that_is_full_a_refusal_is_kept_and_written_later() {
    let world = listening(22);
    let mut agent = agent(&world, listed([own_service(22)]));
    world.parts().disk_broken = true;
    act(&mut agent, START);
    world.parts().listeners.clear();
    let observed = act(&mut agent, START + REFUSED_INTERVAL);
    assert_eq!(refused(&observed), ["shop/web22"]);
    assert!(world.parts().disk.refused.is_empty());
    world.parts().disk_broken = false;
    act(&mut agent, START + 2 * REFUSED_INTERVAL);
    assert_eq!(world.parts().disk.refused.len(), 1);
}
