//! A NAT cluster with any number of web servers. A test chooses how a web
//! server answers probes; clients always get the web server's page.

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

/// The VIP and port of the service `web`, which all tests use.
pub(crate) const VIP: &str = "192.168.4.5:80";
/// The director's address, from which probes come.
pub(crate) const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 2, 5));
/// The health check of most tests: one probe per second, with the default
/// thresholds.
pub(crate) const CHECK: &str = "healthCheck:
    httpGet: {path: /healthz}
    periodSeconds: 1
    timeoutSeconds: 1";
/// The number of failures in a row after which a server is out of service.
pub(crate) const FAILURES: usize = 3;

/// A NAT cluster with any number of web servers.
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

    /// Returns a server's address and port in the format of the kernel's table.
    pub(crate) fn address(&self, index: usize) -> String {
        format!("{}:{}", ip(index), port(index))
    }

    /// Returns the manifests of the farm's RealServers, each with the given
    /// weight.
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

    /// Waits until each server has received `each` probes since this call.
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

/// Returns the manifest of the VirtualService `web`, with scheduler rr, all
/// servers and the given extra fields in its spec.
pub(crate) fn service(more: &str) -> String {
    service_named("web", 80, more)
}

/// Returns the same manifest as [`service`], but with the given name and port.
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

/// Returns the text of a server's page, which is also the name of its
/// RealServer.
pub(crate) fn page(index: usize) -> String {
    format!("server{index}")
}

/// Waits until the Director reports that `healthy` of `checked` servers are
/// healthy.
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

/// Asserts that every failed request was running at some time between `failed`
/// and `out`. The server failed at the time `failed`, and was out of service at
/// the time `out`.
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
        "{} of {} requests failed, {:?} to {:?} after the server, which was out of service after {:?}",
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
