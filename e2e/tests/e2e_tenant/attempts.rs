//! What the attacking tenant tries to do, and the reason for each refusal.

use std::fmt::Write;

use e2e::{cluster::PATIENCE, control::try_kubectl, eventually};

/// A VirtualService of the tenant, and possibly a RealServer for it.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    /// The fields of the VirtualService's `spec`, except `realServerSelector`.
    service: &'static str,
    /// The fields of the RealServer that the service selects. With `None`, the
    /// service selects no RealServer.
    server: Option<&'static str>,
    /// A word that the API server's error message must contain. `None` means
    /// that the API server must accept the objects.
    pub(crate) refused_by_the_api_server: Option<&'static str>,
    /// The condition that reports the refusal, the condition's reason, and a
    /// word of the condition's message.
    says: (&'static str, &'static str, &'static str),
}

/// Returns the fields of a service on an address that the tenant may use. Each
/// attempt needs its own port. If two services have the same key, only the
/// older service is accepted. Only the accepted service reports the state of
/// its servers.
macro_rules! mine {
    ($port:literal) => {
        concat!(
            "vip: {address: 192.168.4.70, port: ",
            $port,
            "}, forwarding: {method: NAT}"
        )
    };
}

const fn service(name: &'static str, service: &'static str, reason: &'static str) -> Attempt {
    Attempt {
        name,
        service,
        server: None,
        refused_by_the_api_server: None,
        says: ("Accepted", reason, ""),
    }
}

const fn server(name: &'static str, service: &'static str, server: &'static str) -> Attempt {
    Attempt {
        name,
        service,
        server: Some(server),
        refused_by_the_api_server: None,
        says: ("ResolvedRefs", "AddressNotGranted", ""),
    }
}

const fn invalid(name: &'static str, service: &'static str, word: &'static str) -> Attempt {
    Attempt {
        name,
        service,
        server: None,
        refused_by_the_api_server: Some(word),
        says: ("", "", ""),
    }
}

