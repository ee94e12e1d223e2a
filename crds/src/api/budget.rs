use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;
use crate::bounds;

/// Limits on what the objects of the API make each director of a group do. What
/// exceeds a budget is refused, the newest objects first. A director goes on
/// serving what it serves when a budget shrinks. Objects from a director's own
/// files take part in no budget.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    /// How many RealServers each VirtualService may select, 1 to 65535. Defaults
    /// to 1000.
    #[serde(default = "servers_per_service")]
    #[schemars(range(min = 1, max = bounds::SERVERS_PER_SERVICE))]
    pub servers_per_service: i32,
    /// The budget of each namespace, unless namespaces says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_namespace: Option<NamespaceBudget>,
    /// What all namespaces together may use. If they want more, each gets a fair
    /// share: a namespace that wants less than an equal part gets all that it
    /// wants, and the others share the rest equally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<TotalBudget>,
    /// The budgets of single namespaces, 1 to 256 entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::BUDGETS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub namespaces: Option<Vec<NamedBudget>>,
}

/// What the objects of a namespace may use on each director of a group.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceBudget {
    /// How many VirtualServices of the namespace the group serves, 0 to 1000000.
    /// Defaults to 10000.
    #[serde(default = "services")]
    #[schemars(range(min = 0, max = bounds::SERVICES))]
    pub services: i32,
    /// How many destinations the VirtualServices of the namespace have, 0 to
    /// 10000000. A RealServer counts once for each VirtualService that selects
    /// it. Defaults to 50000.
    #[serde(default = "destinations")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub destinations: i32,
    /// How many targets the health checks of the namespace have, 0 to 10000000.
    /// An address and port counts once for each different health check. Defaults
    /// to 10000.
    #[serde(default = "probe_targets")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub probe_targets: i32,
    /// How many probes per second the health checks of the namespace make, 1 to
    /// 8000. A target with a periodSeconds of 5 makes a fifth of a probe per
    /// second. Defaults to 2000.
    #[serde(default = "probes_per_second")]
    #[schemars(range(min = 1, max = bounds::PROBES_PER_SECOND))]
    pub probes_per_second: i32,
}

/// What all namespaces together may use on each director of a group.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TotalBudget {
    /// How many destinations the VirtualServices of all namespaces have
    /// together, 0 to 10000000. Defaults to 100000.
    #[serde(default = "total_destinations")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub destinations: i32,
}

/// The budget of one namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedBudget {
    /// The exact name of the namespace.
    #[schemars(length(min = 1, max = bounds::LABEL))]
    #[x_kube(validation = rule::dns_label())]
    pub name: String,
    /// How many VirtualServices of the namespace the group serves, 0 to 1000000.
    /// Default: the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::SERVICES))]
    pub services: Option<i32>,
    /// How many destinations the VirtualServices of the namespace have, 0 to
    /// 10000000. Default: the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub destinations: Option<i32>,
    /// How many targets the health checks of the namespace have, 0 to 10000000.
    /// Default: the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub probe_targets: Option<i32>,
    /// How many probes per second the health checks of the namespace make, 1 to
    /// 8000. Default: the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::PROBES_PER_SECOND))]
    pub probes_per_second: Option<i32>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            servers_per_service: servers_per_service(),
            per_namespace: None,
            total: None,
            namespaces: None,
        }
    }
}

impl Default for NamespaceBudget {
    fn default() -> Self {
        Self {
            services: services(),
            destinations: destinations(),
            probe_targets: probe_targets(),
            probes_per_second: probes_per_second(),
        }
    }
}

impl Default for TotalBudget {
    fn default() -> Self {
        Self {
            destinations: total_destinations(),
        }
    }
}

fn servers_per_service() -> i32 {
    1000
}

fn services() -> i32 {
    10_000
}

fn destinations() -> i32 {
    50_000
}

fn probe_targets() -> i32 {
    10_000
}

fn probes_per_second() -> i32 {
    2000
}

fn total_destinations() -> i32 {
    100_000
}
