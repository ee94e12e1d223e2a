//! Runs ipvs-operator as its Helm chart installs it. The controller and the
//! agents use tokens of the chart's service accounts, so that the chart's RBAC
//! rules limit their rights.

mod older;
mod status;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    Host, Process,
    control::{self, kubeconfig_of_service_account, kubeconfig_with_token, kubectl, kubectl_apply},
    layout::{self, Which},
    process::program,
    segment::attach_to_management,
    trace,
};

/// The namespace into which the chart is installed.
pub const NAMESPACE: &str = "ipvs-operator";
/// The namespace of the directors' Leases, which the chart creates.
pub const DIRECTORS_NAMESPACE: &str = "ipvs-directors";
pub use self::{
    older::{KINDS, OlderDefinition, install_the_last_definitions},
    status::*,
};
pub use crate::wait::PATIENCE;

/// The installed chart with a running controller. Dropping a `Cluster` deletes
/// all VirtualServices, RealServers, Directors and DirectorGroupMembers, so that
/// no object remains for the next test.
#[derive(Debug)]
pub struct Cluster {
    host: Host,
    /// The running controller, which `restart_controller` replaces by a new
    /// process.
    pub controller: Process,
}

impl Cluster {
    /// Installs the chart, once per test binary, and starts a controller.
    ///
    /// # Panics
    /// Panics if helm fails or the controller does not start.
    pub fn start() -> Self {
        install_chart();
        let host = Host::new("control");
        attach_to_management(&host);
        let controller = start_controller(&host, "controller");
        Self { host, controller }
    }

    /// Kills the running controller and starts a new one.
    ///
    /// # Panics
    /// Panics if the controller does not start.
    pub fn restart_controller(&mut self) {
        self.replace_controller(&mut controller("controller-again"));
    }

    /// Kills the running controller, and runs a command in its place.
    ///
    /// # Panics
    /// Panics if the command does not start.
    pub fn replace_controller(&mut self, command: &mut Command) {
        self.controller.kill();
        self.controller = Process::start(&self.host, "controller-again", command);
    }

    /// Installs the chart again into an API server that has lost all data, and
    /// restarts the controller. The new controller gets a new token, because
    /// the API server no longer accepts tokens of the lost service accounts.
    ///
    /// # Panics
    /// Panics if helm fails or the controller does not start.
    pub fn install_again(&mut self) {
        upgrade_chart();
        control::forget_tokens();
        self.restart_controller();
    }

