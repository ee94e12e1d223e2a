use ipvs::Errno;

use super::*;

/// From now on, the kernel refuses every operation whose text contains `part`.
fn refuse(world: &ModelWorld, part: &'static str, errno: Errno) {
    world.parts().kernel.fail_with = Some(Box::new(move |op| {
        op.to_string().contains(part).then_some(errno)
    }));
}

fn sent(news: &[String], part: &str) -> usize {
    news.iter().filter(|line| line.contains(part)).count()
}

#[test]
fn what_fails_backs_off_and_stops_nothing_else() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    let both = wish(&[
        (tcp(WEB, 80), "twos", &[(1, 1)]),
        (tcp("192.0.2.11", 80), "wrr", &[(1, 1)]),
    ]);
    let outcome = agent.round(&both);
    let message = &outcome.failures[&Subject::Service(tcp(WEB, 80))];
    assert!(message.contains("modprobe ip_vs_twos"), "{message}");
    assert_eq!(outcome.services, 1, "the other service is there");
    assert_eq!(outcome.vips.len(), 1, "with its VIP, and no other VIP");
    world.news();

    let again = agent.round(&both);
    assert_eq!(
        again.failures, outcome.failures,
        "the failure is still reported"
    );
    assert_eq!(world.news(), [""; 0], "no attempt is made before it is due");

    agent.round_when_due(&both);
    assert_eq!(
        sent(&world.news(), "-s twos"),
        1,
        "there is one attempt when it is due"
    );
    let first_wait = agent.now;
    let second_wait = agent.state.next_deadline().unwrap() - agent.now;
    assert!(second_wait > first_wait, "the second wait is longer");

    world.parts().kernel.schedulers.insert("twos".to_owned());
    let outcome = agent.round_when_due(&both);
    assert_eq!(outcome.failures, BTreeMap::new(), "the module is there now");
    assert_eq!((outcome.services, outcome.vips.len()), (2, 2));
    assert_eq!(
        agent.state.next_deadline(),
        None,
        "nothing waits after the success"
    );
}

#[test]
fn the_servers_of_a_service_that_cannot_be_made_are_one_failure_with_it() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    let bad = wish(&[(tcp(WEB, 80), "twos", &[(1, 1), (2, 1), (3, 1)])]);
    let outcome = agent.round(&bad);
    let subjects: Vec<_> = outcome.failures.keys().collect();
    assert_eq!(subjects, [&Subject::Service(tcp(WEB, 80))]);
    assert_eq!(
        sent(&world.news(), "-a "),
        0,
        "the servers are not sent to the kernel"
    );
}

#[test]
fn the_servers_of_a_service_whose_edit_fails_are_still_edited() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 1)])]));
    agent.round(&wish(&[(tcp(WEB, 80), "twos", &[(1, 1), (2, 1)])]));
    world.news();
    agent.round(&wish(&[(tcp(WEB, 80), "twos", &[(1, 0), (3, 1)])]));
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 0",
            "-a -t 192.0.2.10:80 -r 198.51.100.3:80 -m -w 1",
        ],
        "a drained server does not wait for a scheduler that is not there"
    );
    assert_eq!(sent(&world.news(), "-E"), 0, "the edit is not due yet");
}

#[test]
fn a_server_that_fails_beside_its_services_edit_is_a_failure_of_its_own() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    refuse(&world, "", Errno::ENOMEM);
    let outcome = agent.round(&wish(&[(tcp(WEB, 80), "rr", &[(1, 5)])]));
    assert_eq!(
        outcome.failures.into_keys().collect::<Vec<_>>(),
        [
            Subject::Service(tcp(WEB, 80)),
            Subject::Destination(tcp(WEB, 80), server(1)),
        ]
    );
}

#[test]
fn a_changed_wish_is_tried_at_once() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    agent.round(&wish(&[(tcp(WEB, 80), "twos", &[(1, 1)])]));
    assert_eq!(world.table(), [""; 0]);
    let outcome = agent.round(&wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!(world.table().len(), 2, "service and server, without a wait");
}

