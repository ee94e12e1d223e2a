//! What is probed, and the orders to probe it.

use std::{net::SocketAddr, sync::Arc};

use crds::HealthCheck;

use crate::event::probed::ProbeId;

/// What is probed: a server as one check looks at it. Equal targets are probed
/// once, however many services use them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// How the server is checked.
    pub check: Arc<HealthCheck>,
    /// The address of the server. The port does not matter to ICMP.
    pub address: SocketAddr,
}

/// A change to what is probed.
#[derive(Clone, Debug)]
pub enum Order {
    /// Probe this target, too.
    Start(ProbeId, Arc<Target>),
    /// Stop probing this target. The result of a probe in flight is not
    /// reported.
    Stop(ProbeId),
}
