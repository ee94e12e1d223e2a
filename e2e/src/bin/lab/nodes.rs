//! Starts the nodes of a lab's cluster: machines of their own, which run Debian's
//! kernel under QEMU, beside the guest.
//!
//! ```text
//! host side   10.77.0.1    etcd, kube-apiserver, kube-controller-manager,
//!    │                     kube-scheduler
//!  bridge
//!    ├ guest  10.77.0.2    the lab's program, and its hosts
//!    ├ node1  10.77.0.11   containerd, kubelet, kube-proxy, pods
//!    └ node2  10.77.0.12   the same
//! ```

use std::env;
use std::fs::{self, File};
use std::os::unix::{fs::symlink, process::CommandExt};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use e2e::host::ip_here;
use e2e::layout::{file, node_name};

use crate::boot::Role;
use crate::kernel::BRIDGE;
use crate::qemu::Machine;
use crate::tools::built;

/// A node's memory in MiB. Everything that a node writes stays in memory, such
/// as unpacked images.
const MEMORY: u32 = 3072;

/// The nodes, which run until the lab ends.
pub(crate) struct Nodes(Vec<Child>);

impl Nodes {
    /// Starts the nodes 1 to `number`, without waiting for them.
    pub(crate) fn start(number: u8) -> Result<Self> {
        if number > 0 {
            link_images()?;
        }
        (1..=number).map(start).collect::<Result<_>>().map(Self)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            // A node that has ended already needs no end.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Makes the folder of the images that the nodes know: those of the tools, and
/// those of this workspace, which e2e/tools/programs builds.
fn link_images() -> Result<()> {
    let programs = env::current_exe()?;
    let target = programs.parent().and_then(Path::parent);
    let ours = target
        .context("a program lies in a folder of Cargo's")?
        .join("test-images");
    let folder = file("images");
    fs::create_dir(&folder)?;
    for (name, images) in [("tools", built("images")), ("ours", ours)] {
        if !images.exists() {
            bail!(
                "no images in {}: `lab tests e2e_nodes` builds them",
                images.display()
            );
        }
        symlink(images, folder.join(name))?;
    }
    Ok(())
}

fn start(number: u8) -> Result<Child> {
    let name = node_name(number);
    let tap = format!("tap-{name}");
    let machine = Machine {
        role: Role::Node,
        memory: MEMORY,
        tap: &tap,
        number: 10 + number,
        variables: &format!("LAB_NODE={number}"),
        log: &format!("logs/{name}-kernel.log"),
    };
    let mut command = machine.command()?;
    ip_here(&format!("link set {tap} master {BRIDGE} up"))?;
    command
        .stdin(Stdio::null())
        .stderr(File::create(file(&format!("logs/{name}.log")))?)
        // Ctrl-C must not reach the node's kernel (see `kernel::start`).
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name}"))
}
