use std::collections::BTreeMap;

use super::{invalid, name::is_interface};
use crate::{Rejection, api::Sysctls, bounds};

const PATH: &str = "spec.sysctls.overrides";

/// The sysctls of an interface that a group may set in `net.ipv4.conf`. The
/// other sysctls of an interface do not affect a director's work, and some of
/// them open a host to attacks.
const OF_IPV4: [&str; 7] = [
    "accept_local",
    "arp_announce",
    "arp_filter",
    "arp_ignore",
    "forwarding",
    "rp_filter",
    "send_redirects",
];
/// The sysctls of an interface that a group may set in `net.ipv6.conf`.
const OF_IPV6: [&str; 3] = ["accept_ra", "force_forwarding", "forwarding"];

/// Checks `spec.sysctls.overrides` of a group. A group may set only some of a
/// host's sysctls.
pub(super) fn overrides(raw: &Sysctls) -> Result<BTreeMap<String, String>, Rejection> {
    if raw.overrides.len() > bounds::SYSCTLS {
        let most = bounds::SYSCTLS;
        return Err(invalid(PATH, format_args!("write at most {most} of them")));
    }
    for (name, value) in &raw.overrides {
        if name == "net.ipv4.conf.all.forwarding" {
            return Err(invalid(
                PATH,
                format_args!("{name} would change every interface; name the interfaces"),
            ));
        }
        if name.len() > bounds::SYSCTL_NAME || !is_for_a_group(name) {
            return Err(invalid(
                PATH,
                format_args!(
                    "{name:?} is not a sysctl that a group may set; write net.ipv4.vs.NAME, \
                     net.ipv4.conf.INTERFACE.NAME with {}, or net.ipv6.conf.INTERFACE.NAME with {}",
                    OF_IPV4.join(", "),
                    OF_IPV6.join(", ")
                ),
            ));
        }
        if value.len() > bounds::SYSCTL_VALUE || !value.split(' ').all(is_number) {
            return Err(invalid(
                &format!("{PATH}[{name}]"),
                format_args!(
                    "{value:?} is not a value of a sysctl; write a number, or several with a blank \
                     between them"
                ),
            ));
        }
    }
    Ok(raw.overrides.clone())
}

fn is_for_a_group(name: &str) -> bool {
    let parts: Vec<_> = name.split('.').collect();
    match parts[..] {
        ["net", "ipv4", "vs", name] => {
            let is_letter = |c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_');
            !name.is_empty() && name.bytes().all(is_letter)
        }
        // A sysctl's name contains the interface's name with slashes instead of
        // dots, such as `eth0/100` for eth0.100.
        ["net", "ipv4", "conf", of, name] => {
            OF_IPV4.contains(&name) && is_interface(&of.replace('/', "."))
        }
        ["net", "ipv6", "conf", of, name] => {
            OF_IPV6.contains(&name) && is_interface(&of.replace('/', "."))
        }
        _ => false,
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
