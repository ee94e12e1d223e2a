//! The product, installed and running: the chart is in the API server, and our
//! programs use the tokens of the chart's service accounts, so that they run
//! under the chart's RBAC.

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

/// The installed chart and a controller. Dropping it deletes all our objects,
/// so that the next test begins with none.
#[derive(Debug)]
pub struct Cluster {
    host: Host,
    /// The running controller, which `restart_controller` replaces.
    pub controller: Process,
}

impl Cluster {
    /// Installs the chart, once for all tests of a program, and starts a
    /// controller.
    ///
    /// # Panics
    /// When something does not start.
    pub fn start() -> Self {
        install_chart();
        let host = Host::new("control");
        attach_to_management(&host);
        let controller = start_controller(&host, "controller");
        Self { host, controller }
    }

    /// Ends the controller at once, and starts another one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_controller(&mut self) {
        self.controller.kill();
        self.controller = start_controller(&self.host, "controller-again");
    }

    /// Installs the chart into an API server that has lost everything. The
    /// tokens of the old service accounts are no longer valid.
    ///
    /// # Panics
    /// When helm fails, or the controller does not start.
    pub fn install_again(&mut self) {
        upgrade_chart();
        control::forget_tokens();
        self.restart_controller();
    }

    /// Starts a second controller beside the first.
    ///
    /// # Panics
    /// When it does not start.
    pub fn another_controller(&self) -> Process {
        start_controller(&self.host, "controller-2")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for args in [
            ["delete", "ivs,irs", "--all", "-A"].as_slice(),
            &["delete", "idir", "--all"],
            &["delete", "leases", "--all", "-n", NAMESPACE],
        ] {
            let deleted = control::try_kubectl(args);
            if !deleted.is_success() {
                eprintln!("kubectl {}: {}", args.join(" "), deleted.stderr);
            }
        }
        control::try_kubectl(&["patch", "idg", "default", "--type=json", "-p", NO_HOLDER]);
        // The journals of this test's agents name hosts that are gone.
        if let Err(error) = fs::remove_dir_all(state_dir("")) {
            eprintln!("the agents' state folders: {error}");
        }
    }
}

/// Names the Director that must hold the VIPs of the group `default`.
///
/// # Panics
/// When kubectl fails.
pub fn name_holder(director: &str) {
    let patch = format!(r#"{{"spec":{{"addresses":{{"holder":"{director}"}}}}}}"#);
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

const NO_HOLDER: &str = r#"[{"op":"replace","path":"/spec","value":{}}]"#;

fn install_chart() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(upgrade_chart);
}

/// Installs the chart, or upgrades it if it is installed.
///
/// # Panics
/// When helm fails.
pub fn upgrade_chart() {
    upgrade_chart_in(Which::First);
}

/// Installs or upgrades the chart in one of the clusters.
///
/// # Panics
/// When helm fails.
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
        "--kubeconfig",
        &kubeconfig.to_string_lossy(),
    ]);
}

/// The folder of the chart.
pub fn chart() -> PathBuf {
    workspace().join("charts/ipvs-operator")
}

/// A manifest of `examples/`.
///
/// # Panics
/// When there is no manifest of that name.
pub fn example(name: &str) -> String {
    let path = workspace().join("examples").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The project's folder.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e is a folder of the workspace")
        .to_owned()
}

/// The state folder of a director's agent.
pub fn state_dir(name: &str) -> PathBuf {
    layout::file("state").join(name)
}

/// Starts an agent on a host, as a DaemonSet's pod would: for the director of
/// that name, with the rights of the chart's service account. Its state folder
/// is kept when it ends.
///
/// # Panics
/// When it cannot be started.
pub fn start_agent(host: &Host, director: &str) -> Process {
    Process::start(host, &format!("agent-{director}"), &mut agent(director))
}

/// As [`start_agent`], under strace; returns the trace file too. `name` tells
/// the traces of one test apart.
///
/// # Panics
/// When it cannot be started.
pub fn start_agent_traced(host: &Host, director: &str, name: &str) -> (Process, PathBuf) {
    start_traced(host, &agent(director), director, name)
}

/// As [`start_agent_traced`], with the agent of another build.
///
/// # Panics
/// When it cannot be started.
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

