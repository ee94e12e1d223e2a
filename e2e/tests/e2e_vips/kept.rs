//! A director keeps a VIP until the VIP can move to another interface or
//! director. A mistake in the DirectorGroup removes no VIP.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use e2e::{
    Host,
    cluster::{
        Cluster, PATIENCE, example, name_holder, start_agent, value, wait_for, wait_until_ready,
    },
    course::Course,
    eventually, kubectl, kubectl_apply,
};

use crate::{VIP, scene::addresses};

#[test]
fn a_vip_answers_throughout_a_typo_a_dead_holder_a_narrowed_pool_and_mode_manual() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let other = course.another_director("director2", "192.168.4.6/24");
    name_holder("director1");
    let _agent = start_agent(&course.director, "director1");
    let mut dead = start_agent(&other, "director2");
    wait_for("idir/director2", "Programmed", "True");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    dead.kill();
    let asking = Asking::start(&course.client);
    asking.wait_for_more("before any mistake");

    place(r#"{"interface":"eht0"}"#);
    said(EXCEPTION, "stays on eth0 until it can go where");
    asking.wait_for_more("with a typo in interface");
    place(r#"{"interface":null}"#);
    wait_until_ready(&["web"]);

    // In this time, the agent certainly notices that a Lease is no longer
    // renewed.
    let looks = Duration::from_secs(25);
    for (holder, pause) in [("director9", Duration::ZERO), ("director2", looks)] {
        name_holder(holder);
        said(EXCEPTION, "is not known to be live");
        asking.wait_for_more(&format!("with {holder} as holder"));
        thread::sleep(pause);
        asking.wait_for_more(&format!("with {holder} as holder, later"));
        name_holder("director1");
        wait_until_ready(&["web"]);
    }

    grant("203.0.113.0/24");
    said(EXCEPTION, "still served");
    asking.wait_for_more("with a pool that no longer has the VIP");
    grant("0.0.0.0/0");
    wait_until_ready(&["web"]);

    place(r#"{"mode":"Manual"}"#);
    said(".status.notices", "192.168.4.15 stays on eth0 although");
    asking.wait_for_more("in mode Manual");
    place(r#"{"mode":"Interface"}"#);
    eventually("nothing to be left over", PATIENCE, || {
        let notices = value("idir/director1", ".status.notices");
        match notices.contains(VIP) {
            false => Ok(()),
            true => Err(notices),
        }
    });
    asking.wait_for_more("back in mode Interface");
    assert_eq!(asking.failures(), [""; 0], "the VIP answered throughout");
    assert_eq!(addresses(&course.director)[VIP], "eth0");
}

#[test]
fn in_mode_manual_a_vip_leaves_for_a_host_that_answers_for_it_and_when_it_is_released() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let other = course.another_director("director2", "192.168.4.6/24");
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    place(r#"{"mode":"Manual"}"#);
    said(".status.notices", "192.168.4.15 stays on eth0 although");
    other.ip("address add 192.168.4.15/32 dev eth0");
    gone(&course.director);

    other.ip("address delete 192.168.4.15/32 dev eth0");
    place(r#"{"mode":"Interface"}"#);
    eventually("the VIP to be taken again", PATIENCE, || {
        addresses(&course.director).remove(VIP).ok_or("not yet")
    });
    place(r#"{"mode":"Manual"}"#);
    said(".status.notices", "192.168.4.15 stays on eth0 although");
    let until = course.client.run("date -u -d +1hour +%Y-%m-%dT%H:%M:%SZ");
    let until = until.trim();
    let patch = format!(r#"{{"spec":{{"removals":{{"allowUntil":"{until}"}}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
    gone(&course.director);
}

const EXCEPTION: &str = ".status.exceptions[*].message";

/// Changes `spec.addresses` of the DirectorGroup `default`.
fn place(addresses: &str) {
    let patch = format!(r#"{{"spec":{{"addresses":{addresses}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

/// Makes a CIDR the only address pool of the DirectorGroup.
fn grant(cidr: &str) {
    let patch = format!(r#"{{"spec":{{"addressPools":[{{"name":"lab","cidrs":["{cidr}"]}}]}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

/// Waits until a field of director1's status contains `words`.
#[track_caller]
fn said(path: &str, words: &str) {
    eventually(&format!("director1 to say {words:?}"), PATIENCE, || {
        let said = value("idir/director1", path);
        match said.contains(words) {
            true => Ok(()),
            false => Err(said),
        }
    });
}

#[track_caller]
fn gone(director: &Host) {
    eventually("the VIP to go", PATIENCE, || {
        match addresses(director).contains_key(VIP) {
            false => Ok(()),
            true => Err(value("idir/director1", ".status.notices")),
        }
    });
}

/// A client that resolves the VIP by ARP and opens a TCP connection to it,
/// about 20 times a second.
struct Asking {
    ends: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Result<(), String>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Asking {
    fn start(client: &Host) -> Self {
        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (until, record): (_, Arc<Mutex<Vec<_>>>) = (Arc::clone(&ends), Arc::clone(&asked));
        let thread = client.thread(move || {
            while !until.load(Ordering::SeqCst) {
                let asked = ask().map_err(|error| error.to_string());
                record
                    .lock()
                    .expect("no thread panics while it holds the lock")
                    .push(asked);
                thread::sleep(Duration::from_millis(50));
            }
        });
        Self {
            ends,
            asked,
            thread: Some(thread),
        }
    }

    fn count(&self) -> usize {
        self.asked
            .lock()
            .expect("no thread panics while it holds the lock")
            .len()
    }

    #[track_caller]
    fn wait_for_more(&self, when: &str) {
        let before = self.count();
        eventually(&format!("60 more answers {when}"), PATIENCE, || {
            match self.count() - before {
                60.. => Ok(()),
                fewer => Err(format!("{fewer}, and {:?} failed", self.failures())),
            }
        });
        assert_eq!(self.failures(), [""; 0], "{when}");
    }

    fn failures(&self) -> Vec<String> {
        let asked = self
            .asked
            .lock()
            .expect("no thread panics while it holds the lock");
        let failed = asked.iter().filter_map(|asked| asked.as_ref().err());
        failed.cloned().collect()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Deletes the neighbor entry of the VIP and connects to the VIP, so that the
/// kernel sends an ARP request first.
fn ask() -> io::Result<()> {
    let mut forget = Command::new("ip");
    forget.args(["neighbor", "flush", "to", VIP, "dev", "eth0"]);
    forget
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let to: SocketAddr = SocketAddr::new(VIP.parse().expect("an address"), 80);
    TcpStream::connect_timeout(&to, Duration::from_secs(3)).map(drop)
}
