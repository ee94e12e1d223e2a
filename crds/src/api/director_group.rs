use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a set of directors have in common.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "DirectorGroup",
    plural = "directorgroups",
    shortname = "idg",
    category = "ipvs",
    status = "DirectorGroupStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupSpec {
    /// How and by whom virtual addresses are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
}

/// How and by whom virtual addresses are held.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The Director that holds the group's VIPs. When absent, a group's only
    /// director holds them; where there are several, one that has a VIP keeps
    /// it, and nobody takes one that it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// What the controller says about a DirectorGroup.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupStatus {
    /// Directors that say they belong to the group.
    pub directors: i32,
    /// Of those, with a live Lease.
    pub live_directors: i32,
    /// Virtual services accepted for the group.
    pub virtual_services: i32,
}
