//! Tests of the condition RemovalsHeld.

use super::*;
use crate::{
    decide::{absence::Missing, permission},
    event::origin::{Definition, Doubt},
};

const RELEASE: Release<'static> = Release {
    group: "default",
    now: Timestamp::UNIX_EPOCH,
};

#[test]
fn held_removals_are_named_with_the_way_to_release_them() {
    let mut observed = well();
    let none = fresh(&observed);
    let (held, reason, _) = said(&none, "RemovalsHeld");
    assert_eq!((held, reason), ("False", "NothingHeld"));

    observed.removals_held = vec![
        Op::DeleteService(tcp("192.0.2.99", 80)),
        Op::DeleteDestination(tcp(WEB, 443), server(9)),
    ];
    let some = fresh(&observed);
    let (held, reason, message) = said(&some, "RemovalsHeld");
    assert_eq!((held, reason), ("True", "TooManyRemovals"));
    for part in [
        "2 removals held",
        "-D -t 192.0.2.99:80, -d -t 192.0.2.10:443 -r 198.51.100.9:80",
        "kubectl patch idg default",
        "{\"allowUntil\":\"",
    ] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    let [exception] = some.exceptions.as_slice() else {
        panic!("the service with a server too many: {:?}", some.exceptions);
    };
    assert_eq!(exception.reason, "TooManyRemovals");
    assert!(
        oddities(
            &well().outcome.expect("a round"),
            &[],
            &Desired::default(),
            None,
            RELEASE
        )
        .is_empty()
    );
}

#[test]
fn what_holds_every_removal_is_reported_whether_there_is_one_or_not() {
    let mut observed = well();
    observed.hold = Some(Hold::OtherCluster {
        was: "a".to_owned(),
        is: "b".to_owned(),
    });
    let status = fresh(&observed);
    let (held, reason, message) = said(&status, "RemovalsHeld");
    assert_eq!((held, reason), ("True", "OtherCluster"));
    assert!(message.contains("no removal waits"), "{message}");

    observed.removals_held = vec![Op::DeleteService(tcp("192.0.2.99", 80))];
    for (hold, reason, names) in [
        (observed.hold.clone(), "OtherCluster", "UID a"),
        (
            Some(Hold::Definition("x.ipvs.dev", Definition::Terminating)),
            "DefinitionDeleted",
            "x.ipvs.dev",
        ),
        (
            Some(Hold::Unknown("no answer".to_owned())),
            "ClusterUnknown",
            "no answer",
        ),
    ] {
        observed.hold = hold;
        let status = fresh(&observed);
        let (held, found, message) = said(&status, "RemovalsHeld");
        assert_eq!((held, found), ("True", reason));
        for part in [names, "-D -t 192.0.2.99:80", "kubectl patch idg default"] {
            assert!(message.contains(part), "{part} in: {message}");
        }
    }
    let log = oddities(
        &observed.outcome.expect("a round"),
        &observed.removals_held,
        &observed.wishes,
        observed.hold.as_ref(),
        RELEASE,
    );
    assert!(
        log.iter().any(|line| line.text.contains("no answer")),
        "{log:?}"
    );
}

#[test]
fn a_permission_that_is_not_believed_is_in_the_notices_and_with_what_it_does_not_release() {
    let mut observed = well();
    observed.doubt = Some(permission::Doubt::Behind);
    let status = fresh(&observed);
    let (held, _, message) = said(&status, "RemovalsHeld");
    assert_eq!((held, message), ("False", "No removal is held"));
    let [notice] = status.notices.as_slice() else {
        panic!("one notice: {:?}", status.notices);
    };
    for part in ["spec.removals.allowUntil", "clock is behind", "NTP"] {
        assert!(notice.contains(part), "{part} in: {notice}");
    }

    observed.removals_held = vec![Op::DeleteService(tcp("192.0.2.99", 80))];
    let status = fresh(&observed);
    let (held, reason, message) = said(&status, "RemovalsHeld");
    assert_eq!((held, reason), ("True", "TooManyRemovals"));
    assert!(message.contains(notice.as_str()), "{message}");
}

#[test]
fn removals_of_missing_objects_are_reported_with_the_reason_while_there_are_any() {
    let mut observed = well();
    observed.hold = Some(Hold::Missing(Missing {
        doubt: Doubt::Older {
            known: 1000,
            found: 900,
        },
        went_back: 0,
        objects: 3,
    }));
    let none = fresh(&observed);
    let (held, reason, _) = said(&none, "RemovalsHeld");
    assert_eq!((held, reason), ("False", "NothingHeld"));

    observed.removals_held = vec![Op::DeleteService(tcp("192.0.2.99", 80))];
    let some = fresh(&observed);
    let (held, reason, message) = said(&some, "RemovalsHeld");
    assert_eq!((held, reason), ("True", "ObjectsMissing"));
    for part in [
        "-D -t 192.0.2.99:80",
        "3 objects are missing",
        "resourceVersion 900",
        "higher than 1000",
        "older backup",
        "kubectl patch idg default",
    ] {
        assert!(message.contains(part), "{part} in: {message}");
    }
}
