//! The objects of the fleet bench.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context, Result};
use clap::Args;
use crds::{
    ObjectKey,
    api::{DirectorGroup, RealServer, VirtualService},
};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{Api, Client, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    director_name,
    world::{Kind, World},
};

/// The group of all simulated directors.
pub(super) const GROUP: &str = "default";
/// The namespace of all VirtualServices and RealServers.
pub(super) const TENANT: &str = "default";
/// The RealServer that half of the services select, in addition to their own.
pub(super) const SHARED: &str = "shared";
/// The RealServer that no service selects.
pub(super) const SPARE: &str = "spare";
/// The label by which services select their servers.
pub(super) const LABEL: &str = "service";
/// The largest number of services that share a server. A director's status has
/// no room for more names.
const MOST_SHARING: u32 = 5000;
/// The number of objects that are created at the same time.
const AT_ONCE: usize = 64;
/// The VIP of the first service.
const VIPS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// The address of the first server.
const SERVERS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// The size of the fleet and of its table.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Size {
    /// The number of directors
    #[arg(default_value_t = 1000)]
    pub(super) directors: u32,
    /// The number of VirtualServices
    #[arg(default_value_t = 10_000)]
    pub(super) services: u32,
    /// The number of RealServers of each VirtualService
    #[arg(default_value_t = 2)]
    pub(super) servers: u32,
    /// Open the watches of all directors before the controller starts. The API
    /// server then sends the first statuses of all objects to every director.
    /// Without this option, only one director watches until every service is
    /// programmed
    #[arg(long)]
    pub(super) watch_start: bool,
}

impl Size {
    /// Returns the size as it appears in the names of figures, such as
    /// `1000x10000x2`.
    pub(super) fn name(self) -> String {
        format!("{}x{}x{}", self.directors, self.services, self.servers)
    }

    /// Returns the services that share the server [`SHARED`]: the last half.
    pub(super) fn sharing(self) -> std::ops::Range<u32> {
        let first = self.services - (self.services / 2).min(MOST_SHARING);
        first..self.services
    }

    /// Returns the number of destinations in each director's table.
    pub(super) fn destinations(self) -> usize {
        let shared = self.sharing().len();
        (self.services * self.servers) as usize + shared
    }

    /// Returns the number of servers that each director checks. A server counts
    /// once for each of its checked services.
    pub(super) fn checked(self) -> usize {
        self.sharing().len() * (self.servers as usize + 1)
    }

    /// Returns the VIPs, each with the service that needs it.
    pub(super) fn vips(self) -> BTreeMap<IpAddr, BTreeSet<ObjectKey>> {
        (0..self.services)
            .map(|service| {
                let key = ObjectKey::new(TENANT, service_name(service));
                (IpAddr::V4(nth(VIPS, service)), BTreeSet::from([key]))
            })
            .collect()
    }

    /// Returns the spec of the DirectorGroup.
    pub(super) fn group(self) -> Value {
        // The budgets that do not have room for a large fleet's table by
        // default.
        let targets = self.checked().max(10_000);
        json!({
            "addressPools": [{"name": "fleet", "cidrs": ["0.0.0.0/0"]}],
            "addresses": {"mode": "Manual", "holder": director_name(0)},
            "budgets": {
                "perNamespace": {
                    "services": self.services.max(10_000),
                    "destinations": self.destinations().max(50_000),
                    "probeTargets": targets,
                    "probesPerSecond": 8000,
                },
                "total": {"destinations": self.destinations().max(100_000)},
            },
        })
    }

    /// Creates all VirtualServices and RealServers. The DirectorGroup must exist.
    pub(super) async fn create(self, client: &Client, world: &World) -> Result<()> {
        let group = Api::<DirectorGroup>::all(client.clone()).get(GROUP).await?;
        world.add(Kind::DirectorGroups, &group.metadata.into());
        let servers = (0..self.services)
            .flat_map(|service| (0..self.servers).map(move |server| (service, server)))
            .map(|(service, server)| {
                let address = nth(SERVERS, service * self.servers + server);
                let name = server_name(service, server);
                real_server(&name, &service.to_string(), address)
            });
        let first_free = nth(SERVERS, self.services * self.servers);
        let others = [(SHARED, 0), (SPARE, 1)];
        let others = others.map(|(name, n)| real_server(name, name, nth(first_free, n)));
        let servers = Vec::from_iter(servers.chain(others));
        create::<RealServer>(client, world, Kind::RealServers, servers).await?;
        let services = (0..self.services).map(|service| self.virtual_service(service));
        let services = Vec::from_iter(services);
        create::<VirtualService>(client, world, Kind::VirtualServices, services).await
    }

    fn virtual_service(self, number: u32) -> Value {
        let is_sharing = self.sharing().contains(&number);
        let own = number.to_string();
        let mut service = json!({
            "apiVersion": "ipvs.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": {"name": service_name(number)},
            "spec": {
                "vip": {"address": nth(VIPS, number), "port": 80},
                "scheduler": "wrr",
                "forwarding": {"method": "NAT"},
                "realServerSelector": match is_sharing {
                    true => json!({"matchExpressions": [
                        {"key": LABEL, "operator": "In", "values": [own, SHARED]},
                    ]}),
                    false => json!({"matchLabels": {LABEL: own}}),
                },
            },
        });
        if is_sharing {
            service["spec"]["healthCheck"] = json!({"tcpSocket": {}});
        }
        service
    }
}

/// Returns the name of a VirtualService.
pub(super) fn service_name(service: u32) -> String {
    format!("service-{service}")
}

/// Returns the name of one of a service's RealServers.
pub(super) fn server_name(service: u32, server: u32) -> String {
    format!("server-{service}-{server}")
}

fn real_server(name: &str, label: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "ipvs.dev/v1alpha1",
        "kind": "RealServer",
        "metadata": {"name": name, "labels": {LABEL: label}},
        "spec": {"address": address},
    })
}

async fn create<K>(client: &Client, world: &World, kind: Kind, objects: Vec<Value>) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), TENANT);
    let parameters = PostParams::default();
    let created = stream::iter(objects).map(|object| {
        let (api, parameters) = (&api, &parameters);
        async move {
            let object: K = serde_json::from_value(object)?;
            let name = object.meta().name.clone().unwrap_or_default();
            let created = api.create(parameters, &object).await;
            anyhow::Ok(created.with_context(|| format!("creating {name}"))?)
        }
    });
    created
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |object| {
            world.add(kind, &object.meta().clone().into());
            Ok(())
        })
        .await
}

fn nth(first: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + n)
}
