use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// How packets reach a real server.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::tunnel_is_tun())]
pub struct Forwarding {
    /// NAT: replies come back through the director. DR: the server answers
    /// clients directly and listens on the service's own port. The server has
    /// the VIP, but does not answer ARP for the VIP. TUN: like DR, but packets
    /// reach the server through a tunnel.
    pub method: ForwardingMethod,
    /// The tunnel for method TUN, by default IPIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
}

/// The forwarding methods of LVS.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum ForwardingMethod {
    /// Network address translation: replies come back through the director.
    #[serde(rename = "NAT")]
    Nat,
    /// Direct routing: the server answers clients directly.
    #[serde(rename = "DR")]
    Dr,
    /// Tunnelling: packets reach the server through a tunnel, and the server
    /// answers clients directly.
    #[serde(rename = "TUN")]
    Tun,
}

/// Writes the method's name: NAT, DR or TUN.
impl fmt::Display for ForwardingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "NAT",
            Self::Dr => "DR",
            Self::Tun => "TUN",
        })
    }
}

/// The tunnel of method TUN, which adds an outer header to each packet.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule::port_of_gue(),
    validation = rule::checksum_of_the_tunnel()
)]
pub struct Tunnel {
    /// The kind of tunnel: IPIP, GUE or GRE. Defaults to IPIP.
    #[serde(default, rename = "type")]
    pub kind: TunnelType,
    /// The UDP port of a GUE tunnel, 1 to 65535. The port is required for GUE,
    /// and not allowed for other tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The checksum in a tunnel's outer header: None, Full or Remote for GUE,
    /// and None or Full for GRE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TunnelChecksum")]
    pub checksum: Option<TunnelChecksum>,
}

/// The kinds of tunnel that IPVS can send packets through.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum TunnelType {
    /// IP in IP (IPIP).
    #[default]
    #[serde(rename = "IPIP")]
    Ipip,
    /// Generic UDP encapsulation (GUE).
    #[serde(rename = "GUE")]
    Gue,
    /// Generic routing encapsulation (GRE).
    #[serde(rename = "GRE")]
    Gre,
}

/// The checksum of a tunnel's outer header.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum TunnelChecksum {
    /// Send no checksum.
    None,
    /// Send a checksum over the whole packet.
    Full,
    /// Use remote checksum offload; only for GUE.
    Remote,
}
