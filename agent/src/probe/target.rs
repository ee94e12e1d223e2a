//! The targets of probes, and the orders to start and stop probing them.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use crds::{BudgetRule, HealthCheck};

use crate::event::probed::ProbeId;

/// A target of probes: a server, together with the check that is made on it.
/// Equal targets are probed once, even if several services of a namespace use
/// them. The same server is probed for each namespace separately, so that none
/// depends on another one's share of the prober.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The health check that is made on the server.
    pub check: Arc<HealthCheck>,
    /// The address of the server. ICMP probes ignore the port.
    pub address: SocketAddr,
    /// The namespace whose share of the prober is used.
    pub namespace: Arc<str>,
    /// Whether the reason of a failure may quote text that the server chose.
    pub may_quote: bool,
}

/// An order to start or stop probing a target.
#[derive(Clone, Debug)]
pub enum Order {
    /// Start probing this target.
    Start(ProbeId, Arc<Target>),
    /// Stop probing the target with this id. The result of the target's probe
    /// in flight is not reported.
    Stop(ProbeId),
    /// From now on, each namespace may make this many probes per second.
    Rates(Rates),
}

/// How many probes per second each namespace may make on average.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rates {
    each: u32,
    named: HashMap<Arc<str>, u32>,
}

impl Rates {
    /// Returns how many probes per second a namespace may make.
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
