//! Tests that a namespace gets only the resources that the DirectorGroup
//! grants, within the namespace's budget. After a grant is removed or a budget
//! is lowered, clients are still served. The agent does not touch IPVS entries
//! that other programs made.

use e2e::{
    Host,
    cluster::{
        Cluster, PATIENCE, example, start_agent, value, wait_for, wait_for_words, wait_until_ready,
    },
    control,
    course::{Course, NAT_VIP},
    eventually, ipvsadm, kubectl, kubectl_apply,
};

/// The objects of the namespace `tenant`. The objects ask for three resources
/// that the DirectorGroup does not grant to this namespace. The resources are
/// the course's VIP, a firewall mark of kube-proxy, and a cloud metadata
/// address as a server.
const TENANT: &str = "apiVersion: v1
kind: Namespace
metadata: {name: tenant}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: squatter, namespace: tenant}
spec:
  vip: {address: 192.168.4.5, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: mine}}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: mark, namespace: tenant}
spec:
  firewallMark: {mark: 16384}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: mine}}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: mine, namespace: tenant}
spec:
  vip: {address: 192.168.4.7, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: mine}}
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: metadata, namespace: tenant, labels: {app: mine}}
spec: {address: 169.254.169.254, port: 80}
";

/// The manifests of a namespace and two VirtualServices in it.
const CROWD: &str = "apiVersion: v1
kind: Namespace
metadata: {name: crowd}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: first, namespace: crowd}
spec:
  vip: {address: 192.168.4.8, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: mine}}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: second, namespace: crowd}
spec:
  vip: {address: 192.168.4.8, port: 81}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: mine}}
";

