use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ObjectKey;

/// The annotation of a director's Lease that says since when and why the API
/// server refuses the director's status. The annotation is absent while the API
/// server accepts the status.
pub const REPORT_REFUSED: &str = "ipvs.dev/report-refused";

/// The namespace of the directors' Leases, which the chart creates. The name is
/// the same in every cluster, like `kube-node-lease` for the kubelets' Leases,
/// so a director outside the cluster needs no setting.
pub const DIRECTORS_NAMESPACE: &str = "ipvs-directors";

/// One director node. The node's agent creates this object with the node's
/// name, and writes its status.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "Director",
    doc = "One director node. The node's agent creates this object with the node's name, and writes its status.",
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
        name = "Servers",
        type_ = "integer",
        description = "Destinations in the kernel that belong to the agent",
        json_path = ".status.realServers"
    ),
    printcolumn(
        name = "Held",
        type_ = "integer",
        description = "Removals that wait for permission",
        json_path = ".status.removalsHeld"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether the director works",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why the director works or does not work",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What the director's condition Ready says",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        description = "The agent's version",
        json_path = ".status.agentVersion",
        priority = 1
    ),
    printcolumn(
        name = "Kernel",
        type_ = "string",
        description = "The release of the kernel",
        json_path = ".status.kernelVersion",
        priority = 1
    ),
    printcolumn(
        name = "Repairs",
        type_ = "integer",
        description = "The number of kernel entries that the agent has repaired",
        json_path = ".status.repairs.count",
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

/// The state of a director's kernel, as the director's agent reports it. The
/// controller adds the conditions Alive, Reporting and Ready.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorStatus {
    /// The DirectorGroup that the agent was started for.
    #[serde(default)]
    pub director_group_name: String,
    /// The version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// The release of the director's kernel, from /proc/sys/kernel/osrelease.
    #[serde(default)]
    pub kernel_version: String,
    /// The boot ID of the director's machine when the agent wrote this status,
    /// from /proc/sys/kernel/random/boot_id.
    #[serde(default)]
    pub boot_id: String,
    /// Digests of the objects that the last completed round used. The digests
    /// are absent until the agent has completed a round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<WorldDigests>,
    /// The number of services in the kernel that belong to the agent.
    #[serde(default)]
    pub services: i32,
    /// The number of real servers in the kernel that belong to the agent. A
    /// real server counts once for each service that contains the server.
    #[serde(default)]
    pub real_servers: i32,
    /// The number of removals that wait for permission.
    #[serde(default)]
    pub removals_held: i32,
    /// The differences between the director's state and the state that the
    /// API's objects ask for. The list is complete, except for the namespaces
    /// in exceptionsOmittedNamespaces.
    #[serde(default)]
    pub exceptions: Vec<DirectorException>,
    /// The number of exceptions that did not fit into this status.
    #[serde(default)]
    pub exceptions_omitted: i32,
    /// The namespaces of the exceptions that did not fit into this status. If
    /// exceptionsOmitted is not 0 and this list is empty, exceptions of any
    /// namespace may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions_omitted_namespaces: Vec<String>,
    /// Whether this director holds the virtual addresses of all VirtualServices
    /// that it used. All: it holds each of them, except those of VirtualServices
    /// in exceptions. Some: it holds just the addresses in vips.
    #[serde(default)]
    pub vips_held: VipsHeld,
    /// The virtual addresses that this director holds. If vipsHeld is All, the
    /// list has only the first 32 addresses.
    #[serde(default)]
    pub vips: Vec<HeldVip>,
    /// The number of held addresses that are not in vips.
    #[serde(default)]
    pub vips_omitted: i32,
    /// The namespaces whose VirtualServices need the addresses that are not in
    /// vips. The list is empty if vipsHeld is All. If vipsHeld is Some,
    /// vipsOmitted is not 0 and this list is empty, addresses of any namespace
    /// may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips_omitted_namespaces: Vec<String>,
    /// The sysctls that the services need, and their values. If there are more
    /// than 100 sysctls, the sysctls with a problem come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub sysctls: Vec<SysctlStatus>,
    /// The number of sysctls that did not fit into this status.
    #[serde(default)]
    pub sysctls_omitted: i32,
    /// The agent's repairs of changes that another program made in the kernel.
    #[serde(default)]
    pub repairs: Repairs,
    /// The results of the director's health checks. The results are absent if
    /// no server is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<DirectorHealth>,
    /// The RealServers that this director drains. Absent if it drains none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drains: Option<DirectorDrains>,
    /// Unusual findings that are not failures, one sentence each. For example:
    /// another program added servers to a service of the agent.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The number of notices that did not fit into this status.
    #[serde(default)]
    pub notices_omitted: i32,
    /// The director's conditions. The agent sets Programmed, RemovalsHeld,
    /// Undisturbed, ProbesWorking, SysctlsApplied and DefinitionOlder. The
    /// controller sets Alive, Reporting and Ready. Ready repeats the first of
    /// Alive, Reporting and the agent's conditions that needs attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A sysctl that the services need.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SysctlStatus {
    /// The sysctl's name, in the notation of sysctl(8).
    pub name: String,
    /// The value that the sysctl should have.
    pub wanted: String,
    /// The sysctl's current value, if the agent can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The value that the sysctl had before the agent set it. The previous
    /// value is absent if the agent has not set the sysctl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Why the sysctl should have the wanted value.
    pub reason: String,
    /// What is wrong with the sysctl, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The agent's repairs of changes that another program made in the kernel's
/// table.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// The number of kernel entries that the agent has repaired since it
    /// started.
    #[serde(default)]
    pub count: i32,
    /// The last 10 operations that repaired an entry, newest first, in the
    /// notation of ipvsadm.
    #[serde(default)]
    pub latest: Vec<String>,
}

