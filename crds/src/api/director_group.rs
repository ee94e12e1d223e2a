use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressPool, Budgets, FirewallMarkRange, VipHolder, rule, sysctl};
use crate::bounds;

/// The common configuration of a set of directors.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "DirectorGroup",
    doc = "The common configuration of a set of directors.",
    plural = "directorgroups",
    shortname = "idg",
    category = "ipvs",
    status = "DirectorGroupStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Holder",
        type_ = "string",
        description = "The Director that holds the VIPs, or the number of directors that hold VIPs",
        json_path = ".status.vips.summary"
    ),
    printcolumn(
        name = "Directors",
        type_ = "integer",
        description = "Directors of the group",
        json_path = ".status.directors"
    ),
    printcolumn(
        name = "Live",
        type_ = "integer",
        description = "Directors of the group with a live Lease",
        json_path = ".status.liveDirectors"
    ),
    printcolumn(
        name = "Services",
        type_ = "integer",
        description = "Accepted virtual services of the group",
        json_path = ".status.virtualServices"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "integer",
        description = "Live directors whose kernels are as the objects want them",
        json_path = ".status.programmedDirectors"
    ),
    printcolumn(
        name = "Held",
        type_ = "integer",
        description = "Live directors that hold back removals",
        json_path = ".status.holdingRemovals"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether the group and all of its directors work",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        description = "Why the group works or does not work",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What the group's condition Ready says",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupSpec {
    /// Where the directors put virtual addresses, and which director holds
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// The virtual addresses that VirtualServices may use, 1 to 64 entries. If
    /// several entries contain an address, the namespaces of all these entries
    /// may use the address. By default, no VirtualService may use a virtual
    /// address. Objects from a director's own files need no grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub address_pools: Option<Vec<AddressPool>>,
    /// The firewall marks that VirtualServices may use, 1 to 64 entries.
    /// kube-proxy uses the marks 0x4000 and 0x8000, so no entry grants them. By
    /// default, no VirtualService may use a firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub firewall_marks: Option<Vec<FirewallMarkRange>>,
    /// The addresses that real servers and sorry servers may have, 1 to 64
    /// entries. By default, servers may have every unicast address except
    /// loopback addresses and the addresses where clouds serve metadata
    /// (169.254.0.0/16, 168.63.129.16, 100.100.100.200, 192.0.0.192 and
    /// fd00:ec2::254).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub real_server_addresses: Option<Vec<AddressPool>>,
    /// Limits on the work that objects cause on a director, for each namespace
    /// and for all namespaces together. Without budgets, the defaults of the
    /// fields in budgets apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// Limits on how much a director removes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removals: Option<Removals>,
    /// What to do if another program has already made a wanted entry in the
    /// kernel's table, but with other values. Adopt: the director edits the
    /// entry in place, and owns the entry from then on. Leave: the director
    /// leaves the entry alone and reports the conflict. An entry that already
    /// has the wanted values is always adopted. When an adopted service is no
    /// longer wanted, it may still have servers of another program. In this
    /// case, the director removes only its own servers and leaves the service.
    /// Defaults to Adopt.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// How long the kernel remembers idle connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// The sysctls that the directors of the group set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<Sysctls>,
}

/// The sysctls that the directors of the group set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sysctls {
    /// With profile Recommended, the directors set the overrides and the
    /// sysctls that the current services need. With profile None, the directors
    /// set only the overrides. Defaults to Recommended.
    #[serde(default)]
    pub profile: SysctlProfile,
    /// The values of sysctls, by name. Every director of the group sets these
    /// values, with either profile. All sysctls of net.ipv4.vs are allowed, and
    /// some of net.ipv4.conf.INTERFACE and net.ipv6.conf.INTERFACE. Write a dot
    /// in an interface's name as '/', as sysctl(8) does:
    /// net.ipv4.conf.eth0/100.rp_filter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sysctl::overrides")]
    pub overrides: BTreeMap<String, String>,
}

/// Which sysctls a director sets by itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SysctlProfile {
    /// The directors set the sysctls that the current services need.
    #[default]
    Recommended,
    /// The directors set no sysctl except the overrides.
    None,
}

