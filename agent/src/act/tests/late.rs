//! Tests in which the agent notices another process's change late, or cannot
//! open its journal at first.

use ipvs::ActualService;

use super::*;
use crate::host::reading::Reading;

const TIMEOUTS: Timeouts = Timeouts {
    tcp: 7200,
    tcp_fin: 0,
    udp: 60,
};

/// Gives the agent a complete reading of the kernel's table.
fn look(agent: &mut Agent) {
    let table = agent.world.parts().kernel.table.clone();
    agent.state.hint(&Reading::Table(table), false);
}

/// Returns an agent that cannot open its existing journal.
fn without_journal(world: &ModelWorld) -> Agent {
    world.parts().disk_broken = true;
    Agent {
        state: State::default(),
        ..Agent::start(world)
    }
}

/// Makes the agent's journal readable and gives it to the agent.
fn find_the_journal(agent: &mut Agent) {
    agent.world.parts().disk_broken = false;
    let remembered = agent.world.parts().disk.remembered();
    agent.state.remember(remembered);
    agent.now += Duration::from_secs(10);
}

fn theirs(world: &ModelWorld, found: ActualService) {
    world.parts().kernel.table.insert(tcp(WEB, 80), found);
}

#[test]
fn a_strangers_service_is_read_again_before_it_is_compared_with_a_new_wish() {
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let world = ModelWorld::new();
    theirs(&world, service("wrr", &[(9, 9)]));
    let mut agent = Agent {
        on_conflict: OnConflict::Leave,
        ..Agent::start(&world)
    };
    agent.round(&wish(&[]));
    theirs(&world, service("sed", &[(8, 8)]));
    look(&mut agent);
    agent.round(&wish(&[]));
    let outcome = agent.round(&ours);
    assert_eq!(outcome.left, [(tcp(WEB, 80), None)], "it differs by now");
    assert_eq!(world.news(), [""; 0]);

    let world = ModelWorld::new();
    theirs(&world, service("wrr", &[(1, 1)]));
    let mut agent = Agent::start(&world);
    agent.round(&wish(&[]));
    world.parts().kernel.table.clear();
    let outcome = agent.round(&ours);
    assert_eq!(world.table().len(), 2, "it was gone by then");
    assert_eq!(outcome.repairs.count, 0);
}

#[test]
fn what_was_given_up_without_a_journal_is_given_up_in_it_as_a_whole() {
    let world = ModelWorld::new();
    drop(settled(
        &world,
        &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 1)])]),
    ));
    let mut agent = without_journal(&world);
    agent.round(&wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    agent.round(&wish(&[]));
    find_the_journal(&mut agent);
    agent.round(&wish(&[]));
    assert_eq!(world.parts().disk.owned.len(), 0);
    drop(agent);

    theirs(&world, service("sed", &[(7, 7)]));
    world.news();
    Agent::start(&world).round(&wish(&[]));
    assert_eq!(world.news(), [""; 0], "the entry is a stranger's now");
}

#[test]
fn the_journal_knows_the_timeouts_better_than_an_agent_without() {
    let world = ModelWorld::new();
    let mut first = Agent::start(&world);
    first.timeouts = TIMEOUTS;
    first.round(&wish(&[]));
    drop(first);
    let mut agent = without_journal(&world);
    agent.timeouts = TIMEOUTS;
    agent.round(&wish(&[]));
    find_the_journal(&mut agent);
    agent.round(&wish(&[]));
    agent.timeouts = Timeouts::default();
    agent.round(&wish(&[]));
    let before = ModelWorld::new().parts().kernel.timeouts;
    assert_eq!(world.parts().kernel.timeouts, before);
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn a_vip_that_waits_for_the_disk_is_put_up_whatever_else_the_disk_was_needed_for() {
    let world = ModelWorld::new();
    theirs(&world, service("wrr", &[(1, 1)]));
    world.parts().disk_broken = true;
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = Agent::start(&world);
    agent.timeouts = TIMEOUTS;
    let outcome = agent.round(&ours);
    assert_eq!(outcome.vips.len(), 0);
    world.parts().disk_broken = false;
    let outcome = agent.round_when_due(&ours);
    assert_eq!(outcome.vips[&ip(WEB)], "eth0");
    assert_eq!(outcome.failures, BTreeMap::new());
}

#[test]
fn a_changed_order_is_seen_in_a_reading_of_everything() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "mh", &[(1, 1), (2, 1)])]);
    let mut agent = settled(&world, &ours);
    theirs(&world, service("mh", &[(2, 1), (1, 1)]));
    look(&mut agent);
    let outcome = agent.round(&ours);
    assert_eq!(outcome.misordered, [tcp(WEB, 80)].into());
    assert_eq!(world.news(), [""; 0], "the order cannot be edited");
}

#[test]
fn timeouts_that_the_journal_knows_are_put_right_while_the_disk_fails() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.timeouts = TIMEOUTS;
    agent.round(&wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    world.parts().disk_broken = true;
    agent.round(&wish(&[]));
    world.news();
    world.parts().kernel.timeouts.udp = 5;
    look(&mut agent);
    agent.round(&wish(&[]));
    assert_eq!(world.news(), ["--set 0 0 60"]);
}

#[test]
fn a_service_stays_while_its_vip_cannot_be_removed() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    world.parts().links_broken = true;
    agent.round(&wish(&[]));
    assert_eq!(world.table().len(), 2, "the VIP would answer with RST");
    world.parts().links_broken = false;
    agent.round_when_due(&wish(&[]));
    assert_eq!(world.table(), [""; 0]);
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
}

#[test]
fn much_that_an_old_reading_contradicts_is_our_own_doing() {
    let world = ModelWorld::new();
    let keys: Vec<_> = (1..=200).map(|port| tcp(WEB, port)).collect();
    let rows: Vec<_> = keys.iter().map(|key| (*key, "wrr", &[][..])).collect();
    let mut agent = settled(&world, &wish(&rows));
    let nothing = Reading::Table(Default::default());
    assert!(
        !agent.state.hint(&nothing, true),
        "the reading began before the agent's own changes"
    );
    assert!(agent.state.hint(&nothing, false));
    let readings = world.parts().kernel.readings;
    agent.round(&wish(&rows));
    assert_eq!(world.parts().kernel.readings, readings + 1);
    assert_eq!(world.news(), [""; 0]);
}
