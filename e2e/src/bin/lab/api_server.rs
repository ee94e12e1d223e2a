//! etcd and kube-apiserver: their files, their processes.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::host::run_here;
use e2e::layout::{DIR, HOST_SIDE, file, kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tools::built;

/// From nothing it takes five seconds; a machine that compiles at the same time
/// may take ten times that.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// After that it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

const ETCD: &str = "http://127.0.0.1:2379";

/// The cluster: one etcd, one kube-apiserver, and none of the controllers, so
/// that namespaces do not finish terminating and owners' dependents stay.
pub(crate) struct ApiServer {
    server: Mutex<Option<Child>>,
}

impl ApiServer {
    /// Writes keys, tokens and the administrator's kubeconfig, and starts etcd,
    /// which goes on until the lab ends.
    pub(crate) fn prepare() -> Result<Self> {
        fs::create_dir_all(file("apiserver"))?;
        fs::create_dir_all(file("home"))?;
        run_here(
            Command::new("openssl")
                .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout"])
                .arg("-out")
                .arg(file("service-accounts.key")),
        )
        .context("a key for the tokens of service accounts")?;
        fs::write(file("tokens.csv"), "lab-admin,admin,admin,system:masters\n")?;
        fs::write(file("kubeconfig"), kubeconfig("lab-admin"))?;
        start_etcd()?;
        Ok(Self {
            server: Mutex::default(),
        })
    }

    /// Starts the API server unless it runs, and waits until it is ready.
    pub(crate) fn start(&self) -> Result<()> {
        let mut server = unpoisoned(&self.server);
        if server.is_none() {
            *server = Some(start_server()?);
        }
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(ended) = server
                .as_mut()
                .and_then(|server| server.try_wait().transpose())
            {
                *server = None;
                bail!(
                    "kube-apiserver ended: {}\n{}",
                    ended?,
                    last_words("kube-apiserver")
                );
            }
            // Ready comes before the namespace that most objects live in.
            let ready = kubectl(&["get", "--raw", "/readyz"])
                .and_then(|_| kubectl(&["get", "namespace", "default"]));
            match ready {
                Ok(_) => return Ok(()),
                Err(state) if Instant::now() > deadline => {
                    let words = last_words("kube-apiserver");
                    bail!("not ready after {READY_WITHIN:?}: {state:#}\n{words}");
                }
                Err(_) => sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Stops the API server if it runs, and waits until it has ended.
    pub(crate) fn stop(&self) -> Result<()> {
        let Some(mut server) = unpoisoned(&self.server).take() else {
            return Ok(());
        };
        kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        while server.try_wait()?.is_none() {
            if Instant::now() > deadline {
                server.kill()?;
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// A program that talks to the API server as its administrator.
pub(crate) fn administrator(program: &str) -> Command {
    let mut command = Command::new(built(program));
    // Their caches go with the lab.
    command
        .env("KUBECONFIG", file("kubeconfig"))
        .env("HOME", file("home"));
    command
}

fn kubectl(args: &[&str]) -> Result<String> {
    let mut command = administrator("kubectl");
    Ok(run_here(command.args(args).arg("--request-timeout=5s"))?)
}

fn start_etcd() -> Result<Child> {
    in_background(
        "etcd",
        Command::new(built("server")).args([
            "--unsafe-no-fsync",
            "--log-level=warn",
            &format!("--data-dir={DIR}/etcd"),
            &format!("--listen-client-urls={ETCD}"),
            &format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380",
        ]),
    )
}

fn start_server() -> Result<Child> {
    in_background(
        "kube-apiserver",
        Command::new(built("kube-apiserver")).args([
            &format!("--etcd-servers={ETCD}"),
            &format!("--bind-address={HOST_SIDE}"),
            &format!("--advertise-address={HOST_SIDE}"),
            // It signs a certificate for that address by itself, and keeps it.
            &format!("--cert-dir={DIR}/apiserver"),
            "--authorization-mode=RBAC",
            &format!("--token-auth-file={DIR}/tokens.csv"),
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={DIR}/service-accounts.key"),
            &format!("--service-account-signing-key-file={DIR}/service-accounts.key"),
            "--service-cluster-ip-range=10.96.0.0/16",
        ]),
    )
}

fn in_background(name: &str, command: &mut Command) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log(name))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is for the cage to hear.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name}"))
}

fn log(name: &str) -> std::path::PathBuf {
    file(&format!("logs/{name}.log"))
}

fn last_words(name: &str) -> String {
    let text = fs::read_to_string(log(name)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whether a child is there stays true whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
