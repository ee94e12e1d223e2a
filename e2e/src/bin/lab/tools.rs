//! Finds the programs and files that the lab needs, and chooses its kernel.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use e2e::host::run_here;
use e2e::suite::needs_packaged_kernel;

use crate::kind::{Kind, UML};

/// The programs from Debian packages that every lab needs.
const ALWAYS: [&str; 6] = [
    "ip",
    "iptables-legacy",
    "ipvsadm",
    "modprobe",
    "strace",
    "tcpdump",
];

/// The programs that a node runs, and those of a cluster with nodes.
const NODE: [&str; 7] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "images",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
];

/// Returns the kernel on which `program`, such as a test binary, runs on this
/// machine. That is this machine's own kernel if it has IPVS, because it is the
/// fastest and uses all processors. Otherwise it is user-mode Linux: the newer
/// one, if it is there and the program does not need the packaged one.
pub(crate) fn kernel_for(program: &Path) -> Kind {
    let has_ipvs = || Path::new("/proc/net/ip_vs").exists();
    let load = || run_here(Command::new("modprobe").args(["-q", "ip_vs"])).is_ok();
    if has_ipvs() || (load() && has_ipvs()) {
        Kind::Host
    } else if needs_packaged_kernel(program) || !built(UML).exists() {
        Kind::UmlPackaged
    } else {
        Kind::Uml
    }
}

/// Checks that all programs and files that a run needs exist. If something is
/// missing, the error names the command that installs it.
pub(crate) fn check(kernel: Kind, api_server: bool, has_nodes: bool) -> Result<()> {
    let api: &[&str] = if api_server { &["openssl"] } else { &[] };
    let built: &[&str] = if api_server {
        &[
            "server",
            "kube-apiserver",
            "kube-controller-manager",
            "kubectl",
            "kubectl-server",
            "helm",
        ]
    } else {
        &[]
    };

    let (nodes_packaged, nodes_built) = match has_nodes {
        true => (Kind::Qemu.packaged(), Kind::Qemu.built()),
        false => (&[][..], &[][..]),
    };
    let (node_packaged, node_built): (&[&str], &[&str]) = match has_nodes {
        true => (&["runc", "buildah"], &NODE),
        false => (&[], &[]),
    };

    let packaged = ALWAYS.iter().chain(kernel.packaged()).chain(api);
    let packaged = packaged.chain(nodes_packaged).chain(node_packaged);
    let missing_packaged = packaged.filter(|&&name| !is_installed(name));
    let built = built.iter().chain(kernel.built());
    let built = built.chain(nodes_built).chain(node_built);
    let missing_built = built.filter(|&&name| !self::built(name).exists());
    let missing: Vec<&str> = missing_packaged.chain(missing_built).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "missing on this machine: {}. `make tools` brings it",
        missing.join(", ")
    )
}

/// Returns the path of a program that `e2e/tools/install` built.
pub(crate) fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools/bin")
        .join(name)
}

fn is_installed(name: &str) -> bool {
    // On Debian, a user's PATH lacks the sbin folders. The lab's PATH contains
    // the sbin folders.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(name).exists())
}
