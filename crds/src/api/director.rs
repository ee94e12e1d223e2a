use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One director node. Its agent creates it with the node's name, and writes its
/// status.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "Director",
    doc = "One director node. Its agent creates it with the node's name, and writes its status.",
    plural = "directors",
    shortname = "idir",
    category = "ipvs",
    status = "DirectorStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Group",
        type_ = "string",
        description = "The DirectorGroup",
        json_path = ".status.directorGroupName"
    ),
    printcolumn(
        name = "Services",
        type_ = "integer",
        description = "Services in the kernel that belong to the agent",
        json_path = ".status.services"
    ),
    printcolumn(
        name = "Destinations",
        type_ = "integer",
        description = "Destinations in the kernel that belong to the agent",
        json_path = ".status.destinations"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        description = "Whether the kernel is as the objects want it",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(
        name = "Alive",
        type_ = "string",
        description = "Whether the agent renews its Lease",
        json_path = ".status.conditions[?(@.type==\"Alive\")].status"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        description = "The agent's version",
        json_path = ".status.agentVersion"
    ),
    printcolumn(
        name = "Repairs",
        type_ = "integer",
        description = "How many changes by other programs the agent reversed",
        json_path = ".status.repairs.count",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What to do",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorSpec {}

/// What a director's agent reports about its kernel. The controller adds the
/// condition Alive.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorStatus {
    /// The DirectorGroup that the agent was started for.
    #[serde(default)]
    pub director_group_name: String,
    /// The version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// The boot of the director's machine that this status describes, from
    /// /proc/sys/kernel/random/boot_id.
    #[serde(default)]
    pub boot_id: String,
    /// Identifies the objects that the last completed round used. Absent before
    /// the first round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<WorldDigests>,
    /// The number of services in the kernel that belong to the agent.
    #[serde(default)]
    pub services: i32,
    /// The number of destinations in the kernel that belong to the agent.
    #[serde(default)]
    pub destinations: i32,
    /// What differs from what the objects want. Everything else is as the
    /// objects want it, if exceptionsOmitted is 0.
    #[serde(default)]
    pub exceptions: Vec<DirectorException>,
    /// The number of exceptions that did not fit into this status.
    #[serde(default)]
    pub exceptions_omitted: i32,
    /// The virtual addresses that this director holds.
    #[serde(default)]
    pub vips: Vec<HeldVip>,
    /// The number of held addresses that did not fit into this status.
    #[serde(default)]
    pub vips_omitted: i32,
    /// The first 100 addresses of this director's interfaces that the agent did
    /// not add, without loopback and IPv6 link-local ones. A real server with
    /// one of these addresses is refused by the directors of the group if its
    /// forwarding method is DR or TUN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The sysctls that the services need, and their values. If there are more
    /// than 100, those with a problem come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<SysctlStatus>,
    /// The number of sysctls that did not fit into this status.
    #[serde(default)]
    pub sysctls_omitted: i32,
    /// Changes that another program made in the kernel and that the agent
    /// reversed.
    #[serde(default)]
    pub repairs: Repairs,
    /// The results of the director's health checks. Absent if there are no
    /// checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<DirectorHealth>,
    /// Unusual things that are no failure, one sentence each: servers of other
    /// programs in our services, for example.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The number of notices that did not fit into this status.
    #[serde(default)]
    pub notices_omitted: i32,
    /// Programmed, RemovalsHeld, HealthChecks and Sysctls, set by the agent;
    /// Alive, set by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A sysctl that the services need.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysctlStatus {
    /// The sysctl's name, as sysctl(8) writes it.
    pub name: String,
    /// The value that the sysctl should have.
    pub wanted: String,
    /// The value that the sysctl has, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The value that the sysctl had before the agent set it. Absent if the
    /// agent did not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Why the sysctl should have that value.
    pub reason: String,
    /// What is wrong, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Changes that another program made in the kernel's table and that the agent
/// reversed.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// The number of entries that were repaired since the agent started.
    #[serde(default)]
    pub count: i64,
    /// The last 10 operations that repaired something, newest first, as ipvsadm
    /// writes them.
    #[serde(default)]
    pub latest: Vec<String>,
}

/// The results of a director's health checks. A server that belongs to several
/// services with a check counts once for each.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorHealth {
    /// The number of servers that are checked.
    #[serde(default)]
    pub checked: i32,
    /// The number of healthy servers. A server that was in service before its
    /// check began counts as healthy until the check decides otherwise.
    #[serde(default)]
    pub healthy: i32,
    /// The servers that are not healthy. All others are healthy, if
    /// unhealthyOmitted is 0.
    #[serde(default)]
    pub unhealthy: Vec<UnhealthyServer>,
    /// The number of unhealthy servers that did not fit into this status.
    #[serde(default)]
    pub unhealthy_omitted: i32,
    /// Services with fewer healthy servers than their minimum, and what is in
    /// force for them.
    #[serde(default)]
    pub below_minimum: Vec<ServiceBelowMinimum>,
    /// The number of services below their minimum that did not fit into this
    /// status.
    #[serde(default)]
    pub below_minimum_omitted: i32,
}

/// A real server that is not healthy on a director.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyServer {
    /// The RealServer, as namespace/name.
    pub real_server: String,
    /// The VirtualServices for which the server is not healthy, as
    /// namespace/name.
    pub virtual_services: Vec<String>,
    /// Down, Flapping or Unknown.
    pub state: UnhealthyState,
    /// The time since which the server has been in this state.
    pub since: Time,
    /// Why the server is not healthy: "connection refused", for example.
    pub message: String,
}

/// The states of a server that is not healthy.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum UnhealthyState {
    /// Its probes fail, often enough to count.
    Down,
    /// Its probes succeed and fail by turns. It must succeed for longer before
    /// it is trusted again.
    Flapping,
    /// It is new, and no probe has succeeded yet.
    Unknown,
}

/// A service with too few healthy servers on a director.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBelowMinimum {
    /// The VirtualService, as namespace/name.
    pub virtual_service: String,
    /// What is in force: FailOpen, Reject or SorryServer.
    pub action: String,
    /// The number of healthy servers that are not drained.
    pub healthy: i32,
    /// The number of servers that are not drained.
    pub total: i32,
    /// The number of healthy servers that the service needs.
    pub minimum: i32,
    /// The time since which the service has been below its minimum.
    pub since: Time,
}

/// Identifies the objects that were used, by kind: the XOR of a 128-bit hash
/// over uid, generation and labels of each object, in hexadecimal.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldDigests {
    /// The digest over the VirtualServices of the director's group.
    pub virtual_services: String,
    /// The digest over all RealServers.
    pub real_servers: String,
    /// The digest of the director's own DirectorGroup.
    pub director_groups: String,
}

/// Something that a director could not do.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorException {
    /// The VirtualService that is affected, as namespace/name.
    pub virtual_service: String,
    /// The RealServer that is affected, as namespace/name, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<String>,
    /// One word, for programs.
    pub reason: String,
    /// One sentence for people, with what to do.
    pub message: String,
}

/// A virtual address on a director's interface.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldVip {
    /// The virtual address.
    pub address: String,
    /// The name of the interface.
    pub interface: String,
}