#[test]
fn a_failure_of_what_is_no_longer_wanted_is_forgotten_at_once() {
    let web = [(tcp(WEB, 80), "wrr", &[(1, 1)][..])];
    for failing in [
        wish(&[(tcp(WEB, 80), "twos", &[(1, 1)])]),
        wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (7, 3)])]),
        wish(&[(tcp(WEB, 80), "wrr", &[(1, 3)])]),
        wish(&[web[0], (tcp("192.0.2.11", 80), "twos", &[])]),
    ] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, &wish(&web));
        refuse(&world, "-w 3", Errno::ENOMEM);
        let outcome = agent.round(&failing);
        assert_eq!(outcome.failures.len(), 1, "{failing:?}");
        let outcome = agent.round(&wish(&web));
        assert_eq!(outcome.failures, BTreeMap::new(), "{failing:?}");
        assert_eq!(agent.state.next_deadline(), None, "{failing:?}");
    }
}

#[test]
fn without_a_disk_nothing_is_made_and_edits_and_removals_go_on() {
    let world = ModelWorld::new();
    let before = wish(&[
        (tcp(WEB, 80), "wrr", &[(1, 1), (2, 1)]),
        (tcp("192.0.2.11", 80), "wrr", &[(1, 1)]),
    ]);
    let after = wish(&[
        (tcp(WEB, 80), "rr", &[(1, 5), (3, 1)]),
        (tcp("192.0.2.12", 80), "wrr", &[(1, 1)]),
    ]);
    let mut agent = settled(&world, &before);
    world.parts().disk_broken = true;
    let outcome = agent.round(&after);
    assert_eq!(
        world.news(),
        [
            "-E -t 192.0.2.10:80 -s rr",
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 5",
            "- 192.0.2.11 eth0",
            "-d -t 192.0.2.10:80 -r 198.51.100.2:80",
            "-D -t 192.0.2.11:80",
        ]
    );
    let message = &outcome.failures[&Subject::Journal];
    assert!(
        message.contains("/state"),
        "the message names the folder: {message}"
    );
    assert_eq!(
        agent.state.next_deadline(),
        Some(Duration::from_millis(100)),
        "a round is one attempt, however often it wanted to write"
    );
    assert_eq!(agent.round(&after).failures, outcome.failures);

    world.parts().disk_broken = false;
    let outcome = agent.round_when_due(&after);
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!((outcome.services, outcome.destinations), (2, 3));
    assert_eq!(world.parts().disk.owned.len(), 7, "and two VIPs");
    assert_eq!(agent.state.next_deadline(), None);
}

#[test]
fn an_intent_that_failed_may_be_on_the_disk_and_does_not_stay_there() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    world.parts().disk_broken = true;
    agent.round(&wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    world.parts().disk_broken = false;
    // An intent must not stay in the journal. Otherwise, another process may
    // create the intended entries, and the next run would claim and remove
    // these entries.
    agent.round_when_due(&wish(&[]));
    assert_eq!(world.news(), ["settle"]);
    assert_eq!(agent.state.next_deadline(), None);
}

