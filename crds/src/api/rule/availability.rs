//! CEL rules about servers that fail their health check.

use kube::core::Rule;

use super::rule;

/// CEL rule for a VirtualService's spec: availability requires healthCheck.
pub(in crate::api) fn availability_of_checked_servers() -> Rule {
    rule(
        "!has(self.availability) || has(self.healthCheck)",
        "without a health check no server fails; write healthCheck too, or leave availability out",
    )
    .field_path(".availability")
}

/// CEL rule for a VirtualService's spec: schedulers sh and mh do not allow
/// onFailure Remove.
pub(in crate::api) fn hashing_quiesces() -> Rule {
    rule(
        "!has(self.availability) || !has(self.availability.onFailure) || \
         self.availability.onFailure != 'Remove' || !(self.scheduler in ['sh', 'mh'])",
        "with schedulers sh and mh, removing one server moves the clients of others; write \
         Quiesce, or leave it out",
    )
    .field_path(".availability.onFailure")
}

/// CEL rule for a VirtualService's spec: schedulers sh, mh and dh do not allow
/// slowStartSeconds.
pub(in crate::api) fn hashing_starts_at_once() -> Rule {
    rule(
        "!has(self.availability) || !has(self.availability.slowStartSeconds) || \
         !(self.scheduler in ['sh', 'mh', 'dh'])",
        "schedulers sh, mh and dh choose by hash, and each step would move clients; leave it out, \
         or set another scheduler",
    )
    .field_path(".availability.slowStartSeconds")
}

/// CEL rule for a count or percentage: the value is 0 to 10000, or "0%" to
/// "100%".
pub(in crate::api) fn quantity() -> Rule {
    rule(
        "string(self).matches('^(0|[1-9][0-9]{0,3}|10000|(100|[1-9]?[0-9])%)$')",
        "is neither a count nor a percentage; write 0 to 10000, or \"0%\" to \"100%\" in quotes",
    )
}

/// CEL rule for an availability: recoverAbove requires minimumHealthy and is at
/// least minimumHealthy.
pub(in crate::api) fn recovery_above_the_minimum() -> Rule {
    rule(
        "!has(self.recoverAbove) || (has(self.minimumHealthy) && \
         (string(self.recoverAbove).endsWith('%') != string(self.minimumHealthy).endsWith('%') || \
         int(string(self.recoverAbove).replace('%', '')) >= \
         int(string(self.minimumHealthy).replace('%', ''))))",
        "must not be below minimumHealthy, nor without it; raise it, or write minimumHealthy too",
    )
    .field_path(".recoverAbove")
}

/// CEL rule for a belowMinimum: action SorryServer has a sorryServer, and other
/// actions have none.
pub(in crate::api) fn sorry_server_with_its_action() -> Rule {
    rule(
        "has(self.sorryServer) == (self.action == 'SorryServer')",
        "action SorryServer needs sorryServer, and other actions have none; write it, leave it \
         out, or set the other action",
    )
    .field_path(".sorryServer")
}

/// Builds a rule of a VirtualService's spec that applies if the spec has a
/// sorry server. In `expression`, SORRY stands for the sorry server. METHOD
/// stands for the sorry server's forwarding method. If the sorry server has
/// none, METHOD is the service's method, or '' if the service has none either.
fn of_the_sorry_server(expression: &str, message: &str, field: &str) -> Rule {
    const SORRY: &str = "self.availability.belowMinimum.sorryServer";
    const METHOD: &str = "(has(SORRY.forwarding) ? SORRY.forwarding.method : \
                          has(self.forwarding) ? self.forwarding.method : '')";
    rule(
        format!(
            "!has(self.availability) || !has(self.availability.belowMinimum) || !has({SORRY}) || \
             {}",
            expression.replace("METHOD", METHOD).replace("SORRY", SORRY)
        ),
        message,
    )
    .field_path(format!(".availability.belowMinimum.sorryServer{field}"))
}

/// CEL rule for a VirtualService's spec: if there is a sorry server, the sorry
/// server or the service has a forwarding method.
pub(in crate::api) fn sorry_server_is_reached() -> Rule {
    of_the_sorry_server(
        "METHOD != ''",
        "neither the service nor the sorry server says how packets reach it; set \
         forwarding.method of one of them to NAT, DR or TUN",
        "",
    )
}

/// CEL rule for a VirtualService's spec: with DR and TUN, the sorry server's
/// port is the service's port.
pub(in crate::api) fn port_of_the_sorry_server() -> Rule {
    of_the_sorry_server(
        "!has(SORRY.port) || !(METHOD in ['DR', 'TUN']) || (has(self.vip) && SORRY.port == \
         self.vip.port)",
        "DR and TUN cannot change the port, and this is not the service's port; leave it out, or \
         set the sorry server's forwarding.method to NAT",
        ".port",
    )
}

/// CEL rule for a VirtualService's spec: without a tunnel, the sorry server's
/// address is of the service's family.
pub(in crate::api) fn family_of_the_sorry_server() -> Rule {
    of_the_sorry_server(
        "METHOD == 'TUN' || !isIP(SORRY.address) || (has(self.vip) ? !isIP(self.vip.address) || \
         ip(self.vip.address).family() == ip(SORRY.address).family() : \
         !has(self.firewallMark) || ip(SORRY.address).family() == \
         (self.firewallMark.ipFamily == 'IPv6' ? 6 : 4))",
        "is not of the service's address family, and only a tunnel joins the two; write an address \
         of that family, or set the sorry server's forwarding.method to TUN",
        ".address",
    )
}
