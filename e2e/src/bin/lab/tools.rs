//! Finds the programs and files that the lab needs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::kind::Kind;

/// The programs from Debian packages that every lab needs.
const ALWAYS: [&str; 6] = [
    "ip",
    "iptables-legacy",
    "ipvsadm",
    "modprobe",
    "strace",
    "tcpdump",
];

/// Checks that all programs and files that a run needs exist. If something is
/// missing, the error names the command that installs it.
pub(crate) fn check(kernel: Kind, api_server: bool) -> Result<()> {
    let api: &[&str] = if api_server { &["openssl"] } else { &[] };
    let built: &[&str] = if api_server {
        &[
            "server",
            "kube-apiserver",
            "kube-controller-manager",
            "kubectl",
            "helm",
        ]
    } else {
        &[]
    };

    let packaged = ALWAYS.iter().chain(kernel.packaged()).chain(api);
    let missing_packaged = packaged.filter(|&&name| !is_installed(name));
    let built = built.iter().chain(kernel.built());
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
