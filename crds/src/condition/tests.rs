mod summaries;

use super::*;
use crate::{
    api::{DirectorException, ServiceBelowMinimum, UnhealthyServer, UnhealthyState},
    fixtures::key,
};

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
        (
            resolved_refs(2, 1),
            refused_refs([(&server, &refused)], 0, 1),
        ),
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
        (
            server_ready(0, None, none(), 1),
            (FALSE, reason::NOT_SELECTED),
        ),
        (server_ready(1, None, none(), 1), (TRUE, reason::READY)),
        (
            server_ready(0, None, [(&mail, &unfit)], 1),
            (FALSE, reason::PORT_MISMATCH),
        ),
        (
            server_ready(1, None, [(&mail, &unfit)], 1),
            (TRUE, reason::READY),
        ),
    ] {
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), expected);
    }
    assert_eq!(
        server_ready(1, None, [(&mail, &unfit)], 1).message,
        "Serves 1 virtual service; refused by VirtualService shop/mail: 8080"
    );
}

fn sees(state: UnhealthyState, message: &str) -> UnhealthyServer {
    UnhealthyServer {
        real_server: ObjectKey::new("shop", "a"),
        virtual_services: vec![ObjectKey::new("shop", "web")],
        state,
        since: Time(at(10)),
        message: message.to_owned(),
    }
}

