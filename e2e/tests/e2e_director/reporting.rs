//! A director is Reporting only while the API server accepts its status. It comes
//! back by itself.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    cluster::{
        Cluster, DIRECTORS_NAMESPACE, OlderDefinition, PATIENCE, condition, start_agent, value,
        wait_for, wait_for_words,
    },
    control::try_kubectl_with_input,
    course::{Course, another_service},
    ipvsadm, kubectl, kubectl_apply,
};
use serde_json::json;

use crate::liveness::{expect_alive, serve};

/// A webhook that does not exist, so that the API server refuses each status of
/// a Director.
const WEBHOOK: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: refuses}
webhooks:
- name: refuses.example.com
  clientConfig: {url: 'https://127.0.0.1:1/'}
  rules:
  - {apiGroups: [ipvs.dev], apiVersions: [v1alpha1], operations: [UPDATE], resources: [directors/status]}
  matchConditions:
  - {name: agents, expression: request.userInfo.username.endsWith(':ipvs-agent')}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
";

#[test]
fn a_report_that_the_api_server_refuses_is_told_and_the_next_good_one_goes_through() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    serve();
    wait_for("idir/director1", "Reporting", "True");

    kubectl_apply(WEBHOOK);
    kubectl_apply(&another_service("while-refused", 82));
    let words = ["ReportRefused", "since 20", "refuses.example.com"];
    wait_for_words("idir/director1", "Reporting", &words);
    assert_eq!(condition("idir/director1", "Alive", "status"), "True");
    kubectl(&["delete", "validatingwebhookconfiguration", "refuses"]);
    expect_alive(&["web", "while-refused"]);
}

#[test]
fn an_older_definition_costs_its_fields_and_never_the_report() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    serve();
    wait_for("idir/director1", "DefinitionOlder", "False");
    let sysctls = || value("idir/director1", ".status.sysctls[*].name");
    assert!(sysctls().contains("net.ipv4"), "{}", sysctls());

    let older = OlderDefinition::begin();
    kubectl_apply(&another_service("while-older", 83));
    let words = [
        "FieldsLeftOut",
        "has schema",
        "goes on without status.sysctls.",
    ];
    wait_for_words("idir/director1", "DefinitionOlder", &words);
    expect_alive(&["web", "while-older"]);
    assert_eq!(condition("idir/director1", "Reporting", "status"), "True");
    assert_eq!(sysctls(), "", "the field is left out");
    drop(older);
    wait_for("idir/director1", "DefinitionOlder", "False");
    assert!(sysctls().contains("net.ipv4"), "{}", sysctls());
}

/// Returns when each condition of the Director and of its service changed.
fn transitions() -> [String; 2] {
    let all = "{range .status.conditions[*]}{.type}={.status} since {.lastTransitionTime} {end}";
    ["idir/director1", "ivs/web"]
        .map(|object| kubectl(&["get", object, "-o", &format!("jsonpath={all}")]))
}

#[test]
fn an_agent_that_is_told_to_stop_writes_nothing_and_an_upgrade_changes_no_condition() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    serve();
    wait_for("idir/director1", "Ready", "True");
    let before = transitions();
    let version = value("idir/director1", ".metadata.resourceVersion");
    let lease = ["get", "lease", "director1", "-n", DIRECTORS_NAMESPACE];
    let holder = || kubectl(&[&lease[..], &["-o", "jsonpath={.spec.holderIdentity}"]].concat());
    let held_by = holder();
    let table = ipvsadm::saved(&course.director);

    let end = agent.terminate(PATIENCE);
    assert!(end.success(), "the agent should end by itself: {end}");
    let after = value("idir/director1", ".metadata.resourceVersion");
    assert_eq!(
        after, version,
        "the agent should write no status as it ends"
    );
    assert_eq!(holder(), held_by, "the agent should not give its Lease up");
    assert_eq!(
        ipvsadm::saved(&course.director),
        table,
        "the table should stay"
    );

    let _next = start_agent(&course.director, "director1");
    kubectl_apply(&another_service("after", 84));
    expect_alive(&["web", "after"]);
    assert_eq!(
        transitions(),
        before,
        "no condition should change on the way"
    );
}

