use super::*;

/// A number of calls to the modelled host that no round in these tests reaches.
const IMMORTAL: usize = 1000;

/// Runs a round in which the agent dies after `calls` calls. Returns false if
/// the round ended before the agent died.
fn dies_after(calls: usize, agent: &mut Agent, wish: &Desired) -> bool {
    agent.world.parts().life = Some(calls);
    let _ = agent.try_round(wish, Holding::Take);
    let died = agent.world.parts().life == Some(0);
    agent.world.parts().life = None;
    died
}

/// Returns one modelled host for each call at which an agent can die. On each
/// host, an agent carried out the wish `first`, then died in its first round
/// for the wish `second`.
fn deaths(first: &Desired, second: &Desired) -> Vec<ModelWorld> {
    let mut worlds = Vec::new();
    for calls in 0..IMMORTAL {
        let world = ModelWorld::new();
        let mut agent = settled(&world, first);
        agent.state.distrust();
        let died = dies_after(calls, &mut agent, second);
        worlds.push(world);
        if !died {
            return worlds;
        }
    }
    panic!("no round makes {IMMORTAL} calls");
}

fn before() -> Desired {
    wish(&[
        (tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)]),
        (tcp("192.0.2.11", 80), "wrr", &[(1, 1)]),
    ])
}

fn after() -> Desired {
    wish(&[
        (tcp(WEB, 80), "rr", &[(2, 7), (3, 3)]),
        (tcp("192.0.2.12", 80), "wrr", &[(1, 1)]),
    ])
}

#[test]
fn whenever_it_dies_the_next_run_finishes_what_it_began() {
    let worlds = deaths(&before(), &after());
    assert!(worlds.len() > 10, "{} moments to die at", worlds.len());
    for (calls, world) in worlds.iter().enumerate() {
        let outcome = Agent::start(world).round(&after());
        assert_eq!(outcome.failures, BTreeMap::new(), "after {calls} calls");
        assert_eq!(
            world.table(),
            [
                "-A -t 192.0.2.10:80 -s rr",
                "-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 7",
                "-a -t 192.0.2.10:80 -r 198.51.100.3:80 -m -w 3",
                "-A -t 192.0.2.12:80 -s wrr",
                "-a -t 192.0.2.12:80 -r 198.51.100.1:80 -m -w 1",
            ],
            "after {calls} calls"
        );
        for (vip, on) in [
            (WEB, &["eth0"][..]),
            ("192.0.2.11", &[]),
            ("192.0.2.12", &["eth0"]),
        ] {
            assert_eq!(
                world.interfaces_with(ip(vip)),
                on,
                "{vip} after {calls} calls"
            );
        }
        assert_eq!(world.parts().disk.owned.len(), 7, "after {calls} calls");
    }
}

#[test]
fn whenever_it_dies_the_next_run_can_remove_everything() {
    for (calls, world) in deaths(&before(), &after()).iter().enumerate() {
        let outcome = Agent::start(world).round(&wish(&[]));
        assert_eq!(outcome, Outcome::default(), "after {calls} calls");
        assert_eq!(world.table(), [""; 0], "after {calls} calls");
        for vip in [WEB, "192.0.2.11", "192.0.2.12"] {
            let left = world.interfaces_with(ip(vip));
            assert_eq!(left, [""; 0], "{vip} after {calls} calls");
        }
        assert!(world.parts().disk.owned.is_empty(), "after {calls} calls");
        assert!(world.parts().disk.intent.is_empty(), "after {calls} calls");
    }
}

#[test]
fn whenever_it_dies_while_it_adopts_nothing_of_its_own_is_left_behind() {
    let found = service("sed", &[(1, 900), (9, 900)]);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]);
    for calls in 0.. {
        let world = ModelWorld::new();
        world
            .parts()
            .kernel
            .table
            .insert(tcp(WEB, 80), found.clone());
        let died = dies_after(calls, &mut Agent::start(&world), &ours);
        Agent::start(&world).round(&wish(&[]));
        let left = world.parts().kernel.table[&tcp(WEB, 80)].clone();
        let theirs = service("sed", &[(9, 900)]).destinations;
        assert!(
            left == found || left.destinations == theirs,
            "adopted and given back, or never touched: {left:?} after {calls} calls"
        );
        assert_eq!(
            world.interfaces_with(ip(WEB)),
            [""; 0],
            "after {calls} calls"
        );
        if !died {
            break;
        }
    }
}

#[test]
fn an_address_of_a_round_that_died_is_ours_though_the_interfaces_cannot_be_read() {
    for (calls, world) in deaths(&wish(&[]), &before()).iter().enumerate() {
        let mut agent = Agent::start(world);
        world.parts().links_broken = true;
        agent.round(&before());
        world.parts().links_broken = false;
        agent.round(&wish(&[]));
        for vip in [WEB, "192.0.2.11"] {
            let left = world.interfaces_with(ip(vip));
            assert_eq!(left, [""; 0], "{vip} after {calls} calls");
        }
    }
}
