//! The agent's options. Each option has a flag, an environment variable and a
//! line of `--help`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::tell::health;

/// Writes one director's IPVS table, holds its virtual addresses, and reports
/// its status.
///
/// Reads VirtualServices and RealServers from the Kubernetes API, or from a
/// folder of YAML files with --manifests. When the agent stops, the kernel's
/// table and the addresses stay as they are.
#[derive(Clone, Debug, Parser)]
#[command(name = "ipvs-agent", version, max_term_width = 100)]
pub struct Args {
    /// Name of this director. The agent creates a Director object with this
    /// name. Default: the host's name.
    #[arg(long, env = "IPVS_NODE_NAME", global = true, value_name = "NAME")]
    pub node_name: Option<String>,

    /// DirectorGroup that this director belongs to.
    #[arg(
        long,
        env = "IPVS_DIRECTOR_GROUP",
        global = true,
        value_name = "NAME",
        default_value = "default"
    )]
    pub director_group: String,

    /// Folder for the data that must survive restarts of the agent: which
    /// entries of the kernel's table the agent made, and the last known good
    /// objects.
    #[arg(
        long,
        env = "IPVS_STATE_DIR",
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/ipvs-operator",
        value_hint = ValueHint::DirPath
    )]
    pub state_dir: PathBuf,

    /// Read the objects from the YAML files in this folder instead of from
    /// Kubernetes, and follow changes to the files.
    #[arg(
        long,
        env = "IPVS_MANIFESTS",
        value_name = "DIR",
        conflicts_with = "kubeconfig",
        value_hint = ValueHint::DirPath
    )]
    pub manifests: Option<PathBuf>,

    /// Program even services that would take this host's own traffic. Such a
    /// service uses a port on which the host itself listens, or every port of
    /// one of the host's addresses. The option also allows services with this
    /// director as a DR or TUN server. The risk: until such a service is
    /// deleted, ssh and other programs of this host cannot be reached on the
    /// service's address. If one of the servers is this director, packets to
    /// this server loop. Only with --manifests.
    #[arg(long, env = "IPVS_ALLOW_HIJACK", requires_if("true", "manifests"))]
    pub allow_hijack: bool,

    /// Kubeconfig file for the API server. Default: the pod's service account,
    /// or $KUBECONFIG and ~/.kube/config.
    #[arg(
        long,
        env = "IPVS_KUBECONFIG",
        global = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the controller. The agent renews its Lease in the namespace
    /// ipvs-directors to show that it is alive. Until version 0.2, it renews a
    /// second Lease in the controller's namespace, because earlier controllers
    /// look there.
    #[arg(
        long,
        env = "IPVS_LEASE_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "ipvs-operator"
    )]
    pub lease_namespace: String,

    /// Folder with the host's sysctls. In a container, /proc/sys is read-only:
    /// mount the host's /proc/sys/net elsewhere, under the name net, and give
    /// its parent folder.
    #[arg(
        long,
        env = "IPVS_SYSCTL_DIR",
        global = true,
        value_name = "DIR",
        default_value = "/proc/sys",
        value_hint = ValueHint::DirPath
    )]
    pub sysctl_dir: PathBuf,

    /// Socket at which the agent answers `ipvs-agent probe`. Two agents on one
    /// host need different ones. Default: none.
    #[arg(
        long,
        env = "IPVS_HEALTH_SOCKET",
        global = true,
        value_name = "PATH",
        value_hint = ValueHint::FilePath
    )]
    pub health_socket: Option<PathBuf>,

    /// Log filter: error, warn, info, debug, trace, or target=level pairs.
    #[arg(
        long,
        env = "IPVS_LOG",
        global = true,
        value_name = "FILTER",
        default_value = "info,kube_client=off,kube_runtime=off"
    )]
    pub log: String,

    /// Format of the log: lines of text, or one JSON document a line.
    #[arg(
        long,
        env = "IPVS_LOG_FORMAT",
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t = LogFormat::Text
    )]
    pub log_format: LogFormat,

    /// A command to run instead of the agent.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands that can run instead of the agent.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show what the agent on this host sees: the conditions, the virtual
    /// addresses, what is wrong and what to do. The command asks the agent over
    /// the socket agent.sock in --state-dir, and works without an API server. It
    /// fails if no agent answers.
    Status {
        /// Format of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show the IPVS table of this host: what the kernel has, what the agent
    /// wants, whose each entry is, connections, and what is wrong: the words of
    /// a failed probe, a removal that is held, an operation that is tried again.
    /// The command reads the kernel itself, asks the agent over the socket
    /// agent.sock in --state-dir, and works without an API server. While no
    /// agent runs, it takes the owners of the entries from the history.
    Table {
        /// Format of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Check a folder of manifests, as --manifests would read it. Prints file,
    /// line and remedy of each mistake, and fails if there is one: run this
    /// command before you copy manifests to a director, for example in CI. The
    /// command needs no IPVS, no rights and no API server. A field that the
    /// agent does not know is a mistake, because it is probably misspelt.
    Check {
        /// Folder with YAML files.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        /// Format of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show what changed on this host, when, for which object, and why: services
    /// and servers of the IPVS table, virtual addresses, sysctls. The command
    /// reads the trail that the agent keeps in --state-dir, and needs neither a
    /// running agent nor an API server. Each line shows the change as the
    /// ipvsadm, ip or sysctl command that does the same. The causes: edit (of
    /// an object), health (of a server), drift (another process had changed an
    /// entry, and the agent repaired it), guard (a removal that was held or
    /// delayed), found (another process made the change, or it was there when
    /// the agent started), conflict (another host has the address), undo.
    History {
        /// Show only the time since then: a duration such as 1h, 30m or 2d.
        #[arg(long, value_name = "DURATION")]
        since: Option<jiff::Span>,
        /// Show only the time before: a time such as 2026-11-30T04:12:00Z.
        #[arg(long, value_name = "TIME")]
        until: Option<jiff::Timestamp>,
        /// Show only the entries of this VirtualService.
        #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
        service: Option<(String, String)>,
        /// Show what was the agent's at the end of that time, instead of the
        /// changes: the IPVS table as `ipvsadm -Sn` writes it, addresses and
        /// sysctls.
        #[arg(long, conflicts_with_all = ["since", "service"])]
        table: bool,
        /// Format of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Answer a kubelet's probe: fails if the agent with the same
    /// --health-socket must be restarted (alive), or if no table of its own is
    /// in force yet (ready).
    Probe {
        /// Whether the agent must be restarted, or whether its table is in force.
        #[arg(value_enum, value_name = "QUESTION")]
        question: health::Question,
    },
    /// Take this host out of service: release the virtual addresses, remove the
    /// agent's services from the kernel, and restore every sysctl. Stop the
    /// agent first. Run this command on a node that leaves the cluster, and
    /// before uninstalling the agent. The command uses --state-dir and
    /// --sysctl-dir. If the command was interrupted, run it again. With
    /// --kubeconfig, the command also reports to the API server that the
    /// director of --node-name is out of service.
    Undo {
        /// First wait up to this many seconds for connections to end. New
        /// connections get no server in the meantime.
        #[arg(
            long,
            env = "IPVS_UNDO_WAIT",
            value_name = "SECONDS",
            default_value_t = 0
        )]
        wait: u32,
    },
    /// Print a completion script for a shell.
    Completion {
        /// Shell to write the script for.
        shell: Shell,
    },
}

/// The formats of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text.
    Text,
    /// One JSON document a line.
    Json,
}

