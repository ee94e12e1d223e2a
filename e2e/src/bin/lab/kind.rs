//! The kernels on which a lab can run, and the programs and files that each
//! kernel needs.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use e2e::host::run_here;

/// The paths of the image, initramfs and modules of the kernel under QEMU. The
/// paths are relative to the folder that `e2e/tools/install` fills.
pub(crate) const IMAGE: &str = "kernel/vmlinuz";
pub(crate) const INITRAMFS: &str = "kernel/initramfs";
pub(crate) const MODULES: &str = "kernel/modules";

/// The library with which user-mode Linux runs on every processor
/// (`e2e/tools/uml/ptrace.c`), in the same folder.
pub(crate) const UML_LIBRARY: &str = "uml_ptrace.so";

/// A kernel with IPVS on which a lab can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// User-mode Linux, a kernel that runs as a program. The lab boots this
    /// kernel for each run.
    Uml,
    /// A stock Debian kernel under QEMU, with two processors. This kernel is
    /// newer than the kernel of user-mode Linux.
    Qemu,
    /// The kernel of this machine. With this kernel, the guest is only a
    /// network namespace.
    Host,
}

impl Kind {
    /// Returns this machine's own kernel if it has IPVS, otherwise user-mode
    /// Linux. This machine's own kernel is faster than user-mode Linux and uses
    /// all processors.
    pub(crate) fn of_this_machine() -> Self {
        let has_ipvs = || Path::new("/proc/net/ip_vs").exists();
        let load = || run_here(Command::new("modprobe").args(["-q", "ip_vs"])).is_ok();
        if has_ipvs() || (load() && has_ipvs()) {
            Self::Host
        } else {
            Self::Uml
        }
    }

    /// Returns the name that selects this kernel in the environment variable
    /// LAB_KERNEL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Qemu => "qemu",
            Self::Host => "host",
        }
    }

    /// Returns the kernel's name for use in a sentence.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Uml => "user-mode Linux",
            Self::Qemu => "Debian's kernel under QEMU",
            Self::Host => "this machine's kernel",
        }
    }

    /// Returns the programs from Debian packages that this kernel needs.
    pub(crate) fn packaged(self) -> &'static [&'static str] {
        match self {
            Self::Uml => &["linux.uml", "busybox"],
            Self::Qemu => &["qemu-system-x86_64", "busybox"],
            Self::Host => &[],
        }
    }

    /// Returns the files made by `e2e/tools/install` that this kernel needs.
    pub(crate) fn built(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &[IMAGE, INITRAMFS, MODULES],
            Self::Uml => &[UML_LIBRARY],
            Self::Host => &[],
        }
    }
}