/// The tenant's attempts, each named after the tenant's goal.
pub(crate) const ATTEMPTS: [Attempt; 27] = [
    service(
        "the-others-vip",
        "vip: {address: 192.168.4.5, port: 80}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "ssh-of-the-director",
        "vip: {address: 192.168.4.5, port: 22}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "every-port",
        "vip: {address: 192.168.4.5, port: 0}, persistence: {timeoutSeconds: 60}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "api-server",
        "vip: {address: 10.77.0.1, port: 6443}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "cluster-ip-of-the-api",
        "vip: {address: 10.96.0.1, port: 443}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "dns-of-the-nodes",
        "vip: {address: 192.168.4.53, port: 53, protocol: UDP}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "a-server-of-the-other",
        "vip: {address: 192.168.2.100, port: 80}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "public-dns",
        "vip: {address: 8.8.8.8, port: 53, protocol: UDP}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "metadata-as-vip",
        "vip: {address: 169.254.169.254, port: 80}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "broadcast",
        "vip: {address: 192.168.4.255, port: 80, protocol: UDP}, forwarding: {method: NAT}",
        "AddressNotGranted",
    ),
    service(
        "mark-of-kube-proxy",
        "firewallMark: {mark: 16384}, forwarding: {method: NAT}",
        "MarkNotGranted",
    ),
    service(
        "drop-mark-of-kube-proxy",
        "firewallMark: {mark: 32768}, forwarding: {method: NAT}",
        "MarkNotGranted",
    ),
    service(
        "any-mark",
        "firewallMark: {mark: 7, ipFamily: IPv6}, forwarding: {method: NAT}",
        "MarkNotGranted",
    ),
    server("metadata", mine!(91), "address: 169.254.169.254, port: 80"),
    server(
        "metadata-of-azure",
        mine!(92),
        "address: 168.63.129.16, port: 80",
    ),
    server(
        "metadata-of-alibaba",
        mine!(93),
        "address: 100.100.100.200, port: 80",
    ),
    server(
        "metadata-of-oracle",
        mine!(94),
        "address: 192.0.0.192, port: 80",
    ),
    Attempt {
        name: "metadata-by-ipv6",
        service: "vip: {address: 192.168.4.76, port: 80}, forwarding: {method: TUN}",
        server: Some("address: 'fd00:ec2::254'"),
        refused_by_the_api_server: None,
        says: ("ResolvedRefs", "AddressNotGranted", "fd00:ec2::254"),
    },
    Attempt {
        name: "loopback-by-ipv6",
        service: "vip: {address: 192.168.4.77, port: 80}, forwarding: {method: TUN}",
        server: Some("address: '::1'"),
        refused_by_the_api_server: None,
        says: ("ResolvedRefs", "AddressNotGranted", "::1"),
    },
    Attempt {
        name: "metadata-as-a-mapped-address",
        service: mine!(96),
        server: Some("address: '::ffff:169.254.169.254', port: 80"),
        refused_by_the_api_server: Some("spec.address"),
        says: ("", "", ""),
    },
    server(
        "loopback-of-the-director",
        mine!(95),
        "address: 127.0.0.1, port: 10250",
    ),
    Attempt {
        name: "metadata-by-header",
        service: "vip: {address: 192.168.4.71, port: 80}, forwarding: {method: NAT}, \
                  healthCheck: {httpGet: {path: /computeMetadata/v1/, httpHeaders: [{name: Metadata-Flavor, value: Google}], \
                  expectedBody: {matches: '^.{7}[a-m]'}}}",
        server: Some("address: 169.254.169.254, port: 80"),
        refused_by_the_api_server: None,
        says: ("ResolvedRefs", "AddressNotGranted", "169.254.169.254"),
    },
    Attempt {
        name: "writes-to-loopback",
        service: "vip: {address: 192.168.4.72, port: 80}, forwarding: {method: NAT}, \
                  healthCheck: {tcpSocket: {send: \"POST / HTTP/1.0\\r\\n\\r\\n\"}}",
        server: Some("address: 127.0.0.1, port: 9099"),
        refused_by_the_api_server: None,
        says: ("ResolvedRefs", "AddressNotGranted", "127.0.0.1"),
    },
    Attempt {
        name: "metadata-as-sorry-server",
        service: "vip: {address: 192.168.4.73, port: 80}, forwarding: {method: NAT}, \
                  healthCheck: {tcpSocket: {}}, availability: {belowMinimum: {action: SorryServer, sorryServer: {address: 169.254.169.254, port: 80}}}",
        server: None,
        refused_by_the_api_server: None,
        says: ("Accepted", "AddressNotGranted", "169.254.169.254"),
    },
    Attempt {
        name: "a-regex-that-takes-a-second",
        service: "vip: {address: 192.168.4.74, port: 80}, forwarding: {method: NAT}, \
                  healthCheck: {httpGet: {expectedBody: {matches: '(?:a.{900}|b.{900}|aa.{900}|ab.{900})c'}}}",
        server: None,
        refused_by_the_api_server: None,
        says: ("Accepted", "Invalid", "expectedBody.matches"),
    },
    invalid(
        "a-header-that-ends-its-line",
        "vip: {address: 192.168.4.78, port: 80}, forwarding: {method: NAT}, \
         healthCheck: {httpGet: {httpHeaders: [{name: X-Mine, value: \"a\\r\\nHost: other\"}]}}",
        "httpHeaders",
    ),
    invalid(
        "loopback-as-vip",
        "vip: {address: 127.0.0.1, port: 80}, forwarding: {method: NAT}",
        "spec.vip.address",
    ),
];

/// The requests that the API server forbids to the tenant, each with a verb, a
/// resource and a namespace.
pub(crate) const FORBIDDEN: [(&str, &str, &str); 11] = [
    ("patch", "directorgroups", "tenant"),
    ("create", "directorgroups", "tenant"),
    ("patch", "directors", "tenant"),
    ("delete", "directors", "tenant"),
    ("create", "leases", "ipvs-operator"),
    ("patch", "leases", "ipvs-operator"),
    ("create", "leases", "ipvs-directors"),
    ("patch", "leases", "ipvs-directors"),
    ("create", "ipvsvirtualservices", "default"),
    ("delete", "realservers", "default"),
    ("create", "ipvsvirtualservices", "ipvs-operator"),
];

