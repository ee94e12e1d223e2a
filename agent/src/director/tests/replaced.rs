//! Tests that no connection is cut if an object is deleted and soon created
//! again. The agent removes the entries of a deleted object only after a grace.

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a director with two services and two servers in the kernel. The
/// director delays removals, as in production.
fn settled(world: &ModelWorld) -> Loop {
    let mut agent = patient_director(&Doors::default(), world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.act(s(0)).expect("all is known");
    assert_eq!(world.table().len(), 6);
    world.news();
    agent
}

fn deleted(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

#[test]
fn a_service_that_is_deleted_and_made_again_changes_nothing_on_the_host() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    for name in ["web80", "web443"] {
        agent.note(Event::VirtualService(Change::Delete(deleted(name))));
    }
    agent.act(s(1)).expect("a round");
    for port in [80, 443] {
        let mut again = service(port, "wrr", 1);
        again.metadata.uid = Some(format!("again{port}"));
        agent.note(Event::VirtualService(Change::Apply(again)));
    }
    agent.act(s(9)).expect("a round");
    agent.note(Event::Links);
    agent.act(s(60));
    assert_eq!(world.news(), [""; 0]);
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
}

#[test]
fn a_deleted_service_and_its_vip_leave_after_ten_seconds() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    for name in ["web80", "web443"] {
        agent.note(Event::VirtualService(Change::Delete(deleted(name))));
    }
    agent.act(s(1)).expect("a round");
    assert_eq!(agent.next_deadline(s(1)), s(11), "the loop wakes for it");
    agent.note(Event::Links);
    let observed = agent.act(s(10)).expect("a round");
    assert_eq!(observed.removals_held, [], "nothing is held");
    assert_eq!(world.news(), [""; 0]);
    read_no_connections(&mut agent);
    agent.note(Event::Links);
    agent.act(s(11)).expect("a round");
    assert_eq!(
        world.news(),
        [
            "- 192.0.2.10 eth0",
            "-D -t 192.0.2.10:80",
            "-D -t 192.0.2.10:443",
            "settle",
        ]
    );
}

#[test]
fn a_server_that_is_deleted_and_made_again_stays_in_the_kernel() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let edits = |weight: u32| {
        [80, 443]
            .map(|port| format!("-e -t 192.0.2.10:{port} -r 198.51.100.1:{port} -m -w {weight}"))
    };
    agent.note(Event::RealServer(Change::Delete(deleted("web1"))));
    agent.act(s(1)).expect("a round");
    let before = world.news();
    for edit in edits(0) {
        assert!(before.contains(&edit), "{edit} in {before:?}");
    }
    let mut again = server(1);
    again.metadata.uid = Some("again".to_owned());
    agent.note(Event::RealServer(Change::Apply(again)));
    agent.act(s(2)).expect("a round");
    agent.note(Event::Links);
    agent.act(s(60));
    let after = world.news();
    assert_eq!(after.len(), 2, "{after:?}");
    for edit in edits(1) {
        assert!(after.contains(&edit), "{edit} in {after:?}");
    }
}
