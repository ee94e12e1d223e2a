//! The targets of probes, and the orders to start and stop probing them.

use std::{net::SocketAddr, sync::Arc};

use crds::HealthCheck;

use crate::event::probed::ProbeId;

/// A target of probes: a server, together with the check that is made on it.
/// Equal targets are probed once, even if several services use them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The health check that is made on the server.
    pub check: Arc<HealthCheck>,
    /// The address of the server. ICMP probes ignore the port.
    pub address: SocketAddr,
}

/// An order to start or stop probing a target.
#[derive(Clone, Debug)]
pub enum Order {
    /// Start probing this target.
    Start(ProbeId, Arc<Target>),
    /// Stop probing the target with this id. The result of the target's probe
    /// in flight is not reported.
    Stop(ProbeId),
}
