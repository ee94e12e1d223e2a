//! The Kubernetes objects of the walk, and the kernel's table that must result
//! from these objects. This module computes the table, as ipvsadm commands,
//! without using the operator's code.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::table::{Entry, Table};

/// The values of the label `app`, by which VirtualServices select RealServers.
pub(crate) const APPS: [&str; 3] = ["web", "mail", "wide"];
pub(crate) const SCHEDULERS: [&str; 7] = ["rr", "wrr", "lc", "wlc", "sed", "sh", "mh"];

/// The parts of a VirtualService that the walk never changes: its name, key and
/// VIP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) name: &'static str,
    /// The service's key in the format of ipvsadm.
    pub(crate) key: &'static str,
    vip: Option<(&'static str, u16, &'static str)>,
}

/// The VirtualServices of the walk. The last two VirtualServices want the same
/// key.
pub(crate) const SERVICES: [Identity; 7] = [
    tcp("web", "-t 192.168.4.20:80", "192.168.4.20", 80),
    tcp("secure", "-t 192.168.4.20:443", "192.168.4.20", 443),
    Identity {
        name: "names",
        key: "-u 192.168.4.21:53",
        vip: Some(("192.168.4.21", 53, "UDP")),
    },
    Identity {
        name: "marked",
        key: "-f 7",
        vip: None,
    },
    tcp("six", "-t [2001:db8:4::20]:80", "2001:db8:4::20", 80),
    tcp("shop", "-t 192.168.4.22:80", "192.168.4.22", 80),
    tcp("rival", "-t 192.168.4.22:80", "192.168.4.22", 80),
];

const fn tcp(name: &'static str, key: &'static str, vip: &'static str, port: u16) -> Identity {
    Identity {
        name,
        key,
        vip: Some((vip, port, "TCP")),
    }
}

/// The firewall mark of the only service that has a mark.
const MARK: &str = "7";

/// The grants that the walk gives and revokes: two VIPs and the mark. The
/// DirectorGroup always grants all other VIPs of the walk.
pub(crate) const REVOCABLE: [&str; 3] = ["192.168.4.22", "2001:db8:4::20", MARK];

/// The DirectorGroup's UDP timeout before the first change of its grants. Every
/// change of the grants adds one second to the timeout. The kernel's UDP
/// timeout therefore shows which version of the DirectorGroup the director has
/// seen.
const UDP_SECONDS: u32 = 300;

impl Identity {
    /// Returns the VIP or firewall mark that the DirectorGroup must grant for
    /// the service.
    fn grant(&self) -> &'static str {
        self.vip.map_or(MARK, |(address, ..)| address)
    }

    /// Returns the service's port, which is 0 for a firewall mark.
    pub(crate) fn port(&self) -> u16 {
        self.vip.map_or(0, |(_, port, _)| port)
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.vip.is_some_and(|(address, ..)| address.contains(':'))
    }
}

/// The name and address of each RealServer of the walk. The RealServers `two`
/// and `twin` have the same address.
pub(crate) const SERVERS: [(&str, &str); 7] = [
    ("one", "192.168.2.11"),
    ("two", "192.168.2.12"),
    ("twin", "192.168.2.12"),
    ("three", "192.168.2.13"),
    ("four", "192.168.2.14"),
    ("six1", "2001:db8:2::1"),
    ("six2", "2001:db8:2::2"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    Nat,
    Dr,
    Tun,
}

impl Method {
    fn json(self) -> Value {
        let name = match self {
            Self::Nat => "NAT",
            Self::Dr => "DR",
            Self::Tun => "TUN",
        };
        json!({"method": name})
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) scheduler: &'static str,
    /// The service's persistence timeout in seconds, if the service is
    /// persistent.
    pub(crate) persistence: Option<u32>,
    pub(crate) method: Method,
    pub(crate) apps: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) method: Option<Method>,
    pub(crate) upper_threshold: Option<u32>,
    pub(crate) app: &'static str,
}