    /// Starts a second controller while the first controller keeps running.
    ///
    /// # Panics
    /// Panics if the controller does not start.
    pub fn another_controller(&self) -> Process {
        start_controller(&self.host, "controller-2")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for args in [
            ["delete", "ivs,irs,idir,idgm", "--all", "-A"].as_slice(),
            &["delete", "leases", "--all", "-n", NAMESPACE],
            &["delete", "leases", "--all", "-n", DIRECTORS_NAMESPACE],
        ] {
            let deleted = control::try_kubectl(args);
            if !deleted.is_success() {
                eprintln!("kubectl {}: {}", args.join(" "), deleted.stderr);
            }
        }
        let patch = format!(r#"[{{"op":"replace","path":"/spec","value":{GRANTS}}}]"#);
        control::try_kubectl(&["patch", "idg", "default", "--type=json", "-p", &patch]);
        // Agents of the next test must not read the journals that this test's
        // agents wrote.
        if let Err(error) = fs::remove_dir_all(state_dir("")) {
            eprintln!("the agents' state folders: {error}");
        }
    }
}

/// Sets the Director that must hold the VIPs of the DirectorGroup `default`.
///
/// # Panics
/// Panics if kubectl fails.
pub fn name_holder(director: &str) {
    let patch = format!(r#"{{"spec":{{"addresses":{{"holder":"{director}"}}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

/// The spec of the DirectorGroup `default` in tests. VirtualServices may use
/// every address and every firewall mark.
const GRANTS: &str = r#"{"addressPools":[{"name":"lab","cidrs":["0.0.0.0/0","::/0"]}],"firewallMarks":[{"name":"lab","first":1,"last":4294967295}]}"#;

fn install_chart() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(upgrade_chart);
}

/// Installs the chart in the lab's first cluster, or upgrades the chart if it
/// is already installed.
///
/// # Panics
/// Panics if helm fails.
pub fn upgrade_chart() {
    upgrade_chart_in(Which::First);
}

/// Installs or upgrades the chart in one of the lab's clusters.
///
/// # Panics
/// Panics if helm fails.
pub fn upgrade_chart_in(cluster: Which) {
    install_chart_from(&chart(), cluster);
}

/// Installs a chart of ipvs-operator from a folder or an archive, or upgrades to
/// it.
///
/// # Panics
/// Panics if helm fails.
pub fn install_chart_from(chart: &Path, cluster: Which) {
    let kubeconfig = layout::admin_kubeconfig(cluster);
    control::helm(&[
        "upgrade",
        "--install",
        "ipvs-operator",
        &chart.to_string_lossy(),
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--set-json",
        &format!("directorGroups.default={GRANTS}"),
        "--kubeconfig",
        &kubeconfig.to_string_lossy(),
    ]);
}

/// Returns the folder of the project's Helm chart.
pub fn chart() -> PathBuf {
    workspace().join("charts/ipvs-operator")
}

/// Returns the text of a manifest in `examples/`.
///
/// # Panics
/// Panics if `examples/` has no manifest of that name.
pub fn example(name: &str) -> String {
    let path = workspace().join("examples").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lets the entries of the existing VirtualServices leave 10 s after their
/// deletion, even if they have connections or the kernel remembers closed ones.
#[track_caller]
pub fn drain_nothing() {
    let names = kubectl(&["get", "ivs", "-o", "jsonpath={.items[*].metadata.name}"]);
    let names: Vec<_> = names.split_whitespace().collect();
    let spec = r#"{"spec":{"removalGracePeriodSeconds":10}}"#;
    let patch = ["--type=merge", "-p", spec];
    kubectl(&[&["patch", "ivs"], &names[..], &patch].concat());
}

/// Returns the root folder of the repository.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e is a folder of the workspace")
        .to_owned()
}

/// Returns the state folder of a director's agent.
pub fn state_dir(name: &str) -> PathBuf {
    layout::file("state").join(name)
}

/// Starts an agent on a host for the Director named `director`. As in a pod of
/// the DaemonSet, the agent has the rights of the chart's service account. The
/// agent's state folder remains after the agent has ended.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent(host: &Host, director: &str) -> Process {
    Process::start(host, &format!("agent-{director}"), &mut agent(director))
}

/// Starts an agent as [`start_agent`] does, but under strace, and also returns
/// the path of strace's trace file. `name` is part of the trace file's name,
/// and must differ between the traced agents of a test.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_traced(host: &Host, director: &str, name: &str) -> (Process, PathBuf) {
    start_traced(host, &agent(director), director, name)
}

/// Starts an agent as [`start_agent_traced`] does, but runs another build of
/// the agent, `ipvs-agent-other`.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_other_agent_traced(host: &Host, director: &str, name: &str) -> (Process, PathBuf) {
    let usual = agent(director);
    let mut other = program("ipvs-agent-other");
    other.args(usual.get_args());
    other.envs(
        usual
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    start_traced(host, &other, director, name)
}

fn start_traced(host: &Host, agent: &Command, director: &str, name: &str) -> (Process, PathBuf) {
    let file = layout::file(&format!("trace-{director}-{name}"));
    let mut command = trace::traced(agent, &file);
    let process = Process::start(host, &format!("agent-{director}-{name}"), &mut command);
    (process, file)
}

/// Starts an agent as [`start_agent`] does, but kills the agent at a system
/// call, as [`trace::doomed`] describes.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_doomed(host: &Host, director: &str, system_call: &str, nth: u32) -> Process {
    let mut command = trace::doomed(&agent(director), system_call, nth);
    Process::start(host, &format!("agent-{director}"), &mut command)
}

/// Starts an agent that sees another boot id, as after a reboot of its machine.
/// Other programs still see the real boot id, because all hosts of the lab
/// share one kernel. `host` should be a new host, with an empty IPVS table and
/// without VIPs.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_after_reboot(host: &Host, director: &str, boot_id: &str) -> Process {
    let file = layout::file(&format!("boot-id-{director}"));
    fs::write(&file, format!("{boot_id}\n"))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", file.display()));
    let agent = agent(director);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-euc", REBOOTED, "sh"])
        .arg(file)
        .arg(agent.get_program())
        .args(agent.get_args());
    for (name, value) in agent.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    Process::start(host, &format!("agent-{director}"), &mut command)
}

