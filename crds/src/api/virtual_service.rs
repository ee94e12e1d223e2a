use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Availability, Forwarding, HealthCheck, VipHolder,
    rule::{self, availability, health_check},
    selector::label_selector,
};
use crate::bounds;

/// One service of the kernel's IPVS table: traffic to a virtual address (or
/// with a firewall mark), and the real servers that share this traffic.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "VirtualService",
    doc = "One service of the kernel's IPVS table: traffic to a virtual address (or with a firewall mark), and the real servers that share this traffic.",
    plural = "ipvsvirtualservices",
    singular = "ipvsvirtualservice",
    shortname = "ivs",
    shortname = "virtualservices",
    shortname = "virtualservice",
    category = "ipvs",
    namespaced,
    status = "VirtualServiceStatus",
    selectable = ".spec.directorGroupName",
    derive = "PartialEq",
    printcolumn(
        name = "VIP",
        type_ = "string",
        description = "The virtual address",
        json_path = ".spec.vip.address"
    ),
    printcolumn(
        name = "Port",
        type_ = "integer",
        description = "The port; 0 means every port",
        json_path = ".spec.vip.port"
    ),
    printcolumn(
        name = "Servers",
        type_ = "integer",
        description = "Real servers that the service selects",
        json_path = ".status.realServers.selected"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        description = "Healthy real servers, of the selected ones; empty without a health check",
        json_path = ".status.realServers.summary"
    ),
    printcolumn(
        name = "Holder",
        type_ = "string",
        description = "The Director that holds the virtual address, or the number of holders",
        json_path = ".status.vip.summary"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether the service works",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why the service works or does not work",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What the service's condition Ready says",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Proto",
        type_ = "string",
        description = "The protocol",
        json_path = ".spec.vip.protocol",
        priority = 1
    ),
    printcolumn(
        name = "Sched",
        type_ = "string",
        description = "The scheduler",
        json_path = ".spec.scheduler",
        priority = 1
    ),
    printcolumn(
        name = "Mark",
        type_ = "integer",
        description = "The firewall mark",
        json_path = ".spec.firewallMark.mark",
        priority = 1
    ),
    printcolumn(
        name = "Group",
        type_ = "string",
        description = "The DirectorGroup",
        json_path = ".spec.directorGroupName",
        priority = 1
    ),
    printcolumn(
        name = "Directors",
        type_ = "string",
        description = "Directors that have programmed the service, of those alive",
        json_path = ".status.directors.summary",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule::vip_or_mark(),
    validation = rule::immutable_vip(),
    validation = rule::immutable_mark(),
    validation = rule::every_port_needs_persistence(),
    validation = rule::flags_of_the_scheduler(),
    validation = rule::one_packet_is_udp(),
    validation = rule::sip_is_udp(),
    validation = rule::prefix_of_the_family(),
    validation = health_check::port_to_probe(),
    validation = availability::availability_of_checked_servers(),
    validation = availability::hashing_quiesces(),
    validation = availability::hashing_starts_at_once(),
    validation = availability::sorry_server_is_reached(),
    validation = availability::port_of_the_sorry_server(),
    validation = availability::family_of_the_sorry_server()
)]
pub struct VirtualServiceSpec {
    /// The virtual address, port and protocol. Exactly one of vip and
    /// firewallMark must be given. vip is immutable: to change vip, create a
    /// new VirtualService and delete the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<Vip>,
    /// Serve packets that netfilter marked, instead of packets to a vip.
    /// firewallMark is immutable, like vip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<FirewallMark>,
    /// The kernel's name of the scheduler that chooses the real server for each
    /// new connection. A change of the scheduler does not move established
    /// connections. Defaults to wlc.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Options of the sh and mh schedulers. By default, scheduler sh has the
    /// flag sh-fallback, and scheduler mh has the flag mh-fallback. An empty
    /// list turns off the default flag. Without a fallback flag, clients that
    /// the scheduler assigns to a server of weight 0 are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scheduler_flags: Option<Vec<SchedulerFlag>>,
    /// Schedule every UDP datagram by itself, without a connection entry.
    /// onePacketScheduling requires protocol UDP or a firewallMark. Defaults to
    /// false.
    #[serde(default)]
    pub one_packet_scheduling: bool,
    /// Send new connections of a client to the server that the client used
    /// before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// How packets reach real servers whose RealServer sets no forwarding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// How the real servers are checked. Without a check, all real servers
    /// count as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheck>>,
    /// What to do about servers that fail their check. availability requires
    /// healthCheck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Box<Availability>>,
    /// How long established connections may go on after their server no longer
    /// belongs to the service, or after the service was deleted: 0 to 604800
    /// seconds (a week). Meanwhile, the server gets no new connections. It leaves
    /// earlier if it has no connections. With 0, connections are cut at once.
    /// Defaults to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::DRAIN_SECONDS))]
    pub removal_grace_period_seconds: Option<i32>,
    /// Which RealServers of this namespace belong to the service. An empty
    /// selector is not allowed.
    #[schemars(schema_with = "label_selector")]
    pub real_server_selector: LabelSelector,
    /// The DirectorGroup whose directors serve the service. directorGroupName
    /// is immutable, like vip. Defaults to default.
    #[serde(default = "default_group")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::object_name(), validation = rule::immutable_group())]
    pub director_group_name: String,
}

pub(crate) fn default_group() -> String {
    "default".to_owned()
}