impl Attempt {
    /// Returns the objects of the attempt as YAML.
    pub(crate) fn manifest(&self) -> String {
        let Self { name, service, .. } = self;
        let mut manifest = format!(
            "{{apiVersion: ipvs.dev/v1alpha1, kind: VirtualService, \
              metadata: {{name: {name}, namespace: tenant}}, \
              spec: {{{service}, realServerSelector: {{matchLabels: {{app: {name}}}}}}}}}\n"
        );
        if let Some(server) = self.server {
            write!(
                manifest,
                "---\n{{apiVersion: ipvs.dev/v1alpha1, kind: RealServer, \
                  metadata: {{name: {name}, namespace: tenant, labels: {{app: {name}}}}}, \
                  spec: {{{server}}}}}\n"
            )
            .expect("writing to a string cannot fail");
        }
        manifest
    }

    /// Waits until the VirtualService's condition reports the expected refusal.
    pub(crate) fn wait_until_refused(&self) {
        let (condition, reason, word) = self.says;
        let what = format!("{} to have {condition} with {reason}", self.name);
        eventually(&what, PATIENCE, || {
            let said = said(self.name, condition);
            let is_it = said.starts_with(&format!("False {reason}: ")) && said.contains(word);
            if is_it { Ok(()) } else { Err(said) }
        });
    }
}

/// Returns the status, the reason and the message of a condition of one of the
/// tenant's services.
fn said(name: &str, condition: &str) -> String {
    let path = format!(
        "jsonpath={{range .status.conditions[?(@.type==\"{condition}\")]}}{{.status}} \
         {{.reason}}: {{.message}}{{end}}"
    );
    let object = format!("ivs/{name}");
    let found = try_kubectl(&["get", &object, "-n", "tenant", "-o", &path]);
    found.stdout + &found.stderr
}

/// The number of services that the tenant creates, which is also the number of
/// servers. The tenant's budget is far smaller.
const FLOOD: usize = 1000;
/// How many objects one call of kubectl creates.
const AT_ONCE: usize = 250;

/// Returns 2,000 valid objects as YAML, in a few parts. Each service selects
/// every server, and each service's health check has a different path.
pub(crate) fn flood() -> Vec<String> {
    let service = |number| {
        format!(
            "{{apiVersion: ipvs.dev/v1alpha1, kind: VirtualService, \
              metadata: {{name: flood-{number}, namespace: tenant}}, \
              spec: {{vip: {{address: 192.168.4.75, port: {}}}, forwarding: {{method: NAT}}, \
              healthCheck: {{httpGet: {{path: /{number}}}, periodSeconds: 1, timeoutSeconds: 1}}, \
              realServerSelector: {{matchLabels: {{app: flood}}}}}}}}\n---\n",
            1000 + number
        )
    };
    let server = |number| {
        format!(
            "{{apiVersion: ipvs.dev/v1alpha1, kind: RealServer, \
              metadata: {{name: flood-{number}, namespace: tenant, labels: {{app: flood}}}}, \
              spec: {{address: 192.168.2.200, port: {}}}}}\n---\n",
            1000 + number
        )
    };
    let mut objects: Vec<_> = (0..FLOOD).map(service).collect();
    objects.extend((0..FLOOD).map(server));
    objects.chunks(AT_ONCE).map(|part| part.concat()).collect()
}

/// Waits until the tenant's newest service is refused, and the tenant's first
/// service reports that it has too many servers.
pub(crate) fn wait_until_the_flood_is_refused() {
    // The wait is long, because the controller first writes a status to each of
    // the 2,000 objects.
    eventually("the flood to be beyond the budget", PATIENCE * 5, || {
        let (newest, first) = (
            said("flood-999", "Accepted"),
            said("flood-0", "ResolvedRefs"),
        );
        let is_it = newest.starts_with("False BudgetExceeded: ")
            && newest.contains("services")
            && first.starts_with("False BudgetExceeded: ");
        if is_it {
            Ok(())
        } else {
            Err(format!("{newest}\n{first}"))
        }
    });
}
