//! Messages about what is wrong with a sysctl, and what to do about it.

use std::io;

pub(super) const NOT_WRITTEN_DOWN: &str = "its previous value cannot be written down, so that \
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
            format!("there is no interface {interface} here, or this kernel has no such value")
        }
        _ => "this kernel has no such value".to_owned(),
    };
    format!(
        "cannot be read: {what}, or the agent's --sysctl-dir is not a folder like /proc/sys; leave \
         it out of the group's spec.sysctls.overrides if it is there"
    )
}

pub(super) fn unwritable(name: &str, value: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            format!(
                "the kernel refuses the value {value}: write another one to the group's \
                     spec.sysctls.overrides"
            )
        }
        _ => format!(
            "cannot be written: {error}. Mount the host's /proc/sys/net where the agent can write \
             it, as the chart does, and name the folder above it with --sysctl-dir; or set it by \
             hand: sysctl -w {name}='{value}'"
        ),
    }
}

pub(super) fn made_otherwise(value: &str, found: &str) -> String {
    format!("the agent wrote {value}, and the kernel made it {found}")
}

pub(super) fn waits_for(first: &str) -> String {
    format!("waits until {first} has its wanted value: see there")
}

pub(super) fn fought_over(name: &str, value: &str, found: &str) -> String {
    format!(
        "somebody else sets it to {found} again and again, so the agent leaves it alone: find out \
         what does that (files of /etc/sysctl.d, tuned, a network manager, another agent) and end \
         it, then sysctl -w {name}='{value}'; or write {found} to the group's \
         spec.sysctls.overrides"
    )
}
