//! A director with 40 services, and a client that continuously sends requests
//! to all 40 services.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use e2e::{cluster::PATIENCE, control, course::Course, eventually, ipvsadm, kubectl};

pub(crate) const SERVICES: usize = 40;
/// How many of its 40 services a director may remove before the removal guard
/// holds further removals.
pub(crate) const BUDGET: usize = 10;
pub(crate) const PORTS: RangeInclusive<u16> = 8000..=8039;
pub(crate) const DIRECTOR: &str = "idir/director1";

/// Returns the manifest of 40 VirtualServices in a namespace, each with the NAT
/// cluster's two web servers.
pub(crate) fn services(namespace: &str) -> String {
    PORTS.map(|port| service(namespace, port, "rr")).collect()
}

/// Returns the manifest of the VirtualService with the given port.
pub(crate) fn service(namespace: &str, port: u16, scheduler: &str) -> String {
    format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: web{port}, namespace: {namespace}}}
spec:
  vip: {{address: 192.168.4.5, port: {port}}}
  removalGracePeriodSeconds: 10
  scheduler: {scheduler}
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: web}}}}
---
"
    )
}

/// Returns the manifest of the two web servers. The web servers listen on port
/// 80, whichever port a service has.
pub(crate) fn servers(namespace: &str) -> String {
    [100, 200]
        .map(|last| {
            format!(
                "apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web{last}, namespace: {namespace}, labels: {{app: web}}}}
spec: {{address: 192.168.2.{last}, port: 80}}
---
"
            )
        })
        .concat()
}

/// Waits until every VirtualService of a namespace is Ready.
#[track_caller]
pub(crate) fn wait_until_all_are_ready(namespace: &str) {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    for args in [
        [
            "wait",
            "ivs",
            "--all",
            "--for=create",
            "-n",
            namespace,
            &timeout,
        ],
        [
            "wait",
            "ivs",
            "--all",
            "--for=condition=Ready",
            "-n",
            namespace,
            &timeout,
        ],
    ] {
        kubectl(&args);
    }
}

/// Returns how many services the director's kernel has.
pub(crate) fn in_kernel(course: &Course) -> usize {
    ipvsadm::saved(&course.director).matches("-A ").count()
}

#[track_caller]
pub(crate) fn expect_services(course: &Course, count: usize) {
    let what = format!("{count} services in the kernel");
    eventually(&what, PATIENCE, || match in_kernel(course) {
        found if found == count => Ok(()),
        found => Err(found),
    });
}

#[track_caller]
pub(crate) fn assert_no_more_gone_than_the_budget(course: &Course) {
    let found = in_kernel(course);
    let least = SERVICES - BUDGET;
    assert!(
        found >= least,
        "{found} services are left, expected at least {least}"
    );
}

/// Waits until RemovalsHeld is True with the given reason. Returns the
/// condition's message, which explains how to release the removals.
/// `kubeconfig` is the path of the cluster administrator's kubeconfig.
#[track_caller]
pub(crate) fn expect_held(kubeconfig: &str, reason: &str) -> String {
    let path = "jsonpath={range .status.conditions[?(@.type==\"RemovalsHeld\")]}{.status} \
                {.reason} {.message}{end}";
    let message = eventually(&format!("removals held, {reason}"), PATIENCE, || {
        let args = ["get", DIRECTOR, "-o", path, "--kubeconfig", kubeconfig];
        let said = control::try_kubectl(&args);
        match said.stdout.strip_prefix(&format!("True {reason} ")) {
            Some(message) => Ok(message.to_owned()),
            None => Err(format!("{} {}", said.stdout, said.stderr)),
        }
    });
    for part in ["kubectl patch idg default", "allowUntil"] {
        assert!(message.contains(part), "{part} in: {message}");
    }
    message
}

/// Releases all held removals, as the message of RemovalsHeld explains.
pub(crate) fn release(course: &Course, kubeconfig: &str) {
    let until = course.client.run("date -u -d +1hour +%Y-%m-%dT%H:%M:%SZ");
    allow_until(kubeconfig, until.trim());
}

/// Makes the DirectorGroup `default` release all removals until a given time.
pub(crate) fn allow_until(kubeconfig: &str, until: &str) {
    let patch = format!(r#"{{"spec":{{"removals":{{"allowUntil":"{until}"}}}}}}"#);
    kubectl(&[
        "patch",
        "idg/default",
        "--type=merge",
        "-p",
        &patch,
        "--kubeconfig",
        kubeconfig,
    ]);
}

/// A client that requests a page from every service in turn, repeatedly, each
/// time over a new connection.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    asking: JoinHandle<BTreeMap<u16, String>>,
}

impl Traffic {
    pub(crate) fn start(course: &Course) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (client, stopped, counted) = (course.browser(), Arc::clone(&stop), Arc::clone(&rounds));
        let asking = std::thread::spawn(move || {
            let mut failed = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for port in PORTS {
                    if let Err(error) = client.get(&format!("192.168.4.5:{port}"), "/") {
                        failed.entry(port).or_insert_with(|| error.to_string());
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
        Self {
            stop,
            rounds,
            asking,
        }
    }

    /// Waits until the client has sent each service another request.
    #[track_caller]
    pub(crate) fn wait_for_a_round(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        eventually("a round over all services", PATIENCE, || {
            match self.rounds.load(Ordering::Relaxed) {
                // The next round that ends may have begun before this call. The
                // round after the next certainly began after this call.
                rounds if rounds >= before + 2 => Ok(()),
                rounds => Err(rounds - before),
            }
        });
    }

    /// Stops the client. Returns each service that failed to answer a request,
    /// with the error.
    pub(crate) fn end(self) -> BTreeMap<u16, String> {
        self.wait_for_a_round();
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().expect("the client does not panic")
    }
}
