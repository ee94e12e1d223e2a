//! Tests of the status's list of sysctls.

use crds::api::SysctlStatus;

use super::*;

fn sysctl(name: &str, problem: Option<&str>) -> SysctlStatus {
    SysctlStatus {
        name: name.to_owned(),
        wanted: "1".to_owned(),
        found: Some("0".to_owned()),
        before: None,
        reason: "a service needs it".to_owned(),
        problem: problem.map(str::to_owned),
    }
}

fn with(all: Vec<SysctlStatus>, trouble: Option<&str>) -> Observed {
    let mut observed = well();
    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.sysctls = Sysctls {
        all,
        trouble: trouble.map(str::to_owned),
    };
    observed
}

#[test]
fn those_that_are_as_needed_are_counted_and_listed() {
    let none = fresh(&with(Vec::new(), None));
    assert_eq!(
        said(&none, "SysctlsApplied"),
        ("True", "NothingNeeded", "No sysctl is needed")
    );
    let two = vec![sysctl("net.ipv4.vs.a", None), sysctl("net.ipv4.vs.b", None)];
    let status = fresh(&with(two.clone(), None));
    assert_eq!(
        said(&status, "SysctlsApplied"),
        ("True", "AsNeeded", "2 sysctls are as needed")
    );
    assert_eq!((status.sysctls, status.sysctls_omitted), (two, 0));
}

#[test]
fn one_with_a_problem_is_named_and_the_table_is_programmed_all_the_same() {
    let all = vec![
        sysctl("net.ipv4.vs.a", None),
        sysctl("net.ipv4.vs.b", Some("cannot be written: do this")),
    ];
    let status = fresh(&with(all, None));
    let (is, reason, message) = said(&status, "SysctlsApplied");
    assert_eq!((is, reason), ("False", "NotAsNeeded"));
    let problem = "net.ipv4.vs.b cannot be written: do this";
    assert!(message.contains(problem), "{problem} in: {message}");
    assert!(!message.contains("net.ipv4.vs.a"), "only that: {message}");
    assert_eq!(programmed(&status).0, "True");
    assert_eq!(status.used, digests("now"), "the controller reads them");
}

#[test]
fn unknown_needs_are_reported_too() {
    let status = fresh(&with(Vec::new(), Some("no route socket")));
    let (is, _, message) = said(&status, "SysctlsApplied");
    assert_eq!(is, "False");
    assert!(message.contains("no route socket"), "{message}");
}

#[test]
fn of_more_than_fit_those_with_a_problem_are_reported() {
    let name = |number| format!("net.ipv4.vs.a{number}");
    let mut all: Vec<_> = (0..150).map(|number| sysctl(&name(number), None)).collect();
    all[140].problem = Some("cannot be read".to_owned());
    let status = fresh(&with(all, None));
    assert_eq!((status.sysctls.len(), status.sysctls_omitted), (100, 50));
    assert_eq!(status.sysctls[0].name, name(140));
}
