use schemars::{Schema, SchemaGenerator, json_schema};

use crate::bounds;

/// The CEL pattern of the sysctl names that a group may set. In names of
/// net.ipv4.conf and net.ipv6.conf, the part after conf is an interface, `all`
/// or `default`.
const NAME: &str = "name.matches('^net[.](ipv4[.]vs[.][a-z0-9_]+|\
                    ipv4[.]conf[.][!-\\\\-/-9;-~]{1,15}[.](accept_local|arp_announce|arp_filter|\
                    arp_ignore|forwarding|rp_filter|send_redirects)|\
                    ipv6[.]conf[.][!-\\\\-/-9;-~]{1,15}[.](accept_ra|force_forwarding|forwarding))$') \
                    && !name.contains('./.') && !name.contains('.//.') && name != \
                    'net.ipv4.conf.all.forwarding'";
const NAME_MESSAGE: &str = "a sysctl that a group may not set; write net.ipv4.vs.NAME, \
                            net.ipv4.conf.INTERFACE.NAME with accept_local, arp_announce, \
                            arp_filter, arp_ignore, forwarding, rp_filter or send_redirects, or \
                            net.ipv6.conf.INTERFACE.NAME with accept_ra, force_forwarding or \
                            forwarding. net.ipv4.conf.all.forwarding would change every \
                            interface: name the interfaces";
const VALUE: &str = "self.matches('^-?[0-9]+( -?[0-9]+)*$')";
const VALUE_MESSAGE: &str = "is not a value of a sysctl; write a number, or several with a blank \
                             between them";

/// Returns the schema of a map from sysctl names to their values.
pub(super) fn overrides(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": bounds::SYSCTLS,
        "additionalProperties": {
            "type": "string",
            "maxLength": bounds::SYSCTL_VALUE,
            "x-kubernetes-validations": [{"rule": VALUE, "message": VALUE_MESSAGE}],
        },
        "x-kubernetes-validations": [
            {"rule": name_rule(), "message": NAME_MESSAGE},
        ],
    })
}

/// Returns the CEL rule of a sysctl's name. A schema cannot bound the length of
/// a map's keys, so the CEL rule bounds the length.
fn name_rule() -> String {
    format!(
        "self.all(name, name.size() <= {} && {NAME})",
        bounds::SYSCTL_NAME
    )
}
