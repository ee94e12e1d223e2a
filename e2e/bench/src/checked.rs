//! Builds tables of services with health checks.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
};

use agent::event::Event;
use anyhow::{Context, Result};
use crds::{Change, Loose};
use kube::core::object::HasSpec;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::servers::{self, PORT};

/// The VIP of the first service in the benchmark's table. The further services
/// of the table have the next higher addresses as their VIPs.
const VIPS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Commands for `ip` that create an interface whose subnet contains every VIP.
pub(crate) const VIP_INTERFACE: &str = "link add vips type dummy
    address add 10.127.255.254/10 dev vips
    link set vips up";
/// The time from one probe of a server to the next, in seconds (the API's
/// default).
pub(crate) const PERIOD_SECONDS: u32 = 5;
/// How long a server may take to answer a probe, in seconds (the API's
/// default).
pub(crate) const TIMEOUT_SECONDS: u32 = 2;
/// The number of failed probes in a row after which a server counts as failed
/// (the API's default).
pub(crate) const FAILURES: u32 = 3;
/// The number of successful probes in a row after which a server counts as
/// healthy (the API's default).
pub(crate) const SUCCESSES: u32 = 2;

/// A table in which the services are divided into groups. Each server is one
/// probe target and belongs to all services of one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    pub(crate) groups: u32,
    /// The number of services in each group.
    pub(crate) services: u32,
    /// The number of servers in each group of services.
    pub(crate) servers: u32,
    /// The address of the table's first server. The table's further servers
    /// have the next higher addresses.
    pub(crate) first: Ipv4Addr,
}

impl Checked {
    /// Returns the number of probe targets, which is the number of servers in
    /// all groups.
    pub(crate) fn targets(self) -> u32 {
        self.groups * self.servers
    }

    /// Returns the number of services in all groups.
    pub(crate) fn virtual_services(self) -> u32 {
        self.groups * self.services
    }

    /// Returns the number of destinations in the kernel's table. A server that
    /// belongs to several services is a destination in each of them.
    pub(crate) fn destinations(self) -> u32 {
        self.virtual_services() * self.servers
    }

    /// Returns the address and port of the server with the given number.
    pub(crate) fn server(self, number: u32) -> SocketAddr {
        servers::address(self.first, number)
    }

    /// Returns each service's VIP, and the range of numbers that identify the
    /// service's servers.
    pub(crate) fn tables(self) -> impl Iterator<Item = (Ipv4Addr, Range<u32>)> {
        (0..self.virtual_services()).map(move |service| {
            let first = service / self.services * self.servers;
            let vip = Ipv4Addr::from_bits(VIPS.to_bits() + service);
            (vip, first..first + self.servers)
        })
    }

    fn virtual_services_objects(self) -> impl Iterator<Item = Value> {
        self.tables()
            .enumerate()
            .map(move |(number, (vip, servers))| {
                let group = servers.start / self.servers;
                json!({
                    "apiVersion": "ipvs.dev/v1alpha1",
                    "kind": "VirtualService",
                    "metadata": metadata(&format!("service-{number}")),
                    "spec": {
                        "vip": {"address": vip, "port": 80},
                        "scheduler": "wrr",
                        "forwarding": {"method": "NAT"},
                        "realServerSelector": {"matchLabels": {"group": group.to_string()}},
                        "healthCheck": {
                            "tcpSocket": {},
                            "periodSeconds": PERIOD_SECONDS,
                            "timeoutSeconds": TIMEOUT_SECONDS,
                            "successThreshold": SUCCESSES,
                            "failureThreshold": FAILURES,
                        },
                    },
                })
            })
    }

    fn real_servers(self) -> impl Iterator<Item = Value> {
        (0..self.targets()).map(move |number| {
            let mut metadata = metadata(&format!("server-{number}"));
            let group = number / self.servers;
            metadata["labels"] = json!({"group": group.to_string()});
            json!({
                "apiVersion": "ipvs.dev/v1alpha1",
                "kind": "RealServer",
                "metadata": metadata,
                "spec": {"address": self.server(number).ip(), "port": PORT, "weight": 1},
            })
        })
    }

    /// Returns a manifest with every Kubernetes object of the table.
    pub(crate) fn manifest(self) -> String {
        let objects = self.virtual_services_objects().chain(self.real_servers());
        // Each document of the manifest is JSON, which is also valid YAML.
        objects.map(|object| format!("---\n{object}\n")).collect()
    }

    /// Returns the events that deliver every Kubernetes object of the table to
    /// a director's loop.
    pub(crate) fn events(self) -> Result<Vec<Event>> {
        let metadata = json!({"name": "default", "uid": "default", "generation": 1});
        let all = json!([{"name": "all", "cidrs": ["0.0.0.0/0"]}]);
        // Servers may have loopback addresses only if `realServerAddresses`
        // lists these addresses.
        let spec = json!({"addressPools": all, "realServerAddresses": all});
        let group = json!({"metadata": metadata, "spec": spec});
        let services = listing(self.virtual_services_objects())?;
        let servers = listing(self.real_servers())?;
        let groups = listing([group].into_iter())?;
        let services = services.into_iter().map(Event::VirtualService);
        let servers = servers.into_iter().map(Event::RealServer);
        let groups = groups.into_iter().map(Event::DirectorGroup);
        Ok(services.chain(servers).chain(groups).collect())
    }
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "uid": name, "generation": 1})
}

fn listing<K>(objects: impl Iterator<Item = Value>) -> Result<Vec<Change<K>>>
where
    Loose<K>: DeserializeOwned,
    K: HasSpec<Spec: fmt::Debug>,
{
    let items = objects.map(|object| {
        let object = serde_json::from_value(object).context("an object that parses")?;
        Ok(Change::Item(object))
    });
    let changes = [Ok(Change::Listing)].into_iter().chain(items);
    changes.chain([Ok(Change::Listed)]).collect()
}
