//! The clusters of the lab: two API servers, each with its own etcd. The second
//! API server and the namespace controller start only on request.

use std::fs;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};
use e2e::cluster::tokens_that_last;
use e2e::host::run_here;
use e2e::layout::Which;
use e2e::layout::{admin_kubeconfig, api_server_dir, client_authority, file};

use crate::api_server::{ApiServer, unpoisoned};
use crate::background::Background;
use crate::go_programs::in_go;
use crate::kubectl;
use crate::tools::built;

pub(crate) struct Clusters {
    pub(crate) first: ApiServer,
    pub(crate) other: ApiServer,
    pub(crate) namespaces: NamespaceController,
    /// The other parts of Kubernetes, for a cluster with nodes.
    controllers: Mutex<[Background; 2]>,
    /// Lives as long as the lab.
    _kubectl: Background,
}

impl Clusters {
    /// Writes the keys, tokens and administrators' kubeconfigs of both
    /// clusters.
    pub(crate) fn prepare() -> Result<Self> {
        fs::create_dir_all(file("home"))?;
        run_here(
            Command::new("openssl")
                .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout"])
                .arg("-out")
                .arg(file("service-accounts.key")),
        )
        .context("a key for the tokens of service accounts")?;
        run_here(
            Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
                .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
                .args(["-subj", "/CN=lab-clients"])
                .arg("-keyout")
                .arg(client_authority().with_extension("key"))
                .arg("-out")
                .arg(client_authority()),
        )
        .context("an authority for the certificates of clients")?;
        fs::write(file("tokens.csv"), tokens_that_last())?;
        let first = ApiServer::prepare(Which::First)?;
        Ok(Self {
            first,
            other: ApiServer::prepare(Which::Other)?,
            _kubectl: kubectl::start()?,
            namespaces: NamespaceController(Mutex::new(Background::new(
                "kube-controller-manager".to_owned(),
            ))),
            controllers: Mutex::new(
                ["kube-controller-manager", "kube-scheduler"]
                    .map(|name| Background::new(name.to_owned())),
            ),
        })
    }

    /// Starts kube-controller-manager with all its controllers, and
    /// kube-scheduler, for the first cluster.
    pub(crate) fn start_controllers(&self) -> Result<()> {
        let kubeconfig = format!("--kubeconfig={}", admin_kubeconfig(Which::First).display());
        let [manager, scheduler] = &mut *unpoisoned(&self.controllers);
        let key = file("service-accounts.key");
        let authority = api_server_dir(Which::First).join("apiserver.crt");
        manager.start(
            in_go(built("kube-controller-manager"))
                .args([
                    &kubeconfig,
                    "--leader-elect=false",
                    "--bind-address=127.0.0.1",
                ])
                .arg(format!("--cert-dir={}", file("controllers").display()))
                .arg(format!(
                    "--service-account-private-key-file={}",
                    key.display()
                ))
                .arg(format!("--root-ca-file={}", authority.display())),
        )?;
        scheduler.start(
            in_go(built("kube-scheduler"))
                .args([
                    &kubeconfig,
                    "--leader-elect=false",
                    "--bind-address=127.0.0.1",
                ])
                .arg(format!("--cert-dir={}", file("scheduler").display())),
        )?;
        manager.check()?;
        scheduler.check()
    }
}

/// A kube-controller-manager that runs only the namespace controller. Other
/// Kubernetes controllers would create pods, and delete the objects whose owner
/// a test has deleted.
pub(crate) struct NamespaceController(Mutex<Background>);

impl NamespaceController {
    /// Starts the namespace controller unless it is running.
    pub(crate) fn start(&self) -> Result<()> {
        let kubeconfig = admin_kubeconfig(Which::First);
        let mut controller = unpoisoned(&self.0);
        controller.start(
            Command::new(built("kube-controller-manager"))
                .arg(format!("--kubeconfig={}", kubeconfig.display()))
                .args([
                    "--controllers=namespace-controller",
                    "--leader-elect=false",
                    "--bind-address=127.0.0.1",
                ])
                .arg(format!("--cert-dir={}", file("controllers").display())),
        )?;
        controller.check()
    }

    /// Stops the namespace controller if it is running.
    pub(crate) fn stop(&self) -> Result<()> {
        unpoisoned(&self.0).stop()
    }
}
