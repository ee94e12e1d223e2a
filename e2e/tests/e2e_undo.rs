//! Tests that `ipvs-agent undo` restores the state that a host had before the
//! agent ran, whatever happened in between.

use std::{collections::BTreeMap, process::Command};

use e2e::{
    Host, Process,
    cluster::{
        Cluster, PATIENCE, example, forget_director, kubeconfig_of_director, start_agent,
        state_dir, wait_for, wait_for_words, wait_until_ready,
    },
    course::{Course, NAT_VIP},
    eventually, ipvsadm, kubectl, kubectl_apply,
    process::program,
    trace,
};

/// The manifests of VirtualServices on two more VIPs, one IPv4 and one IPv6.
/// The IPv4 service has a health check.
const MORE: &str = "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: fourth}
spec:
  vip: {address: 192.168.4.15, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: web}}
  healthCheck: {tcpSocket: {}}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: sixth}
spec:
  vip: {address: '2001:db8:4::15', port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: sixth}}
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: sixth, labels: {app: sixth}}
spec: {address: '2001:db8:2::64'}
";

/// The names of all VirtualServices of the tests: the NAT cluster's
/// VirtualService, and the two VirtualServices in `MORE`.
const ALL: [&str; 3] = ["web", "fourth", "sixth"];

/// The addresses, links, routes, sysctls and IPVS table of a host.
#[derive(Debug, Eq, PartialEq)]
struct Snapshot {
    addresses: String,
    links: String,
    routes: String,
    sysctls: BTreeMap<String, String>,
    table: String,
}

impl Snapshot {
    fn of(host: &Host) -> Self {
        let mut sysctls = BTreeMap::new();
        for below in ["net.ipv4.conf", "net.ipv6.conf", "net.ipv4.vs"] {
            sysctls.extend(host.sysctls(below));
        }
        Self {
            addresses: host.addresses(),
            links: host.run("ip -oneline link show"),
            routes: host.run("ip route show table all") + &host.run("ip -6 route show table all"),
            sysctls,
            table: ipvsadm::saved(host),
        }
    }

    #[track_caller]
    fn expect(&self, host: &Host, when: &str) {
        let now = Self::of(host);
        for (name, before) in &self.sysctls {
            assert_eq!(now.sysctls.get(name), Some(before), "{name} {when}");
        }
        assert_eq!(now.sysctls.len(), self.sysctls.len(), "sysctls {when}");
        assert_eq!(now.addresses, self.addresses, "addresses {when}");
        assert_eq!(now.links, self.links, "links {when}");
        assert_eq!(now.routes, self.routes, "routes {when}");
        assert_eq!(now.table, self.table, "the table {when}");
    }
}

fn undo(director: &str) -> Command {
    let mut command = program("ipvs-agent");
    command
        .arg("undo")
        .env("IPVS_STATE_DIR", state_dir(director));
    command
}

