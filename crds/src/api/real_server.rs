use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Forwarding, rule};
use crate::bounds;

/// One real server, for any number of VirtualServices of its namespace.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "RealServer",
    doc = "One real server, for any number of VirtualServices of its namespace.",
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
        description = "The server's port; the service's if empty",
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
        description = "How packets reach it; as the service says if empty",
        json_path = ".spec.forwarding.method"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        description = "Directors that find it healthy, of those that check it",
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
    /// The server's port, 1 to 65535. Default: the service's port. DR and TUN
    /// cannot change the port, so with them it must be absent or equal to the
    /// service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The server's share of new connections relative to the service's other
    /// servers, 0 to 65535. A server of weight 0 gets no new connections and
    /// keeps those it has.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = u16::MAX))]
    pub weight: i32,
    /// How packets reach this server. It replaces the service's forwarding as a
    /// whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Limits on the number of the server's connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionThresholds>,
}

fn default_weight() -> i32 {
    1
}

/// The kernel's connection thresholds. Established and closing connections both
/// count.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::lower_below_upper())]
pub struct ConnectionThresholds {
    /// At this many connections the server gets no new ones; 1 to 2147483647.
    #[schemars(range(min = 1, max = bounds::CONNECTIONS))]
    pub upper_threshold: i64,
    /// Below this many connections the server gets new ones again; 1 to
    /// upperThreshold. Default: three quarters of upperThreshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::CONNECTIONS))]
    pub lower_threshold: Option<i64>,
}

/// What the controller reports about a RealServer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// Accepted and Ready. With a health check, Ready is True if at least one
    /// director finds the server healthy; the message names the directors that
    /// do not. It is Unknown while the server is new and no probe has
    /// succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The number of virtual services that the server serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<i32>,
    /// The numbers of directors that check the server. Absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directors: Option<CheckingDirectors>,
}

/// The numbers of directors that check one real server.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckingDirectors {
    /// The number of directors that check the server: those with a live Lease
    /// in the groups of its virtual services that have a health check.
    pub checking: i32,
    /// The number of directors that find it healthy for each of these services.
    pub healthy: i32,
    /// The number of directors on which its probes fail for at least one of
    /// these services. The remaining directors do not know: the server is new
    /// to them, they have not reported it yet, or they left unhealthy servers
    /// out of their report.
    pub unhealthy: i32,
    /// "healthy/checking", followed by a question mark if some directors do not
    /// know.
    pub summary: String,
}