/// etcd refuses an object that is larger than 1.5 MiB (its option
/// `--max-request-bytes`).
const REFUSED: usize = 1_600_000;
const ACCEPTED: usize = 1_400_000;
/// How many bytes [`fill`] leaves for the status: enough for the conditions that
/// the controller writes, and not for the exceptions of all services that the
/// director refuses.
const ROOM: usize = 4 << 10;
const STEP: usize = 2 << 10;
/// The ports of these services.
const FIRST_PORT: u16 = 1000;
const LAST_PORT: u16 = 1059;

/// Makes a Director so large that etcd has room for no more than about [`ROOM`]
/// further bytes.
fn fill(director: &str) {
    let (mut accepted, mut refused) = (ACCEPTED, REFUSED);
    while refused - accepted > STEP {
        let middle = accepted.midpoint(refused);
        match accepts(director, middle) {
            true => accepted = middle,
            false => refused = middle,
        }
    }
    assert!(accepts(director, accepted - ROOM), "it is smaller");
}

fn accepts(director: &str, size: usize) -> bool {
    let owner = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "uid": "filler", "name": "x".repeat(size),
    });
    let object = json!({
        "apiVersion": "ipvs.dev/v1alpha1",
        "kind": "Director",
        "metadata": {"name": director, "ownerReferences": [owner]},
    });
    let apply = [
        "apply",
        "--server-side",
        "--field-manager=filler",
        "-f",
        "-",
    ];
    let answer = try_kubectl_with_input(&apply, &object.to_string());
    assert!(
        answer.is_success() || answer.stderr.contains("too large"),
        "etcd refuses only what is too large: {:.1000}",
        answer.stderr
    );
    answer.is_success()
}

/// Services with a server that is the director itself. The director refuses the
/// server, and reports an exception for each service.
fn refused_services() -> String {
    let mut objects = "apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: itself, labels: {app: itself}}
spec: {address: 192.168.2.5}
"
    .to_owned();
    for port in FIRST_PORT..=LAST_PORT {
        let _ = write!(
            objects,
            "---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: refused-{port}, labels: {{refused: 'true'}}}}
spec:
  vip: {{address: 192.168.4.77, port: {port}}}
  forwarding: {{method: DR}}
  realServerSelector: {{matchLabels: {{app: itself}}}}
"
        );
    }
    objects
}

#[test]
fn a_report_that_is_too_large_is_told_for_as_long_as_it_is_and_the_next_good_one_goes_through() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    serve();
    wait_for("idir/director1", "Reporting", "True");
    fill("director1");
    kubectl_apply(&refused_services());
    let words = ["ReportRefused", "since 20", "too large"];
    let told = wait_for_words("idir/director1", "Reporting", &words);
    let since = since(&told);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(61) {
        for (kind, status) in [("Reporting", "False"), ("Alive", "True")] {
            assert_eq!(
                condition("idir/director1", kind, "status"),
                status,
                "{kind} after {:?} of a refusal",
                began.elapsed()
            );
        }
        thread::sleep(Duration::from_secs(5));
    }
    let told = wait_for_words("idir/director1", "Reporting", &words);
    assert_eq!(self::since(&told), since, "it is the same refusal: {told}");
    // The first exceptions may have been reported one after another.
    let reported = value("idir/director1", ".status.exceptions[*].message");
    let last = format!("192.168.2.5:{LAST_PORT}");
    assert!(
        !reported.contains(&last),
        "nothing of a refused report is in the status: {reported}"
    );

    let remove = r#"[{"op":"remove","path":"/metadata/ownerReferences"}]"#;
    kubectl(&["patch", "idir/director1", "--type=json", "-p", remove]);
    kubectl(&["delete", "ivs", "-l", "refused=true"]);
    kubectl_apply(&another_service("after", 84));
    expect_alive(&["web", "after"]);
}

/// Returns the time in a message such as `ReportRefused: … since TIME: …`.
fn since(told: &str) -> &str {
    let time = told.split("since ").nth(1).unwrap_or_default();
    time.split(": ").next().unwrap_or_default()
}
