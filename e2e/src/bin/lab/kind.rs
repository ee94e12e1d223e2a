//! Which kernels there are, and what each needs.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use e2e::host::run_here;

/// The second kernel's image, its initramfs and its modules, among the files
/// that `e2e/tools/install` makes.
pub(crate) const IMAGE: &str = "kernel/vmlinuz";
pub(crate) const INITRAMFS: &str = "kernel/initramfs";
pub(crate) const MODULES: &str = "kernel/modules";

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
    /// Returns the machine's own kernel if that has IPVS: it is faster, and
    /// uses all processors of the machine.
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

    /// The files that it needs among those that `e2e/tools/install` makes.
    pub(crate) fn built(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &[IMAGE, INITRAMFS, MODULES],
            Self::Uml | Self::Host => &[],
        }
    }
}
