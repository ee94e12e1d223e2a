use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Forwarding, rule};
use crate::bounds;

/// One server that can stand behind any number of VirtualServices of its
/// namespace.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "RealServer",
    doc = "One server that can stand behind any number of VirtualServices of its namespace.",
    plural = "realservers",
    shortname = "irs",
    category = "ipvs",
    namespaced,
    status = "RealServerStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Address",
        type_ = "string",
        description = "The server's address",
        json_path = ".spec.address"
    ),
    printcolumn(
        name = "Port",
        type_ = "integer",
        description = "The service's own when empty",
        json_path = ".spec.port"
    ),
    printcolumn(
        name = "Weight",
        type_ = "integer",
        description = "Its share of new connections",
        json_path = ".spec.weight"
    ),
    printcolumn(
        name = "Method",
        type_ = "string",
        description = "How packets reach it; the service's own when empty",
        json_path = ".spec.forwarding.method"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        description = "Directors that see it healthy, of those that check it",
        json_path = ".status.directors.summary"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether it works",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why it does or does not",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Services",
        type_ = "integer",
        description = "Virtual services that it serves",
        json_path = ".status.virtualServices",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What to do",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RealServerSpec {
    /// The server's own unicast address (RIP), IPv4 or IPv6; not an IPv6
    /// link-local one. A loopback address is the director itself.
    #[schemars(length(max = 45))]
    #[x_kube(validation = rule::ip(), validation = rule::server_address())]
    pub address: String,
    /// 1 to 65535; the service's port when absent. DR and TUN cannot change
    /// the port, so there it is absent or equal to the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// Its share of new connections relative to its neighbours, 0 to 65535.
    /// 0 takes no new ones and keeps those that it has.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = u16::MAX))]
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
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::lower_below_upper())]
pub struct ConnectionThresholds {
    /// At this many the server gets no new ones; 1 to 2147483647.
    #[schemars(range(min = 1, max = bounds::CONNECTIONS))]
    pub upper_threshold: i64,
    /// Below this many it gets new ones again; 1 to upperThreshold. Three
    /// quarters of upperThreshold when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::CONNECTIONS))]
    pub lower_threshold: Option<i64>,
}

/// What the controller says about a RealServer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// Accepted and Ready. With a health check Ready is True where at least one
    /// director sees the server healthy, and its message names those that do
    /// not; Unknown while it is new and no check has succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many virtual services it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<i32>,
    /// The directors that check it, counted. Absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directors: Option<CheckingDirectors>,
}

/// The directors that check one real server, counted.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckingDirectors {
    /// With a live Lease, of the groups of the virtual services that it serves
    /// and that have a health check.
    pub checking: i32,
    /// Of those, the ones that see it healthy for each of these services.
    pub healthy: i32,
    /// The ones on which its probes fail for at least one. On what is left it
    /// is not known: it is new there, or the director has yet to report it, or
    /// left unhealthy servers out of its report.
    pub unhealthy: i32,
    /// "healthy/checking", and a question mark where something is not known.
    pub summary: String,
}
