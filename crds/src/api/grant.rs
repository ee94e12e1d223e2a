use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rule;
use crate::bounds;

/// Addresses that objects of some namespaces may use.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    /// The name of the grant, unique in its list.
    #[schemars(length(min = 1, max = bounds::LABEL))]
    #[x_kube(validation = rule::dns_label())]
    pub name: String,
    /// The granted addresses: 1 to 64 IPv4 or IPv6 networks in CIDR notation.
    /// Examples: 192.0.2.0/24, and 2001:db8::10/128 for one address. The bits
    /// of a network after its prefix must be 0.
    #[schemars(schema_with = "cidrs")]
    pub cidrs: Vec<String>,
    /// The exact names of the namespaces whose objects may use the addresses, 1
    /// to 64 names. By default, the objects of all namespaces may use the
    /// addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespaces")]
    pub namespaces: Option<Vec<String>>,
}

/// Firewall marks that VirtualServices of some namespaces may use.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule::first_mark_below_last())]
pub struct FirewallMarkRange {
    /// The name of the grant, unique in its list.
    #[schemars(length(min = 1, max = bounds::LABEL))]
    #[x_kube(validation = rule::dns_label())]
    pub name: String,
    /// The first mark of the range, 1 to 4294967295.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub first: i64,
    /// The last mark of the range, from the value of first to 4294967295.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub last: i64,
    /// The exact names of the namespaces whose VirtualServices may use the
    /// marks, 1 to 64 names. By default, the VirtualServices of all namespaces
    /// may use the marks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespaces")]
    pub namespaces: Option<Vec<String>>,
}

fn cidrs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": bounds::CIDRS,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": bounds::CIDR,
            "x-kubernetes-validations": [rule::cidr()],
        },
    })
}

fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": bounds::NAMESPACES,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": bounds::LABEL,
            "x-kubernetes-validations": [rule::dns_label()],
        },
    })
}