/// A virtual IP address (VIP), with port and protocol.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vip {
    /// An IPv4 or IPv6 unicast address that clients can reach; not a loopback
    /// or IPv6 link-local address.
    #[schemars(length(max = 45))]
    #[x_kube(validation = rule::ip(), validation = rule::vip_address())]
    pub address: String,
    /// The port, 1 to 65535. Port 0 serves every port and requires persistence.
    #[schemars(range(min = 0, max = u16::MAX))]
    pub port: i32,
    /// The transport protocol: TCP, UDP or SCTP. Defaults to TCP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A transport protocol that IPVS can serve.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
pub enum Protocol {
    /// Transmission Control Protocol.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// User Datagram Protocol.
    #[serde(rename = "UDP")]
    Udp,
    /// Stream Control Transmission Protocol.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// Writes the protocol's name: TCP, UDP or SCTP.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Packets that a netfilter rule on the director marked.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirewallMark {
    /// The value of the firewall mark, 1 to 4294967295.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub mark: i64,
    /// The address family of the marked packets. Defaults to IPv4.
    #[serde(default)]
    pub ip_family: IpFamily,
}

/// An address family.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
pub enum IpFamily {
    /// Internet Protocol version 4.
    #[default]
    IPv4,
    /// Internet Protocol version 6.
    IPv6,
}

/// The kernel's schedulers. The name of a scheduler is the name of its module
/// without the prefix ip_vs_.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Round robin (rr).
    Rr,
    /// Weighted round robin (wrr).
    Wrr,
    /// Least connections (lc).
    Lc,
    /// Weighted least connections (wlc).
    #[default]
    Wlc,
    /// Locality-based least connections (lblc).
    Lblc,
    /// Locality-based least connections with replication (lblcr).
    Lblcr,
    /// Destination hashing (dh).
    Dh,
    /// Source hashing (sh).
    Sh,
    /// Shortest expected delay (sed).
    Sed,
    /// Never queue (nq).
    Nq,
    /// Weighted failover (fo).
    Fo,
    /// Weighted overflow (ovf).
    Ovf,
    /// Maglev hashing (mh).
    Mh,
    /// Power of two choices (twos); not in every kernel.
    Twos,
}

/// Options of the sh and mh schedulers, as in ipvsadm's --sched-flags.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerFlag {
    /// sh: the clients of an unavailable server go to another server.
    ShFallback,
    /// sh: hash the source port too.
    ShPort,
    /// mh: the clients of an unavailable server go to another server.
    MhFallback,
    /// mh: hash the source port too.
    MhPort,
}

/// Sends all connections of a client, or of a network of clients, to one
/// server.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// How long a client keeps its server after the client's last connection,
    /// in seconds, 1 to 4294967. Defaults to 300.
    #[serde(default = "default_persistence_timeout")]
    #[schemars(range(min = 1, max = bounds::PERSISTENCE_SECONDS))]
    pub timeout_seconds: i32,
    /// Clients whose addresses agree in this many leading bits share one
    /// server: 1 to 32 for IPv4, 1 to 128 for IPv6. By default, each client
    /// address is treated separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::PREFIX_IPV6))]
    pub prefix_length: Option<i32>,
    /// The persistence engine, which identifies clients by other data than
    /// their addresses. The engine sip requires UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PersistenceEngine")]
    pub engine: Option<PersistenceEngine>,
}

fn default_persistence_timeout() -> i32 {
    300
}

/// The kernel's persistence engines.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistenceEngine {
    /// Identifies clients by the Call-ID of SIP over UDP.
    Sip,
}

/// The status of a VirtualService, which the controller writes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceStatus {
    /// The service's conditions: Accepted, ResolvedRefs, Programmed and Ready.
    /// If one of Accepted, ResolvedRefs and Programmed is not True, Ready
    /// repeats the first such condition. If these three conditions are True,
    /// Ready can still be False with reason BelowMinimum. A live director then
    /// has fewer healthy servers for the service than the service's minimum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many real servers the service selects, and how many are healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_servers: Option<RealServerCounts>,
    /// How many live directors the service's group has, and how many of them
    /// have programmed the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directors: Option<DirectorCounts>,
    /// The live directors that hold the service's virtual address. The holders
    /// are absent for a firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<VipHolder>,
}

/// How many real servers one virtual service selects, and how many are healthy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerCounts {
    /// The number of real servers that the service selects.
    pub selected: i32,
    /// The number of servers that get new connections. Servers that the service
    /// cannot use and servers of weight 0 do not count. Without a health check,
    /// all other servers count. With a health check, each of these servers
    /// counts only if a live director has reported the server, and no live
    /// director reports the server unhealthy. Servers that get connections only
    /// because of belowMinimum do not count.
    pub healthy: i32,
    /// The number of servers whose health is unknown. Either no live director
    /// has reported the server yet, or a director left unhealthy servers out of
    /// its report. This field is absent if the health of all servers is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<i32>,
    /// Text of the form "healthy/selected", followed by a question mark if the
    /// health of some servers is unknown. The text is empty if the service has
    /// no health check.
    pub summary: String,
}

/// How many live directors the group of one virtual service has, and how many
/// of them have programmed the service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorCounts {
    /// The number of the group's directors with a live Lease.
    pub live: i32,
    /// The number of live directors whose kernel holds the current version of
    /// the service.
    pub programmed: i32,
    /// Text of the form "programmed/live", with the two numbers.
    pub summary: String,
}
