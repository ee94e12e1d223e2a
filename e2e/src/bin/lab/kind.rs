//! The kernels on which a lab can run, and the programs and files that each
//! kernel needs.

use clap::ValueEnum;

/// The paths of the image, initramfs and modules of the kernel under QEMU. The
/// paths are relative to the folder that `e2e/tools/install` fills.
pub(crate) const IMAGE: &str = "kernel/vmlinuz";
pub(crate) const INITRAMFS: &str = "kernel/initramfs";
pub(crate) const MODULES: &str = "kernel/modules";

/// The newer user-mode Linux and its modules, in the same folder.
pub(crate) const UML: &str = "uml/linux";
pub(crate) const UML_MODULES: &str = "uml/modules";

/// The library with which the packaged user-mode Linux runs on every processor
/// (`e2e/tools/uml/ptrace.c`), in the same folder.
pub(crate) const UML_LIBRARY: &str = "uml_ptrace.so";

/// A kernel with IPVS on which a lab can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// User-mode Linux, a kernel that runs as a program. The lab boots this
    /// kernel for each run. The programs of the guest run without ptrace, so
    /// this kernel needs little processor time. It has no iptables.
    Uml,
    /// The user-mode Linux of this machine's Debian: older, with iptables, and
    /// slower.
    UmlPackaged,
    /// A stock Debian kernel under QEMU, with two processors.
    Qemu,
    /// The kernel of this machine. With this kernel, the guest is only a
    /// network namespace.
    Host,
}

impl Kind {
    /// Returns the name that selects this kernel in the environment variable
    /// LAB_KERNEL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::UmlPackaged => "uml-packaged",
            Self::Qemu => "qemu",
            Self::Host => "host",
        }
    }

    /// Returns the kernel's name for use in a sentence.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Uml => "user-mode Linux",
            Self::UmlPackaged => "Debian's packaged user-mode Linux",
            Self::Qemu => "Debian's kernel under QEMU",
            Self::Host => "this machine's kernel",
        }
    }

    /// Returns the programs from Debian packages that this kernel needs.
    pub(crate) fn packaged(self) -> &'static [&'static str] {
        match self {
            Self::Uml => &["busybox"],
            Self::UmlPackaged => &["linux.uml", "busybox"],
            Self::Qemu => &["qemu-system-x86_64", "busybox"],
            Self::Host => &[],
        }
    }

    /// Returns the files made by `e2e/tools/install` that this kernel needs.
    pub(crate) fn built(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &[IMAGE, INITRAMFS, MODULES],
            Self::Uml => &[UML, UML_MODULES],
            Self::UmlPackaged => &[UML_LIBRARY],
            Self::Host => &[],
        }
    }
}
