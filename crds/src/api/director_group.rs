use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

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
}

/// A director that is to remove more than 10 services, or more than a quarter
/// of them, within a minute holds the removal back, and likewise for servers:
/// its condition RemovalsHeld says so.
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
pub struct Addresses {
    /// The Director that holds the group's VIPs. When absent, a group's only
    /// director holds them; where there are several, one that has a VIP keeps
    /// it, and nobody takes one that it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule::object_name())]
    pub holder: Option<String>,
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
