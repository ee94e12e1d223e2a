//! Requests from the guest to the lab's host side: to run kubectl or helm, and
//! to stop or start the API server.
//!
//! The host side runs kubectl and helm, because Go programs take seconds to
//! start inside the guest. The guest sends its requests over TCP. Each
//! connection carries one JSON request and one JSON answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::layout::{
    DIR, Which, admin_kubeconfig, control_service, file, kubeconfig, node_name, node_service,
};

/// The timeout of a request to the host side. A normal request takes less than
/// this time. If the host side hangs, the timeout makes the test fail before
/// the lab's deadline.
const PATIENCE: Duration = Duration::from_secs(600);

/// A request from the guest to the host side.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Request {
    /// Run a program with the kubeconfig of the cluster's administrator.
    Run {
        /// The program that the host side should run.
        run: Tool,
        /// The arguments of the program to run. Paths in the arguments are
        /// valid both in the guest and on the machine that runs the lab.
        args: Vec<String>,
        /// The text that the program reads from standard input.
        #[serde(default)]
        stdin: String,
    },
    /// Stop or start the API server of a cluster.
    ApiServer {
        /// The action on the API server, such as stopping it.
        apiserver: Switch,
        /// The cluster to which the API server belongs.
        #[serde(default)]
        cluster: Which,
    },
    /// Stop or start the first cluster's namespace controller. The namespace
    /// controller empties and removes deleted namespaces. The controller runs
    /// only after a test has started it.
    NamespaceController {
        /// The action on the namespace controller, such as stopping it.
        namespaces: Switch,
    },
    /// Run a program on a node. The request goes to the node itself.
    OnNode {
        /// The program and its arguments.
        on_node: Vec<String>,
    },
}

/// A program that the host side can run for the guest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// kubectl, in the same version as the API server.
    Kubectl,
    /// helm, in the version that `e2e/tools/helm` pins.
    Helm,
}

/// An action of the host side on a program of a cluster, such as the API
/// server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Stop the program with SIGTERM. The host side answers when the program
    /// has ended.
    Stop,
    /// Start the program unless it is already running. The host side answers
    /// when the program is ready.
    Start,
    /// Stop the program, and delete all its stored data.
    Lose,
    /// Stop the program, copy its stored data, and start the program again.
    BackUp,
    /// Stop the program, and replace its stored data by the copy that
    /// [`BackUp`](Self::BackUp) made.
    Restore,
}

/// The host side's answer to a request. For a request to run a program, the
/// result is the program's exit status and output.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// The program's exit status: 0 after success, or -1 if no exit status
    /// exists.
    pub status: i32,
    /// The text that the program wrote to standard output.
    pub stdout: String,
    /// The text that the program wrote to standard error, or the reason why the
    /// request failed.
    pub stderr: String,
}

impl Response {
    /// Returns whether the request to the host side succeeded.
    pub fn is_success(&self) -> bool {
        self.status == 0
    }
}

/// Sends a request to the host side and waits for the answer.
///
/// # Errors
/// Returns an error if the host side's control service cannot be reached or
/// does not answer.
pub fn ask(request: &Request) -> io::Result<Response> {
    ask_at(control_service(), request)
}

fn ask_at(service: SocketAddr, request: &Request) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&service, PATIENCE)?;
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
/// Panics if the command fails. The panic message shows the arguments and the
/// output.
#[track_caller]
pub fn kubectl(args: &[&str]) -> String {
    must("kubectl", args, try_kubectl(args))
}

/// Runs kubectl as [`kubectl`] does, for a command that may fail.
///
/// # Panics
/// Panics if the host side does not answer.
#[track_caller]
pub fn try_kubectl(args: &[&str]) -> Response {
    run(Tool::Kubectl, args, "")
}

/// Runs `kubectl apply` on YAML and returns kubectl's output.
///
/// # Panics
/// Panics if the API server refuses an object.
#[track_caller]
pub fn kubectl_apply(yaml: &str) -> String {
    must("kubectl", &["apply", "-f", "-"], try_kubectl_apply(yaml))
}

/// Runs kubectl as [`try_kubectl`] does, with `input` as its standard input.
///
/// # Panics
/// Panics if the host side does not answer.
#[track_caller]
pub fn try_kubectl_with_input(args: &[&str], input: &str) -> Response {
    run(Tool::Kubectl, args, input)
}

/// Deletes an object such as `ivs/web` and creates the same object again, with
/// `kubectl replace --force`.
///
/// # Panics
/// Panics if the object does not exist or cannot be created again.
#[track_caller]
pub fn kubectl_replace(object: &str) {
    let now = kubectl(&["get", object, "-o", "json"]);
    let args = ["replace", "--force", "-f", "-"];
    must("kubectl", &args, run(Tool::Kubectl, &args, &now));
}

/// Runs `kubectl apply` as [`kubectl_apply`] does, but does not panic if the
/// API server refuses an object.
///
/// # Panics
/// Panics if the host side does not answer.
#[track_caller]
pub fn try_kubectl_apply(yaml: &str) -> Response {
    run(Tool::Kubectl, &["apply", "-f", "-"], yaml)
}

/// Runs `kubectl apply` as [`try_kubectl_apply`] does, but with the rights of
/// `user`.
///
/// # Panics
/// Panics if the host side does not answer.
#[track_caller]
pub fn try_kubectl_apply_as(user: &str, yaml: &str) -> Response {
    run(Tool::Kubectl, &["apply", "--as", user, "-f", "-"], yaml)
}

