//! Tests of Ready of Directors and DirectorGroups, which sum up other
//! conditions.

use super::*;

/// Returns the conditions of a director that needs no attention.
fn well() -> Vec<Condition> {
    vec![
        alive(1),
        reporting(1),
        director_programmed(3, 6, 1),
        no_removals_held(1),
        undisturbed(1),
        health_checks_nothing(1),
        sysctls_as_needed(0, 1),
    ]
}

fn all(conditions: &[Condition]) -> Vec<&Condition> {
    conditions.iter().collect()
}

fn said(condition: &Condition) -> (&str, &str, &str) {
    (&condition.status, &condition.reason, &condition.message)
}

#[test]
fn a_director_is_ready_if_no_condition_needs_attention() {
    let ready = director_ready(&all(&well()), 1);
    assert_eq!(said(&ready), (TRUE, "Ready", "The director works"));
    let mut more = well();
    more[2] = director_programmed(4, 8, 1);
    assert_eq!(
        director_ready(&all(&more), 1),
        ready,
        "another service is no news of Ready"
    );
}

#[test]
fn ready_of_a_director_says_what_the_first_condition_that_needs_attention_says() {
    let release = Release {
        group: "edge",
        now: at(0),
    };
    let failing = [
        (lease_expired("lb-1", 40, None, 1), "LeaseExpired"),
        (report_refused("since 12:00: too large", 1), "ReportRefused"),
        (
            director_not_programmed(reason::VIP_TAKEN, "taken", 1),
            "VipTaken",
        ),
        (
            removals_held(["-D -t 192.0.2.1:80"], release, 1),
            "TooManyRemovals",
        ),
        (foreign_writer(["-e -t 192.0.2.1:80"], 1), "ForeignWriter"),
        (
            health_checks_void([("no route", 2)].into_iter(), 2, 1),
            "ProbesVoid",
        ),
        (sysctls_not_as_needed(["is 1"], 1), "NotAsNeeded"),
    ];
    let mut conditions = well();
    for (index, (bad, reason)) in failing.iter().enumerate().rev() {
        conditions[index] = bad.clone();
        let ready = director_ready(&all(&conditions), 1);
        assert_eq!(
            said(&ready),
            (FALSE, *reason, &*bad.message),
            "all from {reason} on need attention"
        );
    }
}

#[test]
fn a_director_that_has_not_reported_everything_is_not_ready_and_says_what_is_missing() {
    let mut conditions = well();
    conditions.retain(|condition| condition.type_ != kind::PROGRAMMED);
    let ready = director_ready(&all(&conditions), 1);
    assert_eq!(
        said(&ready),
        (
            UNKNOWN,
            "Pending",
            "The agent has not reported its condition Programmed yet"
        )
    );
}

#[test]
fn a_director_whose_agent_is_of_the_first_release_is_ready() {
    let mut conditions = well();
    conditions.retain(|condition| condition.type_ != kind::UNDISTURBED);
    assert_eq!(director_ready(&all(&conditions), 1).status, TRUE);
}

#[test]
fn repairs_that_go_on_and_on_are_told_in_the_same_words() {
    let first = foreign_writer(["-e b", "-e a", "-e b"], 1);
    assert_eq!(first, foreign_writer(["-e a", "-e b"], 1));
    assert!(first.message.ends_with("Repaired with: -e a, -e b"));
}

#[test]
fn a_group_names_its_first_director_that_is_known_not_to_be_ready() {
    let unknown = pending(kind::READY, 1);
    let taken = director_not_programmed(reason::VIP_TAKEN, "192.0.2.1 is taken", 1);
    let ready = |not_ready: &[_], directors| {
        let ready = group_ready(&accepted(1), not_ready, directors, "edge", 1);
        format!("{}/{}: {}", ready.status, ready.reason, ready.message)
    };
    assert_eq!(ready(&[], 2), "True/Ready: 2 directors ready");
    assert_eq!(
        ready(&[], 0),
        "False/NoDirectors: No director is in this group: start an agent with --director-group edge"
    );
    assert_eq!(
        ready(&[("lb-1", &unknown), ("lb-2", &taken)], 3),
        "False/VipTaken: Director lb-2: 192.0.2.1 is taken (and 1 more director not ready)"
    );
    assert!(ready(&[("lb-1", &unknown)], 3).starts_with("Unknown/Pending: Director lb-1: "));
}

#[test]
fn the_command_that_allows_removals_has_a_full_hour_which_is_not_too_near() {
    for (now, until) in [
        (0, "1970-01-01T01:00:00Z"),
        (1799, "1970-01-01T01:00:00Z"),
        (1800, "1970-01-01T02:00:00Z"),
        (3599, "1970-01-01T02:00:00Z"),
    ] {
        let release = Release {
            group: "edge",
            now: at(now),
        };
        assert_eq!(
            release.to_string(),
            format!(
                "To allow them: kubectl patch idg edge --type=merge -p \
                 '{{\"spec\":{{\"removals\":{{\"allowUntil\":\"{until}\"}}}}}}'"
            )
        );
    }
}

#[test]
fn a_dead_agent_is_told_with_its_last_second() {
    let last = Some("2027-01-15T08:00:00.123456Z");
    let said = lease_expired("lb-1", 40, last, 1).message;
    assert!(said.contains("at 2027-01-15T08:00:00Z. "), "{said}");
}
