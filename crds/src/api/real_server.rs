use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DesiredState, Drain, Forwarding, rule};
use crate::bounds;

/// One real server, which any number of VirtualServices of its namespace can
/// use.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "RealServer",
    doc = "One real server, which any number of VirtualServices of its namespace can use.",
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
        type_ = "string",
        description = "The ports that services use",
        json_path = ".status.inForce.ports"
    ),
    printcolumn(
        name = "Weight",
        type_ = "integer",
        description = "The server's share of new connections",
        json_path = ".spec.weight"
    ),
    printcolumn(
        name = "Method",
        type_ = "string",
        description = "How packets reach the server",
        json_path = ".status.inForce.methods"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        description = "Whether the server gets new connections, and how many connections are left",
        json_path = ".status.state"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        description = "Directors that find the server healthy, of those that check it",
        json_path = ".status.directors.summary"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether the server works",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why the server works or does not work",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What the server's condition Ready says",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Services",
        type_ = "integer",
        description = "Virtual services that use the server",
        json_path = ".status.virtualServices",
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
    /// link-local address. A loopback address means the director itself.
    #[schemars(length(max = 45))]
    #[x_kube(validation = rule::ip(), validation = rule::server_address())]
    pub address: String,
    /// The server's port, 1 to 65535. The default port is the service's port.
    /// DR and TUN cannot change the port, so with these methods the port must
    /// be absent or equal to the service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// The server's share of new connections relative to the service's other
    /// servers, 0 to 65535. A server of weight 0 keeps its connections and gets
    /// no new ones. Defaults to 1.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = u16::MAX))]
    pub weight: i32,
    /// How packets reach the real server. If this field is set, the service's
    /// forwarding does not apply to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Limits on the number of the server's connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionThresholds>,
    /// Active servers take new connections. A Drained server gets none on any
    /// director, whatever its weight and whatever happens to other servers,
    /// while its established connections go on. Its health check goes on too.
    /// Defaults to Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<DesiredState>,
    /// How the server is drained while desiredState is Drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

fn default_weight() -> i32 {
    1
}

/// The kernel's connection thresholds. Established and closing connections both
/// count toward the thresholds.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::lower_below_upper())]
pub struct ConnectionThresholds {
    /// The number of connections at which the server gets no new ones, 1 to
    /// 2147483647.
    #[schemars(range(min = 1, max = bounds::CONNECTIONS))]
    pub upper_threshold: i32,
    /// The number of connections below which the server gets new ones again, 1
    /// to upperThreshold. The default threshold is three quarters of
    /// upperThreshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::CONNECTIONS))]
    pub lower_threshold: Option<i32>,
}

/// The status of a RealServer, which the controller writes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// The server's conditions: Accepted, Ready, and while the server is drained
    /// also Drained. Drained is True once no director has a connection to the
    /// server. With a health check, Ready
    /// is True if at least one director finds the server healthy. The message
    /// names the directors that do not find the server healthy. Ready is
    /// Unknown while the server is new and no probe has succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The number of virtual services that use the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<i32>,
    /// How many directors check the server, and how many of them find the
    /// server healthy. Both numbers are absent if no director checks the
    /// server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directors: Option<CheckingDirectors>,
    /// How the services reach the server. The field is absent if no service
    /// uses the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<ServerInForce>,
    /// Active, Draining or Drained. While the server is drained, the number of
    /// connections that are left follows: "Draining (17 left)", for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// How services reach one real server. Each list separates its entries with
/// commas.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInForce {
    /// The ports that services use: "80,443", for example.
    pub ports: String,
    /// The forwarding methods that services use: "DR", for example.
    pub methods: String,
}

/// How many directors check one real server, and how many find it healthy.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckingDirectors {
    /// The number of directors that check the server. A director counts if its
    /// Lease is live and a service of its group checks the server. Such a
    /// service has a health check and uses the server.
    pub checking: i32,
    /// The number of directors on which the server is healthy for every service
    /// that checks the server.
    pub healthy: i32,
    /// The number of directors whose probes of the server fail for at least one
    /// service. The fields healthy and unhealthy do not count the directors
    /// that do not know the server's health. There are three causes: the server
    /// is new to the director, the director has not reported the server yet, or
    /// the director's report leaves out unhealthy servers.
    pub unhealthy: i32,
    /// Text of the form "healthy/checking", followed by a question mark if some
    /// directors do not know the server's health.
    pub summary: String,
}
