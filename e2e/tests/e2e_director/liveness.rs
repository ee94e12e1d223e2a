//! A director is Alive only while its loop works, and Reporting only while the
//! API server accepts its status. Both come back by themselves.

use std::time::Instant;

use e2e::{
    FreezingDisk, Process,
    cluster::{
        Cluster, PATIENCE, agent, condition, example, start_agent, value, wait_for, wait_for_words,
        wait_until_ready,
    },
    control::try_kubectl,
    course::{Course, NAT_VIP, another_service},
    eventually, kubectl, kubectl_apply, layout,
};

const CHECK: &str = r#"{"spec":{"healthCheck":{"tcpSocket":{}}}}"#;

/// Applies the example cluster with a health check, and waits until it works.
fn serve() {
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl(&["patch", "ivs/web", "--type=merge", "-p", CHECK]);
    wait_until_ready(&["web"]);
    wait_for("irs/web1", "Ready", "True");
}

/// Waits until the director is no longer Alive. Then no status claims anything
/// about services and servers, and clients are still served.
#[track_caller]
fn expect_dead(course: &Course, since: Instant) {
    wait_for("idir/director1", "Alive", "False");
    println!("not Alive after {} s", since.elapsed().as_secs());
    wait_for_words("ivs/web", "Ready", &["NoDirectors"]);
    eventually(
        "the server's health to be unknown",
        PATIENCE,
        || match condition("irs/web1", "Ready", "status").as_str() {
            "True" => Err("Ready is True"),
            _ => Ok(()),
        },
    );
    wait_for("idir/director1", "Reporting", "Unknown");
    let page = course.browser().get(NAT_VIP, "/");
    page.expect("packets keep flowing");
}

#[track_caller]
fn expect_alive(services: &[&str]) {
    wait_for("idir/director1", "Alive", "True");
    wait_for("idir/director1", "Reporting", "True");
    wait_until_ready(services);
    wait_for("irs/web1", "Ready", "True");
}

#[test]
fn an_agent_whose_process_is_stopped_is_not_alive_until_it_goes_on() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    serve();
    agent.pause();
    expect_dead(&course, Instant::now());
    agent.resume();
    expect_alive(&["web"]);
}

#[test]
fn an_agent_whose_state_folder_blocks_is_not_alive_until_the_disk_answers() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let disk = FreezingDisk::mount(layout::file("state-frozen"));
    let mut command = agent("director1");
    command.env("IPVS_STATE_DIR", disk.path());
    let agent = Process::start(&course.director, "agent-director1", &mut command);
    serve();
    disk.freeze();
    // Before the agent creates the new service, it must write to its journal.
    kubectl_apply(&another_service("new", 82));
    expect_dead(&course, Instant::now());
    let log = agent.log();
    assert!(
        log.contains("the director's thread has not worked for 30 s"),
        "the log must say why the Lease is not renewed:\n{log}"
    );
    disk.thaw();
    expect_alive(&["web", "new"]);
}

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

/// A definition of Directors without the status field `sysctls`, like an older
/// version of the definition. Dropping an `OlderDefinition` adds the field
/// again.
struct OlderDefinition {
    field: String,
}

const DEFINITION: &str = "crd/directors.ipvs.dev";
const FIELD: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/sysctls";

impl OlderDefinition {
    fn begin() -> Self {
        let path = FIELD.replace("/0/", "[0]/").replace('/', ".");
        let field = value(DEFINITION, &path);
        let remove = format!(r#"[{{"op":"remove","path":"{FIELD}"}}]"#);
        kubectl(&["patch", DEFINITION, "--type=json", "-p", &remove]);
        Self { field }
    }
}

impl Drop for OlderDefinition {
    fn drop(&mut self) {
        let field = &self.field;
        let add = format!(r#"[{{"op":"add","path":"{FIELD}","value":{field}}}]"#);
        let added = try_kubectl(&["patch", DEFINITION, "--type=json", "-p", &add]);
        if !added.is_success() {
            eprintln!("the definition lacks its field: {}", added.stderr);
        }
    }
}

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

    let older = OlderDefinition::begin();
    kubectl_apply(&another_service("while-older", 83));
    let words = ["ReportRefused", "definitions are older than this program"];
    wait_for_words("idir/director1", "Reporting", &words);
    drop(older);
    expect_alive(&["web", "while-older"]);
}