#[test]
fn a_checked_server_is_ready_where_one_director_sees_it_healthy() {
    use UnhealthyState::{Down, Flapping, Unknown};
    let down = sees(Down, "connection refused");
    for (healthy, others, expected) in [
        (
            4,
            vec![],
            "True/Ready: Serves 1 virtual service; healthy on 4 of 4 directors 4/4",
        ),
        (
            3,
            vec![("d2", Ok(sees(Down, "HTTP 503, expected 200-299")))],
            "True/Ready: Serves 1 virtual service; healthy on 3 of 4 directors; on d2: HTTP 503, \
             expected 200-299, for shop/web 3/4",
        ),
        (
            0,
            vec![("d1", Ok(down.clone())), ("d2", Ok(down.clone()))],
            "False/Unhealthy: Behind 1 virtual service; healthy on 0 of 2 directors; on d1, d2: \
             connection refused, for shop/web 0/2",
        ),
        (
            0,
            vec![("d1", Ok(sees(Flapping, "no answer in 2 s")))],
            "False/Unhealthy: Behind 1 virtual service; healthy on 0 of 1 director; on d1: \
             flapping: no answer in 2 s, for shop/web 0/1",
        ),
        (
            0,
            vec![("d1", Ok(down)), ("d2", Err(Sight::Waiting))],
            "False/Unhealthy: Behind 1 virtual service; healthy on 0 of 2 directors; on d1: \
             connection refused, for shop/web; waiting for d2 0/2?",
        ),
        (
            0,
            vec![
                ("d1", Ok(sees(Unknown, "no answer in 2 s"))),
                ("d2", Err(Sight::Waiting)),
            ],
            "Unknown/Checking: Behind 1 virtual service; healthy on 0 of 2 directors; on d1: new: \
             no answer in 2 s, for shop/web; waiting for d2 0/2?",
        ),
        (
            0,
            vec![("d1", Err(Sight::LeftOut))],
            "Unknown/MoreToReport: Behind 1 virtual service; healthy on 0 of 1 director; not \
             known on d1: more unhealthy servers than fit into a Director's status 0/1?",
        ),
        (
            0,
            vec![],
            "Unknown/NoDirectors: No director that should check it renews its Lease; see kubectl \
             get directors 0/0",
        ),
    ] {
        let mut health = ServerHealth::default();
        health.healthy(healthy);
        for (director, sight) in &others {
            match sight {
                Ok(entry) => health.named(director, entry),
                Err(sight) => health.unnamed(director, *sight),
            }
        }
        let ready = server_ready(1, Some(&health), [], 1);
        let said = format!(
            "{}/{}: {} {}",
            ready.status,
            ready.reason,
            ready.message,
            health.counts().summary
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn a_director_that_sees_a_server_in_several_ways_is_counted_once() {
    let mut health = ServerHealth::default();
    health.healthy(1);
    health.unnamed("d1", Sight::LeftOut);
    let mut down = sees(UnhealthyState::Down, "connection refused");
    down.virtual_services.push(ObjectKey::new("shop", "mail"));
    health.named("d1", &down);
    health.unnamed("d1", Sight::Waiting);
    let counts = health.counts();
    assert_eq!(
        (counts.checking, counts.healthy, counts.unhealthy),
        (2, 1, 1)
    );
    assert!(
        server_ready(2, Some(&health), [], 1)
            .message
            .ends_with("on d1: connection refused, for shop/web and 1 more"),
    );
}

#[test]
fn a_server_that_many_directors_see_unhealthy_for_one_reason_is_told_in_one_phrase() {
    let directors: Vec<String> = (0..1000).map(|number| format!("d{number:03}")).collect();
    let mut health = ServerHealth::default();
    for director in &directors {
        health.named(director, &sees(UnhealthyState::Down, "connection refused"));
    }
    let message = server_ready(1, Some(&health), [], 1).message;
    assert!(
        message.ends_with("d009 and 990 more: connection refused, for shop/web"),
        "{message}"
    );
}

#[test]
fn a_service_below_its_minimum_says_on_which_director_by_how_much_and_what_is_in_force() {
    let below = |action: &str, healthy| ServiceBelowMinimum {
        virtual_service: ObjectKey::new("shop", "web"),
        action: action.to_owned(),
        healthy,
        total: 4,
        minimum: 2,
        since: Time(at(10)),
    };
    for (below, unhealthy, others, message) in [
        (
            below("FailOpen", 1),
            &["a", "b", "c"][..],
            0,
            "Director d1: 1 of 4 real servers healthy (not a, b, c), 2 needed. FailOpen: every \
             server that is not drained counts as healthy",
        ),
        (
            below("Reject", 0),
            &[],
            1,
            "Director d1: 0 of 4 real servers healthy, 2 needed. Reject: new connections are \
             refused. The same on 1 more director",
        ),
        (
            below("SorryServer", 2),
            &[],
            2,
            "Director d1: 2 of 4 real servers healthy, not enough yet to recover from fewer \
             than 2. SorryServer: new connections go to the sorry server. The same on 2 more \
             directors",
        ),
        (
            below("Pray", 0),
            &[],
            0,
            "Director d1: 0 of 4 real servers healthy, 2 needed. Pray",
        ),
    ] {
        let condition = below_minimum("d1", &below, unhealthy, others, 1);
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            (FALSE, reason::BELOW_MINIMUM)
        );
        assert_eq!(condition.message, message);
    }
}

#[test]
fn a_long_message_names_ten_and_counts_the_rest() {
    let directors: Vec<String> = (0..1000).map(|number| format!("lb-{number}")).collect();
    let waiting = programming(directors.iter().map(String::as_str), 1).message;
    assert!(waiting.ends_with("lb-9 and 990 more"), "{waiting}");
    let bad = rejection(reason::NO_FORWARDING, "none");
    let servers: Vec<_> = (0..12).map(|number| key(&format!("r{number}"))).collect();
    let refused = refused_refs(servers.iter().map(|server| (server, &bad)), 0, 1);
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
            virtual_service: ObjectKey::new("shop", "web"),
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
        virtual_service: ObjectKey::new("shop", "web"),
        real_server: Some(ObjectKey::new("shop", "a")),
        reason: "KernelRefused".to_owned(),
        message: "no memory".to_owned(),
    };
    for (others, message) in [
        (0, "Director lb-1: RealServer shop/a: no memory"),
        (
            1,
            "Director lb-1: RealServer shop/a: no memory. 1 more director failed",
        ),
        (
            2,
            "Director lb-1: RealServer shop/a: no memory. 2 more directors failed",
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
        "12 of 1000 targets cannot be probed because of the director itself: no file descriptor \
         is free (12). Their servers keep their last state"
    );
    let late = health_checks_late([("namespace shop wants more", 7)].into_iter(), 1000, 1);
    assert_eq!(
        late.message,
        "7 of 1000 targets are probed late, and no other namespace's: namespace shop wants more \
         (7)"
    );
    let said = void(&[("no carrier", 3), ("no route", 4)]);
    assert!(
        said.starts_with("7 of 1000") && said.contains("no carrier (3), no route (4)"),
        "{said}"
    );
}
