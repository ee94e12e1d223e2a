use std::time::Duration;

use crds::api::HeldVip;

use super::*;
use crate::{
    decide::addresses::{Missing, Stay},
    fixtures::{ip, named, server, tcp, wish},
    host::interface::Mac,
};

mod held;
mod shares;
mod sysctls;
mod undisturbed;

const WEB: &str = "192.0.2.10";
const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn later() -> Timestamp {
    NOON + Duration::from_secs(60)
}

/// Returns a wish for two services of one VIP. The second service has two
/// servers.
fn wishes() -> Desired {
    wish(&[
        (tcp(WEB, 80), "wrr", &[(1, 1)]),
        (tcp(WEB, 443), "wrr", &[(1, 1), (2, 2)]),
    ])
}

fn digests(of: &str) -> Option<WorldDigests> {
    Some(WorldDigests {
        virtual_services: of.to_owned(),
        ..WorldDigests::default()
    })
}

/// Returns the findings of a round in which everything succeeded.
pub(in crate::tell) fn well() -> Observed {
    Observed {
        at: NOON,
        group: "default".into(),
        used: digests("now"),
        outcome: Some(Outcome {
            services: 2,
            destinations: 3,
            vips: [(ip(WEB), "eth0".to_owned())].into(),
            ..Outcome::default()
        }),
        trouble: None,
        removals_held: Vec::new(),
        wishes: wishes().into(),
        unreadable: Vec::new(),
        health: Arc::default(),
        hold: None,
        doubt: None,
        checkpoint_trouble: None,
        input_problems: Vec::new(),
        protection: Arc::default(),
        drains: Arc::default(),
    }
}

fn failing(subject: Subject, message: &str) -> Observed {
    let mut observed = well();
    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.failures.insert(subject, message.to_owned());
    observed
}

fn troubled(trouble: Trouble) -> Observed {
    Observed {
        at: later(),
        used: None,
        outcome: None,
        trouble: Some(trouble),
        ..well()
    }
}

fn fresh(observed: &Observed) -> DirectorStatus {
    status(observed, &DirectorStatus::default(), 3)
}

/// Returns the status, reason and message of the condition Programmed in a
/// Director's status.
fn programmed(status: &DirectorStatus) -> (&str, &str, &str) {
    said(status, "Programmed")
}

fn said<'a>(status: &'a DirectorStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let found = condition::find(&status.conditions, kind);
    let found = found.unwrap_or_else(|| panic!("{kind} among {:?}", status.conditions));
    assert_eq!(found.observed_generation, Some(3));
    (&found.status, &found.reason, &found.message)
}

#[test]
fn a_round_that_went_well_says_what_is_in_the_kernel() {
    let status = fresh(&well());
    assert_eq!(
        programmed(&status),
        ("True", "Programmed", "2 services, 3 destinations")
    );
    assert_eq!(status.director_group_name, "default");
    assert_eq!(status.agent_version, env!("CARGO_PKG_VERSION"));
    assert_eq!((status.services, status.real_servers), (2, 3));
    assert_eq!(status.used, digests("now"));
    assert_eq!(
        status.vips,
        [HeldVip {
            address: WEB.into(),
            interface: "eth0".into()
        }]
    );
    assert_eq!(status.exceptions, []);
    assert_eq!((status.exceptions_omitted, status.vips_omitted), (0, 0));
}

#[test]
fn an_equal_round_later_gives_an_equal_status() {
    let first = fresh(&well());
    let again = Observed {
        at: later(),
        ..well()
    };
    assert_eq!(
        status(&again, &first, 3),
        first,
        "an equal status needs no patch"
    );
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let time = |status: &DirectorStatus| {
        let programmed = condition::find(&status.conditions, "Programmed");
        programmed
            .expect("the condition is set")
            .last_transition_time
            .0
    };
    let first = fresh(&well());
    assert_eq!(time(&first), NOON);

    let mut more = Observed {
        at: later(),
        ..well()
    };
    more.outcome.as_mut().expect("a round").services = 3;
    let more = status(&more, &first, 3);
    assert_eq!(programmed(&more).2, "3 services, 3 destinations");
    assert_eq!(time(&more), NOON, "it is still True");

    let trouble = status(&troubled(Trouble::Kernel("gone".into())), &more, 3);
    assert_eq!(time(&trouble), later(), "it is False now");
}

#[test]
fn every_trouble_has_its_reason_and_says_what_to_do() {
    for (trouble, reason, part) in [
        (
            Trouble::Kernel(ipvs::Error::NoIpvs.to_string()),
            "KernelUnavailable",
            "modprobe ip_vs",
        ),
        (
            Trouble::Kernel(ipvs::Error::NotPermitted.to_string()),
            "KernelUnavailable",
            "CAP_NET_ADMIN",
        ),
        (
            Trouble::Links("no socket".into()),
            "InterfacesUnavailable",
            "no socket",
        ),
        (
            Trouble::Group("edge".into()),
            "DirectorGroupNotFound",
            "DirectorGroup edge does not exist: create it",
        ),
    ] {
        let status = fresh(&troubled(trouble.clone()));
        let (is, why, message) = programmed(&status);
        assert_eq!((is, why), ("False", reason), "{trouble:?}");
        assert!(message.contains(part), "{part} in: {message}");
        assert_eq!(message.lines().count(), 1, "one line: {message}");
    }
}

