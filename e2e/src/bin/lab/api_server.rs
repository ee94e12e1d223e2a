//! etcd and kube-apiserver of one cluster: their files, their processes.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use e2e::host::run_here;
use e2e::layout::Which;
use e2e::layout::{
    ADMIN_TOKEN, DIR, HOST_SIDE, admin_kubeconfig, api_server, api_server_dir, file, kubeconfig,
};

use crate::background::Background;
use crate::tools::built;

/// Starting from nothing takes five seconds on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// One etcd and one kube-apiserver, without controllers: namespaces do not
/// finish terminating, and the dependents of deleted owners stay.
pub(crate) struct ApiServer {
    of: Which,
    processes: Mutex<Processes>,
}

struct Processes {
    etcd: Background,
    server: Background,
}

impl ApiServer {
    /// Writes the administrator's kubeconfig.
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

    /// Starts the API server unless it is running, and waits until it is ready.
    pub(crate) fn start(&self) -> Result<()> {
        let mut processes = unpoisoned(&self.processes);
        let Processes { etcd, server } = &mut *processes;
        etcd.start(&mut self.etcd())?;
        server.start(&mut self.server())?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            etcd.check()?;
            server.check()?;
            // The API server is ready before these namespaces exist: the one
            // that holds most objects, and the one that names the cluster.
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

    /// Stops the API server if it is running, and waits until it has ended.
    /// etcd keeps running.
    pub(crate) fn stop(&self) -> Result<()> {
        unpoisoned(&self.processes).server.stop()
    }

    /// Stops both, and deletes everything that etcd has stored.
    pub(crate) fn lose_everything(&self) -> Result<()> {
        let mut processes = unpoisoned(&self.processes);
        processes.server.stop()?;
        processes.etcd.stop()?;
        fs::remove_dir_all(self.data())?;
        Ok(())
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = administrator(self.of, "kubectl");
        Ok(run_here(command.args(args).arg("--request-timeout=5s"))?)
    }

    fn data(&self) -> std::path::PathBuf {
        api_server_dir(self.of).join("etcd")
    }

    /// The port of its etcd, which only its API server uses. The next port is
    /// for etcd's peers; there are none.
    fn etcd_port(&self) -> u16 {
        match self.of {
            Which::First => 2379,
            Which::Other => 2479,
        }
    }

    fn etcd(&self) -> Command {
        let port = self.etcd_port();
        let clients = format!("http://127.0.0.1:{port}");
        let mut command = Command::new(built("server"));
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
        let mut command = Command::new(built("kube-apiserver"));
        command.args([
            &format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port()),
            &format!("--bind-address={HOST_SIDE}"),
            &format!("--advertise-address={HOST_SIDE}"),
            &format!("--secure-port={}", api_server(self.of).port()),
            // It signs a certificate for that address by itself, and keeps it.
            &format!("--cert-dir={}", api_server_dir(self.of).display()),
            "--authorization-mode=RBAC",
            &format!("--token-auth-file={DIR}/tokens.csv"),
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={DIR}/service-accounts.key"),
            &format!("--service-account-signing-key-file={DIR}/service-accounts.key"),
            "--service-cluster-ip-range=10.96.0.0/16",
        ]);
        command
    }
}

/// A program that talks to an API server as its administrator.
pub(crate) fn administrator(of: Which, program: &str) -> Command {
    let mut command = Command::new(built(program));
    // The programs' caches are removed with the lab.
    command
        .env("KUBECONFIG", admin_kubeconfig(of))
        .env("HOME", file("home"));
    command
}

pub(crate) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whether there is a child stays true after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
