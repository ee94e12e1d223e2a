//! A NAT cluster with as many web servers as a test wants. Each answers probes
//! as the test chooses, and serves its page all the same.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use crds::api::DirectorHealth;
use e2e::{
    Asking,
    asking::Asked,
    cluster::{PATIENCE, value},
    course::Course,
    eventually,
    fault::FaultServer,
};

/// The service of all tests.
pub(crate) const VIP: &str = "192.168.4.5:80";
/// The address from which probes come.
pub(crate) const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 2, 5));
/// The check of most tests: a probe each second, and the default thresholds.
pub(crate) const CHECK: &str = "healthCheck:
    httpGet: {path: /healthz}
    periodSeconds: 1
    timeoutSeconds: 1";
/// How many failures in a row take a server out.
pub(crate) const FAILURES: usize = 3;

/// The NAT cluster and its servers.
pub(crate) struct Farm {
    pub(crate) course: Course,
    pub(crate) servers: Vec<FaultServer>,
}

impl Farm {
    pub(crate) fn new(size: usize) -> Self {
        let course = Course::nat();
        let servers = (0..size).map(|index| {
            let host = &course.web[index % 2];
            FaultServer::start(host, &format!("0.0.0.0:{}", port(index)), &page(index))
        });
        let servers = servers.collect();
        Self { course, servers }
    }

    /// A server's address and port, as the kernel's table has it.
    pub(crate) fn address(&self, index: usize) -> String {
        format!("{}:{}", ip(index), port(index))
    }

    /// The RealServers, each with this weight.
    pub(crate) fn real_servers(&self, weight: u32) -> String {
        let server = |index| {
            let (name, ip, port) = (page(index), ip(index), port(index));
            format!(
                "apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {name}, labels: {{app: web}}}}
spec: {{address: {ip}, port: {port}, weight: {weight}}}
---
"
            )
        };
        (0..self.servers.len()).map(server).collect()
    }

    /// Waits until each server has received this many more probes.
    #[track_caller]
    pub(crate) fn wait_for_probes(&self, each: usize) {
        self.wait_for_probes_since(Instant::now(), each);
    }

    #[track_caller]
    pub(crate) fn wait_for_probes_since(&self, since: Instant, each: usize) {
        eventually(&format!("{each} probes of each server"), PATIENCE, || {
            let counts: Vec<_> = self
                .servers
                .iter()
                .map(|server| server.came(DIRECTOR, since))
                .collect();
            match counts.iter().all(|&count| count >= each) {
                true => Ok(()),
                false => Err(format!("{counts:?}")),
            }
        });
    }
}

/// The service `web`, round robin over all servers, with more fields of its
/// spec.
pub(crate) fn service(more: &str) -> String {
    service_named("web", 80, more)
}

/// The same service under another name and port.
pub(crate) fn service_named(name: &str, port: usize, more: &str) -> String {
    format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  vip: {{address: 192.168.4.5, port: {port}}}
  scheduler: rr
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: web}}}}
  {more}
---
"
    )
}

/// The text of a server's page, which is also its RealServer's name.
pub(crate) fn page(index: usize) -> String {
    format!("server{index}")
}

/// Waits until the director reports `healthy` healthy servers of `checked`
/// checked ones.
#[track_caller]
pub(crate) fn wait_for_healthy(healthy: usize, checked: usize) -> DirectorHealth {
    let what = format!("{healthy} healthy servers of {checked}");
    eventually(&what, PATIENCE, || {
        let health = health();
        let counts = (
            usize::try_from(health.healthy),
            usize::try_from(health.checked),
        );
        match counts == (Ok(healthy), Ok(checked)) {
            true => Ok(health),
            false => Err(format!("{health:#?}")),
        }
    })
}

pub(crate) fn health() -> DirectorHealth {
    serde_json::from_str(&value("idir/director1", ".status.health")).unwrap_or_default()
}

/// Asserts that every request that failed was under way while clients were sent
/// to the failed server: it began before the server was out of service, and
/// ended after it had failed.
#[track_caller]
pub(crate) fn assert_failed_between(asking: &Asking, failed: Instant, out: Instant) {
    let outside = |asked: &Asked| asked.at + asked.took < failed || asked.at > out;
    let asked = asking.so_far();
    let bad: Vec<_> = asked
        .iter()
        .filter(|asked| asked.outcome.is_err())
        .collect();
    let (first, last) = (bad.first(), bad.last());
    let after = |asked: Option<&&Asked>| asked.map(|asked| asked.at.duration_since(failed));
    println!(
        "{} of {} requests failed, from {:?} to {:?} after the server, which was out after {:?}",
        bad.len(),
        asked.len(),
        after(first),
        after(last),
        out - failed,
    );
    let outside: Vec<_> = bad.into_iter().filter(|asked| outside(asked)).collect();
    assert!(
        outside.is_empty(),
        "requests failed that were not sent to the failed server, from {failed:?} to {out:?}: \
         {outside:#?}"
    );
}

fn ip(index: usize) -> &'static str {
    e2e::course::NAT_WEB[index % 2]
}

fn port(index: usize) -> usize {
    9000 + index
}
