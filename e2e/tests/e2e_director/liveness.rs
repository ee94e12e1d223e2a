//! A director is Alive only while its loop works. It comes back by itself.

use std::{fs, process::Command, time::Instant};

use e2e::{
    FreezingDisk, Host, Process,
    cluster::{
        Cluster, DIRECTORS_NAMESPACE, NAMESPACE, PATIENCE, agent, condition, example, start_agent,
        upgrade_chart, wait_for, wait_for_words, wait_until_ready, workspace,
    },
    course::{Course, NAT_VIP, another_service},
    eventually, kubectl, kubectl_apply, layout,
};

const CHECK: &str = r#"{"spec":{"healthCheck":{"tcpSocket":{}}}}"#;

/// Applies the example cluster with a health check, and waits until it works.
pub(crate) fn serve() {
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
fn assert_hang_is_told(agent: &Process) {
    let log = agent.log();
    assert!(
        log.contains("the director's thread has not worked for 30 s"),
        "the log must say why the Lease is not renewed:\n{log}"
    );
}

/// Waits until the director is Alive and Reporting, and its report counts.
#[track_caller]
pub(crate) fn expect_alive(services: &[&str]) {
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
    assert_hang_is_told(&agent);
    disk.thaw();
    expect_alive(&["web", "new"]);
}

/// The rights to write Leases in a namespace are taken from all agents. Dropping
/// a `NoRights` gives them back.
struct NoRights;

impl NoRights {
    fn to_write_leases_in(namespace: &str) -> Self {
        kubectl(&["delete", "rolebinding", "ipvs-agent", "-n", namespace]);
        Self
    }
}

impl Drop for NoRights {
    fn drop(&mut self) {
        upgrade_chart();
    }
}

/// Waits until the director renews its Lease in a namespace.
#[track_caller]
fn expect_renewal_in(namespace: &str) {
    let time = || {
        let path = "jsonpath={.spec.renewTime}";
        kubectl(&["get", "lease", "director1", "-n", namespace, "-o", path])
    };
    let before = time();
    eventually(
        &format!("a renewal in {namespace}"),
        PATIENCE,
        || match time() {
            now if now == before => Err(now),
            _ => Ok(()),
        },
    );
}

#[test]
fn an_agent_that_may_not_renew_one_of_its_leases_renews_the_other_one() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let agent = start_agent(&course.director, "director1");
    wait_for("idir/director1", "Alive", "True");
    for (lost, kept) in [
        (DIRECTORS_NAMESPACE, NAMESPACE),
        (NAMESPACE, DIRECTORS_NAMESPACE),
    ] {
        let no_rights = NoRights::to_write_leases_in(lost);
        let complaint = format!("cannot renew this director's Lease in the namespace {lost}");
        eventually("the agent to be refused", PATIENCE, || {
            match agent.log().contains(&complaint) {
                true => Ok(()),
                false => Err(agent.log()),
            }
        });
        for _ in 0..2 {
            expect_renewal_in(kept);
        }
        assert_eq!(condition("idir/director1", "Alive", "status"), "True");
        drop(no_rights);
        expect_renewal_in(lost);
    }
}

/// The request to the kernel that [`HungRtnetlink`] begins: `ETHTOOL_GFLAGS`
/// (`include/uapi/linux/ethtool.h`). The kernel writes the answer while it holds
/// the lock of rtnetlink.
const REQUEST: u32 = 0x25;

/// A kernel whose rtnetlink hangs: it answers no request, and each process that
/// sends one blocks in the system call. Dropping a `HungRtnetlink` ends this. No
/// host can be changed in the meantime, because all hosts share the kernel.
struct HungRtnetlink {
    // The disk is dropped first, because the program cannot end before.
    disk: FreezingDisk,
    _holder: Process,
}

impl HungRtnetlink {
    fn begin(host: &Host) -> Self {
        let holder = workspace().join("e2e/tools/bin/hold-rtnl");
        assert!(
            holder.exists(),
            "{} is missing: `make lab-tools` builds it",
            holder.display()
        );
        let disk = FreezingDisk::mount(layout::file("rtnl"));
        let file = disk.path().join("answer");
        let mut request = REQUEST.to_ne_bytes().to_vec();
        request.resize(8, 0);
        fs::write(&file, request).expect("the disk can be written");
        disk.freeze();
        let mut command = Command::new(holder);
        let holder = Process::start(host, "hold-rtnl", command.arg(file));
        eventually("rtnetlink to hang", PATIENCE, || {
            match holder.log().contains("asking") {
                true => Ok(()),
                false => Err(holder.log()),
            }
        });
        Self {
            disk,
            _holder: holder,
        }
    }

    fn end(self) {
        self.disk.thaw();
        drop(self);
    }
}

#[test]
fn an_agent_whose_rtnetlink_hangs_is_not_alive_until_the_kernel_answers() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let agent = start_agent(&course.director, "director1");
    serve();
    let hung = HungRtnetlink::begin(&course.director);
    // For a new service, the agent reads the host's interfaces.
    kubectl_apply(&another_service("new", 82));
    expect_dead(&course, Instant::now());
    assert_hang_is_told(&agent);
    hung.end();
    expect_alive(&["web", "new"]);
}
