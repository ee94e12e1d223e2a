//! Requests to the host side: kubectl, helm, and the API server itself.
//!
//! Go programs take seconds to start inside the guest, so they run outside and
//! the guest asks over TCP: one JSON request per connection, one JSON answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::layout::{DIR, Which, admin_kubeconfig, control_service, file, kubeconfig};

/// Longer than anything that the host side does. If it hangs, a test fails and
/// the lab does not run into its deadline.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the guest asks of the host side.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Request {
    /// Run a program with the administrator's kubeconfig.
    Run {
        /// The program to run.
        run: Tool,
        /// Its arguments. Paths are those of the machine that runs the lab,
        /// and the guest sees the same files there.
        args: Vec<String>,
        /// What it reads from standard input.
        #[serde(default)]
        stdin: String,
    },
    /// Stop or start an API server.
    ApiServer {
        /// Whether to stop it or to start it.
        apiserver: Switch,
        /// The cluster of the API server.
        #[serde(default)]
        cluster: Which,
    },
    /// Stop or start the first cluster's namespace controller, which removes
    /// namespaces that are being deleted. It does not run at first.
    NamespaceController {
        /// Whether to stop it or to start it.
        namespaces: Switch,
    },
}

/// A program of the host side.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// kubectl, of the API server's version.
    Kubectl,
    /// helm, of the version that `e2e/tools/helm` pins.
    Helm,
}

/// How a program of a cluster must change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Stop, with time to finish its work; answered when it has ended.
    Stop,
    /// Start; answered when it is ready. A program that already runs is left
    /// alone.
    Start,
    /// Stop, and lose everything that it stored.
    Lose,
}

/// The result of a request. For a program: its exit status and what it wrote.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// The exit status; -1 when there is none.
    pub status: i32,
    /// What the program wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error, or why the request could not be carried
    /// out.
    pub stderr: String,
}

impl Response {
    /// Whether the request was carried out.
    pub fn is_success(&self) -> bool {
        self.status == 0
    }
}

