use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Forwarding;

/// One server that can stand behind any number of VirtualServices of its
/// namespace.
#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "RealServer",
    plural = "realservers",
    shortname = "irs",
    category = "ipvs",
    namespaced,
    status = "RealServerStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct RealServerSpec {
    /// The server's own unicast address (RIP), IPv4 or IPv6.
    pub address: String,
    /// 1 to 65535; the service's port when absent. DR and TUN cannot change
    /// the port, so there it is absent or equal to the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Its share of new connections relative to its neighbours, 0 to 65535.
    /// 0 takes no new ones and keeps those that it has.
    #[serde(default = "default_weight")]
    pub weight: i32,
    /// How packets reach this server; replaces the service's forwarding as a
    /// whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// How many connections it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionThresholds>,
}

fn default_weight() -> i32 {
    1
}

/// The kernel's connection thresholds: established and closing connections
/// both count.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionThresholds {
    /// At this many the server gets no new ones; 1 to 2147483647.
    pub upper_threshold: i64,
    /// Below this many it gets new ones again; 0 to upperThreshold. Three
    /// quarters of upperThreshold when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_threshold: Option<i64>,
}

/// What the controller says about a RealServer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// Accepted and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many virtual services it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<i32>,
}
