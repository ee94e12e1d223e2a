use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;
use crate::bounds;

/// Limits on the work that the objects of the API cause on each director of a
/// group. If objects exceed a budget, the newest objects are refused. When a
/// budget shrinks, a director keeps the services and servers that it already
/// serves. Budgets do not apply to objects from a director's own files.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    /// The maximum number of RealServers that each VirtualService may select, 1
    /// to 65535. Defaults to 1000.
    #[serde(default = "servers_per_service")]
    #[schemars(range(min = 1, max = bounds::SERVERS_PER_SERVICE))]
    pub servers_per_service: i32,
    /// The budget of each namespace. An entry in the field namespaces can
    /// replace some of these numbers for one namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_namespace: Option<NamespaceBudget>,
    /// The budget of all namespaces together. If the namespaces together want
    /// more than this budget, each namespace gets a fair share. A namespace
    /// that wants less than an equal share gets everything that it wants. The
    /// other namespaces share the rest equally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<TotalBudget>,
    /// The budgets of single namespaces, 1 to 256 entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::BUDGETS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub namespaces: Option<Vec<NamedBudget>>,
}

/// The budget of a namespace on each director of a group.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceBudget {
    /// The maximum number of the namespace's VirtualServices that the group
    /// serves, 0 to 1000000. Defaults to 10000.
    #[serde(default = "services")]
    #[schemars(range(min = 0, max = bounds::SERVICES))]
    pub services: i32,
    /// The maximum number of destinations of the namespace's VirtualServices, 0
    /// to 10000000. A RealServer counts once for each VirtualService that
    /// selects it. Defaults to 50000.
    #[serde(default = "destinations")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub destinations: i32,
    /// The maximum number of targets of the namespace's health checks, 0 to
    /// 10000000. A target is an address and port. If several different health
    /// checks probe the same target, the target counts once for each check.
    /// Defaults to 10000.
    #[serde(default = "probe_targets")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub probe_targets: i32,
    /// The maximum number of probes per second of the namespace's health
    /// checks, 1 to 8000. With periodSeconds 5, each target counts as a fifth
    /// of a probe per second. Defaults to 2000.
    #[serde(default = "probes_per_second")]
    #[schemars(range(min = 1, max = bounds::PROBES_PER_SECOND))]
    pub probes_per_second: i32,
}

/// The budget of all namespaces together on each director of a group.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TotalBudget {
    /// The maximum number of destinations of the VirtualServices of all
    /// namespaces together, 0 to 10000000. Defaults to 100000.
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
    /// The maximum number of the namespace's VirtualServices that the group
    /// serves, 0 to 1000000. The default is the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::SERVICES))]
    pub services: Option<i32>,
    /// The maximum number of destinations of the namespace's VirtualServices, 0
    /// to 10000000. The default is the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub destinations: Option<i32>,
    /// The maximum number of targets of the namespace's health checks, 0 to
    /// 10000000. The default is the number in perNamespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::DESTINATIONS))]
    pub probe_targets: Option<i32>,
    /// The maximum number of probes per second of the namespace's health
    /// checks, 1 to 8000. The default is the number in perNamespace.
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
