//! Messages about problems with sysctls, each with its remedy.

use std::io;

pub(super) const NOT_WRITTEN_DOWN: &str = "the journal cannot record the previous value, so \
                                           nothing could restore it: make the agent's state folder \
                                           writable";

pub(super) fn unreadable(name: &str, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("cannot be read: {error}");
    }
    let parts: Vec<_> = name.split('.').collect();
    let what = match parts[..] {
        ["net", _, "conf", interface, _] if !matches!(interface, "all" | "default") => {
            let interface = interface.replace('/', ".");
            format!("this host has no interface {interface}, or this kernel has no such value")
        }
        _ => "this kernel has no such value".to_owned(),
    };
    format!(
        "cannot be read: {what}, or the agent's --sysctl-dir is not a folder like /proc/sys; if \
         the group's spec.sysctls.overrides names this sysctl, remove it there"
    )
}

pub(super) fn unwritable(name: &str, value: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            format!(
                "the kernel refuses the value {value}: set another value in the group's \
                     spec.sysctls.overrides"
            )
        }
        _ => format!(
            "cannot be written: {error}. Mount the host's /proc/sys/net where the agent can write \
             to it, as the chart does, and name its parent folder with --sysctl-dir; or set the \
             value by hand: sysctl -w {name}='{value}'"
        ),
    }
}

pub(super) fn made_otherwise(value: &str, found: &str) -> String {
    format!("the agent wrote {value}, but the kernel changed it to {found}")
}

pub(super) fn waits_for(first: &str) -> String {
    format!("waits until {first} has its wanted value: see the problem of {first}")
}

pub(super) fn fought_over(name: &str, value: &str, found: &str) -> String {
    format!(
        "another program sets it to {found} again and again, so the agent leaves it alone: find \
         the program that does that (files of /etc/sysctl.d, tuned, a network manager, another \
         agent) and stop it, then run sysctl -w {name}='{value}'; or set {found} in the group's \
         spec.sysctls.overrides"
    )
}