#[test]
fn without_a_round_the_last_ones_findings_stand() {
    let before = status(&failing(Subject::Vip(ip(WEB)), "no"), &fresh(&well()), 3);
    let after = status(&troubled(Trouble::Kernel("gone".into())), &before, 3);
    let expected = DirectorStatus {
        conditions: after.conditions.clone(),
        ..before.clone()
    };
    assert_eq!(after, expected, "digests, counts, exceptions and VIPs");
    assert_ne!(after.conditions, before.conditions);
}

#[test]
fn a_director_that_never_had_a_round_claims_nothing() {
    let status = fresh(&troubled(Trouble::Kernel("gone".into())));
    assert_eq!(status.used, None);
    assert_eq!((status.services, status.vips.len()), (0, 0));
}

#[test]
fn what_the_kernel_refused_is_reported_by_the_names_of_objects() {
    let (web, tls) = (tcp(WEB, 80), tcp(WEB, 443));
    let named_after = |key: &ServiceKey| named(&key.to_string());
    for (subject, service, real_server) in [
        (Subject::Service(web), web, None),
        (
            Subject::Destination(tls, server(2)),
            tls,
            Some(named("server2")),
        ),
        // A server that must be removed no longer has an object.
        (Subject::Destination(tls, server(9)), tls, None),
    ] {
        let status = fresh(&failing(subject, "cannot do it"));
        assert_eq!(
            status.exceptions,
            [DirectorException {
                virtual_service: named_after(&service),
                real_server: real_server.clone(),
                reason: "KernelRefused".into(),
                message: "cannot do it".into(),
            }]
        );
        let message = format!("{}: cannot do it", named_after(&service));
        assert_eq!(
            programmed(&status),
            ("False", "Exceptions", message.as_str())
        );
        assert_eq!(
            status.used,
            digests("now"),
            "all other fields are from this round"
        );
    }
}

#[test]
fn a_vip_is_every_one_of_its_services_exception() {
    let missing = |why| {
        let mut observed = well();
        let outcome = observed.outcome.as_mut().expect("a round");
        outcome.vips.clear();
        outcome.missing.insert(ip(WEB), why);
        observed
    };
    let kept = |stay| {
        let mut observed = well();
        let outcome = observed.outcome.as_mut().expect("a round");
        outcome.kept.insert(ip(WEB), stay);
        observed
    };
    for (observed, reason, part) in [
        (
            missing(Missing::NoSubnet),
            "VipNotHeld",
            "no interface of this director has a subnet that holds 192.0.2.10",
        ),
        (
            missing(Missing::HolderNotNamed),
            "HolderNotNamed",
            "set spec.addresses.holder of the DirectorGroup",
        ),
        (
            missing(Missing::Asking),
            "VipProbing",
            "the agent is asking whether another host has 192.0.2.10",
        ),
        (
            missing(Missing::Taken(Mac([2, 0, 0, 0, 0, 7]), Vec::new())),
            "VipTaken",
            "192.0.2.10 is not put up, as 02:00:00:00:00:07 has it",
        ),
        (
            kept(Stay::NoPlace(Missing::NoInterface("eht0".to_owned()))),
            "VipNotReleased",
            "192.0.2.10 stays on eth0 until it can go where the DirectorGroup wants it: 192.0.2.10 belongs on eht0, and this director has no such interface",
        ),
        (
            kept(Stay::NoHolder),
            "VipNotReleased",
            "spec.addresses.holder of the DirectorGroup names is not known to be live",
        ),
        (
            failing(Subject::Vip(ip(WEB)), "cannot add 192.0.2.10"),
            "VipNotHeld",
            "cannot add 192.0.2.10",
        ),
    ] {
        let status = fresh(&observed);
        assert_eq!(status.exceptions.len(), 2, "{reason}: port 80 and port 443");
        for exception in &status.exceptions {
            assert_eq!(exception.reason, reason);
            assert!(exception.message.contains(part), "{exception:?}");
            assert_eq!(exception.real_server, None);
        }
        let (is, why, message) = programmed(&status);
        assert_eq!((is, why), ("False", "Exceptions"));
        assert!(message.ends_with(" (and 1 more)"), "{message}");
    }
}

#[test]
fn a_disk_or_interfaces_that_fail_are_the_directors_own_condition() {
    let before = DirectorStatus {
        used: digests("before"),
        ..fresh(&well())
    };
    for (subject, reason) in [
        (Subject::Journal, "StateFolderUnavailable"),
        (Subject::Links, "InterfacesUnavailable"),
    ] {
        let status = status(&failing(subject, "it is full"), &before, 3);
        assert_eq!(programmed(&status), ("False", reason, "it is full"));
        assert_eq!(
            status.used, before.used,
            "entries that could not be created must not count as programmed"
        );
    }
}