/// The results of a director's health checks. A server counts once for each of
/// its checked services.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorHealth {
    /// The number of checked servers.
    #[serde(default)]
    pub checked: i32,
    /// The number of healthy servers. A server that was in service before its
    /// check began counts as healthy until the check finds it unhealthy.
    #[serde(default)]
    pub healthy: i32,
    /// The servers that are not healthy. The list is complete, except for the
    /// namespaces in unhealthyOmittedNamespaces.
    #[serde(default)]
    pub unhealthy: Vec<UnhealthyServer>,
    /// The number of unhealthy servers that did not fit into this status.
    #[serde(default)]
    pub unhealthy_omitted: i32,
    /// The namespaces of the unhealthy servers that did not fit into this status.
    /// If unhealthyOmitted is not 0 and this list is empty, servers of any
    /// namespace may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_omitted_namespaces: Vec<String>,
    /// Services with fewer healthy servers than their minimum, and the action
    /// in force for each of them.
    #[serde(default)]
    pub below_minimum: Vec<ServiceBelowMinimum>,
    /// The number of services that are below their minimum and did not fit into
    /// this status.
    #[serde(default)]
    pub below_minimum_omitted: i32,
    /// The namespaces of the services that are below their minimum and did not
    /// fit into this status. If belowMinimumOmitted is not 0 and this list is
    /// empty, services of any namespace may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below_minimum_omitted_namespaces: Vec<String>,
}

impl DirectorStatus {
    /// Whether exceptions of a namespace may be missing from this status.
    pub fn leaves_out_exceptions_of(&self, namespace: &str) -> bool {
        leaves_out(
            self.exceptions_omitted,
            &self.exceptions_omitted_namespaces,
            namespace,
        )
    }

    /// Whether held addresses that a namespace needs may be missing from this
    /// status.
    pub fn leaves_out_vips_of(&self, namespace: &str) -> bool {
        self.vips_held == VipsHeld::Some
            && leaves_out(self.vips_omitted, &self.vips_omitted_namespaces, namespace)
    }
}

impl DirectorDrains {
    /// Whether drained servers of a namespace may be missing from this status.
    pub fn leaves_out_servers_of(&self, namespace: &str) -> bool {
        leaves_out(self.omitted, &self.omitted_namespaces, namespace)
    }
}

impl UnhealthyServer {
    /// Whether the server is not healthy for any VirtualService of the director
    /// that checks it.
    pub fn is_for_all(&self) -> bool {
        self.virtual_services.is_empty()
    }
}

impl DirectorHealth {
    /// Whether unhealthy servers of a namespace may be missing from this status.
    pub fn leaves_out_unhealthy_of(&self, namespace: &str) -> bool {
        leaves_out(
            self.unhealthy_omitted,
            &self.unhealthy_omitted_namespaces,
            namespace,
        )
    }

    /// Whether this status may omit services of a namespace that are below
    /// their minimum.
    pub fn leaves_out_below_minimum_of(&self, namespace: &str) -> bool {
        leaves_out(
            self.below_minimum_omitted,
            &self.below_minimum_omitted_namespaces,
            namespace,
        )
    }
}

