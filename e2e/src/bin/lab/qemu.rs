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

use crate::boot::{MEMORY, TAP, prepare_boot};
use crate::kind::{IMAGE, INITRAMFS, MODULES};
use crate::tools::built;

/// Returns the command that starts QEMU, with two processors that run in
/// parallel.
pub(crate) fn machine() -> Result<Command> {
    let init = prepare_boot(&built(MODULES))?;
    // The guest's kernel checks its timer, and panics if the check fails. On a
    // busy machine, the check may fail, so no_timer_check turns the check off.
    // init.sh brings up the second processor (maxcpus).
    // The kernel's defences against faults of processors only cost time here
    // (mitigations, nokaslr, apparmor).
    let arguments = format!(
        "console=ttyS0 quiet panic=-1 no_timer_check maxcpus=1 mitigations=off nokaslr apparmor=0 \
         LAB_INIT={init} LAB_KERNEL=qemu"
    );
    let log = file("logs/kernel.log");
    let mut machine = Command::new("qemu-system-x86_64");
    machine
        // A simple processor takes a third less time to emulate than one with
        // everything that QEMU knows.
        .args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2"])
        .args(["-m", &format!("{MEMORY}M")])
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
            &format!("tap,id=wire,ifname={TAP},script=no,downscript=no"),
        ])
        // With an empty `romfile`, the network card has no boot ROM.
        .args(["-device", "virtio-net-pci,netdev=wire,romfile="])
        .stdout(Stdio::null());
    Ok(machine)
}

fn share(tag: &str, path: &str, options: &str) -> [String; 2] {
    // Files in different file systems below `path` may have equal inode
    // numbers. The option multidevs=remap makes the inode numbers unique.
    let all = "local,security_model=none,multidevs=remap";
    let options = format!("{all},mount_tag={tag},path={path}{options}");
    ["-virtfs".to_owned(), options]
}
