//! Runs ipvs-operator as its Helm chart installs it. The controller and the
//! agents use tokens of the chart's service accounts, so that the chart's RBAC
//! rules limit their rights.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    Host, Process,
    control::{self, kubeconfig_of_service_account, kubectl},
    eventually,
    layout::{self, Which},
    process::program,
    segment::attach_to_management,
    trace,
};

/// The namespace into which the chart is installed.
pub const NAMESPACE: &str = "ipvs-operator";
pub use crate::wait::PATIENCE;

/// The installed chart with a running controller. Dropping a `Cluster` deletes
/// all VirtualServices, RealServers and Directors, so that no object remains
/// for the next test.
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
        self.controller.kill();
        self.controller = start_controller(&self.host, "controller-again");
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
            ["delete", "ivs,irs,idir", "--all", "-A"].as_slice(),
            &["delete", "leases", "--all", "-n", NAMESPACE],
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
    let (chart, kubeconfig) = (chart(), layout::admin_kubeconfig(cluster));
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
    let kubeconfig = kubeconfig_of_service_account(NAMESPACE, "ipvs-agent");
    agent_with(director, &kubeconfig)
}

/// Starts an agent that connects to one of the lab's clusters. The agent's
/// token is valid in every cluster and remains valid after the loss of etcd.
/// (In a pod, the kubelet would renew the token instead.) The token gives the
/// agent only the rights of the chart's service account.
///
/// # Panics
/// Panics if the agent cannot be started.
pub fn start_agent_of(cluster: Which, host: &Host, director: &str) -> Process {
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
    let usual = kubeconfig_of_service_account(NAMESPACE, "ipvs-agent");
    let usual = fs::read_to_string(&usual)
        .unwrap_or_else(|error| panic!("{} can be read: {error}", usual.display()));
    let server = layout::api_server(Which::First).to_string();
    let path = layout::file(&format!("kubeconfig-at-{address}"));
    fs::write(&path, usual.replace(&server, address))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", path.display()));
    let name = format!("agent-{director}");
    Process::start(host, &name, &mut agent_with(director, &path))
}

const AGENT_TOKEN: &str = "lab-agent";

/// Returns the contents of the token file of the API servers. Tokens in the
/// token file do not depend on etcd. Each line of the token file contains a
/// token, a user, a uid and a group.
pub fn tokens_that_last() -> String {
    format!(
        "{},admin,admin,system:masters
{AGENT_TOKEN},system:serviceaccount:{NAMESPACE}:ipvs-agent,agent,system:serviceaccounts
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
    let kubeconfig = kubeconfig_of_service_account(NAMESPACE, "ipvs-controller");
    Process::start(
        host,
        identity,
        program("ipvs-controller")
            .env("IPVS_LEASE_NAMESPACE", NAMESPACE)
            .env("IPVS_IDENTITY", identity)
            .arg("--kubeconfig")
            .arg(kubeconfig),
    )
}

/// Waits with `kubectl wait` until a condition of an object in the namespace
/// `default` has the given status. Example:
/// `wait_for("ivs/web", "Ready", "True")`.
///
/// # Panics
/// Panics if the condition does not get the given status in time. The panic
/// message shows the current state of the object.
#[track_caller]
pub fn wait_for(object: &str, condition: &str, status: &str) {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    let until = |what: &str| control::try_kubectl(&["wait", object, what, &timeout]);
    let has_condition = format!("--for=condition={condition}={status}");
    let mut waited = until(&has_condition);
    // The object may not exist yet. For example, an agent creates its Director
    // only after it has started.
    if waited.stderr.contains("NotFound") {
        let made = until("--for=create");
        assert!(
            made.is_success(),
            "{object} was expected to be made: {}",
            made.stderr
        );
        waited = until(&has_condition);
    }
    assert!(
        waited.is_success(),
        "{object} was expected to become {condition}={status}: {}\n{}",
        waited.stderr,
        kubectl(&["get", object, "-o", "yaml"]),
    );
}

/// Waits until each of the named VirtualServices in the namespace `default` is
/// Ready.
///
/// # Panics
/// Panics if a VirtualService is not Ready in time.
#[track_caller]
pub fn wait_until_ready(services: &[&str]) {
    for service in services {
        wait_for(&format!("ivs/{service}"), "Ready", "True");
    }
}

/// Waits until a condition's reason and message together contain all of
/// `words`, and returns `Reason: message`. An earlier reason of the condition
/// does not end the wait.
///
/// # Panics
/// Panics if the condition does not contain the words in time. The panic
/// message shows the condition's current reason and message.
#[track_caller]
pub fn wait_for_words(object: &str, condition: &str, words: &[&str]) -> String {
    let parts = format!("{{range .status.conditions[?(@.type==\"{condition}\")]}}");
    let path = format!("jsonpath={parts}{{.reason}}: {{.message}}{{end}}");
    let what = format!("{object} to have {condition} with the words {words:?}");
    eventually(&what, PATIENCE, || {
        let said = control::try_kubectl(&["get", object, "-o", &path]);
        match words.iter().all(|word| said.stdout.contains(word)) {
            true => Ok(said.stdout),
            false => Err(format!("{}{}", said.stdout, said.stderr)),
        }
    })
}

/// Deletes a Director whose agent has ended, and waits until `services` are no
/// longer Ready. After this call, `services` become Ready only when another
/// agent reports them, because the old agent's report is gone.
///
/// # Panics
/// Panics if one of the VirtualServices stays Ready.
#[track_caller]
pub fn forget_director(director: &str, services: &[&str]) {
    kubectl(&["delete", "idir", director]);
    for service in services {
        wait_for(&format!("ivs/{service}"), "Ready", "False");
    }
}

/// Returns the value at a JSONPath of a Kubernetes object. Example:
/// `value("ivs/web", ".status.directors.summary")`.
///
/// # Panics
/// Panics if the object does not exist.
#[track_caller]
pub fn value(object: &str, path: &str) -> String {
    kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
}

/// Returns one field, such as `reason`, of an object's condition.
///
/// # Panics
/// Panics if the object does not exist.
#[track_caller]
pub fn condition(object: &str, kind: &str, part: &str) -> String {
    value(
        object,
        &format!(".status.conditions[?(@.type==\"{kind}\")].{part}"),
    )
}

/// Waits until the saved IPVS table of a host has exactly the lines `expected`,
/// in any order.
///
/// # Panics
/// Panics if the table does not match in time. The panic message shows the
/// current table.
#[track_caller]
pub fn expect_table(host: &Host, expected: &[&str]) {
    let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    eventually("the table of ipvsadm -Sn", PATIENCE, || {
        let mut found = crate::ipvsadm::sorted(host);
        found.sort();
        if found == expected {
            Ok(())
        } else {
            Err(format!("found {found:#?}, expected {expected:#?}"))
        }
    });
}
