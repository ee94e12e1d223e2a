use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One director node, under the node's name. Its agent makes it and writes
/// its status.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "Director",
    doc = "One director node, under the node's name. Its agent makes it and writes its status.",
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
        description = "Services of ours in the kernel",
        json_path = ".status.services"
    ),
    printcolumn(
        name = "Destinations",
        type_ = "integer",
        description = "Destinations of ours in the kernel",
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
        description = "How often something of ours was put right that somebody else had changed",
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

/// What a director's agent says about its kernel. The controller adds the
/// condition Alive and nothing else.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorStatus {
    /// The DirectorGroup that the agent was started for.
    #[serde(default)]
    pub director_group_name: String,
    /// The agent's version.
    #[serde(default)]
    pub agent_version: String,
    /// The boot of the director's machine that all of this is about, from
    /// /proc/sys/kernel/random/boot_id.
    #[serde(default)]
    pub boot_id: String,
    /// Which state of the world the last completed round used. Absent until
    /// the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<WorldDigests>,
    /// Services of ours in the kernel.
    #[serde(default)]
    pub services: i32,
    /// Destinations of ours in the kernel.
    #[serde(default)]
    pub destinations: i32,
    /// What is not as the objects want it. What is not named here is, if
    /// exceptionsOmitted is 0.
    #[serde(default)]
    pub exceptions: Vec<DirectorException>,
    /// How many exceptions did not fit.
    #[serde(default)]
    pub exceptions_omitted: i32,
    /// The virtual addresses that this director holds.
    #[serde(default)]
    pub vips: Vec<HeldVip>,
    /// How many held addresses did not fit.
    #[serde(default)]
    pub vips_omitted: i32,
    /// The first 100 addresses of this director's interfaces that the agent did
    /// not put there; loopback and IPv6 link-local ones left out. What is one of
    /// a director of the same group is no server by DR or TUN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The sysctls that the services need, and how they are; of more than 100,
    /// those with a problem first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<SysctlStatus>,
    /// How many sysctls did not fit.
    #[serde(default)]
    pub sysctls_omitted: i32,
    /// What somebody else changed in the kernel, and the agent put right.
    #[serde(default)]
    pub repairs: Repairs,
    /// What the director's health checks found. Absent without checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<DirectorHealth>,
    /// What is odd and no failure, a sentence each: servers of others in
    /// services of ours, for example.
    #[serde(default)]
    pub notices: Vec<String>,
    /// How many notices did not fit.
    #[serde(default)]
    pub notices_omitted: i32,
    /// Programmed, RemovalsHeld, HealthChecks and Sysctls, by the agent; Alive,
    /// by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A sysctl that the services need.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysctlStatus {
    /// Its name, as sysctl(8) has it.
    pub name: String,
    /// What it is to be.
    pub wanted: String,
    /// What it is, as far as it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What it was before the agent set it. Absent if the agent did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Why it is to be so.
    pub reason: String,
    /// What is wrong and what to do, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What somebody else changed in the kernel's table, and the agent put right.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// How many entries, since the agent started.
    #[serde(default)]
    pub count: i64,
    /// The latest 10 operations by which it did, newest first, as ipvsadm
    /// spells them.
    #[serde(default)]
    pub latest: Vec<String>,
}

/// What a director's health checks found. A server behind several services is
/// counted with each of them that has a check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorHealth {
    /// How many servers are checked.
    #[serde(default)]
    pub checked: i32,
    /// Of those, the healthy ones. A server that was in service before its
    /// check began counts as healthy until the check says otherwise.
    #[serde(default)]
    pub healthy: i32,
    /// Those that are not healthy. What is not named here is, if
    /// unhealthyOmitted is 0.
    #[serde(default)]
    pub unhealthy: Vec<UnhealthyServer>,
    /// How many unhealthy servers did not fit.
    #[serde(default)]
    pub unhealthy_omitted: i32,
    /// Services with fewer healthy servers than their minimum, and what is in
    /// force for them.
    #[serde(default)]
    pub below_minimum: Vec<ServiceBelowMinimum>,
    /// How many of them did not fit.
    #[serde(default)]
    pub below_minimum_omitted: i32,
}

/// A real server that a director does not see healthy.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyServer {
    /// The RealServer, as namespace/name.
    pub real_server: String,
    /// The VirtualServices behind which it is so, as namespace/name.
    pub virtual_services: Vec<String>,
    /// Down, Flapping or Unknown.
    pub state: UnhealthyState,
    /// Since when.
    pub since: Time,
    /// Why, in words: "connection refused".
    pub message: String,
}

/// How a server is that is not healthy.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum UnhealthyState {
    /// Its probes fail.
    Down,
    /// Its probes fail and succeed by turns: it has to succeed for longer
    /// before it is trusted again.
    Flapping,
    /// It is new, and no probe has succeeded so far.
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
    /// Its healthy servers.
    pub healthy: i32,
    /// Of how many that are not drained.
    pub total: i32,
    /// How many there have to be.
    pub minimum: i32,
    /// Since when.
    pub since: Time,
}

/// A state of the world, by kind: each the XOR of a 128-bit hash over uid,
/// generation and labels of every object that was used, in hexadecimal.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldDigests {
    /// Over the VirtualServices of the director's group.
    pub virtual_services: String,
    /// Over all RealServers.
    pub real_servers: String,
    /// Over the director's own group.
    pub director_groups: String,
}

/// One thing that a director could not do.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorException {
    /// The VirtualService, as namespace/name.
    pub virtual_service: String,
    /// The RealServer, as namespace/name, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<String>,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people, with what to do.
    pub message: String,
}

/// A virtual address on a director's interface.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldVip {
    /// The address.
    pub address: String,
    /// The interface that it is on.
    pub interface: String,
}
