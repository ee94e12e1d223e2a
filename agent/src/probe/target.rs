//! What is probed, and who asks for it.

use std::{net::SocketAddr, sync::Arc};

use crds::HealthCheck;

/// What is probed: a server as one check looks at it. Equal ones are probed
/// once, however many services stand in front of them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The check.
    pub check: Arc<HealthCheck>,
    /// Where; the port does not matter to ICMP.
    pub address: SocketAddr,
}

/// A name for a target, given by who orders its probes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProbeId(pub u64);

/// What is to be probed from now on.
#[derive(Clone, Debug)]
pub enum Order {
    /// This too.
    Start(ProbeId, Arc<Target>),
    /// This not any more. Nothing that comes of a probe in flight is told.
    Stop(ProbeId),
}
