//! The removal guard: a valid and empty answer does not empty a director.

use std::time::Duration;

use e2e::{
    Host,
    cluster::{
        Cluster, PATIENCE, chart, condition, example, start_agent, wait_for, wait_until_ready,
    },
    course::Course,
    eventually, ipvsadm, kubectl, kubectl_apply,
};

const SERVICES: u16 = 40;
/// What a director of 40 services removes without being told.
const BUDGET: usize = 10;

#[test]
fn an_answer_that_is_empty_cuts_no_more_than_the_budget_until_it_is_released() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let agent = start_agent(&course.director, "director1");
    kubectl_apply(&servers());
    kubectl_apply(&services());
    for port in [8000, 8039] {
        wait_until_ready(&[&format!("web{port}")]);
    }
    expect_services(&course.director, usize::from(SERVICES));
    assert_eq!(answering(&course), usize::from(SERVICES));
    assert_eq!(
        condition("idir/director1", "RemovalsHeld", "status"),
        "False"
    );

    // Deleted by somebody, and made again: what was held never went.
    kubectl(&["delete", "ivs", "--all"]);
    wait_for("idir/director1", "RemovalsHeld", "True");
    let message = condition("idir/director1", "RemovalsHeld", "message");
    for part in [
        "-D -t 192.168.4.5:80",
        "kubectl patch idg default",
        "allowUntil",
    ] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    agent.wait_for_log("removals held", Duration::from_secs(10));
    assert_no_more_gone_than_the_budget(&course);
    kubectl_apply(&services());
    wait_for("idir/director1", "RemovalsHeld", "False");
    expect_services(&course.director, usize::from(SERVICES));

    // The definition is deleted, and each object with it, one by one.
    let crd = "crd/ipvsvirtualservices.ipvs.dev";
    kubectl(&["delete", crd]);
    wait_for("idir/director1", "RemovalsHeld", "True");
    assert_no_more_gone_than_the_budget(&course);
    let crds = chart().join("crds");
    kubectl(&["apply", "--server-side", "-f", &crds.to_string_lossy()]);
    kubectl(&["wait", crd, "--for=condition=Established", "--timeout=30s"]);
    assert_no_more_gone_than_the_budget(&course);

    // The administrator says that it is meant.
    let until = course.client.run("date -u -d +5min +%Y-%m-%dT%H:%M:%SZ");
    let release = format!(
        r#"{{"spec":{{"removals":{{"allowUntil":"{}"}}}}}}"#,
        until.trim()
    );
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &release]);
    expect_services(&course.director, 0);
    wait_for("idir/director1", "RemovalsHeld", "False");
}

/// The two web servers of the NAT cluster, whatever the port of the service.
fn servers() -> String {
    let manifest = example("nat-cluster.yaml");
    let (_, servers) = manifest
        .split_once("---\n")
        .expect("the service comes before the servers");
    servers.replace("  weight: 1", "  port: 80")
}

fn services() -> String {
    (0..SERVICES)
        .map(|number| {
            let port = 8000 + number;
            format!(
                "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: web{port}}}
spec:
  vip: {{address: 192.168.4.5, port: {port}}}
  scheduler: rr
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: web}}}}
---
"
            )
        })
        .collect()
}

fn in_kernel(director: &Host) -> usize {
    ipvsadm::saved(director).matches("-A ").count()
}

#[track_caller]
fn expect_services(director: &Host, count: usize) {
    eventually(
        &format!("{count} services in the kernel"),
        PATIENCE,
        || match in_kernel(director) {
            found if found == count => Ok(()),
            found => Err(found),
        },
    );
}

/// On how many of the ports a web server answers.
fn answering(course: &Course) -> usize {
    let browser = course.browser();
    (8000..8000 + SERVICES)
        .filter(|port| browser.get(&format!("192.168.4.5:{port}"), "/").is_ok())
        .count()
}

#[track_caller]
fn assert_no_more_gone_than_the_budget(course: &Course) {
    let least = usize::from(SERVICES) - BUDGET;
    let found = in_kernel(&course.director);
    assert!(
        found >= least,
        "{found} services are left, at least {least} were to be"
    );
    let answered = answering(course);
    assert!(
        answered >= least,
        "{answered} answer, at least {least} were to"
    );
}