/// The creation time and name of an object. If two objects want the same key,
/// the object with the smaller `Age` gets the key.
pub(crate) type Age = (String, &'static str);

#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) services: BTreeMap<usize, (Age, Service)>,
    pub(crate) servers: BTreeMap<usize, (Age, Server)>,
    /// The number that [`beacon`] has last written into the service and the
    /// server of [`BEACON`].
    pub(crate) beacon: u32,
    /// The grants of [`REVOCABLE`] that are revoked now.
    pub(crate) revoked: BTreeSet<&'static str>,
    /// How many times the grants of the DirectorGroup have changed.
    pub(crate) turns: u32,
}

/// A service and a server whose numbers show which changes the director has
/// already seen. The service's persistence timeout and the server's weight are
/// the same number, and the walk increases this number. For each kind of
/// object, the director sees the changes in order. When the kernel has the
/// increased number, the director has seen every earlier change.
pub(crate) const BEACON: Identity = tcp("beacon", "-t 192.168.4.29:9", "192.168.4.29", 9);
const BEACON_SERVER: &str = "192.168.2.99";

pub(crate) fn beacon(number: u32) -> (Value, Value) {
    let service = Service {
        scheduler: "rr",
        persistence: Some(number),
        method: Method::Nat,
        apps: vec!["beacon"],
    };
    let server = Server {
        port: None,
        weight: number,
        method: None,
        upper_threshold: None,
        app: "beacon",
    };
    (
        service.json(&BEACON),
        server.json(BEACON.name, BEACON_SERVER),
    )
}

impl Objects {
    /// Returns the entries that the kernel must have for the walk's objects.
    pub(crate) fn desired(&self) -> Table {
        let mut table = Table::new();
        let mut taken = BTreeSet::new();
        let mut services: Vec<_> = self.services.iter().collect();
        services.sort_by_key(|(_, (age, _))| age.clone());
        for (index, (_, service)) in services {
            let identity = &SERVICES[*index];
            if !self.revoked.contains(identity.grant()) && taken.insert(identity.key) {
                let line = service.line(identity);
                table.insert(Entry::service(identity.key), line);
                self.add_servers(&mut table, identity, service);
            }
        }
        if self.beacon > 0 {
            let (key, number) = (BEACON.key, self.beacon);
            table.insert(Entry::service(key), format!("-A {key} -s rr -p {number}"));
            let server = format!("{BEACON_SERVER}:{}", BEACON.port());
            let line = format!("-a {key} -r {server} -m -w {number}");
            table.insert(Entry::server(key, &server), line);
        }
        table
    }

    fn add_servers(&self, table: &mut Table, identity: &Identity, service: &Service) {
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|(_, (age, _))| age.clone());
        for (index, (_, server)) in servers {
            let (_, address) = SERVERS[*index];
            if !service.apps.contains(&server.app) {
                continue;
            }
            let Some((destination, line)) = server.line(address, identity, service) else {
                continue;
            };
            let entry = Entry::server(identity.key, &destination);
            table.entry(entry).or_insert(line);
        }
    }

    /// Returns the VIPs that the director must have on its interface.
    pub(crate) fn vips(&self) -> BTreeSet<String> {
        let vips = self
            .services
            .keys()
            .filter_map(|index| SERVICES[*index].vip)
            .filter(|(address, ..)| !self.revoked.contains(address));
        let mut vips: BTreeSet<_> = vips.map(|(address, ..)| address.to_owned()).collect();
        if self.beacon > 0 {
            vips.extend(BEACON.vip.map(|(address, ..)| address.to_owned()));
        }
        vips
    }
}

impl Objects {
    /// Revokes a grant in [`REVOCABLE`], or restores a revoked grant.
    pub(crate) fn turn_grant(&mut self, index: usize) {
        let grant = REVOCABLE[index];
        if !self.revoked.remove(grant) {
            self.revoked.insert(grant);
        }
        self.turns += 1;
    }

