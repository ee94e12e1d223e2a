use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    Forwarding,
    rule::{self, availability},
};
use crate::bounds;

/// What to do about real servers that fail their health check, and what to do
/// when too few servers are healthy.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = availability::recovery_above_the_minimum())]
pub struct Availability {
    /// What to do with a real server that fails its health check. Quiesce: the
    /// server's weight becomes 0, so the server keeps its connections and gets
    /// no new ones. Remove: the server is removed from the service, which cuts
    /// its connections. With vip.protocol UDP, onePacketScheduling, persistence
    /// or scheduler dh, the default is Remove, because clients would stay with
    /// a server of weight 0. In all other cases the default is Quiesce.
    /// Schedulers sh and mh always quiesce and do not allow Remove, because
    /// removing a server would move the clients of other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnFailure")]
    pub on_failure: Option<OnFailure>,
    /// The fewest healthy servers with which the service works normally. With
    /// fewer healthy servers, belowMinimum is in force. The value is a count of
    /// 0 to 10000, or "0%" to "100%" of the servers whose weight is not 0,
    /// rounded up. Without minimumHealthy, belowMinimum is in force when no
    /// server is healthy. With minimumHealthy 0, belowMinimum is never in
    /// force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub minimum_healthy: Option<IntOrString>,
    /// belowMinimum ends when more than recoverAbove servers are healthy, or
    /// when all servers are healthy. recoverAbove is a count or a percentage,
    /// like minimumHealthy, and requires minimumHealthy. Without recoverAbove,
    /// belowMinimum ends when minimumHealthy is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub recover_above: Option<IntOrString>,
    /// What to do while fewer servers than minimumHealthy are healthy. The
    /// default action is FailOpen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_minimum: Option<BelowMinimum>,
    /// The weight of a newly healthy server grows to its full value over this
    /// many seconds, 1 to 3600, in at most 10 steps. Without slowStartSeconds,
    /// the server gets its full weight at once. The slow start has no effect on
    /// servers of weight 1, because no smaller weight is possible.
    /// slowStartSeconds is not allowed with schedulers sh, mh and dh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::SLOW_START_SECONDS))]
    pub slow_start_seconds: Option<i32>,
}

fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [availability::quantity()],
    })
}

/// What to do with a real server that fails its health check.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// Set the server's weight to 0: the server keeps its connections and gets
    /// no new ones.
    Quiesce,
    /// Remove the server from the service, which cuts its connections.
    Remove,
}

/// What to do when too few servers are healthy.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = availability::sorry_server_with_its_action())]
pub struct BelowMinimum {
    /// FailOpen: all servers whose weight is not 0 serve as if they were
    /// healthy. Reject: no server gets new connections, and clients are refused
    /// at once. SorryServer: sorryServer gets the new connections.
    pub action: BelowMinimumAction,
    /// The server for action SorryServer. sorryServer is required with action
    /// SorryServer, and not allowed with the other actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry_server: Option<SorryServer>,
}

/// The possible actions when too few servers are healthy.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BelowMinimumAction {
    /// Treat every server that is not drained as healthy.
    FailOpen,
    /// Send new connections to no server.
    Reject,
    /// Send new connections to the sorry server.
    SorryServer,
}

/// A server that gets new connections while too few of the service's own
/// servers are healthy. The sorry server itself is not checked.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SorryServer {
    /// The server's unicast address, IPv4 or IPv6. The address must be of the
    /// service's address family, unless the forwarding method is TUN. A
    /// loopback address means the director itself, and works with DR but not
    /// with NAT.
    #[schemars(length(max = 45))]
    #[x_kube(validation = rule::ip(), validation = rule::server_address())]
    pub address: String,
    /// The server's port, 1 to 65535. The default port is the service's port.
    /// DR and TUN cannot change the port, so with these methods the port must
    /// be absent or equal to the service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// How packets reach the sorry server. The default is the service's
    /// forwarding method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
}
