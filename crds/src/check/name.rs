use std::net::IpAddr;

use super::invalid;
use crate::{Rejection, bounds};

/// Checks the name of a cluster-scoped object: a DNS subdomain (RFC 1123).
pub(super) fn subdomain(path: &str, name: &str) -> Result<(), Rejection> {
    if name.len() <= bounds::NAME && name.split('.').all(is_dns_label) {
        return Ok(());
    }
    Err(invalid(
        path,
        format_args!(
            "{name:?} cannot be the name of an object; write lower-case letters, digits, '-' and \
             '.', beginning and ending with a letter or digit"
        ),
    ))
}

/// Checks the name of a namespace, or another DNS label (RFC 1123).
pub(super) fn dns_label(path: &str, name: &str) -> Result<(), Rejection> {
    if name.len() <= bounds::LABEL && is_dns_label(name) {
        return Ok(());
    }
    Err(invalid(
        path,
        format_args!(
            "{name:?} cannot be such a name; write lower-case letters, digits and '-', beginning \
             and ending with a letter or digit, up to {} characters",
            bounds::LABEL
        ),
    ))
}

/// Checks a host name for HTTP and TLS: a DNS name as in certificates
/// (`rustls_pki_types::DnsName`), or an IP address.
pub(super) fn host(path: &str, name: &str) -> Result<(), Rejection> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_label = |label: &str| {
        label.len() <= bounds::LABEL && is_framed(label, inner, |byte| inner(byte) || byte == b'-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_name = name.len() <= bounds::NAME
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit());
    if is_name || address(name).is_some() {
        return Ok(());
    }
    Err(invalid(
        path,
        format_args!(
            "{name:?} is neither a DNS name nor an IP address; write one such as shop.example or \
             192.0.2.10, without port, brackets or final dot"
        ),
    ))
}

/// Parses an IP address as Kubernetes does: zones and IPv4-mapped addresses are
/// refused.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

/// Checks a name for a DNS query (RFC 1035, section 2.3.1, with the underscores
/// of RFC 8552).
pub(super) fn queried(path: &str, name: &str) -> Result<(), Rejection> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| {
        (1..=bounds::LABEL).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(is_inner)
    };
    let labels = name.strip_suffix('.').unwrap_or(name);
    if name == "." || (name.len() <= bounds::NAME && labels.split('.').all(is_label)) {
        return Ok(());
    }
    Err(invalid(
        path,
        format_args!(
            "{name:?} is not a DNS name; write one such as www.example.com, of labels of 1 to 63 \
             letters, digits, '_' and, not first, '-'; international ones as xn--"
        ),
    ))
}

/// Checks the name of a network interface.
pub(super) fn interface(path: &str, name: &str) -> Result<(), Rejection> {
    if !is_interface(name) {
        return Err(invalid(
            path,
            format_args!(
                "{name:?} cannot be the name of an interface; write one such as eth0, of up to {} \
                 ASCII characters, without '/', ':' and blanks",
                bounds::INTERFACE
            ),
        ));
    }
    Ok(())
}

/// Checks the key of a label: either a name, or a DNS subdomain, a slash and a
/// name.
pub(super) fn label_key(path: &str, key: &str) -> Result<(), Rejection> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_is_good = prefix
        .is_none_or(|prefix| prefix.len() <= bounds::NAME && prefix.split('.').all(is_dns_label));
    if prefix_is_good && is_label_name(name) {
        return Ok(());
    }
    Err(invalid(
        path,
        format_args!(
            "{key:?} cannot be a label's key; write a name of up to 63 letters, digits, '-', '_' \
             and '.', with a DNS name and '/' before it if need be"
        ),
    ))
}

/// Checks the value of a label. The value may be empty. Otherwise, it follows
/// the same rules as the name in a label's key.
pub(super) fn label_value(path: &str, value: &str) -> Result<(), Rejection> {
    if value.is_empty() || is_label_name(value) {
        return Ok(());
    }
    Err(invalid(
        path,
        format_args!(
            "{value:?} cannot be a label's value; write up to 63 letters, digits, '-', '_' and \
             '.', beginning and ending with a letter or digit"
        ),
    ))
}

/// Returns whether the kernel accepts `name` as the name of an interface
/// (`net/core/dev.c`, `dev_valid_name`). The name may contain only ASCII
/// characters.
pub(super) fn is_interface(name: &str) -> bool {
    let is_odd = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | ':');
    let is_long = !(1..=bounds::INTERFACE).contains(&name.len());
    !is_long && !name.contains(is_odd) && !matches!(name, "." | "..")
}

fn is_dns_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    is_framed(label, inner, |byte| inner(byte) || byte == b'-')
}

fn is_label_name(name: &str) -> bool {
    name.len() <= bounds::LABEL
        && is_framed(
            name,
            |byte| byte.is_ascii_alphanumeric(),
            |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte),
        )
}

/// Returns whether a text has only allowed bytes. `end` must accept the first
/// and the last byte, and `between` must accept all other bytes. Returns false
/// for an empty text.
fn is_framed(text: &str, end: impl Fn(u8) -> bool, between: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => end(*only),
        [first, middle @ .., last] => {
            end(*first) && end(*last) && middle.iter().all(|byte| between(*byte))
        }
    }
}