/// Changes the budgets of the DirectorGroup `default`.
fn budget(budgets: &str) {
    let patch = format!(r#"{{"spec":{{"budgets":{budgets}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

/// Sets the address pools of the DirectorGroup `default`.
fn grant(pools: &str) {
    let patch = format!(r#"{{"spec":{{"addressPools":{pools}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

/// Waits until the director's table contains a service. If `is_there` is false,
/// waits until the table no longer contains the service.
#[track_caller]
fn expect_service(director: &Host, service: &str, is_there: bool) {
    let what = format!("{service} to be in the table: {is_there}");
    eventually(&what, PATIENCE, || {
        let table = ipvsadm::saved(director);
        match table.contains(service) == is_there {
            true => Ok(()),
            false => Err(table),
        }
    });
}

/// Returns the arguments of the `kubectl patch` command at the end of
/// `message`.
fn command_of(message: &str) -> Vec<String> {
    let (_, command) = message
        .split_once("kubectl patch ")
        .expect("the message has a command");
    let (options, patch) = command
        .split_once(" -p '")
        .expect("the command has a patch");
    let patch = patch.trim_end().strip_suffix('\'').expect("in quotes");
    let options = options.split(' ').map(str::to_owned);
    ["patch".to_owned()]
        .into_iter()
        .chain(options)
        .chain(["-p".to_owned(), patch.to_owned()])
        .collect()
}

#[test]
fn a_vip_needs_a_grant_and_the_command_in_the_message_grants_it() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    grant(r#"[{"name":"other","cidrs":["203.0.113.0/24"]}]"#);
    kubectl_apply(&example("nat-cluster.yaml"));
    let message = wait_for_words(
        "ivs/web",
        "Accepted",
        &["AddressNotGranted", "192.168.4.5", "namespace default"],
    );
    expect_service(&course.director, NAT_VIP, false);

    let command = command_of(&message);
    kubectl(&command.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until_ready(&["web"]);
    let served: usize = course.browser().counts(10, NAT_VIP).values().sum();
    assert_eq!(served, 10, "every request gets a page");
}

#[test]
fn another_tenant_gets_nothing_of_what_is_not_granted_to_it() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    grant(
        r#"[{"name":"course","cidrs":["192.168.4.0/24"],"namespaces":["default"]},
            {"name":"tenant","cidrs":["192.168.4.7/32"],"namespaces":["tenant"]}]"#,
    );
    // The tenant's objects are created first, so they are older than the
    // course's objects.
    kubectl_apply(TENANT);
    let said = |name: &str, kind: &str| {
        let path = format!(
            "jsonpath={{range .status.conditions[?(@.type==\"{kind}\")]}}{{.reason}}: \
             {{.message}}{{end}}"
        );
        control::try_kubectl(&["get", &format!("ivs/{name}"), "-n", "tenant", "-o", &path]).stdout
    };
    for (name, kind, reason) in [
        ("squatter", "Accepted", "AddressNotGranted"),
        ("mark", "Accepted", "MarkNotGranted"),
        ("mine", "ResolvedRefs", "AddressNotGranted"),
    ] {
        let what = format!("{name} to be {reason}");
        eventually(&what, PATIENCE, || match said(name, kind) {
            said if said.starts_with(reason) => Ok(()),
            said => Err(said),
        });
    }
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    let table = ipvsadm::saved(&course.director);
    assert!(
        !table.contains("169.254") && !table.contains("-f "),
        "the director has none of it:\n{table}"
    );
    let served: usize = course.browser().counts(10, NAT_VIP).values().sum();
    assert_eq!(served, 10, "the owner of the VIP is served");
    kubectl(&["delete", "namespace", "tenant", "--wait=false"]);
}

#[test]
fn an_adopted_service_is_given_back_with_the_strangers_server_in_it() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    director.run("ipvsadm -A -t 192.168.4.5:80 -s rr");
    director.run("ipvsadm -a -t 192.168.4.5:80 -r 192.168.2.201:80 -m -w 3");
    let _agent = start_agent(director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    expect_service(director, "192.168.2.100:80", true);

    kubectl(&["delete", "ivs/web"]);
    expect_service(director, "192.168.2.100:80", false);
    let table = ipvsadm::saved(director);
    let lines: Vec<_> = table.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "-A -t 192.168.4.5:80 -s wrr",
            "-a -t 192.168.4.5:80 -r 192.168.2.201:80 -m -w 3",
        ],
        "the stranger's service and server stay"
    );
    director.run("ipvsadm -C");
}

#[test]
fn a_grant_that_goes_cuts_nobody_until_removals_are_allowed() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    let before = ipvsadm::saved(&course.director);

    grant("null");
    wait_for("ivs/web", "Accepted", "False");
    let still_served = || {
        eventually("the Director to say what it still serves", PATIENCE, || {
            let messages = value("idir/director1", ".status.exceptions[*].message");
            match messages.contains("still served") {
                true => Ok(()),
                false => Err(messages),
            }
        });
        let served: usize = course.browser().counts(10, NAT_VIP).values().sum();
        assert_eq!(served, 10, "every client is still served");
        assert_eq!(ipvsadm::saved(&course.director), before);
    };
    still_served();

    // A new agent starts after the grant was removed, as after an upgrade. The
    // new agent must keep the service.
    agent.kill();
    let _agent = start_agent(&course.director, "director1");
    still_served();

    let until = course.client.run("date -u -d +10min +%Y-%m-%dT%H:%M:%SZ");
    let until = until.trim();
    let patch = format!(r#"{{"spec":{{"removals":{{"allowUntil":"{until}"}}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
    expect_service(&course.director, NAT_VIP, false);
}

#[test]
fn a_tenant_gets_what_its_budget_has_and_a_budget_that_shrinks_cuts_nobody() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    grant(r#"[{"name":"course","cidrs":["192.168.4.0/24"]}]"#);
    budget(r#"{"namespaces":[{"name":"crowd","services":1}]}"#);
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    // The service `second` is never older than the service `first`. The two
    // services may have the same creation time, because creation times are
    // whole seconds.
    kubectl_apply(CROWD);
    eventually(
        "the second service to be beyond the budget",
        PATIENCE,
        || {
            let path = "jsonpath={.status.conditions[?(@.type==\"Accepted\")].reason}";
            let reason =
                |name: &str| control::try_kubectl(&["get", name, "-n", "crowd", "-o", path]).stdout;
            match (&*reason("ivs/first"), &*reason("ivs/second")) {
                ("Accepted", "BudgetExceeded") => Ok(()),
                others => Err(format!("{others:?}")),
            }
        },
    );
    expect_service(&course.director, "192.168.4.8:80", true);
    expect_service(&course.director, "192.168.4.8:81", false);

    let before = ipvsadm::saved(&course.director);
    budget(r#"{"perNamespace":{"services":0,"destinations":0}}"#);
    wait_for("ivs/web", "Accepted", "False");
    wait_for_words(
        "ivs/web",
        "Accepted",
        &["BudgetExceeded", "spec.budgets.perNamespace.services"],
    );
    eventually("the Director to say what it still serves", PATIENCE, || {
        let messages = value("idir/director1", ".status.exceptions[*].message");
        match messages.contains("still served") {
            true => Ok(()),
            false => Err(messages),
        }
    });
    let served: usize = course.browser().counts(10, NAT_VIP).values().sum();
    assert_eq!(served, 10, "every client is still served");
    assert_eq!(ipvsadm::saved(&course.director), before);

    budget(r#"{"perNamespace":null}"#);
    wait_until_ready(&["web"]);
    kubectl(&["delete", "namespace", "crowd", "--wait=false"]);
}
