//! Prepares the files and devices that every kernel booted by the lab needs.

use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use e2e::host::ip_here;
use e2e::layout::file;

/// The guest's memory in MiB. The host allocates a page of the guest's memory
/// when the guest first uses the page.
pub(crate) const MEMORY: u32 = 2048;

/// The host side's network device for the link to the guest.
pub(crate) const TAP: &str = "tap0";

/// What a machine does after its boot. The name is also a command of `lab`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Runs the lab's program.
    Guest,
    /// Runs the programs of a Kubernetes node.
    Node,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Guest => "guest",
            Self::Node => "node",
        })
    }
}

/// Prepares what the machines of a role need, which boot from the host's files:
/// kernel modules in the lab's folder, and an init script. Returns the path of
/// the init script.
pub(crate) fn prepare_boot(modules: &Path, role: Role) -> Result<String> {
    let link = file(&format!("modules-{role}"));
    if !link.exists() {
        symlink(modules, link).context("where the guest's modules are")?;
    }
    // The guest mounts its kernel modules on /lib/modules, and cannot create
    // that folder itself.
    fs::create_dir_all("/lib/modules").context("making /lib/modules")?;
    let init = file("init");
    fs::write(&init, include_str!("init.sh")).context("writing the guest's init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(init.display().to_string())
}

/// Creates a tap device, the host side's end of a machine's network card.
pub(crate) fn make_tap(name: &str) -> Result<()> {
    if !Path::new("/dev/net/tun").exists() {
        anyhow::bail!("no /dev/net/tun, which joins the guest with the host side: `modprobe tun`")
    }
    ip_here(&format!("tuntap add {name} mode tap"))?;
    Ok(())
}
