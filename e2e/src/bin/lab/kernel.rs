//! Starts the guest, the kernel on which the lab's program runs.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use e2e::host::{ip_here, run_here};
use e2e::layout::{GUEST, HOST_SIDE, MANAGEMENT_NETWORK, file};

use crate::boot::{MEMORY, Role, TAP, make_tap, prepare_boot};
use crate::kind::{Kind, UML, UML_LIBRARY, UML_MODULES};
use crate::qemu;
use crate::tools::built;

/// The folder in which Debian's package installs the modules of user-mode
/// Linux.
const PACKAGED_MODULES: &str = "/usr/lib/uml/modules";

/// The bridge of the host side to which the guest and the nodes are connected.
pub(crate) const BRIDGE: &str = "lan";

/// Creates the network link to the guest and starts the guest. The standard
/// error of the returned process is the output of the guest's program. In a lab
/// with nodes, the link is a port of [`BRIDGE`].
pub(crate) fn start(kind: Kind, has_nodes: bool) -> Result<Child> {
    let mut machine = match kind {
        Kind::Uml => {
            let mut machine = uml(&built(UML), &built(UML_MODULES))?;
            machine.arg("seccomp=on");
            machine
        }
        Kind::UmlPackaged => {
            let mut machine = uml(Path::new("linux.uml"), Path::new(PACKAGED_MODULES))?;
            machine.env("LD_PRELOAD", built(UML_LIBRARY));
            machine
        }
        Kind::Qemu => qemu::guest()?,
        Kind::Host => namespace()?,
    };
    bring_up_wire(has_nodes)?;
    machine
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C must not reach the guest's kernel, so the kernel gets its own
        // process group. The lab's top process (`cage`) handles Ctrl-C.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", kind.description()))
}

fn uml(program: &Path, modules: &Path) -> Result<Command> {
    let init = prepare_boot(modules, Role::Guest)?;
    make_tap(TAP)?;
    let scratch = file("uml");
    fs::create_dir_all(&scratch)?;
    let mut machine = Command::new(program);
    machine
        .arg(format!("mem={MEMORY}M"))
        .args(["rootfstype=hostfs", "rootflags=/", "ro"])
        .args([format!("init={init}"), "LAB_KERNEL=uml".to_owned()])
        .arg(format!("LAB_ROLE={}", Role::Guest))
        // The guest's first console carries the kernel's messages to the log.
        // The guest's second console carries only the program's output.
        .args([
            "con=null",
            "con0=fd:0,fd:1",
            "con1=fd:2,fd:2",
            "quiet",
            "panic=-1",
        ])
        .arg(format!("uml_dir={}", scratch.display()))
        .arg(format!("vec0:transport=tap,ifname={TAP},depth=128,gro=1"))
        // User-mode Linux puts the file with the guest's memory into TMPDIR.
        // /dev/shm would be too small in containers.
        .env("TMPDIR", &scratch)
        .stdout(File::create(file("logs/kernel.log"))?);
    Ok(machine)
}

fn namespace() -> Result<Command> {
    // The modules of the schedulers lblc and lblcr are loaded in advance,
    // because loading them on demand can deadlock the kernel (see init.sh). A
    // failure of modprobe is ignored, because this machine's kernel may not
    // have the schedulers as modules.
    let _ = run_here(Command::new("modprobe").args(["-qa", "ip_vs_lblc", "ip_vs_lblcr"]));
    // The lab mounts its own /run/netns, because tests also create network
    // namespaces in this folder.
    fs::create_dir_all("/run/netns")?;
    run_here(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]))?;
    ip_here(&format!(
        "netns add lab-guest
         link add {TAP} type veth peer name wire netns lab-guest"
    ))?;
    // The guest program's standard output and standard error share one stream,
    // as on a console.
    let script = "exec \"$@\" >&2";
    let mut machine = Command::new("ip");
    machine
        .args(["netns", "exec", "lab-guest", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .arg("guest")
        .stdout(Stdio::null());
    Ok(machine)
}

fn bring_up_wire(has_nodes: bool) -> Result<()> {
    let mut wire = TAP;
    if has_nodes {
        wire = BRIDGE;
        ip_here(&format!(
            "link add {BRIDGE} type bridge mcast_snooping 0
             link set {TAP} master {BRIDGE} up"
        ))?;
    }
    ip_here(&format!(
        "address add {HOST_SIDE}/24 dev {wire}
         link set {wire} up
         route add {MANAGEMENT_NETWORK} via {GUEST} dev {wire}"
    ))?;
    Ok(())
}
