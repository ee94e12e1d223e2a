use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    Forwarding,
    rule::{self, availability},
};
use crate::bounds;

/// What to do about real servers that fail their health check, and with too
/// few that do not.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = availability::recovery_above_the_minimum())]
pub struct Availability {
    /// Quiesce: a failed server has weight 0; it gets no new connections and
    /// keeps those that it has. Remove: it is taken out of the service, which
    /// cuts its connections. When absent: Remove with vip.protocol UDP,
    /// onePacketScheduling, persistence or scheduler dh, whose clients would
    /// stay on a failed server; else Quiesce. Schedulers sh and mh always
    /// quiesce, and refuse Remove: it would move the clients of other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnFailure")]
    pub on_failure: Option<OnFailure>,
    /// With fewer healthy servers than this, belowMinimum is in force: a count
    /// of 0 to 10000, or "0%" to "100%" of the servers whose weight is not 0,
    /// rounded up. When absent: with not a single healthy one. With 0 it never
    /// is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub minimum_healthy: Option<IntOrString>,
    /// Once in force, belowMinimum stays so until more servers than this are
    /// healthy, or all of them: a count or a percentage, as minimumHealthy,
    /// which it needs. When absent: until minimumHealthy is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub recover_above: Option<IntOrString>,
    /// What is done below the minimum; FailOpen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_minimum: Option<BelowMinimum>,
    /// Over so many seconds the weight of a server that became healthy grows to
    /// its own, in at most 10 steps; 1 to 3600, and at once when absent. It
    /// does nothing to servers of weight 1, which has no smaller one. Refused
    /// with schedulers sh, mh and dh.
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

/// What becomes of a server that fails.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// Its weight is 0.
    Quiesce,
    /// It is taken out of the service.
    Remove,
}

/// What is done with too few healthy servers.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = availability::sorry_server_with_its_action())]
pub struct BelowMinimum {
    /// FailOpen: all servers whose weight is not 0 serve as if they were
    /// healthy. Reject: no server gets new connections, and clients are refused
    /// at once. SorryServer: sorryServer gets them.
    pub action: BelowMinimumAction,
    /// The server that says sorry. Needed with action SorryServer, and refused
    /// with the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorry_server: Option<SorryServer>,
}

/// What is done with too few healthy servers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum BelowMinimumAction {
    /// All but drained servers serve as if they were healthy.
    FailOpen,
    /// No server gets new connections.
    Reject,
    /// One of another kind gets them.
    SorryServer,
}

/// A server that takes the place of a service's own when too few are healthy.
/// It is not checked itself.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SorryServer {
    /// Its unicast address, IPv4 or IPv6, of the service's family unless method
    /// TUN reaches it. A loopback address is the director itself, which packets
    /// reach by DR and not by NAT.
    #[schemars(length(max = 45))]
    #[x_kube(validation = rule::ip(), validation = rule::server_address())]
    pub address: String,
    /// 1 to 65535; the service's port when absent. DR and TUN cannot change
    /// the port, so there it is absent or equal to the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = u16::MAX))]
    pub port: Option<i32>,
    /// How packets reach it; the service's forwarding when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
}
