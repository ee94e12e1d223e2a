use super::invalid;
use crate::{
    ForwardingRule, Rejection,
    api::{Forwarding, ForwardingMethod, Tunnel, TunnelChecksum, TunnelType},
};

/// Checks the forwarding of a service, a server or a sorry server; `path` is
/// the path of the checked field.
pub(super) fn forwarding(path: &str, raw: &Forwarding) -> Result<ForwardingRule, Rejection> {
    let tunnel_path = format!("{path}.tunnel");
    match (raw.method, &raw.tunnel) {
        (ForwardingMethod::Nat, None) => Ok(ForwardingRule::Nat),
        (ForwardingMethod::Dr, None) => Ok(ForwardingRule::Dr),
        (ForwardingMethod::Tun, None) => Ok(ForwardingRule::Ipip),
        (ForwardingMethod::Tun, Some(raw)) => tunnel(&tunnel_path, raw),
        (ForwardingMethod::Nat | ForwardingMethod::Dr, Some(_)) => Err(invalid(
            &tunnel_path,
            "only method TUN has a tunnel; leave tunnel out, or set method to TUN",
        )),
    }
}

fn tunnel(path: &str, raw: &Tunnel) -> Result<ForwardingRule, Rejection> {
    let port_path = format!("{path}.port");
    let checksum_path = format!("{path}.checksum");
    let checksum = raw.checksum.unwrap_or(TunnelChecksum::None);
    if raw.kind != TunnelType::Gue && raw.port.is_some() {
        return Err(invalid(
            &port_path,
            "only a GUE tunnel has a port; leave it out, or set type to GUE",
        ));
    }
    if raw.kind != TunnelType::Gue && checksum == TunnelChecksum::Remote {
        return Err(invalid(
            &checksum_path,
            "Remote is for GUE tunnels only; write None, or Full with GRE",
        ));
    }
    match raw.kind {
        TunnelType::Ipip if checksum != TunnelChecksum::None => Err(invalid(
            &checksum_path,
            "an IPIP tunnel has no checksum; leave it out, or set type to GUE or GRE",
        )),
        TunnelType::Ipip => Ok(ForwardingRule::Ipip),
        TunnelType::Gre => Ok(ForwardingRule::Gre { checksum }),
        TunnelType::Gue => {
            let port = raw
                .port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| {
                    invalid(
                        &port_path,
                        "a GUE tunnel needs the UDP port that its servers receive it on; write 1 \
                         to 65535, usually 6080",
                    )
                })?;
            Ok(ForwardingRule::Gue { port, checksum })
        }
    }
}
