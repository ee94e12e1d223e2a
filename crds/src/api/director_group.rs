use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{rule, sysctl};
use crate::bounds;

/// What a set of directors have in common.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "DirectorGroup",
    doc = "What a set of directors have in common.",
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
    /// How and by whom virtual addresses are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// How much may be removed from a director at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removals: Option<Removals>,
    /// What becomes of an entry of the kernel's table that somebody else made,
    /// that a VirtualService or RealServer wants, and that differs from the
    /// wish. Adopt edits it in place, and it is the director's from then on.
    /// Leave does not touch it, and reports it. One that does not differ is
    /// adopted in any case.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// How long the kernel remembers connections without packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// What becomes of the directors' sysctls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<Sysctls>,
}

/// What becomes of the directors' sysctls.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sysctls {
    /// Recommended sets what the services that are there need, and nothing
    /// else. None sets only the overrides.
    #[serde(default)]
    pub profile: SysctlProfile,
    /// Sysctls by name, each with the value that it is to have on every
    /// director of the group, whatever the profile says: any of net.ipv4.vs,
    /// and some of net.ipv4.conf.INTERFACE and net.ipv6.conf.INTERFACE. A dot in
    /// an interface's name is written as '/', as sysctl(8) has it:
    /// net.ipv4.conf.eth0/100.rp_filter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sysctl::overrides")]
    pub overrides: BTreeMap<String, String>,
}

/// Which sysctls a director sets by itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SysctlProfile {
    /// What the services that are there need.
    #[default]
    Recommended,
    /// Nothing.
    None,
}

/// What becomes of somebody else's entry that differs from the wish.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnConflict {
    /// It is edited in place, and the director's from then on.
    #[default]
    Adopt,
    /// It is left alone, and reported.
    Leave,
}

/// The kernel's timeouts of connections, in seconds, 1 to 2147483. They are
/// those of all services on the director, others' too. One that is absent is
/// as it was before it was set here.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Of an established TCP connection; the kernel's own is 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub tcp_seconds: Option<i64>,
    /// Of a TCP connection after a FIN; the kernel's own is 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub tcp_fin_seconds: Option<i64>,
    /// Of a flow of UDP datagrams; the kernel's own is 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = bounds::TIMEOUT_SECONDS))]
    pub udp_seconds: Option<i64>,
}

/// A director that is to remove more than 10 services, or more than a quarter
/// of them, within a minute holds the removal back, and likewise for servers:
/// its condition RemovalsHeld says so. It holds every removal when the API
/// server is another cluster's than before, or when one of our custom resource
/// definitions is deleted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removals {
    /// Until this time everything that is to be removed is, however much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_until: Option<Time>,
}

/// How and by whom virtual addresses are held.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::interface_only_if_placed_there())]
pub struct Addresses {
    /// Where VIPs go. Interface puts each on the interface that is named, or
    /// else on the one whose subnet holds it, once nobody else on the segment
    /// answers for it. Dummy puts them on a device of its own, for a routing
    /// daemon to announce: nobody answers ARP for them. Manual leaves them to
    /// somebody else.
    #[serde(default)]
    pub mode: AddressMode,
    /// The interface that VIPs go on with mode Interface, on every director of
    /// the group. Default: the one whose subnet holds the VIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::INTERFACE))]
    #[x_kube(validation = rule::interface_name())]
    pub interface: Option<String>,
    /// The Director that holds the group's VIPs. When absent, with mode Dummy
    /// every director holds them. Otherwise a group's only director does; where
    /// there are several, one that has a VIP keeps it, and nobody takes one
    /// that it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::object_name())]
    pub holder: Option<String>,
}

/// Where VIPs go.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AddressMode {
    /// On an interface of the segment whose addresses they are.
    #[default]
    Interface,
    /// On a device of the agent's own, from which nothing is heard of them on
    /// any segment.
    Dummy,
    /// Nowhere: somebody else sees to them.
    Manual,
}

/// What the controller says about a DirectorGroup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupStatus {
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Directors that say they belong to the group.
    #[serde(default)]
    pub directors: i32,
    /// Of those, with a live Lease.
    #[serde(default)]
    pub live_directors: i32,
    /// Virtual services accepted for the group.
    #[serde(default)]
    pub virtual_services: i32,
}
