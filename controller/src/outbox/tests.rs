use crds::{ObjectKey, api::VirtualServiceStatus, condition};

use super::*;
use crate::status::Subject;

const fn s(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn id(name: usize) -> Id {
    Id {
        subject: Subject::VirtualService,
        key: ObjectKey::new("shop", name.to_string()),
    }
}

/// Returns a status to publish. Tests tell statuses apart by their generation.
fn letter(name: usize, difference: Difference, generation: i64) -> Letter {
    Letter {
        id: id(name),
        uid: "u".to_owned(),
        status: Status::VirtualService(VirtualServiceStatus {
            conditions: vec![condition::programmed(1, generation)],
            ..VirtualServiceStatus::default()
        }),
        published: None,
        difference,
    }
}

/// Returns a status that says that a director is not done yet. It differs from
/// the published status by a flip.
fn waiting(name: usize, director: &str) -> Letter {
    Letter {
        status: Status::VirtualService(VirtualServiceStatus {
            conditions: vec![condition::programming([director], 1)],
            ..VirtualServiceStatus::default()
        }),
        ..letter(name, Difference::Flip, 1)
    }
}

/// Passes the result of a pass over all objects to the outbox.
fn replace(outbox: &mut Outbox, letters: impl IntoIterator<Item = Letter>, now: Time) {
    let pass = Pass {
        scope: Scope::All,
        letters: letters.into_iter().collect(),
    };
    outbox.update(pass, now);
}

fn sent(outbox: &mut Outbox, now: Time) -> Vec<Id> {
    let sent: Vec<_> = outbox
        .due(now)
        .into_iter()
        .map(|letter| letter.id)
        .collect();
    for id in &sent {
        outbox.done(id, Outcome::Written, now);
    }
    sent
}

#[test]
fn one_object_is_patched_once_in_five_seconds_and_at_once_when_a_condition_flips() {
    let mut outbox = Outbox::default();
    replace(&mut outbox, [letter(1, Difference::Plain, 1)], s(0));
    assert_eq!(sent(&mut outbox, s(0)), [id(1)]);

    replace(&mut outbox, [letter(1, Difference::Plain, 2)], s(1));
    assert_eq!(sent(&mut outbox, s(1)), []);
    assert_eq!(outbox.next_deadline(s(1)), Some(s(5)));
    assert_eq!(sent(&mut outbox, s(5)), [id(1)]);

    replace(&mut outbox, [waiting(1, "d1")], s(6));
    assert_eq!(outbox.next_deadline(s(6)), Some(s(0)));
    assert_eq!(sent(&mut outbox, s(6)), [id(1)]);
}

#[test]
fn names_and_numbers_in_one_status_are_brought_up_to_date_every_half_minute() {
    let mut outbox = Outbox::default();
    let mut patches = Vec::new();
    for second in 0..70 {
        let generation = i64::try_from(second).unwrap();
        let difference = match second {
            0 => Difference::Flip,
            _ => Difference::Soft,
        };
        replace(&mut outbox, [letter(1, difference, generation)], s(second));
        patches.extend(sent(&mut outbox, s(second)).iter().map(|_| second));
    }
    assert_eq!(patches, [0, 30, 60]);
    replace(&mut outbox, [letter(1, Difference::Plain, 70)], s(70));
    assert_eq!(
        sent(&mut outbox, s(70)),
        [id(1)],
        "a new reason does not wait half a minute"
    );
}

#[test]
fn a_soft_or_brief_difference_that_ends_within_twenty_seconds_is_never_published() {
    for difference in [Difference::Soft, Difference::Brief] {
        let mut outbox = Outbox::default();
        replace(&mut outbox, [letter(1, difference, 1)], s(0));
        assert_eq!(outbox.next_deadline(s(0)), Some(s(20)));
        // Its content may change meanwhile.
        replace(&mut outbox, [letter(1, difference, 2)], s(19));
        assert_eq!(sent(&mut outbox, s(19)), []);
        replace(&mut outbox, [], s(19));
        replace(&mut outbox, [letter(1, difference, 3)], s(20));
        assert_eq!(sent(&mut outbox, s(39)), [], "it has begun again");
        assert_eq!(sent(&mut outbox, s(40)), [id(1)]);
    }
}

#[test]
fn brief_differences_that_last_do_not_trickle() {
    let mut outbox = Outbox::default();
    let many = (0..1000).map(|name| letter(name, Difference::Brief, 1));
    replace(&mut outbox, many, s(0));
    let mut patches = 0;
    loop {
        match sent(&mut outbox, LASTING).len() {
            0 => break,
            now => patches += now,
        }
    }
    assert_eq!(
        patches, 1000,
        "what is unknown is not called known for long"
    );
}

#[test]
fn a_brief_difference_after_a_long_soft_one_must_last_too() {
    let mut outbox = Outbox::default();
    // The other soft differences keep this one waiting.
    let many = || (0..100).map(|name| letter(name, Difference::Soft, 1));
    replace(&mut outbox, many(), s(0));
    let others = (0..99).map(|name| letter(name, Difference::Soft, 1));
    let others = others.chain([letter(99, Difference::Brief, 2)]);
    replace(&mut outbox, others, s(60));
    assert!(!sent(&mut outbox, s(60)).contains(&id(99)));
    assert!(sent(&mut outbox, s(60) + LASTING).contains(&id(99)));
}

#[test]
fn a_status_that_becomes_another_than_soft_does_not_wait() {
    let mut outbox = Outbox::default();
    replace(&mut outbox, [letter(1, Difference::Soft, 1)], s(0));
    replace(&mut outbox, [letter(1, Difference::Plain, 2)], s(1));
    assert_eq!(sent(&mut outbox, s(1)), [id(1)]);
}

#[test]
fn what_was_written_a_moment_ago_is_not_written_again_because_the_watch_is_behind() {
    let mut outbox = Outbox::default();
    replace(&mut outbox, [letter(1, Difference::Flip, 1)], s(0));
    assert_eq!(sent(&mut outbox, s(0)), [id(1)]);
    replace(&mut outbox, [letter(1, Difference::Flip, 1)], s(1));
    assert_eq!(sent(&mut outbox, s(1)), []);
    // If the status is still not published after the pause, another writer has
    // overwritten it.
    replace(&mut outbox, [letter(1, Difference::Flip, 1)], s(5));
    assert_eq!(sent(&mut outbox, s(5)), [id(1)]);
}

#[test]
fn a_flip_is_not_written_twice_because_the_watch_is_behind_and_numbers_differ() {
    let mut outbox = Outbox::default();
    replace(&mut outbox, [waiting(1, "d1")], s(0));
    assert_eq!(sent(&mut outbox, s(0)), [id(1)]);
    replace(&mut outbox, [waiting(1, "d2")], s(1));
    assert_eq!(sent(&mut outbox, s(1)), [], "only a name differs");
    let programmed = letter(1, Difference::Flip, 1);
    replace(&mut outbox, [programmed], s(2));
    assert_eq!(sent(&mut outbox, s(2)), [id(1)], "it is another flip");
}

#[test]
fn a_letter_that_is_under_way_is_not_overtaken() {
    let mut outbox = Outbox::default();
    replace(&mut outbox, [letter(1, Difference::Flip, 1)], s(0));
    assert_eq!(outbox.due(s(0)).len(), 1);
    replace(&mut outbox, [waiting(1, "d1")], s(1));
    assert_eq!(outbox.due(s(1)).len(), 0);
    outbox.done(&id(1), Outcome::Written, s(2));
    assert_eq!(outbox.due(s(2)).len(), 1);
}

#[test]
fn only_so_many_are_under_way() {
    let mut outbox = Outbox::default();
    replace(
        &mut outbox,
        (0..100).map(|name| letter(name, Difference::Flip, 1)),
        s(0),
    );
    let first = outbox.due(s(0));
    assert_eq!(first.len(), CONCURRENT);
    assert_eq!(outbox.due(s(0)).len(), 0);
    outbox.done(&first[0].id, Outcome::Written, s(0));
    assert_eq!(outbox.due(s(0)).len(), 1);
}

#[test]
fn flips_go_first() {
    let mut outbox = Outbox::default();
    let many = (0..100).map(|name| letter(name, Difference::Plain, 1));
    replace(
        &mut outbox,
        many.chain([letter(100, Difference::Flip, 1)]),
        s(0),
    );
    assert_eq!(outbox.due(s(0))[0].id, id(100));
}

#[test]
fn soft_differences_of_ten_thousand_services_trickle() {
    let mut outbox = Outbox::default();
    let mut patches = 0;
    for second in 0..=60 {
        replace(
            &mut outbox,
            (patches..10_000).map(|name| letter(name, Difference::Soft, 1)),
            s(second),
        );
        loop {
            let now = sent(&mut outbox, s(second)).len();
            patches += now;
            if now == 0 {
                break;
            }
        }
    }
    // The first ones have lasted after twenty seconds.
    assert_eq!(patches, SOFT_BURST as usize + 8);
}

#[test]
fn soft_differences_that_never_cease_come_in_turn() {
    let mut outbox = Outbox::default();
    let mut patches: BTreeMap<Id, u32> = (0..100).map(|name| (id(name), 0)).collect();
    // The statuses of a hundred services change every second. After the burst,
    // only one soft difference is sent every five seconds.
    for second in 0..1000 {
        let generation = i64::try_from(second).unwrap();
        replace(
            &mut outbox,
            (0..100).map(|name| letter(name, Difference::Soft, generation)),
            s(second),
        );
        for id in sent(&mut outbox, s(second)) {
            *patches.get_mut(&id).unwrap() += 1;
        }
    }
    let least = patches.values().min().unwrap();
    let most = patches.values().max().unwrap();
    assert!(*least >= 2 && most - least <= 1, "{least} to {most}");
}

#[test]
fn a_failed_letter_is_tried_again_later_and_later() {
    let mut outbox = Outbox::default();
    let mut tries = Vec::new();
    for millis in (0..10_000).step_by(100) {
        let now = Duration::from_millis(millis);
        replace(&mut outbox, [letter(1, Difference::Flip, 1)], now);
        for letter in outbox.due(now) {
            tries.push(millis);
            outbox.done(&letter.id, Outcome::Failed, now);
        }
    }
    assert_eq!(tries, [0, 500, 1500, 3500, 7500]);
}

#[test]
fn who_does_not_lead_sends_nothing() {
    let mut outbox = Outbox::default();
    replace(&mut outbox, [letter(1, Difference::Flip, 1)], s(0));
    outbox.clear();
    assert_eq!(outbox.due(s(0)), []);
    assert_eq!(outbox.next_deadline(s(0)), None);
}