#[test]
fn interfaces_that_cannot_be_read_do_not_take_the_vips_away() {
    let mut observed = failing(Subject::Links, "no answer");
    observed.outcome.as_mut().expect("a round").vips.clear();
    let before = fresh(&well());
    assert_eq!(status(&observed, &before, 3).vips, before.vips);
}

#[test]
fn what_this_build_cannot_read_comes_first() {
    let unreadable = exception(&named("new"), None, "Unreadable", "spec.scheduler: quantum");
    let mut observed = failing(Subject::Service(tcp(WEB, 80)), "no");
    observed.unreadable.push(unreadable.clone());
    let status = fresh(&observed);
    assert_eq!(status.exceptions[0], unreadable);
    assert_eq!(
        programmed(&status).2,
        "shop/new: spec.scheduler: quantum (and 1 more)"
    );
}

#[test]
fn a_vip_that_stays_has_another_reason_than_one_that_is_missing() {
    for (stays, reason) in [(true, "VipNotReleased"), (false, "VipNotHeld")] {
        let mut observed = failing(Subject::Vip(ip(WEB)), "refused");
        let outcome = observed.outcome.as_mut().expect("a round");
        if stays {
            outcome.stays.insert(ip(WEB), "eth0".to_owned());
        }
        let reasons: Vec<_> = fresh(&observed)
            .exceptions
            .into_iter()
            .map(|exception| exception.reason)
            .collect();
        assert_eq!(reasons, [reason, reason], "of both services of the VIP");
    }
}

#[test]
fn a_failure_of_what_is_no_longer_wanted_is_still_reported() {
    let message = "cannot -D -t 192.0.2.99:80: no";
    let status = fresh(&failing(Subject::Service(tcp("192.0.2.99", 80)), message));
    assert_eq!(status.exceptions, [], "no service caused it");
    let (programmed, reason, said) = programmed(&status);
    assert_eq!((programmed, reason), ("False", "Exceptions"));
    assert_eq!(said, message);
}

mod unreadable_objects;

#[test]
fn lists_are_cut_and_what_was_left_out_is_counted() {
    let many = 1500;
    let key = |n: usize| tcp(WEB, u16::try_from(n).expect("a port"));
    let rows: Vec<_> = (1..=many).map(|n| (key(n), "wrr", &[][..])).collect();
    let mut observed = Observed {
        wishes: wish(&rows).into(),
        ..well()
    };
    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.failures = (1..=many)
        .map(|n| (Subject::Service(key(n)), "no".to_owned()))
        .collect();
    let address = |n: usize| std::net::Ipv4Addr::from(u32::try_from(n).expect("small"));
    outcome.vips = (1..=many)
        .map(|n| (address(n).into(), "eth0".to_owned()))
        .collect();
    let status = fresh(&observed);
    assert_eq!(
        (status.exceptions.len(), status.exceptions_omitted),
        (200, 1300)
    );
    assert_eq!((status.vips.len(), status.vips_omitted), (1000, 500));
    assert!(programmed(&status).2.ends_with(" (and 1499 more)"));
}

#[test]
fn what_is_refused_to_protect_the_director_is_an_exception() {
    let refused = exception(
        &named("ssh"),
        None,
        condition::reason::WOULD_HIJACK_DIRECTOR,
        "refused",
    );
    let protection = protect::Report {
        addresses: Vec::new(),
        exceptions: vec![refused.clone()],
        notices: vec!["it stands".to_owned()],
    };
    let status = fresh(&Observed {
        protection: Arc::new(protection),
        ..well()
    });
    assert_eq!(status.exceptions, [refused]);
    assert_eq!(status.notices, ["it stands"]);
    assert_eq!(
        programmed(&status),
        ("False", "Exceptions", "shop/ssh: refused")
    );
    assert_eq!(status.used, digests("now"), "everything else is as wanted");
}

#[test]
fn the_controllers_condition_is_not_the_agents() {
    let alive = condition::alive(3);
    let before = DirectorStatus {
        conditions: vec![alive.clone()],
        ..DirectorStatus::default()
    };
    let status = status(&well(), &before, 3);
    assert_eq!(condition::find(&status.conditions, "Alive"), Some(&alive));
}

#[test]
fn a_vip_that_stays_in_mode_manual_is_a_notice_and_no_exception() {
    let mut observed = well();
    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.kept.insert(ip(WEB), Stay::Manual);
    let status = fresh(&observed);
    assert_eq!(status.exceptions, []);
    let [notice] = status.notices.as_slice() else {
        panic!("one address stayed: {:?}", status.notices);
    };
    assert!(notice.contains("192.0.2.10 stays on eth0"), "{notice}");
    assert_eq!(programmed(&status).0, "True");
}
