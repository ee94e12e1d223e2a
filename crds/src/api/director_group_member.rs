use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::rule;
use crate::bounds;

/// The membership of one director in its DirectorGroup, and the addresses of
/// the director's host. The director's agent writes this object, which has the
/// name of the Director. The other directors of the group watch it. The object
/// is separate from the Director, because a Director's status changes often,
/// and every change would reach every director.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "ipvs.dev",
    version = "v1alpha1",
    kind = "DirectorGroupMember",
    doc = "The membership of one director in its DirectorGroup, and the addresses of the director's host. The director's agent writes this object, which has the name of the Director.",
    plural = "directorgroupmembers",
    shortname = "idgm",
    category = "ipvs",
    selectable = ".spec.directorGroupName",
    derive = "PartialEq",
    printcolumn(
        name = "Group",
        type_ = "string",
        description = "The DirectorGroup",
        json_path = ".spec.directorGroupName"
    ),
    printcolumn(
        name = "Addresses",
        type_ = "string",
        description = "The addresses of the director's host",
        json_path = ".spec.addresses",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupMemberSpec {
    /// The DirectorGroup that the agent was started for.
    #[schemars(length(max = bounds::NAME))]
    #[x_kube(validation = rule::object_name())]
    pub director_group_name: String,
    /// The first 100 addresses of this director's interfaces. Addresses that
    /// the agent added, loopback addresses and IPv6 link-local addresses are
    /// left out. The directors of the group refuse a real server with one of
    /// these addresses if the server's forwarding method is DR or TUN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = bounds::HOST_ADDRESSES), inner(length(max = bounds::ADDRESS)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<String>,
}

impl DirectorGroupMemberSpec {
    /// The maximum number of addresses in a member's spec.
    pub const MOST_ADDRESSES: usize = bounds::HOST_ADDRESSES;
}
