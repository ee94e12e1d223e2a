use super::*;
use crate::{api::DirectorException, fixtures::key};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn rejection(reason: &'static str, message: &str) -> Rejection {
    Rejection {
        reason,
        message: message.to_owned(),
    }
}

#[test]
fn a_condition_that_says_the_same_is_left_alone() {
    let mut conditions = Vec::new();
    assert!(set(&mut conditions, accepted(1), at(10)));
    let before = conditions.clone();
    assert!(!set(&mut conditions, accepted(1), at(20)));
    assert_eq!(conditions, before);
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_transition() {
    let mut conditions = Vec::new();
    let time = |conditions: &[Condition]| conditions[0].last_transition_time.0.as_second();
    set(&mut conditions, accepted(1), at(10));
    assert!(
        set(&mut conditions, accepted(2), at(20)),
        "another generation is news"
    );
    assert_eq!(time(&conditions), 10);
    let bad = rejection(reason::INVALID, "spec.vip.port: …");
    assert!(set(&mut conditions, not_accepted(&bad, 3), at(30)));
    assert_eq!(time(&conditions), 30);
    assert_eq!(conditions.len(), 1);
}

#[test]
fn what_the_schema_said_of_1970_gets_a_time() {
    let mut conditions = vec![pending(kind::READY, 0)];
    set(&mut conditions, pending(kind::READY, 1), at(10));
    assert_eq!(conditions[0].last_transition_time.0, at(10));
}

#[test]
fn ready_says_what_the_first_failing_condition_says() {
    let conflict = rejection(reason::CONFLICT, "older");
    let refused = rejection(reason::PORT_MISMATCH, "8080");
    let server = key("a");
    let all = [
        (accepted(1), not_accepted(&conflict, 1)),
        (resolved_refs(2, 1), refused_refs([(&server, &refused)], 1)),
        (programmed(2, 1), programming(["lb-2"], 1)),
    ];
    for (failing, expected) in [
        (vec![], (TRUE, reason::READY, "On 2 directors")),
        (
            vec![2],
            (FALSE, reason::PROGRAMMING, "Waiting for director lb-2"),
        ),
        (
            vec![1, 2],
            (FALSE, reason::PORT_MISMATCH, "RealServer shop/a: 8080"),
        ),
        (vec![0, 1, 2], (FALSE, reason::CONFLICT, "older")),
    ] {
        let conditions: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(index, (good, bad))| if failing.contains(&index) { bad } else { good }.clone())
            .collect();
        let ready = service_ready(&conditions, 1);
        assert_eq!(
            (
                ready.status.as_str(),
                ready.reason.as_str(),
                ready.message.as_str()
            ),
            expected
        );
        assert_eq!(ready.type_, kind::READY);
    }
}

#[test]
fn ready_is_unknown_while_anything_is() {
    let ready = service_ready(&[accepted(1), resolved_refs(1, 1)], 1);
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        (UNKNOWN, reason::PENDING)
    );
}

#[test]
fn a_server_is_ready_where_one_service_uses_it() {
    let unfit = rejection(reason::PORT_MISMATCH, "8080");
    let mail = key("mail");
    let none = || std::iter::empty::<(&ObjectKey, &Rejection)>();
    for (ready, expected) in [
        (server_ready(0, none(), 1), (FALSE, reason::NOT_SELECTED)),
        (server_ready(1, none(), 1), (TRUE, reason::READY)),
        (
            server_ready(0, [(&mail, &unfit)], 1),
            (FALSE, reason::PORT_MISMATCH),
        ),
        (server_ready(1, [(&mail, &unfit)], 1), (TRUE, reason::READY)),
    ] {
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), expected);
    }
    assert_eq!(
        server_ready(1, [(&mail, &unfit)], 1).message,
        "Serves 1 virtual service; refused by VirtualService shop/mail: 8080"
    );
}

#[test]
fn a_long_message_names_ten_and_counts_the_rest() {
    let directors: Vec<String> = (0..1000).map(|number| format!("lb-{number}")).collect();
    let waiting = programming(directors.iter().map(String::as_str), 1).message;
    assert!(waiting.ends_with("lb-9 and 990 more"), "{waiting}");
    let bad = rejection(reason::NO_FORWARDING, "none");
    let servers: Vec<_> = (0..12).map(|number| key(&format!("r{number}"))).collect();
    let refused = refused_refs(servers.iter().map(|server| (server, &bad)), 1);
    assert_eq!(refused.reason, reason::NO_FORWARDING);
    assert!(
        refused.message.ends_with("r9: none. And 2 more"),
        "{}",
        refused.message
    );
}

#[test]
fn what_a_director_could_not_do_is_said_with_its_word_where_that_can_be_a_reason() {
    for (word, reason) in [
        ("KernelRefused", "KernelRefused"),
        ("a_b:C", "a_b:C"),
        ("", "NotProgrammed"),
        ("no such thing!", "NotProgrammed"),
        ("1st", "NotProgrammed"),
        ("Colon:", "NotProgrammed"),
    ] {
        let why = DirectorException {
            virtual_service: "shop/web".to_owned(),
            real_server: None,
            reason: word.to_owned(),
            message: "why".to_owned(),
        };
        let condition = not_programmed("lb-1", &why, 0, 1);
        assert_eq!(condition.reason, reason, "{word:?}");
        assert_eq!(condition.message, "Director lb-1: why");
    }
}

#[test]
fn what_a_director_could_not_do_names_the_server_and_counts_the_other_directors() {
    let mut why = DirectorException {
        virtual_service: "shop/web".to_owned(),
        real_server: Some("shop/a".to_owned()),
        reason: "KernelRefused".to_owned(),
        message: "no memory".to_owned(),
    };
    for (others, message) in [
        (0, "Director lb-1: RealServer shop/a: no memory"),
        (
            1,
            "Director lb-1: RealServer shop/a: no memory. And 1 more director could not",
        ),
        (
            2,
            "Director lb-1: RealServer shop/a: no memory. And 2 more directors could not",
        ),
    ] {
        assert_eq!(not_programmed("lb-1", &why, others, 1).message, message);
    }
    why.message = "shop/a has no memory".to_owned();
    assert_eq!(
        not_programmed("lb-1", &why, 0, 1).message,
        "Director lb-1: shop/a has no memory"
    );
}

#[test]
fn a_director_says_how_many_targets_it_probes_and_why_it_cannot_probe_others() {
    let void =
        |reasons: &[(&str, usize)]| health_checks_void(reasons.iter().copied(), 1000, 1).message;
    assert_eq!(health_checks_probing(1, 1).message, "1 target is probed");
    assert_eq!(
        health_checks_probing(1000, 1).message,
        "1000 targets are probed"
    );
    assert_eq!(
        void(&[("no file descriptor is free", 12)]),
        "12 of 1000 targets cannot be probed, for reasons of the director's own: no file \
         descriptor is free (12). Their servers keep the state that they had"
    );
    let said = void(&[("no carrier", 3), ("no route", 4)]);
    assert!(
        said.starts_with("7 of 1000") && said.contains("no carrier (3), no route (4)"),
        "{said}"
    );
}
