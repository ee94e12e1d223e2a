//! A tenant with rights in one namespace tries to use resources that are not
//! granted to the tenant. Each attempt is refused with a reason, and the other
//! tenant is not affected.

mod attempts;

use std::{thread, time::Duration, time::Instant};

use e2e::{
    Asking, Wire,
    cluster::{Cluster, example, start_agent, value, wait_until_ready},
    control::{try_kubectl, try_kubectl_apply_as},
    course::{Course, NAT_VIP},
    ipvsadm, kubectl, kubectl_apply,
};

use crate::attempts::{ATTEMPTS, FORBIDDEN, flood};

/// The user name with which the tenant authenticates to the API server.
pub(crate) const MALLORY: &str = "system:serviceaccount:tenant:mallory";

/// A namespace, and the rights to manage load balancing in the namespace.
const RIGHTS: &str = "apiVersion: v1
kind: Namespace
metadata: {name: tenant}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: load-balancing, namespace: tenant}
rules:
  - apiGroups: [ipvs.dev]
    resources: [ipvsvirtualservices, realservers]
    verbs: ['*']
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: mallory, namespace: tenant}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: load-balancing}
subjects:
  - {kind: ServiceAccount, name: mallory, namespace: tenant}
";

/// The grants of the group. The other tenant gets the course's VIPs. The
/// attacking tenant gets a few addresses and a small budget.
const GROUP: &str = r#"{"spec": {
    "addressPools": [
        {"name": "course", "cidrs": ["192.168.4.0/26"], "namespaces": ["default"]},
        {"name": "tenant", "cidrs": ["192.168.4.64/26"], "namespaces": ["tenant"]}
    ],
    "firewallMarks": null,
    "budgets": {"namespaces": [
        {"name": "tenant", "services": 40, "destinations": 400, "probeTargets": 100}
    ]}
}}"#;

/// The period of the other tenant's health check in seconds.
const PERIOD: u64 = 2;

/// The other tenant's server. No probe of the attacking tenant reaches this
/// server.
const SERVER: &str = "192.168.2.100.80";

#[test]
fn what_a_tenant_tries_is_refused_and_another_tenant_notices_nothing() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    kubectl(&["patch", "idg/default", "--type=merge", "-p", GROUP]);
    let _agent = start_agent(&course.director, "director1");
    let checked = format!(
        r#"{{"spec":{{"healthCheck":{{"httpGet":{{"path":"/"}},"periodSeconds":{PERIOD},"timeoutSeconds":1}}}}}}"#
    );
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl(&["patch", "ivs/web", "--type=merge", "-p", &checked]);
    wait_until_ready(&["web"]);
    kubectl_apply(RIGHTS);

    let conditions = || value("ivs/web", ".status.conditions");
    let wire = Wire::listen(&course.director, "eth1", "192.168.2.5");
    let asking = Asking::pages(&course.browser(), NAT_VIP);
    // A server's first probe begins at once, and the others follow the schedule.
    thread::sleep(Duration::from_secs(2 * PERIOD));
    // From this moment, the test counts the probes of the other tenant's
    // server.
    let (before, began) = (conditions(), Instant::now());

    for (verb, resource, namespace) in FORBIDDEN {
        let may = [
            "auth", "can-i", verb, resource, "-n", namespace, "--as", MALLORY,
        ];
        let answer = try_kubectl(&may);
        assert_eq!(answer.stdout.trim(), "no", "{verb} {resource}: {answer:?}");
    }
    for attempt in &ATTEMPTS {
        let answer = try_kubectl_apply_as(MALLORY, &attempt.manifest());
        if let Some(word) = attempt.refused_by_the_api_server {
            assert!(
                !answer.is_success() && answer.stderr.contains(word),
                "the API server must refuse {}, with {word:?}: {answer:?}",
                attempt.name
            );
            continue;
        }
        assert!(answer.is_success(), "{}: {answer:?}", attempt.name);
        attempt.wait_until_refused();
    }
    for objects in flood() {
        let answer = try_kubectl_apply_as(MALLORY, &objects);
        assert!(answer.is_success(), "the flood is valid: {answer:?}");
    }
    attempts::wait_until_the_flood_is_refused();
    let table = ipvsadm::saved(&course.director);
    let foreign = |line: &&str| !line.contains("192.168.4.5:80") && !line.contains(" 192.168.4.7");
    let foreign: Vec<_> = table.lines().filter(foreign).collect();
    assert_eq!(
        foreign, [""; 0],
        "the tenant has only what is granted to it"
    );
    let count = |of: &str| table.lines().filter(|line| line.starts_with(of)).count();
    assert!(count("-A") <= 41 && count("-a") <= 402, "{table}");

    // The test lets the attacker's objects exist for at least 20 s. Meanwhile,
    // the other tenant's traffic and probes must continue.
    thread::sleep(Duration::from_secs(20));
    let until = Instant::now();
    let failed = asking.failed(began);
    assert!(failed.is_empty(), "every client is served: {failed:?}");
    let periods = (until - began).as_secs_f64() / Duration::from_secs(PERIOD).as_secs_f64();
    let scheduled = periods.round() as usize;
    let probes = wire.flows(SERVER, began, until);
    // On a busy machine, the guest may stand still for longer than a period, and
    // a probe is then left out. If the flood took the other tenant's share, most
    // of the probes would be.
    assert!(
        probes.abs_diff(scheduled) <= 1 + scheduled / 20,
        "{probes} probes in {:?}, and {scheduled} were scheduled",
        until - began
    );
    assert_eq!(
        conditions(),
        before,
        "nothing about the other tenant changed"
    );

    // One request deletes all objects of a kind. `kubectl delete --all` would
    // send a request for each of the 2,000 objects.
    for kind in ["ipvsvirtualservices", "realservers"] {
        let all = format!("/apis/ipvs.dev/v1alpha1/namespaces/tenant/{kind}");
        kubectl(&["delete", "--raw", &all]);
    }
}
