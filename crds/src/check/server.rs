use std::net::IpAddr;

use super::{Checked, address, drain, forwarding::forwarding, invalid, port};
use crate::{
    DrainRule, ForwardingRule, Rejection,
    api::{ConnectionThresholds, DesiredState, RealServer, RealServerSpec},
    bounds,
};

/// A checked RealServer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedServer {
    /// The server's address (RIP).
    pub address: IpAddr,
    /// The server's port, 1 to 65535. A port of None means the service's port.
    pub port: Option<u16>,
    /// The server's share of new connections, 0 to 65535. A server of weight 0
    /// gets no new connections.
    pub weight: u16,
    /// How packets reach the server. With a `forwarding` of None, the service's
    /// forwarding applies to the server.
    pub forwarding: Option<ForwardingRule>,
    /// A server with this many connections gets no new connections; 0 means no
    /// limit.
    pub upper_threshold: u32,
    /// A server that reached the upper threshold gets new connections again
    /// when it has fewer connections than this number. 0 means three quarters
    /// of the upper threshold.
    pub lower_threshold: u32,
    /// How the server is drained, or None if the server takes new connections.
    pub drain: Option<DrainRule>,
}

impl Checked for CheckedServer {
    type Object = RealServer;

    fn check(spec: &RealServerSpec) -> Result<Self, Rejection> {
        let (upper_threshold, lower_threshold) = match &spec.connections {
            Some(connections) => thresholds(connections)?,
            None => (0, 0),
        };
        // The settings are checked before they are needed.
        let drain = drain::drain(spec.drain.as_ref())?;
        let is_drained = spec.desired_state == Some(DesiredState::Drained);
        Ok(Self {
            address: address::server("spec.address", &spec.address)?,
            port: spec
                .port
                .map(|raw| port("spec.port", raw, "the service's own"))
                .transpose()?,
            weight: weight(spec.weight)?,
            forwarding: spec
                .forwarding
                .as_ref()
                .map(|raw| forwarding("spec.forwarding", raw))
                .transpose()?,
            upper_threshold,
            lower_threshold,
            drain: is_drained.then_some(drain),
        })
    }
}

fn weight(raw: i32) -> Result<u16, Rejection> {
    u16::try_from(raw).map_err(|_| {
        invalid(
            "spec.weight",
            format_args!("{raw} is not a weight; write 0 to 65535"),
        )
    })
}

fn thresholds(raw: &ConnectionThresholds) -> Result<(u32, u32), Rejection> {
    const LARGEST: u32 = bounds::CONNECTIONS;
    let upper = u32::try_from(raw.upper_threshold)
        .ok()
        .filter(|upper| (1..=LARGEST).contains(upper))
        .ok_or_else(|| {
            invalid(
                "spec.connections.upperThreshold",
                format_args!(
                    "{} is not a number of connections; write 1 to {LARGEST}, or leave connections \
                     out for no limit",
                    raw.upper_threshold
                ),
            )
        })?;
    let Some(lower) = raw.lower_threshold else {
        return Ok((upper, 0));
    };
    let lower = u32::try_from(lower)
        .ok()
        .filter(|lower| (1..=upper).contains(lower))
        .ok_or_else(|| {
            invalid(
                "spec.connections.lowerThreshold",
                format_args!(
                    "{lower} is not between 1 and upperThreshold, {upper}; leave it out for three \
                     quarters of upperThreshold"
                ),
            )
        })?;
    Ok((upper, lower))
}
