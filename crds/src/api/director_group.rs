use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressPool, FirewallMarkRange, rule, sysctl};
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
        description = "The Director that holds the VIPs",
        json_path = ".spec.addresses.holder"
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
        description = "Of those, with a live Lease",
        json_path = ".status.liveDirectors"
    ),
    printcolumn(
        name = "Services",
        type_ = "integer",
        description = "Accepted virtual services",
        json_path = ".status.virtualServices"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        description = "Whether the group is in force as it is now",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupSpec {
    /// Where virtual addresses go, and which director holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// The virtual addresses that VirtualServices may use, 1 to 64 entries. An
    /// address may be in several; their namespaces add up. Default: no
    /// VirtualService may use any. Objects from a director's own files need no
    /// grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub address_pools: Option<Vec<AddressPool>>,
    /// The firewall marks that VirtualServices may use, 1 to 64 entries. The
    /// marks 0x4000 and 0x8000 are kube-proxy's, and no entry grants them.
    /// Default: no VirtualService may use any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub firewall_marks: Option<Vec<FirewallMarkRange>>,
    /// The addresses that real servers and sorry servers may have, 1 to 64
    /// entries. Default: every unicast address that is neither a loopback
    /// address nor one where clouds serve metadata (169.254.0.0/16,
    /// 168.63.129.16, 100.100.100.200, 192.0.0.192 and fd00:ec2::254).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = bounds::GRANTS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub real_server_addresses: Option<Vec<AddressPool>>,
    /// Limits on how much a director removes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removals: Option<Removals>,
    /// What to do with an entry in the kernel's table that another program
    /// made, that a VirtualService or RealServer wants, and that differs from
    /// what is wanted. Adopt: edit it in place; from then on it belongs to the
    /// director. Leave: do not touch it, and report it. An entry that does not
    /// differ is always adopted.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// How long the kernel remembers connections without packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Which sysctls the directors set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<Sysctls>,
}

/// Which sysctls the directors set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sysctls {
    /// Recommended: set what the current services need, and nothing else. None:
    /// set only the overrides.
    #[serde(default)]
    pub profile: SysctlProfile,
    /// Sysctls by name, with the value that they must have on every director of
    /// the group, whatever the profile says. Allowed are all of net.ipv4.vs,
    /// and some of net.ipv4.conf.INTERFACE and net.ipv6.conf.INTERFACE. A dot
    /// in an interface's name is written as '/', as sysctl(8) does:
    /// net.ipv4.conf.eth0/100.rp_filter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sysctl::overrides")]
    pub overrides: BTreeMap<String, String>,
}

/// Which sysctls a director sets by itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SysctlProfile {
    /// Set what the current services need.
    #[default]
    Recommended,
    /// Set no sysctl.
    None,
}

/// What to do with an entry of another program that differs from what is
/// wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnConflict {
    /// Edit it in place; from then on it belongs to the director.
    #[default]
    Adopt,
    /// Leave it alone, and report it.
    Leave,
}

/// How long the kernel remembers connections without packets, in seconds, 1 to
/// 2147483. The timeouts apply to all services on the director, including those
/// of other programs. Default: the value that the kernel had before it was set
/// here.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The timeout of an established TCP connection. The kernel's default is
    /// 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub tcp_seconds: Option<i64>,
    /// The timeout of a TCP connection after a FIN. The kernel's default is
    /// 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub tcp_fin_seconds: Option<i64>,
    /// The timeout of a flow of UDP datagrams. The kernel's default is 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub udp_seconds: Option<i64>,
}

/// Limits on how much a director removes at once. If more than 10 services and
/// more than a quarter of them must be removed within a minute, the director
/// holds the removals and reports it in its condition RemovalsHeld. The same
/// applies to servers. It holds every removal if the API server belongs to
/// another cluster than before, or if one of our custom resource definitions is
/// deleted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removals {
    /// Until this time, removals are made without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_until: Option<Time>,
}

/// Where virtual addresses go, and which director holds them.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::interface_only_if_placed_there())]
pub struct Addresses {
    /// Where VIPs go. Interface: on the interface that the field interface
    /// names, or else on the one whose subnet contains the VIP, if no other
    /// host on the segment answers for it. Dummy: on a device that the agent
    /// creates, for a routing daemon to announce; no host answers ARP for them.
    /// Manual: another program adds them.
    #[serde(default)]
    pub mode: AddressMode,
    /// The interface for VIPs with mode Interface, on every director of the
    /// group. Default: the interface whose subnet contains the VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::INTERFACE))]
    #[x_kube(validation = rule::interface_name())]
    pub interface: Option<String>,
    /// The Director that holds the group's VIPs. Default: with mode Dummy,
    /// every director holds them. With the other modes, a group's only director
    /// holds them; if there are several, each keeps the VIPs that it has and
    /// takes no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::object_name())]
    pub holder: Option<String>,
}

/// Where VIPs go.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AddressMode {
    /// On an interface of the segment to which the addresses belong.
    #[default]
    Interface,
    /// On a device that the agent creates, so that no segment hears of them.
    Dummy,
    /// Nowhere: another program adds them.
    Manual,
}

/// What the controller reports about a DirectorGroup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupStatus {
    /// The condition Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The number of directors that say they belong to the group.
    #[serde(default)]
    pub directors: i32,
    /// The number of those directors with a live Lease.
    #[serde(default)]
    pub live_directors: i32,
    /// The number of accepted virtual services of the group.
    #[serde(default)]
    pub virtual_services: i32,
}