/// A shell script that runs a program with another boot id. The script's first
/// argument is a file that contains the boot id. The script's other arguments
/// are the program's command line.
const REBOOTED: &str = r#"
mount --bind "$1" /proc/sys/kernel/random/boot_id
shift
exec "$@""#;

/// Returns the command line of an agent for the Director named `director`.
///
/// # Panics
/// Panics if the chart's service account does not exist.
pub fn agent(director: &str) -> Command {
    agent_with(director, &kubeconfig_of_director(director))
}

/// Starts the agent of the director `director1`, which connects to one of the
/// lab's clusters. The agent's token is valid in every cluster and remains valid
/// after the loss of etcd. (In a pod, the kubelet would renew the token
/// instead.) The token gives the agent the rights of a director outside the
/// cluster.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_of(cluster: Which, host: &Host) -> Process {
    let director = "director1";
    let path = layout::file(&format!("kubeconfig-agent-{cluster:?}"));
    fs::write(&path, layout::kubeconfig(cluster, AGENT_TOKEN))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", path.display()));
    let name = format!("agent-{director}");
    Process::start(host, &name, &mut agent_with(director, &path))
}

/// Starts an agent as [`start_agent`] does, but the agent connects to the API
/// server at `address`, such as `10.96.0.1:443`.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_at(address: &str, host: &Host, director: &str) -> Process {
    let usual = kubeconfig_of_director(director);
    let usual = fs::read_to_string(&usual)
        .unwrap_or_else(|error| panic!("{} can be read: {error}", usual.display()));
    let server = layout::api_server(Which::First).to_string();
    let path = layout::file(&format!("kubeconfig-at-{address}"));
    fs::write(&path, usual.replace(&server, address))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", path.display()));
    let name = format!("agent-{director}");
    Process::start(host, &name, &mut agent_with(director, &path))
}

/// Writes a kubeconfig with a token of the chart's service account for agents,
/// and returns its path. The token is bound to a node with the name of the
/// director, as the token of a pod on that node is.
///
/// # Panics
/// Panics if the service account does not exist.
pub fn kubeconfig_of_director(director: &str) -> PathBuf {
    let bound = || {
        let node = format!("{{apiVersion: v1, kind: Node, metadata: {{name: {director}}}}}");
        kubectl_apply(&node);
        let flags = [
            "--bound-object-kind",
            "Node",
            "--bound-object-name",
            director,
        ];
        flags.map(str::to_owned).to_vec()
    };
    kubeconfig_with_token(NAMESPACE, "ipvs-agent", director, bound)
}

/// A token that the director `director1` can use even after etcd has lost all
/// data.
const AGENT_TOKEN: &str = "lab-agent";

/// Returns the contents of the token file of the API servers. Tokens in the
/// token file do not depend on etcd. Each line of the token file contains a
/// token, a user, a uid and a group.
pub fn tokens_that_last() -> String {
    format!(
        "{},admin,admin,system:masters
{AGENT_TOKEN},ipvs.dev:director:director1,agent,ipvs.dev:directors
",
        layout::ADMIN_TOKEN
    )
}

fn agent_with(director: &str, kubeconfig: &Path) -> Command {
    let mut command = program("ipvs-agent");
    command
        .env("IPVS_NODE_NAME", director)
        .env("IPVS_STATE_DIR", state_dir(director))
        .env("IPVS_LEASE_NAMESPACE", NAMESPACE)
        .arg("--kubeconfig")
        .arg(kubeconfig);
    command
}

/// Starts an agent that reads manifests from a folder and has no API server.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_with_manifests(host: &Host, director: &str, folder: &Path) -> Process {
    Process::start(
        host,
        &format!("agent-{director}"),
        program("ipvs-agent")
            .env("IPVS_NODE_NAME", director)
            .env("IPVS_STATE_DIR", state_dir(director))
            .arg("--manifests")
            .arg(folder),
    )
}

fn start_controller(host: &Host, identity: &str) -> Process {
    Process::start(host, identity, &mut controller(identity))
}

/// Returns the command line of a controller with the given identity.
///
/// # Panics
/// Panics if the chart's service account does not exist.
pub fn controller(identity: &str) -> Command {
    let kubeconfig = kubeconfig_of_service_account(NAMESPACE, "ipvs-controller");
    let mut command = program("ipvs-controller");
    command
        .env("IPVS_LEASE_NAMESPACE", NAMESPACE)
        .env("IPVS_IDENTITY", identity)
        .arg("--kubeconfig")
        .arg(kubeconfig);
    command
}