    /// Returns a patch of the DirectorGroup with the current grants and the UDP
    /// timeout.
    pub(crate) fn group(&self) -> Value {
        let services = SERVICES.iter().chain([&BEACON]);
        let vips: BTreeSet<_> = services
            .filter_map(|identity| identity.vip)
            .map(|(address, ..)| address)
            .filter(|address| !self.revoked.contains(address))
            .collect();
        let networks: Vec<_> = vips
            .iter()
            .map(|address| match address.contains(':') {
                true => format!("{address}/128"),
                false => format!("{address}/32"),
            })
            .collect();
        let marks = match self.revoked.contains(MARK) {
            true => Value::Null,
            false => json!([{"name": "walk", "first": 7, "last": 7}]),
        };
        json!({"spec": {
            "addressPools": [{"name": "walk", "cidrs": networks}],
            "firewallMarks": marks,
            "timeouts": {"udpSeconds": self.udp_seconds()},
        }})
    }

    /// Returns the kernel's expected UDP timeout in seconds after the director
    /// has seen the group.
    pub(crate) fn udp_seconds(&self) -> u32 {
        UDP_SECONDS + self.turns
    }
}

impl Service {
    fn line(&self, identity: &Identity) -> String {
        let mut line = format!("-A {} -s {}", identity.key, self.scheduler);
        if let Some(seconds) = self.persistence {
            line += &format!(" -p {seconds}");
        }
        if ["sh", "mh"].contains(&self.scheduler) {
            line += &format!(" -b {}-fallback", self.scheduler);
        }
        line
    }

    pub(crate) fn json(&self, identity: &Identity) -> Value {
        let mut spec = json!({
            "scheduler": self.scheduler,
            "persistence": self.persistence.map(|seconds| json!({"timeoutSeconds": seconds})),
            "forwarding": self.method.json(),
            "realServerSelector": {
                "matchExpressions": [{"key": "app", "operator": "In", "values": self.apps}],
            },
        });
        match identity.vip {
            Some((address, port, protocol)) => {
                spec["vip"] = json!({"address": address, "port": port, "protocol": protocol});
            }
            None => spec["firewallMark"] = json!({"mark": 7}),
        }
        json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": {"name": identity.name},
            "spec": spec,
        })
    }
}

impl Server {
    /// Returns the server's destination and ipvsadm command, or `None` if the
    /// server does not fit the service. DR and TUN cannot change the port, and
    /// only TUN can connect IPv4 with IPv6.
    fn line(
        &self,
        address: &str,
        identity: &Identity,
        service: &Service,
    ) -> Option<(String, String)> {
        let method = self.method.unwrap_or(service.method);
        let own = identity.port();
        let port = self.port.unwrap_or(own);
        let is_v6 = address.contains(':');
        let fits_port = method == Method::Nat || port == own;
        let fits_family = method == Method::Tun || is_v6 == identity.is_v6();
        if !fits_port || !fits_family {
            return None;
        }
        let destination = match is_v6 {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        };
        let flag = match method {
            Method::Nat => "-m",
            Method::Dr => "-g",
            Method::Tun => "-i",
        };
        let mut line = format!(
            "-a {} -r {destination} {flag} -w {}",
            identity.key, self.weight
        );
        if let Some(upper) = self.upper_threshold {
            line += &format!(" -x {upper}");
        }
        if method == Method::Tun {
            line += " --tun-type ipip";
        }
        Some((destination, line))
    }

    pub(crate) fn json(&self, name: &str, address: &str) -> Value {
        let connections = self
            .upper_threshold
            .map(|upper| json!({"upperThreshold": upper}));
        json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "RealServer",
            "metadata": {"name": name, "labels": {"app": self.app}},
            "spec": {
                "address": address,
                "port": self.port,
                "weight": self.weight,
                "forwarding": self.method.map(Method::json),
                "connections": connections,
            },
        })
    }
}
