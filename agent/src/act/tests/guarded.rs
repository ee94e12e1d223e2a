use super::*;

/// Returns a wish for a range of services on one VIP, each with two servers.
fn many(services: std::ops::Range<u16>) -> Desired {
    let rows: Vec<_> = services
        .map(|number| (tcp(WEB, 8000 + number), "wrr", &[(1, 1), (2, 1)][..]))
        .collect();
    wish(&rows)
}

#[test]
fn an_empty_answer_empties_nothing_until_it_is_released() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &many(0..40));
    let table = world.table();
    let outcome = agent.round(&many(0..0));
    assert_eq!(agent.held.len(), 40, "one for each service");
    assert_eq!(
        world.news(),
        [""; 0],
        "nothing is removed, and the VIP stays"
    );
    assert_eq!(world.table(), table);
    assert_eq!(outcome.vips[&ip(WEB)], "eth0");

    agent.removals = Removals::Released;
    let outcome = agent.round(&many(0..0));
    assert_eq!(outcome, Outcome::default(), "what was released is removed");
    assert_eq!(world.table(), [""; 0]);
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
}

#[test]
fn what_is_held_is_served_and_edits_of_the_rest_go_on() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &many(0..40));
    let mut fewer = many(0..20);
    let edited = fewer.table.get_mut(&tcp(WEB, 8000)).expect("it is wanted");
    edited.config.scheduler = "rr".to_owned();
    agent.round(&fewer);
    assert_eq!(world.news(), ["-E -t 192.0.2.10:8000 -s rr"]);
    assert_eq!(agent.held.len(), 20);

    // Now one more service is unwanted, and the guard holds its removal too.
    // Then all services are wanted again.
    agent.now = Duration::from_secs(600);
    agent.round(&many(0..19));
    assert_eq!(agent.held.len(), 21);
    world.news();
    agent.round(&many(0..40));
    assert_eq!(agent.held, []);
    assert_eq!(
        world.news(),
        [""; 0],
        "nothing was lost, so nothing is made"
    );
    agent.round(&many(0..39));
    assert_eq!(world.news(), ["-D -t 192.0.2.10:8039", "settle"]);
}

#[test]
fn servers_are_guarded_as_services_are() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &many(0..40));
    let without_servers: Vec<_> = (0..40)
        .map(|number| (tcp(WEB, 8000 + number), "wrr", &[][..]))
        .collect();
    agent.round(&wish(&without_servers));
    assert_eq!(agent.held.len(), 80);
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn a_restart_is_no_way_around_it() {
    let world = ModelWorld::new();
    settled(&world, &many(0..40)).round(&many(0..0));
    let mut next = Agent::start(&world);
    next.round(&many(0..0));
    assert_eq!(next.held.len(), 40);
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn a_hold_holds_even_one_and_edits_go_on() {
    for (lasting, afterwards) in [(true, 1), (false, 0)] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, &many(0..3));
        agent.removals = Removals::Held { lasting };
        let mut fewer = many(0..2);
        let edited = fewer.table.get_mut(&tcp(WEB, 8000)).expect("it is wanted");
        edited.config.scheduler = "rr".to_owned();
        agent.round(&fewer);
        assert_eq!(agent.held.len(), 1);
        assert_eq!(world.news(), ["-E -t 192.0.2.10:8000 -s rr"]);

        // With `lasting`, the hold ends only when the removals are released.
        agent.removals = Removals::Guarded;
        agent.round(&fewer);
        assert_eq!(agent.held.len(), afterwards, "{lasting}");
        agent.removals = Removals::Released;
        agent.round(&fewer);
        assert_eq!(agent.held, []);
        assert_eq!(world.news(), ["-D -t 192.0.2.10:8002", "settle"]);
    }
}

#[test]
fn a_removal_counts_from_when_it_was_done_however_late_the_next_round_is() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &many(0..40));
    agent.round(&many(10..40));
    assert_eq!(world.table().len(), 90, "ten of 40 may go at once");
    agent.now = Duration::from_secs(59);
    agent.round(&many(11..40));
    assert_eq!(agent.held.len(), 1, "the eleventh within a minute waits");

    agent.now = Duration::from_secs(61);
    agent.round(&many(10..40));
    agent.round(&many(20..40));
    assert_eq!(
        agent.held,
        [],
        "a minute after the first ten, ten more may go"
    );
}