/// The formats of a command's output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Lines of text, whose form may change with any version.
    Text,
    /// Text with whole lists, however long, and with generations of objects.
    Wide,
    /// YAML, whose fields keep their names.
    Yaml,
    /// JSON, whose fields keep their names.
    Json,
}

fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("give the namespace and the name, for example shop/web".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn hijacking_the_host_is_allowed_with_manifests_alone() {
        let parse = |more: &[&str]| {
            let line = ["ipvs-agent", "--allow-hijack"].iter().chain(more);
            Args::try_parse_from(line)
        };
        let with = parse(&["--manifests", "/etc/ipvs"])
            .expect("--allow-hijack is accepted with --manifests");
        assert!(with.allow_hijack);
        let without = parse(&[]).expect_err("--allow-hijack is refused without --manifests");
        assert!(without.to_string().contains("--manifests"), "{without}");
    }

    #[test]
    fn every_option_has_an_environment_variable_and_a_line_of_help() {
        let command = Args::command();
        command.clone().debug_assert();
        for argument in command.get_arguments() {
            let name = argument.get_id();
            if matches!(name.as_str(), "help" | "version") {
                continue;
            }
            assert!(argument.get_help().is_some(), "{name} has no help");
            let variable = argument.get_env().unwrap_or_default().to_string_lossy();
            assert!(
                variable.starts_with("IPVS_"),
                "{name} has no variable that begins with IPVS_: {variable:?}"
            );
        }
    }
}
