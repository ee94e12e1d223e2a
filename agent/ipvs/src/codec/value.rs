//! Converts single values between the model's types and the kernel's numbers,
//! names and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DecodeError;
use nix::libc::{AF_INET, AF_INET6};

use crate::{Family, ForwardingMethod, ServiceConfig, Tunnel, TunnelChecksum, TunnelKind};

const NO_SCHEDULER: &str = "none";

const IP_VS_CONN_F_FWD_MASK: u32 = 0x7;
const IP_VS_CONN_F_MASQ: u32 = 0;
const IP_VS_CONN_F_LOCALNODE: u32 = 1;
const IP_VS_CONN_F_TUNNEL: u32 = 2;
const IP_VS_CONN_F_DROUTE: u32 = 3;
const IP_VS_CONN_F_BYPASS: u32 = 4;

const IP_VS_CONN_F_TUNNEL_TYPE_IPIP: u8 = 0;
const IP_VS_CONN_F_TUNNEL_TYPE_GUE: u8 = 1;
const IP_VS_CONN_F_TUNNEL_TYPE_GRE: u8 = 2;

const IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM: u16 = 0;
const IP_VS_TUNNEL_ENCAP_FLAG_CSUM: u16 = 1;
const IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM: u16 = 2;

#[inline]
pub(super) fn scheduler_name(scheduler: &str) -> &str {
    match scheduler {
        "" => NO_SCHEDULER,
        name => name,
    }
}

pub(super) fn parse_scheduler(name: String) -> String {
    match name.as_str() {
        NO_SCHEDULER => String::new(),
        _ => name,
    }
}

#[inline]
pub(super) fn method_number(method: ForwardingMethod) -> u32 {
    match method {
        ForwardingMethod::Masquerade => IP_VS_CONN_F_MASQ,
        ForwardingMethod::Local => IP_VS_CONN_F_LOCALNODE,
        ForwardingMethod::Tunnel(_) => IP_VS_CONN_F_TUNNEL,
        ForwardingMethod::DirectRoute => IP_VS_CONN_F_DROUTE,
        ForwardingMethod::Bypass => IP_VS_CONN_F_BYPASS,
        ForwardingMethod::Other(method) => method,
    }
}

/// Returns the forwarding method for a number from the kernel
/// (`IP_VS_CONN_F_*`). `tunnel` comes from the destination's tunnel attributes,
/// and is used only if the forwarding method is a tunnel.
pub(super) fn parse_method(number: u32, tunnel: Tunnel) -> ForwardingMethod {
    match number & IP_VS_CONN_F_FWD_MASK {
        IP_VS_CONN_F_MASQ => ForwardingMethod::Masquerade,
        IP_VS_CONN_F_LOCALNODE => ForwardingMethod::Local,
        IP_VS_CONN_F_TUNNEL => ForwardingMethod::Tunnel(tunnel),
        IP_VS_CONN_F_DROUTE => ForwardingMethod::DirectRoute,
        IP_VS_CONN_F_BYPASS => ForwardingMethod::Bypass,
        other => ForwardingMethod::Other(other),
    }
}

#[inline]
pub(super) fn tunnel_kind_number(kind: TunnelKind) -> u8 {
    match kind {
        TunnelKind::Ipip => IP_VS_CONN_F_TUNNEL_TYPE_IPIP,
        TunnelKind::Gue => IP_VS_CONN_F_TUNNEL_TYPE_GUE,
        TunnelKind::Gre => IP_VS_CONN_F_TUNNEL_TYPE_GRE,
        TunnelKind::Other(kind) => kind,
    }
}

pub(super) fn parse_tunnel_kind(number: u8) -> TunnelKind {
    match number {
        IP_VS_CONN_F_TUNNEL_TYPE_IPIP => TunnelKind::Ipip,
        IP_VS_CONN_F_TUNNEL_TYPE_GUE => TunnelKind::Gue,
        IP_VS_CONN_F_TUNNEL_TYPE_GRE => TunnelKind::Gre,
        other => TunnelKind::Other(other),
    }
}

#[inline]
pub(super) fn checksum_number(checksum: TunnelChecksum) -> u16 {
    match checksum {
        TunnelChecksum::None => IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM,
        TunnelChecksum::Full => IP_VS_TUNNEL_ENCAP_FLAG_CSUM,
        TunnelChecksum::Remote => IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM,
        TunnelChecksum::Other(flags) => flags,
    }
}

pub(super) fn parse_checksum(flags: u16) -> TunnelChecksum {
    match flags {
        IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM => TunnelChecksum::None,
        IP_VS_TUNNEL_ENCAP_FLAG_CSUM => TunnelChecksum::Full,
        IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM => TunnelChecksum::Remote,
        other => TunnelChecksum::Other(other),
    }
}

#[inline]
pub(super) fn family_number(family: Family) -> u16 {
    let number = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    u16::try_from(number).expect("address families are below 2^16")
}

pub(super) fn parse_family(number: u16) -> Result<Family, DecodeError> {
    match i32::from(number) {
        AF_INET => Ok(Family::V4),
        AF_INET6 => Ok(Family::V6),
        _ => Err(format!("address family {number}, neither AF_INET nor AF_INET6").into()),
    }
}

#[inline]
pub(super) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

pub(super) fn parse_ip(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}

#[inline]
pub(super) fn netmask(family: Family, prefix_length: u8) -> [u8; 4] {
    match family {
        Family::V4 => {
            let zeroes = 32u32.saturating_sub(prefix_length.into());
            u32::MAX.checked_shl(zeroes).unwrap_or(0).to_be_bytes()
        }
        Family::V6 => u32::from(prefix_length).to_ne_bytes(),
    }
}

pub(super) fn prefix_length(family: Family, mask: [u8; 4]) -> u8 {
    let length = match family {
        Family::V4 => {
            let mask = u32::from_be_bytes(mask);
            let ones = mask.leading_ones();
            (ones == mask.count_ones()).then_some(ones)
        }
        Family::V6 => Some(u32::from_ne_bytes(mask)).filter(|length| *length <= 128),
    };
    length
        .and_then(|length| u8::try_from(length).ok())
        .unwrap_or(ServiceConfig::IRREGULAR_MASK)
}