#[test]
fn lost_replies_lose_nothing_and_nothing_is_owned_twice() {
    let world = ModelWorld::new();
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 2)])]);
    let mut agent = Agent::start(&world);
    world.parts().kernel.lose_replies = true;
    let lost = agent.try_round(&ours, Holding::Take);
    assert!(matches!(lost, Err(ipvs::Error::RepliesLost)), "{lost:?}");
    assert!(agent.state.believed.is_none(), "nothing is believed then");
    let outcome = agent.round(&ours);
    assert_eq!((outcome.services, outcome.destinations), (1, 2));
    let made = world.news();
    assert_eq!(sent(&made, "-A "), 1, "what was made is not made again");
    assert_eq!(world.parts().disk.owned.len(), 4);
    assert!(world.parts().disk.intent.is_empty(), "the round is settled");

    world.parts().kernel.lose_replies = true;
    assert!(agent.try_round(&wish(&[]), Holding::Take).is_err());
    let outcome = agent.round(&wish(&[]));
    assert_eq!(
        outcome,
        Outcome::default(),
        "lost replies to removals lose nothing either"
    );
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn an_address_stays_ours_when_the_kernel_fails_later_in_the_round() {
    let world = ModelWorld::new();
    let both = wish(&[
        (tcp(WEB, 80), "wrr", &[(1, 1)]),
        (tcp("192.0.2.11", 80), "wrr", &[(1, 1)]),
    ]);
    let web = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    for restarts in [false, true] {
        let mut agent = Agent::start(&world);
        agent.try_round(&both, Holding::Undecided).unwrap();
        world.parts().kernel.lose_replies = true;
        assert!(agent.try_round(&web, Holding::Take).is_err());
        assert_eq!(
            world.interfaces_with(ip(WEB)),
            ["eth0"],
            "the VIP was added"
        );
        if restarts {
            agent = Agent::start(&world);
        }
        agent.round(&web);
        let held = Entry::Address(ip(WEB), "eth0".into());
        assert!(world.parts().disk.owned.contains(&held));
        agent.round(&wish(&[]));
        assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
    }
}

#[test]
fn a_service_that_another_process_made_meanwhile_is_adopted_with_the_next_reading() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[]));
    let theirs = service("sed", &[(9, 9)]);
    world.parts().kernel.table.insert(tcp(WEB, 80), theirs);
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let outcome = agent.round(&ours);
    let message = &outcome.failures[&Subject::Service(tcp(WEB, 80))];
    assert!(message.contains("another program has created"), "{message}");
    assert_eq!(
        sent(&world.news(), "-a "),
        0,
        "a stranger's service gets no servers"
    );
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0], "and no VIP");

    let outcome = agent.round_when_due(&ours);
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!(
        world.table(),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "-a -t 192.0.2.10:80 -r 198.51.100.9:80 -m -w 9",
        ]
    );
}

#[test]
fn what_is_gone_already_is_removed() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    world.parts().kernel.table.clear();
    let outcome = agent.round(&wish(&[]));
    assert_eq!(outcome, Outcome::default(), "ESRCH is no failure here");
    assert_eq!(world.parts().disk.owned.len(), 0);
}

#[test]
fn interfaces_that_cannot_be_read_hold_up_no_service() {
    let world = ModelWorld::new();
    world.parts().links_broken = true;
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&ours);
    assert_eq!(outcome.services, 1);
    let subjects: Vec<_> = outcome.failures.keys().collect();
    assert_eq!(subjects, [&Subject::Links]);
    world.parts().links_broken = false;
    let outcome = agent.round_when_due(&ours);
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!(outcome.vips.len(), 1);
}

#[test]
fn an_address_that_is_refused_backs_off_by_itself() {
    let world = ModelWorld::new();
    world.parts().addresses_refused = true;
    let ours = wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]);
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&ours);
    let subjects: Vec<_> = outcome.failures.keys().collect();
    assert_eq!(subjects, [&Subject::Vip(ip(WEB))]);
    assert_eq!(outcome.services, 1);
    world.news();
    agent.round(&ours);
    assert_eq!(world.news(), [""; 0], "not before it is due");
    world.parts().addresses_refused = false;
    let outcome = agent.round_when_due(&ours);
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!(outcome.vips.len(), 1);
}

#[test]
fn a_vip_that_no_subnet_holds_is_missing_and_its_service_is_there() {
    let world = ModelWorld::new();
    let elsewhere = "203.0.113.10";
    let ours = wish(&[(tcp(elsewhere, 80), "wrr", &[(1, 1)])]);
    let outcome = Agent::start(&world).round(&ours);
    assert_eq!(outcome.missing[&ip(elsewhere)], Missing::NoSubnet);
    assert_eq!((outcome.services, outcome.vips.len()), (1, 0));
}

