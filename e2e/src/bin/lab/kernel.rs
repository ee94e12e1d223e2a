//! The kernel that the program runs on.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;
use e2e::host::{ip_here, run_here};
use e2e::layout::{GUEST, HOST_SIDE, MANAGEMENT_NETWORK, file};

use crate::qemu;

/// Memory of the guest, in MiB. Address space only: pages count when they are
/// used.
pub(crate) const MEMORY: u32 = 2048;

/// The host side's end of the wire to the guest.
pub(crate) const TAP: &str = "tap0";

/// The modules of user-mode Linux, by its Debian package.
const UML_MODULES: &str = "/usr/lib/uml/modules";

/// A kernel with IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// User-mode Linux: a kernel as a program, booted for this run.
    Uml,
    /// A stock Debian kernel under QEMU: newer, and with two processors.
    Qemu,
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

    /// The name in LAB_KERNEL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Qemu => "qemu",
            Self::Host => "host",
        }
    }

    /// The name in a sentence.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Uml => "user-mode Linux",
            Self::Qemu => "Debian's kernel under QEMU",
            Self::Host => "this machine's kernel",
        }
    }

    /// Programs of Debian packages that it needs.
    pub(crate) fn packaged(self) -> &'static [&'static str] {
        match self {
            Self::Uml => &["linux.uml", "busybox"],
            Self::Qemu => &["qemu-system-x86_64", "busybox"],
            Self::Host => &[],
        }
    }

    /// Files that it needs of those that `e2e/tools/install` makes.
    pub(crate) fn built(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &[qemu::IMAGE, qemu::INITRAMFS, qemu::MODULES],
            Self::Uml | Self::Host => &[],
        }
    }

    /// Makes the wire to the guest and starts the guest on it. What the guest's
    /// program prints comes out of the child's standard error.
    pub(crate) fn start(self) -> Result<Child> {
        let mut machine = match self {
            Self::Uml => uml()?,
            Self::Qemu => qemu::machine()?,
            Self::Host => namespace()?,
        };
        bring_up_wire()?;
        machine
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the cage to hear.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.description()))
    }
}

fn uml() -> Result<Command> {
    let init = prepare_boot(Path::new(UML_MODULES))?;
    let scratch = file("uml");
    fs::create_dir_all(&scratch)?;
    let mut machine = Command::new("linux.uml");
    machine
        .arg(format!("mem={MEMORY}M"))
        .args(["rootfstype=hostfs", "rootflags=/", "ro"])
        .args([format!("init={init}"), "LAB_KERNEL=uml".to_owned()])
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
        .arg(format!("vec0:transport=tap,ifname={TAP},depth=128,gro=1"))
        // The file that is its memory: /dev/shm is small in containers.
        .env("TMPDIR", &scratch)
        .stdout(File::create(file("logs/kernel.log"))?);
    Ok(machine)
}

fn namespace() -> Result<Command> {
    // As init.sh does, and for its reasons, where this machine has them as
    // modules.
    let _ = run_here(Command::new("modprobe").args(["-qa", "ip_vs_lblc", "ip_vs_lblcr"]));
    // The tests' own namespaces get their names there too.
    fs::create_dir_all("/run/netns")?;
    run_here(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]))?;
    ip_here(&format!(
        "netns add lab-guest
         link add {TAP} type veth peer name wire netns lab-guest"
    ))?;
    // One stream for both, as a console is.
    let script = "exec \"$@\" >&2";
    let mut machine = Command::new("ip");
    machine
        .args(["netns", "exec", "lab-guest", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .arg("guest")
        .stdout(Stdio::null());
    Ok(machine)
}

/// Makes what a kernel that boots on the host's files needs, whichever it is:
/// a tap, its modules below the lab's folder, and its init, whose path it
/// returns.
pub(crate) fn prepare_boot(modules: &Path) -> Result<String> {
    if !Path::new("/dev/net/tun").exists() {
        anyhow::bail!("no /dev/net/tun, which joins the guest with the host side: `modprobe tun`")
    }
    ip_here(&format!("tuntap add {TAP} mode tap"))?;
    symlink(modules, file("modules")).context("where the guest's modules are")?;
    // The guest mounts them there, and cannot make a folder.
    fs::create_dir_all("/lib/modules").context("making /lib/modules")?;
    let init = file("init");
    fs::write(&init, include_str!("init.sh")).context("writing the guest's init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(init.display().to_string())
}

fn bring_up_wire() -> Result<()> {
    ip_here(&format!(
        "address add {HOST_SIDE}/24 dev {TAP}
         link set {TAP} up
         route add {MANAGEMENT_NETWORK} via {GUEST} dev {TAP}"
    ))?;
    Ok(())
}
