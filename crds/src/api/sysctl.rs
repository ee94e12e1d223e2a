use schemars::{Schema, SchemaGenerator, json_schema};

use crate::bounds;

/// The pattern of the names of all sysctls that a group may set. The middle
/// part of the last two is an interface, `all` or `default`.
const NAME: &str = "name.matches('^net[.](ipv4[.]vs[.][a-z0-9_]+|\
                    ipv4[.]conf[.][!-\\\\-/-9;-~]{1,15}[.](accept_local|arp_announce|arp_filter|\
                    arp_ignore|forwarding|rp_filter|send_redirects)|\
                    ipv6[.]conf[.][!-\\\\-/-9;-~]{1,15}[.](accept_ra|force_forwarding|forwarding))$') \
                    && !name.contains('./.') && !name.contains('.//.') && name != \
                    'net.ipv4.conf.all.forwarding'";
const NAME_MESSAGE: &str = "a name that is not for a group to set; write net.ipv4.vs.NAME, \
                            net.ipv4.conf.INTERFACE.NAME with accept_local, arp_announce, \
                            arp_filter, arp_ignore, forwarding, rp_filter or send_redirects, or \
                            net.ipv6.conf.INTERFACE.NAME with accept_ra, force_forwarding or \
                            forwarding. net.ipv4.conf.all.forwarding would change every \
                            interface: name the interfaces";
const VALUE: &str = "self.matches('^-?[0-9]+( -?[0-9]+)*$')";
const VALUE_MESSAGE: &str = "is no value of a sysctl; write a number, or several with a blank \
                             between them";

/// The schema of a map from names of sysctls to their values.
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

/// The CEL rule of a sysctl's name. A schema cannot bound the length of a map's
/// keys, so the rule does.
fn name_rule() -> String {
    format!(
        "self.all(name, name.size() <= {} && {NAME})",
        bounds::SYSCTL_NAME
    )
}