#[test]
fn what_one_reading_leaves_out_is_not_taken_for_gone() {
    let world = ModelWorld::new();
    let both = wish(&[
        (tcp(WEB, 80), "wrr", &[(1, 1)]),
        (tcp("192.0.2.11", 80), "wrr", &[(1, 1)]),
    ]);
    let mut agent = settled(&world, &both);
    world.parts().skipped = Some(tcp(WEB, 80));
    agent.state.distrust();
    let outcome = agent.round(&both);
    assert_eq!(world.news(), [""; 0], "nothing is written and no VIP moves");
    assert_eq!(outcome.failures, BTreeMap::new());

    // The agent removes an unwanted service even if its last reading of the
    // kernel's table lacked the service.
    world.parts().skipped = Some(tcp(WEB, 80));
    agent.state.distrust();
    agent.round(&wish(&[(tcp("192.0.2.11", 80), "wrr", &[(1, 1)])]));
    assert_eq!(
        world.news(),
        ["- 192.0.2.10 eth0", "-D -t 192.0.2.10:80", "settle"]
    );
}

#[test]
fn a_vip_that_cannot_be_removed_keeps_its_service_and_is_reported() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]));
    world.parts().addresses_refused = true;
    let nothing = wish(&[]);
    let outcome = agent.round(&nothing);
    assert_eq!(world.news(), [""; 0], "the service answers on its VIP");
    assert_eq!(outcome.vips[&ip(WEB)], "eth0", "the VIP is still here");
    assert_eq!(
        outcome.stays, outcome.vips,
        "it is reported as one that should be gone"
    );
    assert!(outcome.failures.contains_key(&Subject::Vip(ip(WEB))));

    // A round before the deadline does not retry the removal of the VIP.
    let due = agent.state.next_deadline();
    assert_eq!(agent.round(&nothing).stays, outcome.stays);
    assert_eq!(agent.state.next_deadline(), due);

    world.parts().addresses_refused = false;
    let outcome = agent.round_when_due(&nothing);
    assert_eq!(
        world.news(),
        ["- 192.0.2.10 eth0", "-D -t 192.0.2.10:80", "settle"]
    );
    assert_eq!(outcome, Outcome::default(), "nothing is left");
}

/// Another process adds the same server again and again. In every other round,
/// the wish contains this server. The agent owns the server after such a round,
/// and gives the server up in the next round.
#[test]
fn what_changes_hands_again_and_again_while_the_disk_refuses_stays_little() {
    let world = ModelWorld::new();
    let mut agent = Agent::start(&world);
    let (with, without) = (
        wish(&[(tcp(WEB, 80), "wrr", &[(1, 1), (2, 1)])]),
        wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])]),
    );
    agent.round(&without);
    world.parts().disk_broken = true;
    for _ in 0..200 {
        let added = service("wrr", &[(1, 1), (2, 1)]);
        world.parts().kernel.table.insert(tcp(WEB, 80), added);
        agent.state.distrust();
        agent.now += Duration::from_secs(1);
        agent.round(&with);
        assert!(
            agent
                .state
                .ours()
                .table
                .destination(&tcp(WEB, 80), &server(2))
        );
        agent.now += Duration::from_secs(1);
        agent.round(&without);
    }
    let unsettled = agent.state.unsettled.changes().len();
    assert!(unsettled < 40, "{unsettled} changes of two entries");

    world.parts().disk_broken = false;
    agent.now += Duration::from_secs(60);
    agent.round(&with);
    let on_disk = world.parts().disk.remembered().table;
    assert!(on_disk.destination(&tcp(WEB, 80), &server(2)));
    assert_eq!(on_disk, agent.state.ours().table);
}
