//! What all kernels that the lab boots have in common.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use e2e::host::ip_here;
use e2e::layout::file;

/// Memory of the guest, in MiB. It is address space only: a page takes memory
/// when it is first used.
pub(crate) const MEMORY: u32 = 2048;

/// The host side's end of the wire to the guest.
pub(crate) const TAP: &str = "tap0";

/// Makes what any kernel needs that boots on the host's files: a tap, its
/// modules below the lab's folder, and its init. Returns the path of the init.
pub(crate) fn prepare_boot(modules: &Path) -> Result<String> {
    if !Path::new("/dev/net/tun").exists() {
        anyhow::bail!("no /dev/net/tun, which joins the guest with the host side: `modprobe tun`")
    }
    ip_here(&format!("tuntap add {TAP} mode tap"))?;
    symlink(modules, file("modules")).context("where the guest's modules are")?;
    // The guest mounts them there and could not make the folder itself.
    fs::create_dir_all("/lib/modules").context("making /lib/modules")?;
    let init = file("init");
    fs::write(&init, include_str!("init.sh")).context("writing the guest's init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(init.display().to_string())
}
