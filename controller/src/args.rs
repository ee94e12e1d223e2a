//! The options of `ipvs-controller`.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Accepts the objects of ipvs-operator and publishes their conditions.
///
/// The controller runs in the cluster with the rights of its service account,
/// or anywhere with a kubeconfig. Several controllers may run. One of them
/// leads and writes, and the others watch. If the leader fails, another
/// controller takes over.
#[derive(Clone, Debug, Parser)]
#[command(name = "ipvs-controller", version, max_term_width = 100)]
pub struct Args {
    /// Kubeconfig file. Without this option, the controller uses the pod's
    /// service account, or else the kubeconfig that kubectl would use.
    #[arg(long, env = "IPVS_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the leader's Lease. The directors' Leases are in the
    /// namespace ipvs-directors. Until version 0.2, the controller also reads
    /// directors' Leases in the namespace of the leader's Lease, because
    /// earlier agents renew them there.
    #[arg(
        long,
        env = "IPVS_LEASE_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "ipvs-operator"
    )]
    pub lease_namespace: String,

    /// Name of the leader's Lease. No director may have the same name as this
    /// Lease.
    #[arg(
        long,
        env = "IPVS_LEASE_NAME",
        value_name = "NAME",
        default_value = "ipvs-controller"
    )]
    pub lease_name: String,

    /// Name of this process in the leader's Lease, unique among all
    /// controllers [default: host name and process id].
    #[arg(long, env = "IPVS_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// Whether the controller that leads upgrades the custom resource definitions
    /// when it begins to lead. It applies definitions that are missing, or that
    /// have a lower schema number than its own. Helm does not upgrade them.
    #[arg(
        long,
        env = "IPVS_UPGRADE_DEFINITIONS",
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true
    )]
    pub upgrade_definitions: bool,

    /// Log filter: error, warn, info, debug, trace, or target=level pairs.
    #[arg(
        long,
        env = "IPVS_LOG",
        value_name = "FILTER",
        default_value = "info,kube_client=off,kube_runtime=off,kube_lease_manager=off"
    )]
    pub log: String,

    /// Format of the log: lines of text, or one JSON document a line.
    #[arg(
        long,
        env = "IPVS_LOG_FORMAT",
        value_enum,
        value_name = "FORMAT",
        default_value_t = LogFormat::Text
    )]
    pub log_format: LogFormat,

    /// A command to run instead of the controller.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The formats of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text.
    Text,
    /// One JSON document a line.
    Json,
}

/// The commands that the program can run instead of the controller.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Print a completion script for a shell.
    Completion {
        /// The shell that the script is for.
        shell: Shell,
    },
}

impl Args {
    /// The name of this process in the leader's Lease.
    pub fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = match host.trim() {
                "" => "ipvs-controller",
                host => host,
            };
            format!("{host}-{}", std::process::id())
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_option_has_a_variable_and_a_line_of_help() {
        for option in Args::command().get_arguments() {
            let name = option.get_id().as_str();
            if name == "help" || name == "version" {
                continue;
            }
            let variable = option.get_env().unwrap().to_string_lossy().into_owned();
            assert_eq!(variable, format!("IPVS_{}", name.to_uppercase()));
            assert!(option.get_help().is_some(), "{name}");
        }
    }
}
