//! The targets of probes, and the orders to start and stop probing them.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use crds::{BudgetRule, HealthCheck};

use crate::event::probed::ProbeId;

/// A target of probes: a server and the health check that it must pass. If
/// several services of a namespace have the same target, the agent probes the
/// target only once. The agent probes a server separately for each namespace,
/// so no namespace depends on another namespace's share of the prober.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The health check that the server must pass.
    pub check: Arc<HealthCheck>,
    /// The address of the server. ICMP probes ignore the port.
    pub address: SocketAddr,
    /// The namespace whose share of the prober the target's probes use.
    pub namespace: Arc<str>,
    /// Whether the reason of a failure may quote text that the server chose.
    pub may_quote: bool,
}

/// An order to start or stop probing a target.
#[derive(Clone, Debug)]
pub enum Order {
    /// Start probing the target; the number identifies the target in later
    /// orders and results.
    Start(ProbeId, Arc<Target>),
    /// Stop probing the target with this id. If a probe of the target is in
    /// flight, its result is not reported.
    Stop(ProbeId),
    /// From now on, limit each namespace's probes per second to the given
    /// rates.
    Rates(Rates),
}

/// The number of probes per second that each namespace may make on average.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rates {
    each: u32,
    named: HashMap<Arc<str>, u32>,
}

impl Rates {
    /// Returns the number of probes per second that a namespace may make on
    /// average.
    pub fn of(&self, namespace: &str) -> f64 {
        f64::from(*self.named.get(namespace).unwrap_or(&self.each))
    }
}

impl From<&BudgetRule> for Rates {
    fn from(budgets: &BudgetRule) -> Self {
        let named = budgets.named();
        Self {
            each: budgets.each().probes_per_second,
            named: named
                .map(|(name, budget)| (name.into(), budget.probes_per_second))
                .collect(),
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::from(&BudgetRule::default())
    }
}
