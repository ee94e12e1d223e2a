//! Runs a stock Debian kernel under QEMU. QEMU emulates the processor, so this
//! machine needs no hardware acceleration. The guest uses the files of this
//! machine, and needs no disk image.
//!
//! ```text
//! QEMU ── kernel, initramfs     unpacked by e2e/tools/install
//!   │       └ qemu_init.sh      mounts the host's root, read-only, over 9p
//!   │           └ init.sh       as in user-mode Linux
//!   ├ 9p "host"      /, read-only
//!   ├ 9p "lab"       the lab's folder, writable: order, logs, exit status
//!   ├ serial line    the kernel's messages, to a log
//!   ├ virtio port    what the program prints
//!   └ card           on the tap
//! ```

use std::process::{Command, Stdio};

use anyhow::Result;
use e2e::layout::{DIR, file};

use crate::boot::{MEMORY, Role, TAP, make_tap, prepare_boot};
use crate::kind::{IMAGE, INITRAMFS, MODULES};
use crate::tools::built;

/// A machine that QEMU runs.
pub(crate) struct Machine<'a> {
    pub(crate) role: Role,
    /// The memory in MiB.
    pub(crate) memory: u32,
    /// The tap of the machine's network card.
    pub(crate) tap: &'a str,
    /// The last byte of the card's MAC address.
    pub(crate) number: u8,
    /// Further variables of the init script: `NAME=value …`.
    pub(crate) variables: &'a str,
    /// The log of the kernel's messages, in the lab's folder.
    pub(crate) log: &'a str,
}

/// Returns the command that starts the guest, which runs the lab's program.
pub(crate) fn guest() -> Result<Command> {
    Machine {
        role: Role::Guest,
        memory: MEMORY,
        tap: TAP,
        number: 1,
        variables: "",
        log: "logs/kernel.log",
    }
    .command()
}

impl Machine<'_> {
    /// Returns the command that starts QEMU, with two processors that run in
    /// parallel. What the machine's program prints goes to standard error.
    pub(crate) fn command(&self) -> Result<Command> {
        let Self { role, tap, .. } = self;
        let init = prepare_boot(&built(MODULES), *role)?;
        make_tap(tap)?;
        // The guest's kernel checks its timer, and panics if the check fails. On a
        // busy machine, the check may fail, so no_timer_check turns the check off.
        // init.sh brings up the second processor (maxcpus).
        // The kernel's defences against faults of processors only cost time here
        // (mitigations, nokaslr, apparmor).
        let arguments = format!(
            "console=ttyS0 quiet panic=-1 no_timer_check maxcpus=1 mitigations=off nokaslr apparmor=0 \
         LAB_INIT={init} LAB_KERNEL=qemu LAB_ROLE={role} {}",
            self.variables
        );
        let log = file(self.log);
        let mut machine = Command::new("qemu-system-x86_64");
        machine
            // A simple processor takes a third less time to emulate than one with
            // everything that QEMU knows.
            .args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2"])
            .args(["-m", &format!("{}M", self.memory)])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            // After a panic, `panic=-1` restarts the guest at once. With
            // -no-reboot, QEMU ends when the guest restarts.
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(built(IMAGE))
            .arg("-initrd")
            .arg(built(INITRAMFS))
            .args(["-append", &arguments])
            .args(["-serial", &format!("file:{}", log.display())])
            .args(share("host", "/", ",readonly=on"))
            .args(share("lab", DIR, ""))
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", "file,id=output,path=/dev/stderr"])
            .args(["-device", "virtserialport,chardev=output"])
            .args([
                "-netdev",
                &format!("tap,id=wire,ifname={tap},script=no,downscript=no"),
            ])
            // With an empty `romfile`, the network card has no boot ROM.
            .args([
                "-device",
                &format!(
                    "virtio-net-pci,netdev=wire,romfile=,mac=52:54:00:00:00:{:02x}",
                    self.number
                ),
            ])
            .stdout(Stdio::null());
        Ok(machine)
    }
}

fn share(tag: &str, path: &str, options: &str) -> [String; 2] {
    // Files in different file systems below `path` may have equal inode
    // numbers. The option multidevs=remap makes the inode numbers unique.
    let all = "local,security_model=none,multidevs=remap";
    let options = format!("{all},mount_tag={tag},path={path}{options}");
    ["-virtfs".to_owned(), options]
}
