use super::invalid;
use crate::{
    ForwardingRule, Rejection,
    api::{Forwarding, ForwardingMethod, Tunnel, TunnelChecksum, TunnelType},
};

/// Checks `spec.forwarding`, which a service and a server write alike.
pub(super) fn forwarding(raw: &Forwarding) -> Result<ForwardingRule, Rejection> {
    match (raw.method, &raw.tunnel) {
        (ForwardingMethod::Nat, None) => Ok(ForwardingRule::Nat),
        (ForwardingMethod::Dr, None) => Ok(ForwardingRule::Dr),
        (ForwardingMethod::Tun, None) => Ok(ForwardingRule::Ipip),
        (ForwardingMethod::Tun, Some(raw)) => tunnel(raw),
        (ForwardingMethod::Nat | ForwardingMethod::Dr, Some(_)) => Err(invalid(
            "spec.forwarding.tunnel",
            "only method TUN has a tunnel; leave tunnel out, or set method to TUN",
        )),
    }
}

fn tunnel(raw: &Tunnel) -> Result<ForwardingRule, Rejection> {
    const PORT: &str = "spec.forwarding.tunnel.port";
    const CHECKSUM: &str = "spec.forwarding.tunnel.checksum";
    let checksum = raw.checksum.unwrap_or(TunnelChecksum::None);
    if raw.kind != TunnelType::Gue && raw.port.is_some() {
        return Err(invalid(
            PORT,
            "only a GUE tunnel has a port; leave it out, or set type to GUE",
        ));
    }
    if raw.kind != TunnelType::Gue && checksum == TunnelChecksum::Remote {
        return Err(invalid(
            CHECKSUM,
            "Remote is for GUE tunnels only; write None, or Full with GRE",
        ));
    }
    match raw.kind {
        TunnelType::Ipip if checksum != TunnelChecksum::None => Err(invalid(
            CHECKSUM,
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
                        PORT,
                        "a GUE tunnel needs the UDP port that its servers receive it on; write 1 \
                         to 65535, usually 6080",
                    )
                })?;
            Ok(ForwardingRule::Gue { port, checksum })
        }
    }
}
