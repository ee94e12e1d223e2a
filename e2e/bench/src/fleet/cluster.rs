//! A real cluster on loopback: etcd, kube-apiserver and the installed chart.
//! The flags are those of the lab's API server, except for the addresses.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use agent::input::connection::set_timeouts;
use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::{NAMESPACE, chart};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Node, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    child::Background,
    table::GROUP,
    tally::{Counts, Tally},
};

/// The administrator's token.
const ADMIN: &str = "fleet-admin";
/// The deadline for starting an API server.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long the tokens of the service accounts are valid.
const TOKEN_SECONDS: i64 = 4 * 3600;
/// The size limit of etcd's database. etcd's own limit of 2 GB is too small for
/// the reports of 1,000 directors about a server behind 5,000 services.
const ETCD_BYTES: u64 = 8 << 30;

/// A running cluster. Dropping a `Cluster` stops its programs and deletes its
/// files.
pub(super) struct Cluster {
    server: Background,
    // The API server stops before etcd, and etcd before its files are deleted.
    _etcd: Background,
    folder: TempDir,
    etcd_port: u16,
    port: u16,
    config: Config,
}

impl Cluster {
    /// Starts etcd and the API server, and installs the chart. `group` is the
    /// spec of the DirectorGroup `default`.
    pub(super) async fn start(group: &Value) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleet-").tempdir()?;
        let [port, etcd_port, peers] = free_ports()?;
        prepare(folder.path(), port)?;
        let command = etcd(folder.path(), etcd_port, peers)?;
        let etcd = Background::start("etcd", folder.path(), &command)?;
        let command = api_server(folder.path(), port, etcd_port)?;
        let mut server = Background::start("kube-apiserver", folder.path(), &command)?;
        // The API server writes its certificate when it starts.
        let certificate = folder.path().join("apiserver.crt");
        let deadline = Instant::now() + READY_WITHIN;
        while !certificate.exists() {
            server.check()?;
            ensure!(
                Instant::now() < deadline,
                "no certificate after {READY_WITHIN:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let kubeconfig = Kubeconfig::read_from(folder.path().join("kubeconfig"))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let mut this = Self {
            server,
            _etcd: etcd,
            folder,
            etcd_port,
            port,
            config,
        };
        this.wait_until_ready().await?;
        this.install_chart(group)?;
        Ok(this)
    }

    /// Returns a client with the rights of an administrator.
    pub(super) fn administrator(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// Returns a client with the rights of a director's agent. As the token of
    /// an agent's pod, the director's token is bound to its Node. The client
    /// counts its requests in `tally` and `counts`.
    pub(super) async fn director(
        &self,
        administrator: &Client,
        name: &str,
        tally: &Tally,
        counts: &Counts,
    ) -> Result<Client> {
        let node = Node {
            metadata: kube::api::ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            ..Node::default()
        };
        let nodes = Api::<Node>::all(administrator.clone());
        let node = nodes.create(&PostParams::default(), &node).await?;
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: node.metadata.uid,
        };
        let token = token(administrator, "ipvs-agent", Some(bound)).await?;
        let mut config = self.with_token(&token)?;
        set_timeouts(&mut config);
        let client = ClientBuilder::try_from(config)?;
        Ok(client.with_layer(&tally.layer(counts)).build())
    }

    /// Starts the controller with the rights that the chart gives it.
    pub(super) async fn start_controller(&self, administrator: &Client) -> Result<Background> {
        let token = token(administrator, "ipvs-controller", None).await?;
        let path = self.folder.path().join("kubeconfig-controller");
        fs::write(&path, kubeconfig(self.folder.path(), self.port, &token))?;
        let program = std::env::current_exe()?.with_file_name("ipvs-controller");
        ensure!(
            program.exists(),
            "{} is missing: `cargo build --release -p controller` builds it",
            program.display()
        );
        let mut command = Command::new(program);
        command
            .arg("--lease-namespace")
            .arg(NAMESPACE)
            .arg("--kubeconfig")
            .arg(path);
        Background::start("controller", self.folder.path(), &command)
    }

    /// Returns the process id of the API server.
    pub(super) fn server(&self) -> u32 {
        self.server.id()
    }