/// As [`start_agent`]; the agent is killed as [`trace::doomed`] describes.
///
/// # Panics
/// When it cannot be started.
pub fn start_agent_doomed(host: &Host, director: &str, system_call: &str, nth: u32) -> Process {
    let mut command = trace::doomed(&agent(director), system_call, nth);
    Process::start(host, &format!("agent-{director}"), &mut command)
}

/// Starts an agent as after a reboot of its machine: with another boot id,
/// which only this agent sees (in the lab all hosts share one kernel). Use it
/// on a new host: its kernel has an empty table, and no VIP.
///
/// # Panics
/// When it cannot be started.
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

/// The first argument is the file with the boot id, the others are the program.
const REBOOTED: &str = r#"
mount --bind "$1" /proc/sys/kernel/random/boot_id
shift
exec "$@""#;

/// The command line of an agent.
///
/// # Panics
/// When the chart's service account does not exist.
pub fn agent(director: &str) -> Command {
    let kubeconfig = kubeconfig_of_service_account(NAMESPACE, "ipvs-agent");
    agent_with(director, &kubeconfig)
}

/// Starts an agent for one of the clusters, with a token that is good in each
/// and outlives etcd, as kubelet's renewal of a pod's token does. Its rights
/// are still those that the chart gives to its service account.
///
/// # Panics
/// When it cannot be started.
pub fn start_agent_of(cluster: Which, host: &Host, director: &str) -> Process {
    let path = layout::file(&format!("kubeconfig-agent-{cluster:?}"));
    fs::write(&path, layout::kubeconfig(cluster, AGENT_TOKEN))
        .unwrap_or_else(|error| panic!("{} can be written: {error}", path.display()));
    let name = format!("agent-{director}");
    Process::start(host, &name, &mut agent_with(director, &path))
}

const AGENT_TOKEN: &str = "lab-agent";

/// The API servers' file of tokens that do not depend on etcd: token, user,
/// uid, group.
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
/// When it cannot be started.
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

/// Waits as a user does, with kubectl, until a condition of an object of the
/// namespace `default` has a status: `wait_for("ivs/web", "Ready", "True")`.
///
/// # Panics
/// When it does not get that status in time: with the object as it is then.
#[track_caller]
pub fn wait_for(object: &str, condition: &str, status: &str) {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    let until = |what: &str| control::try_kubectl(&["wait", object, what, &timeout]);
    // The agent makes its Director, and may take a moment.
    let made = until("--for=create");
    assert!(
        made.is_success(),
        "{object} was expected to be made: {}",
        made.stderr
    );
    let waited = until(&format!("--for=condition={condition}={status}"));
    assert!(
        waited.is_success(),
        "{object} was expected to become {condition}={status}: {}\n{}",
        waited.stderr,
        kubectl(&["get", object, "-o", "yaml"]),
    );
}

/// Waits until every virtual service of the namespace `default` is Ready.
///
/// # Panics
/// When one is not Ready in time.
#[track_caller]
pub fn wait_until_ready(services: &[&str]) {
    for service in services {
        wait_for(&format!("ivs/{service}"), "Ready", "True");
    }
}

/// Waits until a condition's reason and message together contain all these
/// words, and returns them as `Reason: message`. Another reason may come first.
///
/// # Panics
/// When they do not in time: with the reason and message at that time.
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

/// Deletes a Director whose agent has ended, and waits until these services are
/// no longer Ready. Afterwards a test that waits for them cannot mistake what
/// that agent reported for the report of the next one.
///
/// # Panics
/// When they stay Ready.
#[track_caller]
pub fn forget_director(director: &str, services: &[&str]) {
    kubectl(&["delete", "idir", director]);
    for service in services {
        wait_for(&format!("ivs/{service}"), "Ready", "False");
    }
}

/// A value of an object, by JSONPath: `value("ivs/web",
/// ".status.directors.summary")`.
///
/// # Panics
/// When there is no such object.
#[track_caller]
pub fn value(object: &str, path: &str) -> String {
    kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
}

/// One part of a condition, such as `reason`.
///
/// # Panics
/// When there is no such object.
#[track_caller]
pub fn condition(object: &str, kind: &str, part: &str) -> String {
    value(
        object,
        &format!(".status.conditions[?(@.type==\"{kind}\")].{part}"),
    )
}

/// Waits until the saved table of a host has exactly these lines, in any order.
///
/// # Panics
/// When it does not in time: with the table as it is then.
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
