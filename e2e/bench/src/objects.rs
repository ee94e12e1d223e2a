//! Creates the Kubernetes objects of a table in the API server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crds::api::{RealServer, VirtualService};
use e2e::layout;
use futures::{StreamExt, stream};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::size::Size;

/// The number of objects that the benchmark creates in the API server at the
/// same time.
const AT_ONCE: usize = 32;
/// How often the benchmark prints how many objects it has created.
const NEWS: Duration = Duration::from_secs(20);

/// Creates, in the API server, a VirtualService and its RealServers for every
/// service of a table.
pub(crate) fn create(size: Size) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(layout::file("kubeconfig"))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config)?;
        let servers = Api::default_namespaced(client.clone());
        create_all(size, &servers, real_servers(size)?).await?;
        let services = Api::default_namespaced(client);
        create_all(size, &services, virtual_services(size)?).await
    })
}

async fn create_all<K>(size: Size, api: &Api<K>, objects: Vec<K>) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::Serialize + serde::de::DeserializeOwned,
    K: std::fmt::Debug,
{
    let kind = K::kind(&()).into_owned();
    let all = objects.len();
    let (start, mut news) = (Instant::now(), NEWS);
    let parameters = PostParams::default();
    let created = stream::iter(&objects).map(|object| api.create(&parameters, object));
    let mut created = created.buffer_unordered(AT_ONCE).enumerate();
    while let Some((number, outcome)) = created.next().await {
        outcome.with_context(|| format!("creating a {kind}"))?;
        if start.elapsed() > news {
            println!(
                "  {} of {all} {kind}s of {size} are in the API server",
                number + 1
            );
            news += NEWS;
        }
    }
    Ok(())
}

fn virtual_services(size: Size) -> Result<Vec<VirtualService>> {
    let services = size.addresses().enumerate();
    services
        .map(|(number, (vip, _))| {
            let service = json!({
                "apiVersion": "ipvs.dev/v1alpha1",
                "kind": "VirtualService",
                "metadata": {"name": format!("service-{number}")},
                "spec": {
                    "vip": {"address": vip, "port": 80},
                    "scheduler": "wrr",
                    "forwarding": {"method": "NAT"},
                    "realServerSelector": {"matchLabels": {"service": number.to_string()}},
                },
            });
            serde_json::from_value(service).context("a VirtualService")
        })
        .collect()
}

fn real_servers(size: Size) -> Result<Vec<RealServer>> {
    let services = size.addresses().enumerate();
    services
        .flat_map(|(number, (_, servers))| {
            servers.into_iter().map(move |address| {
                let server = json!({
                    "apiVersion": "ipvs.dev/v1alpha1",
                    "kind": "RealServer",
                    "metadata": {
                        "name": format!("server-{}", address.to_string().replace('.', "-")),
                        "labels": {"service": number.to_string()},
                    },
                    "spec": {"address": address, "weight": 1},
                });
                serde_json::from_value(server).context("a RealServer")
            })
        })
        .collect()
}
