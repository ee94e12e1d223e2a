//! Tests that the kernel's table does not change when agents, controllers or
//! the API server go away and come back. The table also stays when the VIP
//! moves between directors.

use std::collections::BTreeMap;

use e2e::{
    ApiServerAway, Host, Process,
    cluster::{
        Cluster, DIRECTORS_NAMESPACE, NAMESPACE, PATIENCE, condition, example, expect_table,
        name_holder, start_agent, start_agent_traced, value, wait_for, wait_for_words,
        wait_until_ready,
    },
    course::{Course, DR_VIP, DR_WEB, NAT_VIP, NAT_WEB},
    eventually, ipvsadm, kubectl, kubectl_apply, trace,
    wait::eventually_equal,
};

#[test]
fn an_agent_restart_sends_no_write_to_the_kernel() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let (mut first, first_trace) = start_agent_traced(&course.director, "director1", "first");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    let table = ipvsadm::saved(&course.director);
    first.terminate(PATIENCE);
    let made = trace::kernel_writes(&first_trace, first.id());
    assert_eq!(
        made.len(),
        4,
        "one service, two destinations and one address must be written: {made:#?}"
    );
    assert_eq!(
        ipvsadm::saved(&course.director),
        table,
        "a stopped agent leaves the table as it is"
    );
    assert_vip_on(&course.director, true);

    for (how, name) in [("after a normal stop", "second"), ("after a kill", "third")] {
        let (mut agent, path) = start_agent_traced(&course.director, "director1", name);
        // When the new service is Ready, the agent has also processed all older
        // objects.
        kubectl_apply(&another_service(name));
        wait_until_ready(&[name]);
        agent.kill();
        let writes = trace::kernel_writes(&path, agent.id());
        assert_eq!(
            writes,
            ["NEW_SERVICE", "NEW_DEST", "NEW_DEST"],
            "only the new service with its servers must be written {how}"
        );
    }
    let counts = course.browser().counts(10, DR_VIP);
    assert_eq!(
        counts.values().sum::<usize>(),
        10,
        "all requests must be answered without an agent"
    );
    assert!(
        counts.keys().all(|page| DR_WEB.contains(&page.as_str())),
        "{counts:?}"
    );
}

#[test]
fn the_api_server_may_go_away_and_nothing_is_lost() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    let table = ipvsadm::saved(&course.director);

    let away = ApiServerAway::begin();
    agent.wait_for_log("Trying again", PATIENCE);
    assert_eq!(
        ipvsadm::saved(&course.director),
        table,
        "the table must stay while the API server is away"
    );
    assert_eq!(
        course.browser().counts(10, NAT_VIP),
        shares(NAT_WEB, [5, 5])
    );

    // An agent that starts without an API server restores the table of the
    // previous run, as after a reboot. The agent keeps trying to connect to the
    // API server.
    agent.terminate(PATIENCE);
    course.director.run("ipvsadm -C");
    let agent = start_agent(&course.director, "director1");
    agent.wait_for_log("Trying again", PATIENCE);
    let lines: Vec<_> = table.lines().collect();
    expect_table(&course.director, &lines);
    assert_eq!(
        course.browser().counts(10, NAT_VIP),
        shares(NAT_WEB, [5, 5]),
        "requests must be answered without an API server since the agent's start"
    );

    drop(away);
    kubectl(&[
        "patch",
        "irs/web2",
        "--type=merge",
        "-p",
        r#"{"spec":{"weight":3}}"#,
    ]);
    eventually(
        "an edit to arrive after the API server is back",
        PATIENCE,
        || {
            let table = ipvsadm::saved(&course.director);
            if table.contains("192.168.2.200:80 -m -w 3") {
                Ok(())
            } else {
                Err(table)
            }
        },
    );
    wait_until_ready(&["web"]);
    assert_eq!(
        course.browser().counts(12, NAT_VIP),
        shares(NAT_WEB, [3, 9])
    );
}

#[test]
fn two_directors_of_one_group_are_programmed_and_one_holds_the_vip() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let other = course.another_director("director-b", "192.168.4.6/24");
    name_holder("director-a");
    let _a = start_agent(&course.director, "director-a");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    assert_eq!(value("ivs/web", ".status.directors.summary"), "1/1");

    let mut b = start_agent(&other, "director-b");
    eventually("both directors to be counted", PATIENCE, || {
        let summary = value("ivs/web", ".status.directors.summary");
        if summary == "2/2" {
            Ok(())
        } else {
            Err(summary)
        }
    });
    wait_until_ready(&["web"]);
    assert_eq!(
        ipvsadm::sorted(&course.director),
        ipvsadm::sorted(&other),
        "both kernels hold the same table"
    );
    assert_vip_on(&course.director, true);
    assert_vip_on(&other, false);

    // While director-b hangs, Programmed must not be True, although director-a
    // still works.
    b.pause();
    kubectl(&[
        "patch",
        "ivs/web",
        "--type=merge",
        "-p",
        r#"{"spec":{"scheduler":"rr"}}"#,
    ]);
    // The condition names the hanging director even before the director's Lease
    // expires.
    wait_for_words("ivs/web", "Programmed", &["director-b"]);
    eventually("director-a to have the new scheduler", PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        if table.contains("-s rr") {
            Ok(())
        } else {
            Err(table)
        }
    });
    b.resume();
    wait_for("ivs/web", "Programmed", "True");

    // The DirectorGroup now names director-b as the holder of the VIPs.
    name_holder("director-b");
    eventually("the VIP to have moved", PATIENCE, || {
        match (has_vip(&course.director), has_vip(&other)) {
            (false, true) => Ok(()),
            state => Err(format!("on (a, b): {state:?}")),
        }
    });
    wait_until_ready(&["web"]);

    // If the DirectorGroup names no holder, the director that has the VIP keeps
    // it, and no director takes a new VIP.
    kubectl(&[
        "patch",
        "idg/default",
        "--type=merge",
        "-p",
        r#"{"spec":{"addresses":null}}"#,
    ]);
    kubectl_apply(&service_for("web", "second", "192.168.4.16"));
    wait_for("ivs/second", "Ready", "False");
    eventually("the status to show no named holder", PATIENCE, || {
        let reason = condition("ivs/second", "Ready", "reason");
        let message = condition("ivs/second", "Ready", "message");
        let said = ["HolderNotNamed", "VipNotHeld"].contains(&reason.as_str());
        if said && message.contains("holder") {
            Ok(())
        } else {
            Err(format!("{reason}: {message}"))
        }
    });
    wait_until_ready(&["web"]);
    assert_vip_on(&course.director, false);
    assert_vip_on(&other, true);
}