fn leaves_out(omitted: i32, namespaces: &[String], namespace: &str) -> bool {
    let is_named = || namespaces.iter().any(|named| named == namespace);
    omitted > 0 && (namespaces.is_empty() || is_named())
}

/// A real server that is not healthy on a director.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyServer {
    /// The unhealthy RealServer.
    pub real_server: ObjectKey,
    /// The VirtualServices for which the server is not healthy. Absent if these
    /// are all that check the server on this director, and many: a server may be
    /// behind thousands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_services: Vec<ObjectKey>,
    /// The server's state: Down, Flapping or Unknown.
    pub state: UnhealthyState,
    /// The time at which the server entered its current state.
    pub since: Time,
    /// Why the server is not healthy: "connection refused", for example.
    pub message: String,
}

/// The servers that a director drains.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorDrains {
    /// The servers. The list is complete, except for the namespaces in
    /// omittedNamespaces.
    #[serde(default)]
    pub servers: Vec<DrainingServer>,
    /// The number of drained servers that did not fit into this status.
    #[serde(default)]
    pub omitted: i32,
    /// The namespaces of the drained servers that did not fit into this status.
    /// If omitted is not 0 and this list is empty, servers of any namespace may
    /// be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted_namespaces: Vec<String>,
}

/// Why a server gets no new connections.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum DrainCause {
    /// The RealServer's spec.desiredState is Drained.
    #[default]
    Drained,
    /// The server no longer belongs to a service, or its service was deleted,
    /// and its connections have not ended yet.
    Leaving,
}

/// A real server that a director drains.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainingServer {
    /// The drained RealServer. If the cause is Leaving, the object may be gone.
    pub real_server: ObjectKey,
    /// Why the server gets no new connections.
    #[serde(default)]
    pub cause: DrainCause,
    /// The number of connections that are left, over all services of the
    /// director. The agent writes the number when the drain begins, when half of
    /// the connections or none are left, and otherwise once a minute.
    pub connections: i32,
    /// Whether no service of the director has a connection to the server, and no
    /// packet has gone to it for 10 s.
    pub drained: bool,
    /// When the director stopped sending new connections to the server.
    pub since: Time,
    /// When the time of the drain ends.
    pub until: Time,
}

/// The states of a server that is not healthy.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum UnhealthyState {
    /// The server failed failureThreshold probes in a row and has not yet
    /// recovered.
    Down,
    /// The server's probes alternate between success and failure. To become
    /// healthy again, a flapping server must pass probes for longer than a
    /// server that is Down.
    Flapping,
    /// The server is new, and none of its probes has succeeded yet.
    Unknown,
}

/// A service with too few healthy servers on a director.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBelowMinimum {
    /// The VirtualService with too few healthy servers.
    pub virtual_service: ObjectKey,
    /// The action in force for the service: FailOpen, Reject or SorryServer.
    pub action: String,
    /// The number of the service's healthy servers that are not drained.
    pub healthy: i32,
    /// The number of the service's servers that are not drained.
    pub total: i32,
    /// The number of healthy servers that the service needs.
    pub minimum: i32,
    /// The time at which the service fell below its minimum.
    pub since: Time,
}

/// For each kind of object, the digest of the objects that the agent used. A
/// digest is the XOR of one 128-bit hash for each object, in hexadecimal. The
/// hash covers the object's uid, generation and labels.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldDigests {
    /// The digest over the VirtualServices of the director's group.
    pub virtual_services: String,
    /// The digest over the RealServers of the namespaces that have a
    /// VirtualService of the director's group, valid or not.
    pub real_servers: String,
    /// The digest of the director's own DirectorGroup.
    pub director_groups: String,
}

/// A difference between a director's state and the state that a VirtualService
/// asks for.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorException {
    /// The affected VirtualService.
    pub virtual_service: ObjectKey,
    /// The affected RealServer, if the exception is about a RealServer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<ObjectKey>,
    /// The reason of the exception as one word, for programs.
    pub reason: String,
    /// What is wrong and what to do about it, as one sentence for people.
    pub message: String,
}

/// How a director's status says which virtual addresses the director holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum VipsHeld {
    /// The director holds the addresses of all VirtualServices that it used,
    /// except those of VirtualServices in exceptions.
    All,
    /// The director holds just the addresses that its status lists.
    #[default]
    Some,
}

/// A virtual address on a director's interface.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldVip {
    /// The virtual IP address (VIP).
    pub address: String,
    /// The name of the interface that has the virtual address.
    pub interface: String,
}