/// What to do with another program's entry if the entry differs from the wanted
/// entry.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnConflict {
    /// The director edits the entry in place, and owns it from then on.
    #[default]
    Adopt,
    /// The director leaves the entry alone, and reports the conflict.
    Leave,
}

/// How long the kernel remembers idle connections, in seconds, 1 to 2147483.
/// The timeouts apply to all services on the director, including services of
/// other programs. By default, a timeout keeps its value. If a director has set
/// the timeout, the director restores the value that the timeout had before the
/// director set it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The timeout of an established TCP connection. The kernel's default
    /// timeout is 900 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub tcp_seconds: Option<i32>,
    /// The timeout of a TCP connection after a FIN. The kernel's default
    /// timeout is 120 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub tcp_fin_seconds: Option<i32>,
    /// The timeout of a flow of UDP datagrams. The kernel's default timeout is
    /// 300 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub udp_seconds: Option<i32>,
}

/// Limits on how much a director removes at once. A director holds removals if
/// they affect more than 10 services and more than a quarter of all services
/// within a minute. The same limits apply to servers. The Director's condition
/// RemovalsHeld reports held removals. A director holds every removal if one of
/// ipvs-operator's custom resource definitions is deleted. A director also
/// holds every removal if its API server now belongs to another cluster. If
/// objects are missing from a list, a director holds their removal in two
/// cases. In the first case, the director has already seen objects that are
/// newer than the list. In the second case, more than half of its services or
/// servers are missing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removals {
    /// The time until which directors remove any number of entries at once. A
    /// time that is more than a day ahead is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_until: Option<Time>,
}

/// Where the directors put virtual addresses, and which director holds them.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::interface_only_if_placed_there())]
pub struct Addresses {
    /// Where the directors put VIPs. Mode Interface puts each VIP on the
    /// interface whose subnet contains the VIP. The field interface can name
    /// another interface. With mode Interface, a director takes a VIP only if
    /// no other host on the segment answers for the VIP. Mode Dummy puts VIPs
    /// on a device that the agent creates. A routing daemon announces these
    /// VIPs, and no host answers ARP for them. With mode Manual, another
    /// program adds the VIPs. Defaults to Interface.
    #[serde(default)]
    pub mode: AddressMode,
    /// The interface that gets the VIPs on every director of the group, for
    /// mode Interface. The default is the interface whose subnet contains the
    /// VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::INTERFACE))]
    #[x_kube(validation = rule::interface_name())]
    pub interface: Option<String>,
    /// The Director that holds the group's VIPs. With mode Dummy and no named
    /// holder, every director of the group holds all VIPs. With the other modes
    /// and no named holder, a group's only director holds the VIPs. If the
    /// group has several directors, each director keeps the VIPs that it has
    /// and takes no new VIPs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::object_name())]
    pub holder: Option<String>,
}

/// Where the directors put VIPs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AddressMode {
    /// The directors put VIPs on an interface of the network segment that the
    /// VIPs belong to.
    #[default]
    Interface,
    /// The directors put VIPs on a dummy device that the agent creates; no host
    /// answers ARP for these VIPs.
    Dummy,
    /// Another program adds the VIPs. The agent adds no VIPs.
    Manual,
}

/// The status of a DirectorGroup, which the controller writes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupStatus {
    /// The group's conditions: Accepted and Ready. Ready repeats Accepted if
    /// Accepted is not True, and otherwise the condition Ready of the first
    /// director that is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The number of Directors whose status names the group.
    #[serde(default)]
    pub directors: i32,
    /// The number of Directors of the group with a live Lease.
    #[serde(default)]
    pub live_directors: i32,
    /// The number of live directors whose condition Programmed is True.
    #[serde(default)]
    pub programmed_directors: i32,
    /// The number of live directors that hold back removals.
    #[serde(default)]
    pub holding_removals: i32,
    /// The live directors that hold virtual addresses. The field is absent if
    /// the group has no accepted service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vips: Option<VipHolder>,
    /// The number of accepted virtual services of the group.
    #[serde(default)]
    pub virtual_services: i32,
}
