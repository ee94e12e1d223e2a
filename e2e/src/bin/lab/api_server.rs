//! The files and processes of one cluster's etcd and kube-apiserver.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use e2e::host::run_here;
use e2e::layout::Which;
use e2e::layout::{
    ADMIN_TOKEN, DIR, HOST_SIDE, SERVICE_NETWORK, admin_kubeconfig, api_server, api_server_dir,
    client_authority, kubeconfig,
};

use crate::background::Background;
use crate::go_programs::in_go;
use crate::kubectl;
use crate::tools::built;

/// The deadline for starting an API server. On an idle machine, the start takes
/// five seconds.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// One etcd and one kube-apiserver, without Kubernetes controllers. Deleted
/// namespaces are therefore never fully removed, and objects stay after their
/// owner is deleted.
pub(crate) struct ApiServer {
    of: Which,
    processes: Mutex<Processes>,
}

struct Processes {
    etcd: Background,
    server: Background,
}

impl ApiServer {
    /// Writes the kubeconfig of the cluster's administrator, without starting
    /// the API server.
    pub(crate) fn prepare(of: Which) -> Result<Self> {
        fs::create_dir_all(api_server_dir(of))?;
        fs::write(admin_kubeconfig(of), kubeconfig(of, ADMIN_TOKEN))?;
        let suffix = match of {
            Which::First => "",
            Which::Other => "-other",
        };
        let background = |name| Background::new(format!("{name}{suffix}"));
        Ok(Self {
            of,
            processes: Mutex::new(Processes {
                etcd: background("etcd"),
                server: background("kube-apiserver"),
            }),
        })
    }

    /// Starts etcd and the API server if necessary, and waits until the API
    /// server is ready.
    pub(crate) fn start(&self) -> Result<()> {
        let mut processes = unpoisoned(&self.processes);
        let Processes { etcd, server } = &mut *processes;
        etcd.start(&mut self.etcd())?;
        let deadline = Instant::now() + READY_WITHIN;
        // kube-apiserver gives up if etcd does not answer within 20 s, so it is
        // started when etcd listens.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.etcd_port())).is_err() {
            etcd.check()?;
            ensure!(Instant::now() < deadline, "etcd: {}", etcd.last_words());
            sleep(Duration::from_millis(50));
        }
        server.start(&mut self.server())?;
        loop {
            etcd.check()?;
            // kube-apiserver ends if a part of its start takes too long. Its
            // supervisor, a kubelet for example, starts it again.
            if let Err(why) = server.check() {
                ensure!(Instant::now() < deadline, "{why:#}");
                eprintln!("lab: {why:#}\nlab: starting it again");
                server.start(&mut self.server())?;
            }
            // The API server reports ready before the namespaces `default` and
            // `kube-system` exist. Tests need both namespaces: most objects are
            // in `default`, and the UID of `kube-system` identifies the
            // cluster.
            let ready = self
                .kubectl(&["get", "--raw", "/readyz"])
                .and_then(|_| self.kubectl(&["get", "namespace", "default", "kube-system"]));
            match ready {
                Ok(_) => return Ok(()),
                Err(state) if Instant::now() > deadline => {
                    let words = server.last_words();
                    bail!("not ready after {READY_WITHIN:?}: {state:#}\n{words}");
                }
                Err(_) => sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Stops a running API server, and waits until the server has ended. The
    /// API server's etcd keeps running.
    pub(crate) fn stop(&self) -> Result<()> {
        unpoisoned(&self.processes).server.stop()
    }

    /// Stops the API server and etcd, and deletes everything that etcd has
    /// stored.
    pub(crate) fn lose_everything(&self) -> Result<()> {
        self.stop_all()?;
        fs::remove_dir_all(self.data())?;
        Ok(())
    }

    /// Stops the API server and etcd, copies etcd's data, and starts etcd and
    /// the API server again.
    pub(crate) fn back_up(&self) -> Result<()> {
        self.stop_all()?;
        replace(&self.backup(), &self.data())?;
        self.start()
    }

    /// Stops the API server and etcd, and replaces etcd's data by the copy that
    /// `back_up` made.
    pub(crate) fn restore(&self) -> Result<()> {
        self.stop_all()?;
        replace(&self.data(), &self.backup())
    }

    fn stop_all(&self) -> Result<()> {
        let mut processes = unpoisoned(&self.processes);
        processes.server.stop()?;
        processes.etcd.stop()
    }

    fn kubectl(&self, args: &[&str]) -> Result<()> {
        let kubeconfig = format!("--kubeconfig={}", admin_kubeconfig(self.of).display());
        let answer = kubectl::run(&[args, &[&kubeconfig, "--request-timeout=5s"]].concat(), "")?;
        if !answer.is_success() {
            bail!("kubectl {args:?}: {}", answer.stderr);
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        api_server_dir(self.of).join("etcd")
    }

    fn backup(&self) -> PathBuf {
        api_server_dir(self.of).join("etcd-backup")
    }

    /// Returns the port of the cluster's etcd. Only this API server connects to
    /// the port. etcd also opens the next higher port for peers, although this
    /// etcd has no peers.
    fn etcd_port(&self) -> u16 {
        match self.of {
            Which::First => 2379,
            Which::Other => 2479,
        }
    }

    fn etcd(&self) -> Command {
        let port = self.etcd_port();
        let clients = format!("http://127.0.0.1:{port}");
        let mut command = in_go(built("server"));
        command.args([
            "--unsafe-no-fsync",
            "--log-level=warn",
            &format!("--data-dir={}", self.data().display()),
            &format!("--listen-client-urls={clients}"),
            &format!("--advertise-client-urls={clients}"),
            &format!("--listen-peer-urls=http://127.0.0.1:{}", port + 1),
        ]);
        command
    }

    fn server(&self) -> Command {
        let mut command = in_go(built("kube-apiserver"));
        command.args([
            &format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port()),
            &format!("--bind-address={HOST_SIDE}"),
            &format!("--advertise-address={HOST_SIDE}"),
            &format!("--secure-port={}", api_server(self.of).port()),
            // kube-apiserver writes a self-signed certificate for its address
            // to this folder.
            &format!("--cert-dir={}", api_server_dir(self.of).display()),
            &format!("--client-ca-file={}", client_authority().display()),
            "--authorization-mode=RBAC",
            &format!("--token-auth-file={DIR}/tokens.csv"),
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={DIR}/service-accounts.key"),
            &format!("--service-account-signing-key-file={DIR}/service-accounts.key"),
            &format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
        ]);
        command
    }
}

/// Replaces `folder`, which need not exist, by a copy of the folder `by`.
fn replace(folder: &Path, by: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    run_here(Command::new("cp").arg("-a").arg(by).arg(folder))?;
    Ok(())
}

pub(crate) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves the locked value consistent, so the mutex is safe to use
    // even if poisoned.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