/// Runs `kubectl diff`, which compares YAML with the cluster's objects.
///
/// # Panics
/// Panics if the host side does not answer.
#[track_caller]
pub fn try_kubectl_diff(yaml: &str) -> Response {
    run(Tool::Kubectl, &["diff", "-f", "-"], yaml)
}

/// Runs helm as the cluster's administrator and returns its output.
///
/// # Panics
/// Panics if the command fails. The panic message shows the arguments and the
/// output.
#[track_caller]
pub fn helm(args: &[&str]) -> String {
    must("helm", args, try_helm(args))
}

/// Runs helm as [`helm`] does, for a command that may fail.
///
/// # Panics
/// Panics if the host side does not answer.
#[track_caller]
pub fn try_helm(args: &[&str]) -> Response {
    run(Tool::Helm, args, "")
}

/// Runs a program on a node of the lab, and returns its output.
///
/// # Panics
/// Panics if the node does not answer, or if the command fails.
#[track_caller]
pub fn on_node(number: u8, command: &[&str]) -> String {
    let on_node = command.iter().map(|&word| word.to_owned()).collect();
    let name = node_name(number);
    let response = ask_at(node_service(number), &Request::OnNode { on_node })
        .unwrap_or_else(|error| panic!("{name} runs {command:?}: {error}"));
    must(&name, command, response)
}

/// An API server that a test has stopped. Dropping an `ApiServerAway` starts
/// the API server again and waits until it is ready.
#[derive(Debug)]
pub struct ApiServerAway(());

impl ApiServerAway {
    /// Stops the API server and waits until it has ended. The API server's etcd
    /// keeps running.
    ///
    /// # Panics
    /// Panics if the host side does not answer.
    #[track_caller]
    pub fn begin() -> Self {
        switch(Which::First, Switch::Stop);
        Self(())
    }

    /// Stops the API server and etcd, and deletes etcd's data.
    ///
    /// # Panics
    /// Panics if the host side does not answer.
    #[track_caller]
    pub fn begin_and_lose_everything() -> Self {
        switch(Which::First, Switch::Lose);
        Self(())
    }

    /// Stops the API server and etcd. Then replaces etcd's data with the data
    /// that [`back_up_etcd`] saved.
    ///
    /// # Panics
    /// Panics if etcd's data was never copied, or if the host side does not
    /// answer.
    #[track_caller]
    pub fn begin_and_restore_the_backup() -> Self {
        switch(Which::First, Switch::Restore);
        Self(())
    }
}

impl Drop for ApiServerAway {
    fn drop(&mut self) {
        let apiserver = Switch::Start;
        let cluster = Which::First;
        match ask(&Request::ApiServer { apiserver, cluster }) {
            Ok(started) if started.is_success() => {}
            // If the test is already panicking, print the error instead of
            // panicking again. Another panic would hide the test's failure.
            failed if std::thread::panicking() => eprintln!("the API server: {failed:?}"),
            failed => panic!("the API server starts again: {failed:?}"),
        }
    }
}

/// Copies etcd's data. During the copy, the API server is stopped for some
/// seconds.
///
/// # Panics
/// Panics if the API server does not start again.
#[track_caller]
pub fn back_up_etcd() {
    switch(Which::First, Switch::BackUp);
}

/// Starts the API server of the lab's second cluster. Returns the path of the
/// administrator's kubeconfig, for `--kubeconfig`.
///
/// # Panics
/// Panics if the API server does not start.
#[track_caller]
pub fn start_other_cluster() -> PathBuf {
    switch(Which::Other, Switch::Start);
    admin_kubeconfig(Which::Other)
}

/// Starts the namespace controller. While the namespace controller runs,
/// deleting a namespace also deletes everything in it.
///
/// # Panics
/// Panics if the namespace controller does not start.
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

/// Writes a kubeconfig with a token of a service account, and returns its path.
/// Later calls for the same service account in the same lab return the same
/// file. A program with a service account's kubeconfig has the rights that RBAC
/// grants to the service account.
///
/// # Panics
/// Panics if the service account does not exist.
#[track_caller]
pub fn kubeconfig_of_service_account(namespace: &str, name: &str) -> PathBuf {
    kubeconfig_with_token(namespace, name, "", Vec::new)
}

/// Writes a kubeconfig as [`kubeconfig_of_service_account`] does, but `bound`
/// returns further flags of `kubectl create token`, which bind the token to
/// another object. Different flags must come with different names in `of`.
///
/// # Panics
/// Panics if the service account or the other object does not exist.
#[track_caller]
pub fn kubeconfig_with_token(
    namespace: &str,
    name: &str,
    of: &str,
    bound: impl FnOnce() -> Vec<String>,
) -> PathBuf {
    let path = file(&format!("{TOKENS}{namespace}-{name}-{of}"));
    if path.exists() {
        return path;
    }
    let flags = bound();
    let mut args = vec!["create", "token", name, "-n", namespace, "--duration", "2h"];
    args.extend(flags.iter().map(String::as_str));
    let token = kubectl(&args);
    std::fs::write(&path, kubeconfig(Which::First, token.trim()))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", path.display()));
    path
}

/// Deletes the kubeconfigs with tokens of service accounts. The next call of
/// [`kubeconfig_of_service_account`] then requests a new token.
///
/// # Panics
/// Panics if the kubeconfigs cannot be deleted.
pub fn forget_tokens() {
    for entry in std::fs::read_dir(DIR).expect("the lab's folder exists") {
        let path = entry.expect("the lab's folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(TOKENS) {
            std::fs::remove_file(&path)
                .unwrap_or_else(|error| panic!("{} can be deleted: {error}", path.display()));
        }
    }
}

/// The prefix of the file names of kubeconfigs with tokens of service accounts.
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