#[test]
fn agents_go_on_without_a_controller() {
    let mut cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    cluster.controller.kill();
    kubectl(&[
        "patch",
        "irs/web2",
        "--type=merge",
        "-p",
        r#"{"spec":{"weight":4}}"#,
    ]);
    eventually("an edit to arrive without a controller", PATIENCE, || {
        let table = ipvsadm::saved(&course.director);
        if table.contains("192.168.2.200:80 -m -w 4") {
            Ok(())
        } else {
            Err(table)
        }
    });
    assert_eq!(
        course.browser().counts(10, NAT_VIP),
        shares(NAT_WEB, [2, 8])
    );
}

#[test]
fn a_controller_restart_flips_no_condition() {
    let mut cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl_apply(&service_for("none", "unserved", "192.168.4.20"));
    wait_until_ready(&["web"]);
    // The director probes the segment before it takes the VIP, so Programmed
    // becomes True only after some seconds.
    wait_for("ivs/unserved", "Programmed", "True");
    wait_for("ivs/unserved", "Ready", "False");
    wait_for("irs/web1", "Ready", "True");
    wait_for("irs/web2", "Ready", "True");
    wait_for("idir/director1", "Alive", "True");
    // The message of a condition may change seconds after the condition's
    // status, so the test waits for the final messages.
    wait_for_words("ivs/web", "ResolvedRefs", &["2 real servers"]);
    wait_for_words("idir/director1", "Programmed", &["2 services, 2 dest"]);
    let before = conditions();

    cluster.restart_controller();
    // When the service `new` is Ready, the restarted controller has taken over.
    kubectl_apply(&another_service("new"));
    wait_until_ready(&["new"]);
    kubectl(&["delete", "ivs/new"]);
    eventually_equal(
        "every condition to be as before, with its time and message",
        PATIENCE,
        &before,
        conditions,
    );
}

#[test]
fn a_second_controller_takes_over() {
    let mut cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    let second = cluster.another_controller();
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    cluster.controller.kill();
    kubectl_apply(&another_service("new"));
    wait_until_ready(&["new"]);
    drop(second);
}

#[test]
fn a_director_whose_lease_ran_out_is_reported_and_not_trusted() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    agent.kill();
    // The director's Lease expires after 40 s. The condition Alive then becomes
    // False.
    wait_for("idir/director1", "Alive", "False");
    wait_for("ivs/web", "Programmed", "False");
    wait_for_words("ivs/web", "Ready", &["NoDirectors: "]);
    assert_eq!(
        course.browser().counts(10, NAT_VIP),
        shares(NAT_WEB, [5, 5]),
        "packets keep flowing"
    );
    for namespace in [DIRECTORS_NAMESPACE, NAMESPACE] {
        let leases = kubectl(&["get", "leases", "-n", namespace, "-o", "name"]);
        assert!(
            leases.contains("lease.coordination.k8s.io/director1"),
            "the Lease in {namespace} stays: {leases}"
        );
    }
    let _agent: Process = start_agent(&course.director, "director1");
    wait_until_ready(&["web"]);
}

/// Returns the conditions of each object in the API server, with type, status,
/// reason, message and time.
fn conditions() -> BTreeMap<String, String> {
    let template = "{range .items[*]}{.kind}/{.metadata.name}={.status.conditions}{\"\\n\"}{end}";
    kubectl(&["get", "ivs,irs,idir", "-o", &format!("jsonpath={template}")])
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(object, conditions)| (object.to_owned(), conditions.to_owned()))
        .collect()
}

/// Returns the manifest of a VirtualService on a free port of the director's
/// primary address, with the existing RealServers.
fn another_service(name: &str) -> String {
    service_for("web", name, "192.168.4.5")
}

fn service_for(app: &str, name: &str, address: &str) -> String {
    let port = 8000 + name.bytes().map(u32::from).sum::<u32>();
    format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  vip: {{address: {address}, port: {port}}}
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: {app}}}}}
"
    )
}

fn shares(web: [&str; 2], counts: [usize; 2]) -> BTreeMap<String, usize> {
    web.into_iter().map(str::to_owned).zip(counts).collect()
}

fn has_vip(director: &Host) -> bool {
    director
        .run("ip -brief address show eth0")
        .contains("192.168.4.15/32")
}

#[track_caller]
fn assert_vip_on(director: &Host, expected: bool) {
    assert_eq!(
        has_vip(director),
        expected,
        "whether {} holds the VIP",
        director.name()
    );
}