/// Sends a request to the host side and waits for the answer.
///
/// # Errors
/// When the control service cannot be reached or does not answer.
pub fn ask(request: &Request) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&control_service(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Runs kubectl as the cluster's administrator and returns its output.
///
/// # Panics
/// When it fails: with the arguments and what it wrote.
#[track_caller]
pub fn kubectl(args: &[&str]) -> String {
    must("kubectl", args, try_kubectl(args))
}

/// As [`kubectl`], for a command that may fail.
///
/// # Panics
/// When the host side does not answer.
#[track_caller]
pub fn try_kubectl(args: &[&str]) -> Response {
    run(Tool::Kubectl, args, "")
}

/// `kubectl apply` of YAML; returns what kubectl said.
///
/// # Panics
/// When it is refused.
#[track_caller]
pub fn kubectl_apply(yaml: &str) -> String {
    must("kubectl", &["apply", "-f", "-"], try_kubectl_apply(yaml))
}

/// As [`kubectl_apply`], for objects that may be refused.
///
/// # Panics
/// When the host side does not answer.
#[track_caller]
pub fn try_kubectl_apply(yaml: &str) -> Response {
    run(Tool::Kubectl, &["apply", "-f", "-"], yaml)
}

/// `kubectl diff` of YAML against what is there.
///
/// # Panics
/// When the host side does not answer.
#[track_caller]
pub fn try_kubectl_diff(yaml: &str) -> Response {
    run(Tool::Kubectl, &["diff", "-f", "-"], yaml)
}

/// Runs helm as the cluster's administrator and returns its output.
///
/// # Panics
/// When it fails: with the arguments and what it wrote.
#[track_caller]
pub fn helm(args: &[&str]) -> String {
    must("helm", args, run(Tool::Helm, args, ""))
}

/// As long as this exists, there is no API server; etcd keeps running. Dropping
/// it starts the API server again, and returns when that is ready.
#[derive(Debug)]
pub struct ApiServerAway(());

impl ApiServerAway {
    /// Stops the API server, and returns when it has ended.
    ///
    /// # Panics
    /// When the host side does not answer.
    #[track_caller]
    pub fn begin() -> Self {
        switch(Which::First, Switch::Stop);
        Self(())
    }

    /// Stops the API server, and empties its etcd in the meantime.
    ///
    /// # Panics
    /// When the host side does not answer.
    #[track_caller]
    pub fn begin_and_lose_everything() -> Self {
        switch(Which::First, Switch::Lose);
        Self(())
    }
}

impl Drop for ApiServerAway {
    fn drop(&mut self) {
        let apiserver = Switch::Start;
        let cluster = Which::First;
        match ask(&Request::ApiServer { apiserver, cluster }) {
            Ok(started) if started.is_success() => {}
            // A second panic would hide the first.
            failed if std::thread::panicking() => eprintln!("the API server: {failed:?}"),
            failed => panic!("the API server starts again: {failed:?}"),
        }
    }
}

/// Starts the API server of the other cluster, and returns its administrator's
/// kubeconfig, for `--kubeconfig`.
///
/// # Panics
/// When it does not start.
#[track_caller]
pub fn start_other_cluster() -> PathBuf {
    switch(Which::Other, Switch::Start);
    admin_kubeconfig(Which::Other)
}

/// Starts the namespace controller: from then on, a deleted namespace goes away
/// with everything in it.
///
/// # Panics
/// When it does not start.
#[track_caller]
pub fn start_namespace_controller() {
    let namespaces = Switch::Start;
    let started = answered(&Request::NamespaceController { namespaces });
    assert!(
        started.is_success(),
        "namespace controller: {}",
        started.stderr
    );
}

/// Writes a kubeconfig with a token of a service account, once in a lab, and
/// returns its path. A program that uses it has the rights that RBAC gives to
/// that account.
///
/// # Panics
/// When there is no such account.
#[track_caller]
pub fn kubeconfig_of_service_account(namespace: &str, name: &str) -> PathBuf {
    let path = file(&format!("{TOKENS}{namespace}-{name}"));
    if path.exists() {
        return path;
    }
    let token = kubectl(&["create", "token", name, "-n", namespace, "--duration", "2h"]);
    std::fs::write(&path, kubeconfig(Which::First, token.trim()))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", path.display()));
    path
}

/// Makes every service account's token be requested anew when it is needed
/// next.
///
/// # Panics
/// When the files cannot be deleted.
pub fn forget_tokens() {
    for entry in std::fs::read_dir(DIR).expect("the lab has a folder") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(TOKENS) {
            std::fs::remove_file(&path)
                .unwrap_or_else(|error| panic!("{} can be deleted: {error}", path.display()));
        }
    }
}

/// How the names of kubeconfigs with tokens of service accounts begin.
const TOKENS: &str = "kubeconfig-of-";

#[track_caller]
fn run(tool: Tool, args: &[&str], stdin: &str) -> Response {
    answered(&Request::Run {
        run: tool,
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        stdin: stdin.to_owned(),
    })
}

#[track_caller]
fn switch(cluster: Which, apiserver: Switch) {
    let response = answered(&Request::ApiServer { apiserver, cluster });
    assert!(
        response.is_success(),
        "API server, {cluster:?}, {apiserver:?}: {}",
        response.stderr
    );
}

#[track_caller]
fn answered(request: &Request) -> Response {
    ask(request).unwrap_or_else(|error| {
        panic!(
            "the host side answers at {}: {error} ({request:?})",
            control_service()
        )
    })
}

#[track_caller]
fn must(program: &str, args: &[&str], response: Response) -> String {
    assert!(
        response.is_success(),
        "{program} {}: exit {}\n{}{}",
        args.join(" "),
        response.status,
        response.stdout,
        response.stderr,
    );
    response.stdout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_json_that_a_person_would_write() {
        let run = Request::Run {
            run: Tool::Kubectl,
            args: vec!["get".into()],
            stdin: "x".into(),
        };
        assert_eq!(
            serde_json::to_string(&run).unwrap(),
            r#"{"run":"kubectl","args":["get"],"stdin":"x"}"#
        );
        let stop: Request = serde_json::from_str(r#"{"apiserver":"stop"}"#).unwrap();
        assert!(matches!(
            stop,
            Request::ApiServer {
                apiserver: Switch::Stop,
                cluster: Which::First,
            }
        ));
    }
}
