//! Tests a director that cannot use its state folder, or cannot use one file in
//! it.

use std::io;

use crds::api::DirectorStatus;

use super::*;
use crate::{act::retry::Subject, tell::report::status};

/// Returns a world in which the first `times` attempts to open the journal
/// fail.
fn without_journal(world: &ModelWorld, times: usize) -> World {
    let doors = Doors::default();
    let mut opens = doors.world(world);
    let mut open = opens.journal;
    let mut left = times;
    opens.journal = Box::new(move || {
        if left > 0 {
            left -= 1;
            return Err(JournalError::Folder {
                path: "/state".into(),
                source: io::Error::from_raw_os_error(nix::libc::EROFS),
            });
        }
        open()
    });
    opens
}

fn started(world: &ModelWorld, times: usize) -> Loop {
    let (name, group) = ("a".to_owned(), "default".to_owned());
    let (recorder, _) = Recorder::new();
    let world = without_journal(world, times);
    let mut agent = Loop::new(
        name,
        group,
        Clock::start(),
        world,
        recorder,
        Memory::default(),
    );
    agent.retention = Retention::immediate();
    everything().into_iter().for_each(|event| agent.note(event));
    agent
}

/// Returns the event that gives the group a budget for only one service.
fn smaller_budget() -> Event {
    let group = serde_json::from_value(json!({
        "metadata": {"name": "default", "uid": "group", "generation": 2},
        "spec": {
            "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}],
            "budgets": {"perNamespace": {"services": 1}},
        },
    }));
    Event::DirectorGroup(Change::Apply(group.expect("an envelope that parses")))
}

fn outcome(agent: &mut Loop, now: Duration) -> Outcome {
    let observed = agent.act(now).expect("there is something to report");
    observed.outcome.expect("a round")
}

#[test]
fn nothing_is_made_what_is_there_is_kept_right_and_it_is_reported() {
    let world = ModelWorld::new();
    let found = kernel_service("sed", &[(1, 9)]);
    world.parts().kernel.table.insert(tcp(VIP, 80), found);
    let mut agent = started(&world, usize::MAX);
    let outcome = outcome(&mut agent, Duration::ZERO);
    assert_eq!(
        world.news(),
        [
            "-E -t 192.0.2.10:80 -s wrr",
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
        ]
    );
    let told = &outcome.failures[&Subject::Journal];
    assert!(told.contains("--state-dir"), "{told}");

    // Without a journal, the agent removes an entry only if the entry was
    // wanted during this run.
    agent.note(Event::VirtualService(Change::Delete(ObjectKey::new(
        "shop", "web80",
    ))));
    agent.act(Duration::from_secs(1));
    assert_eq!(world.news(), ["-D -t 192.0.2.10:80"]);
}

#[test]
fn once_there_is_one_everything_is_made_and_what_changed_hands_is_in_it() {
    let world = ModelWorld::new();
    // An earlier run created two services, but only one of the services is
    // still wanted.
    let running = Running::start(world.clone());
    running.send(everything());
    running.programmed(2, 4);
    running.send([Event::VirtualService(Change::Apply(service(8080, "rr", 1)))]);
    running.programmed(3, 6);
    running.stop();
    world.news();

    let mut agent = started(&world, 1);
    outcome(&mut agent, Duration::ZERO);
    let there = world.table();
    assert_eq!(there.len(), 9, "what the journal would know as ours stays");
    assert_eq!(world.news(), [""; 0]);
    let due = agent.next_deadline(Duration::ZERO);
    let outcome = outcome(&mut agent, due);
    assert_eq!(outcome.failures, BTreeMap::new());
    assert_eq!(world.news(), ["-D -t 192.0.2.10:8080", "settle"]);
    assert_eq!(outcome.services, 2);
}

#[test]
fn for_a_group_that_was_never_accepted_the_most_careful_policy_is_assumed() {
    let world = ModelWorld::new();
    let found = kernel_service("sed", &[(1, 9)]);
    world.parts().kernel.table.insert(tcp(VIP, 80), found);
    let mut agent = director(&Doors::default(), &world);
    everything().into_iter().for_each(|event| agent.note(event));
    let refused: Loose<DirectorGroup> = serde_json::from_value(json!({
        "metadata": {"name": "default", "uid": "another", "generation": 1},
        "spec": {"onConflict": "Leave", "timeouts": {"udpSeconds": 0}},
    }))
    .expect("an envelope that parses");
    groups([refused])
        .into_iter()
        .for_each(|event| agent.note(event));
    agent.act(Duration::ZERO);
    let edits: Vec<_> = world.news();
    let touched = edits.iter().any(|line| line.contains("192.0.2.10:80 "));
    assert!(!touched, "a stranger's service was edited: {edits:?}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_reported_and_so_is_its_recovery() {
    let world = ModelWorld::new();
    let mut agent = director(&Doors::default(), &world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.act(Duration::ZERO).expect("a round");
    let told = |agent: &mut Loop, trouble: Option<&str>| {
        agent.note(Event::Checkpoint(trouble.map(str::to_owned)));
        let observed = agent.act(Duration::ZERO);
        observed.map(|observed| {
            let status = status(&observed, &DirectorStatus::default(), 1);
            let programmed = status.conditions.iter().find(|of| of.type_ == "Programmed");
            assert_eq!(programmed.expect("it is always set").status, "True");
            status.notices
        })
    };
    let full = "cannot write the checkpoint";
    assert_eq!(told(&mut agent, Some(full)), Some(vec![full.to_owned()]));
    assert_eq!(told(&mut agent, Some(full)), None, "this is no news");
    assert_eq!(told(&mut agent, None), Some(Vec::new()));
}

#[test]
fn what_the_journal_shows_late_is_still_served_beyond_a_budget() {
    let world = ModelWorld::new();
    let running = Running::start(world.clone());
    running.send(everything());
    running.programmed(2, 4);
    running.stop();
    world.news();

    let mut agent = started(&world, 1);
    agent.note(smaller_budget());
    outcome(&mut agent, Duration::ZERO);
    let due = agent.next_deadline(Duration::ZERO);
    let observed = agent.act(due).expect("there is something to report");
    assert_eq!(world.news(), ["settle"], "nothing is written to the kernel");
    assert_eq!(world.table().len(), 6);
    let exceptions = observed.protection.exceptions.iter();
    let reasons: Vec<_> = exceptions.map(|exception| &*exception.reason).collect();
    assert_eq!(reasons, ["BudgetExceeded"]);
}
