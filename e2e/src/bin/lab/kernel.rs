//! The kernel on which the program runs.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use e2e::host::{ip_here, run_here};
use e2e::layout::{GUEST, HOST_SIDE, MANAGEMENT_NETWORK, file};

use crate::boot::{MEMORY, TAP, prepare_boot};
use crate::kind::Kind;
use crate::qemu;

/// The modules of user-mode Linux, by its Debian package.
const UML_MODULES: &str = "/usr/lib/uml/modules";

/// Makes the wire to the guest and starts the guest on it. What the guest's
/// program prints comes out of the child's standard error.
pub(crate) fn start(kind: Kind) -> Result<Child> {
    let mut machine = match kind {
        Kind::Uml => uml()?,
        Kind::Qemu => qemu::machine()?,
        Kind::Host => namespace()?,
    };
    bring_up_wire()?;
    machine
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        // The cage handles Ctrl-C.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", kind.description()))
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
        // The first console has the kernel's messages and goes to the log; the
        // second has only what the program prints.
        .args([
            "con=null",
            "con0=fd:0,fd:1",
            "con1=fd:2,fd:2",
            "quiet",
            "panic=-1",
        ])
        .arg(format!("uml_dir={}", scratch.display()))
        .arg(format!("vec0:transport=tap,ifname={TAP},depth=128,gro=1"))
        // The file that is the guest's memory: /dev/shm is small in containers.
        .env("TMPDIR", &scratch)
        .stdout(File::create(file("logs/kernel.log"))?);
    Ok(machine)
}

fn namespace() -> Result<Command> {
    // As init.sh does, for the same reasons, if this machine has them as
    // modules.
    let _ = run_here(Command::new("modprobe").args(["-qa", "ip_vs_lblc", "ip_vs_lblcr"]));
    // The tests' own namespaces get their names there too.
    fs::create_dir_all("/run/netns")?;
    run_here(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]))?;
    ip_here(&format!(
        "netns add lab-guest
         link add {TAP} type veth peer name wire netns lab-guest"
    ))?;
    // One stream for both outputs, as on a console.
    let script = "exec \"$@\" >&2";
    let mut machine = Command::new("ip");
    machine
        .args(["netns", "exec", "lab-guest", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .arg("guest")
        .stdout(Stdio::null());
    Ok(machine)
}

fn bring_up_wire() -> Result<()> {
    ip_here(&format!(
        "address add {HOST_SIDE}/24 dev {TAP}
         link set {TAP} up
         route add {MANAGEMENT_NETWORK} via {GUEST} dev {TAP}"
    ))?;
    Ok(())
}
