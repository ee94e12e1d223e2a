use std::net::{IpAddr, Ipv4Addr};

use super::invalid;
use crate::Rejection;

/// Parses the address of a VIP, which must be a unicast address other than a
/// loopback address.
pub(super) fn vip(path: &str, text: &str) -> Result<IpAddr, Rejection> {
    let address = unicast(path, text)?;
    if address.is_loopback() {
        return Err(invalid(
            path,
            format_args!(
                "{text} is a loopback address, which no client can reach; write the address that \
                 clients use"
            ),
        ));
    }
    Ok(address)
}

/// Parses the address of a server. A loopback address means the director
/// itself, as in keepalived's `sorry_server 127.0.0.1`.
pub(super) fn server(path: &str, text: &str) -> Result<IpAddr, Rejection> {
    unicast(path, text)
}

fn unicast(path: &str, text: &str) -> Result<IpAddr, Rejection> {
    let address: IpAddr = text.parse().map_err(|_| {
        invalid(
            path,
            format_args!(
                "{text:?} is not an IP address; write one such as 192.0.2.10 or 2001:db8::10, \
                 without prefix length or zone"
            ),
        )
    })?;
    let wrong = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            return Err(invalid(
                path,
                format_args!("{text} is an IPv4-mapped address; write it as plain IPv4"),
            ));
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "a link-local address, which means another host on every link"
        }
        _ => return Ok(address),
    };
    Err(invalid(
        path,
        format_args!("{text} is {wrong}; write a unicast address"),
    ))
}