    /// Stops the API server and starts it again. Does not wait until the API
    /// server is ready.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.server.stop()?;
        let command = api_server(self.folder.path(), self.port, self.etcd_port)?;
        self.server = Background::start("kube-apiserver", self.folder.path(), &command)?;
        Ok(())
    }

    /// Waits until the API server answers, and its standard namespaces exist.
    pub(super) async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.server.check()?;
            // A new client has no connection to the stopped API server.
            let client = self.administrator()?;
            let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(client);
            match namespaces.get("kube-system").await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("the API server is not ready after {READY_WITHIN:?}: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn install_chart(&self, group: &Value) -> Result<()> {
        let output = Command::new(tool("helm")?)
            .args(["upgrade", "--install", "ipvs-operator"])
            .arg(chart())
            .args(["--namespace", NAMESPACE, "--create-namespace", "--set-json"])
            .arg(format!("directorGroups.{GROUP}={group}"))
            .arg("--kubeconfig")
            .arg(self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm: {errors}");
        Ok(())
    }

    fn with_token(&self, token: &str) -> Result<Config> {
        let mut config = self.config.clone();
        config.auth_info = serde_json::from_value(json!({ "token": token }))?;
        Ok(config)
    }
}

/// Returns a token of one of the chart's service accounts.
async fn token(
    administrator: &Client,
    account: &str,
    bound: Option<BoundObjectReference>,
) -> Result<String> {
    let accounts = Api::<ServiceAccount>::namespaced(administrator.clone(), NAMESPACE);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            bound_object_ref: bound,
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("a token for {account}"))?;
    Ok(answer
        .status
        .context("a token request has an answer")?
        .token)
}

/// Finds ports of 127.0.0.1 that no other program uses.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All ports are open at the same time, so that they differ.
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Writes the API server's keys and tokens, and the administrator's kubeconfig.
fn prepare(folder: &Path, port: u16) -> Result<()> {
    let key = Command::new("openssl")
        .args([
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
        ])
        .arg(folder.join("service-accounts.key"))
        .output()
        .context("openssl (`make tools` installs it)")?;
    ensure!(key.status.success(), "openssl: {:?}", key.stderr);
    fs::write(
        folder.join("tokens.csv"),
        format!("{ADMIN},admin,admin,system:masters\n"),
    )?;
    fs::write(folder.join("kubeconfig"), kubeconfig(folder, port, ADMIN))?;
    Ok(())
}

fn kubeconfig(folder: &Path, port: u16, token: &str) -> String {
    let authority = folder.join("apiserver.crt");
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: fleet
  cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {}}}
users:
- name: fleet
  user: {{token: \"{token}\"}}
contexts:
- name: fleet
  context: {{cluster: fleet, user: fleet}}
current-context: fleet
",
        authority.display(),
    )
}

fn etcd(folder: &Path, port: u16, peers: u16) -> Result<Command> {
    let clients = format!("http://127.0.0.1:{port}");
    let mut command = Command::new(tool("server")?);
    command.args([
        "--unsafe-no-fsync",
        "--log-level=warn",
        &format!("--quota-backend-bytes={ETCD_BYTES}"),
        &format!("--data-dir={}", folder.join("etcd").display()),
        &format!("--listen-client-urls={clients}"),
        &format!("--advertise-client-urls={clients}"),
        &format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
    ]);
    Ok(command)
}

fn api_server(folder: &Path, port: u16, etcd_port: u16) -> Result<Command> {
    let key = folder.join("service-accounts.key");
    let mut command = Command::new(tool("kube-apiserver")?);
    command.args([
        &format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        &format!("--secure-port={port}"),
        // kube-apiserver writes a self-signed certificate to this folder.
        &format!("--cert-dir={}", folder.display()),
        "--authorization-mode=RBAC",
        &format!("--token-auth-file={}", folder.join("tokens.csv").display()),
        "--service-account-issuer=https://kubernetes.default.svc",
        &format!("--service-account-key-file={}", key.display()),
        &format!("--service-account-signing-key-file={}", key.display()),
        "--service-cluster-ip-range=10.96.0.0/16",
        // Endpoints must not have a loopback address.
        "--endpoint-reconciler-type=none",
    ]);
    Ok(command)
}

/// Returns the path of a program that `make tools` builds.
fn tool(name: &str) -> Result<PathBuf> {
    let path = e2e::cluster::workspace().join("e2e/tools/bin").join(name);
    ensure!(
        path.exists(),
        "{} is missing: `make tools` builds it",
        path.display()
    );
    Ok(path)
}