fn course() -> Course {
    let course = Course::nat();
    course
        .director
        .ip("address add 2001:db8:4::5/64 dev eth0 nodad
             address add 2001:db8:2::5/64 dev eth1 nodad");
    course
}

#[test]
fn a_host_that_is_taken_out_of_service_is_as_it_was_before() {
    let _cluster = Cluster::start();
    let course = course();
    let director = &course.director;
    let before = Snapshot::of(director);
    let mut agent = start_agent(director, "director1");
    kubectl_apply(&format!("{}---\n{MORE}", example("nat-cluster.yaml")));
    wait_until_ready(&ALL);
    let refused = director.try_command(&mut undo("director1"));
    let refused = refused.expect_err("the agent runs").stderr();
    let expected = format!("an agent runs here (pid {})", agent.id());
    assert!(refused.contains(&expected), "{expected:?} in {refused:?}");
    assert_ne!(
        Snapshot::of(director),
        before,
        "the agent must have changed the host"
    );

    agent.terminate(PATIENCE);
    let said = director
        .try_command(&mut undo("director1"))
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{said}");
    assert!(
        said.contains("nothing of the agent's is left on this host"),
        "{said}"
    );
    assert!(
        said.contains("when the Lease of this director expires"),
        "{said}"
    );
    before.expect(director, "after undo");
    let mut telling = undo("director1");
    telling.args(["--node-name", "director1", "--kubeconfig"]);
    telling.arg(kubeconfig_of_director("director1"));
    let again = director.try_command(&mut telling);
    let said = again.unwrap_or_else(|error| panic!("undo must succeed a second time: {error}"));
    assert!(said.contains("it is out of service (Undone)"), "{said}");
    before.expect(director, "after undo, twice");
    wait_for("idir/director1", "Programmed", "False");
    wait_for_words(
        "idir/director1",
        "Ready",
        &["Undone", "kubectl delete idir"],
    );

    // The agent does not restore sysctls on which other programs may depend,
    // even when no service is left. Only undo restores these sysctls.
    forget_director("director1", &ALL);
    let mut agent = start_agent(director, "director1");
    wait_until_ready(&ALL);
    kubectl(&["delete", "ivs,irs", "--all"]);
    eventually(
        "everything to be removed",
        PATIENCE,
        || match ipvsadm::saved(director) {
            table if table.is_empty() => Ok(()),
            table => Err(table),
        },
    );
    agent.terminate(PATIENCE);
    assert_ne!(
        Snapshot::of(director),
        before,
        "shared sysctls must keep their values"
    );
    let undone = director.try_command(&mut undo("director1"));
    undone.unwrap_or_else(|error| panic!("{error}"));
    before.expect(director, "after everything was deleted, and undo");
}

/// Kills `ipvs-agent undo` at a system call that changes the host. Each pass of
/// the loop kills `undo` at a later system call than the pass before.
#[test]
fn undo_that_was_killed_goes_on_where_it_stopped() {
    let _cluster = Cluster::start();
    let course = course();
    let director = &course.director;
    let before = Snapshot::of(director);
    let mut kills = 0;
    for nth in [1, 2, 3, 5, 8, 13] {
        let mut agent = start_agent(director, "director1");
        kubectl_apply(&format!("{}---\n{MORE}", example("nat-cluster.yaml")));
        wait_until_ready(&ALL);
        agent.terminate(PATIENCE);
        for call in ["sendto", "write"] {
            let mut doomed = trace::doomed(&undo("director1"), call, nth);
            kills += usize::from(director.try_command(&mut doomed).is_err());
        }
        director
            .try_command(&mut undo("director1"))
            .unwrap_or_else(|error| panic!("after a kill at {nth}: {error}"));
        before.expect(director, &format!("after a kill at call {nth}"));
        forget_director("director1", &ALL);
    }
    println!("undo was killed {kills} times");
    assert!(kills >= 6, "undo was killed only {kills} times");
}

#[test]
fn undo_that_waits_lets_an_upload_end() {
    let _cluster = Cluster::start();
    let course = course();
    let director = &course.director;
    let mut agent = start_agent(director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    let upload = course.browser().upload(NAT_VIP, 60_000);
    let upload = upload.expect("the upload begins");
    agent.terminate(PATIENCE);
    let mut waiting = undo("director1");
    let mut waiting = Process::start(director, "undo", waiting.args(["--wait", "600"]));
    waiting.wait_for_log("1 connections are left", PATIENCE);
    let sent = upload.sent();
    eventually("the upload to go on", PATIENCE, || {
        match upload.sent() - sent {
            bytes if bytes > 60_000 => Ok(()),
            bytes => Err(format!("{bytes} bytes were sent")),
        }
    });
    let sent = upload.sent();
    let got = upload.finish().expect("the upload ends");
    assert!(got >= sent, "{got} of at least {sent} bytes arrived");
    let status = waiting.wait(PATIENCE);
    let said = waiting.log();
    println!("{said}");
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("no connection is left"), "{said}");
}
