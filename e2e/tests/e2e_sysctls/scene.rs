//! The course's networks with IPv6 in addition to IPv4, and functions that
//! check the sysctls in a Director's status.

use std::{collections::BTreeMap, time::Duration};

use e2e::{
    Client, Host, WebServer,
    control::try_kubectl,
    course::{Course, DR_WEB, NAT_WEB},
    eventually, ipvsadm,
    wait::PATIENCE,
};

pub(crate) const DIRECTOR: &str = "director1";

pub(crate) const NAT_VIP_V6: &str = "[fd00:4::5]:8080";
pub(crate) const NAT_WEB_V6: [&str; 2] = ["fd00:2::100", "fd00:2::200"];
pub(crate) const DR_VIP_V6: &str = "[fd00:4::15]:8080";
pub(crate) const DR_WEB_V6: [&str; 2] = ["fd00:4::100", "fd00:4::200"];

/// A network of the LVS course with IPv6 in addition to IPv4.
pub(crate) struct Both {
    pub(crate) course: Course,
    _servers: [WebServer; 2],
}

impl Both {
    /// Creates the course's NAT cluster with IPv6.
    pub(crate) fn nat() -> Self {
        let course = Course::nat_as_installed();
        add(&course.director, "eth1", "fd00:2::5/64");
        for (web, address) in course.web.iter().zip(NAT_WEB_V6) {
            add(web, "eth0", &format!("{address}/64"));
            web.run("ip route add default via fd00:2::5");
        }
        Self::with_servers(course, NAT_WEB_V6)
    }

    /// Creates the course's DR cluster with IPv6.
    pub(crate) fn dr() -> Self {
        let course = Course::dr();
        for (web, address) in course.web.iter().zip(DR_WEB_V6) {
            add(web, "eth0", &format!("{address}/64"));
            add(web, "lo", "fd00:4::15/128");
        }
        Self::with_servers(course, DR_WEB_V6)
    }

    fn with_servers(course: Course, addresses: [&str; 2]) -> Self {
        add(&course.client, "eth0", "fd00:4::10/64");
        add(&course.director, "eth0", "fd00:4::5/64");
        // rp_filter=1 is the strictest value that distributions set by default.
        for interface in ["all", "eth0"] {
            let name = format!("net.ipv4.conf.{interface}.rp_filter");
            course.director.sysctl(&name, "1");
        }
        let start =
            |index: usize| WebServer::start(&course.web[index], "[::]:8080", addresses[index]);
        Self {
            _servers: [start(0), start(1)],
            course,
        }
    }

    pub(crate) fn director(&self) -> &Host {
        &self.course.director
    }
}

fn add(host: &Host, device: &str, address: &str) {
    host.run(&format!("ip address add {address} dev {device} nodad"));
}

/// Returns the manifest of a cluster's second service, an IPv6 VirtualService
/// on port 8080.
pub(crate) fn of_ipv6(vip: &str, method: &str, servers: [&str; 2]) -> String {
    let mut manifest = format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: web-v6}}
spec:
  vip: {{address: \"{vip}\", port: 8080}}
  scheduler: wrr
  forwarding: {{method: {method}}}
  realServerSelector: {{matchLabels: {{app: web-v6}}}}
"
    );
    for (number, server) in servers.iter().enumerate() {
        manifest += &format!(
            "---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web{number}-v6, labels: {{app: web-v6}}}}
spec: {{address: \"{server}\"}}
"
        );
    }
    manifest
}

/// How long a client waits for an answer that may not come.
const SHORT: Duration = Duration::from_secs(2);

/// Waits until each of the two servers answers half of a client's requests to
/// the VIP.
#[track_caller]
pub(crate) fn expect_traffic(course: &Course, vip: &str, web: [&str; 2]) {
    let expected: BTreeMap<_, _> = web.map(|server| (server.to_owned(), 10)).into();
    // The client retries its first request, because the director may not
    // forward packets yet.
    let browser = course.browser().with_timeout(SHORT);
    let what = format!("an answer from {vip}");
    eventually(&what, PATIENCE, || browser.get(vip, "/"));
    eventually(&format!("traffic through {vip}"), PATIENCE, || {
        let counts = course.browser().counts(20, vip);
        if counts == expected {
            return Ok(());
        }
        Err(format!(
            "{counts:?}, not {expected:?}\n{}\n{}",
            ipvsadm::listed(&course.director),
            look_up(".status.sysctls")
        ))
    });
}

/// Asserts that a client gets no answer from a VIP.
#[track_caller]
pub(crate) fn expect_no_traffic(client: &Client, vip: &str) {
    let page = client.clone().with_timeout(SHORT).get(vip, "/");
    assert!(page.is_err(), "{vip} must not answer, but sent {page:?}");
}

/// Returns the IPv4 addresses of the web servers in the NAT or DR cluster.
pub(crate) fn web(method: &str) -> [&'static str; 2] {
    match method {
        "NAT" => NAT_WEB,
        _ => DR_WEB,
    }
}

/// Waits until a sysctl of a host has the expected value.
#[track_caller]
pub(crate) fn expect_sysctl(host: &Host, name: &str, expected: &str) {
    eventually(&format!("{name}={expected}"), PATIENCE, || {
        match host.read_sysctl(name) {
            found if found == expected => Ok(()),
            found => Err(format!("{found}\n{}", said(name, "problem"))),
        }
    });
}

/// Returns a field of a sysctl in the Director's status, such as `found` or
/// `problem`.
#[track_caller]
pub(crate) fn said(name: &str, part: &str) -> String {
    look_up(&format!(".status.sysctls[?(@.name==\"{name}\")].{part}"))
}

/// Returns the value at a JSONPath of the Director, or kubectl's error if the
/// agent has not created the Director yet.
fn look_up(path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    let director = format!("idir/{DIRECTOR}");
    let answer = try_kubectl(&["get", &director, "-o", &path]);
    match answer.is_success() {
        true => answer.stdout,
        false => answer.stderr,
    }
}

/// Waits until the Director reports a problem with a sysctl, in a text that
/// contains `part`.
#[track_caller]
pub(crate) fn expect_problem(name: &str, part: &str) {
    eventually(&format!("{name} to be reported: {part}"), PATIENCE, || {
        let problem = said(name, "problem");
        match problem.contains(part) {
            true => Ok(()),
            false => Err(problem),
        }
    });
}

/// Waits until the Director's condition SysctlsApplied has the given status.
#[track_caller]
pub(crate) fn expect_condition(status: &str) {
    expect_part("status", status);
}

/// Waits until the Director's condition SysctlsApplied has the given reason.
#[track_caller]
pub(crate) fn expect_reason(reason: &str) {
    expect_part("reason", reason);
}

#[track_caller]
fn expect_part(part: &str, expected: &str) {
    let what = format!("the {part} of SysctlsApplied to be {expected}");
    eventually(&what, PATIENCE, || {
        let of = |part| {
            look_up(&format!(
                ".status.conditions[?(@.type==\"SysctlsApplied\")].{part}"
            ))
        };
        match of(part) {
            found if found == expected => Ok(()),
            found => Err(format!("{found:?}: {}", of("message"))),
        }
    });
}

/// Returns the names of the sysctls whose values differ between `before` and
/// `after`.
pub(crate) fn changed(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let differs = |(name, value): &(&String, &String)| after.get(*name) != Some(value);
    let changed = before.iter().filter(differs);
    changed.map(|(name, _)| name.clone()).collect()
}
