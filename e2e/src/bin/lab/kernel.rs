//! The kernel that the program runs on.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;
use e2e::host::{ip_here, run_here};
use e2e::layout::{GUEST, HOST_SIDE, MANAGEMENT_NETWORK, file};

/// Memory of the guest. Address space only: pages count when they are used.
const MEMORY: &str = "2G";

/// A kernel with IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// User-mode Linux: a kernel as a program, booted for this run.
    Uml,
    /// The kernel of this machine, with the guest as one more namespace.
    Host,
}

impl Kind {
    /// The machine's own kernel where that has IPVS: it is faster, and it has
    /// all its processors.
    pub(crate) fn of_this_machine() -> Self {
        let has_ipvs = || Path::new("/proc/net/ip_vs").exists();
        let load = || run_here(Command::new("modprobe").args(["-q", "ip_vs"])).is_ok();
        if has_ipvs() || (load() && has_ipvs()) {
            Self::Host
        } else {
            Self::Uml
        }
    }

    /// The name as LAB_KERNEL has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Host => "host",
        }
    }

    /// Makes the wire to the guest and starts the guest on it. What the guest's
    /// program prints comes out of the child's standard error.
    pub(crate) fn start(self) -> Result<Child> {
        match self {
            Self::Uml => start_uml(),
            Self::Host => start_namespace(),
        }
    }
}

fn start_uml() -> Result<Child> {
    let card = if Path::new("/dev/net/tun").exists() {
        "tuntap add tap0 mode tap"
    } else {
        anyhow::bail!("no /dev/net/tun, which joins the guest with the host side: `modprobe tun`")
    };
    ip_here(card)?;
    bring_up_wire()?;
    let init = file("init");
    fs::write(&init, include_str!("init.sh")).context("writing the guest's init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    // Its modules are mounted there.
    fs::create_dir_all("/lib/modules").context("making /lib/modules")?;
    let scratch = file("uml");
    fs::create_dir_all(&scratch)?;
    Command::new("linux.uml")
        .arg(format!("mem={MEMORY}"))
        .args(["rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("init={}", init.display()))
        // The first console has the kernel's messages and goes to the log, the
        // second has what the program prints and nothing else.
        .args([
            "con=null",
            "con0=fd:0,fd:1",
            "con1=fd:2,fd:2",
            "quiet",
            "panic=-1",
        ])
        .arg(format!("uml_dir={}", scratch.display()))
        .arg("vec0:transport=tap,ifname=tap0,depth=128,gro=1")
        // The file that is its memory: /dev/shm is small in containers.
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(File::create(file("logs/kernel.log"))?)
        .stderr(Stdio::piped())
        // Ctrl-C is for the cage to hear.
        .process_group(0)
        .spawn()
        .context("starting linux.uml")
}

fn start_namespace() -> Result<Child> {
    // The tests' own namespaces get their names there too.
    fs::create_dir_all("/run/netns")?;
    run_here(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]))?;
    ip_here(
        "netns add lab-guest
             link add tap0 type veth peer name vec0 netns lab-guest",
    )?;
    bring_up_wire()?;
    // One stream for both, as a console is.
    let script = "exec \"$@\" >&2";
    Command::new("ip")
        .args(["netns", "exec", "lab-guest", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .arg("guest")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting the guest's namespace")
}

fn bring_up_wire() -> Result<()> {
    ip_here(&format!(
        "address add {HOST_SIDE}/24 dev tap0
         link set tap0 up
         route add {MANAGEMENT_NETWORK} via {GUEST} dev tap0"
    ))?;
    Ok(())
}
