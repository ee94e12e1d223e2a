//! The CEL rules that the API server applies at admission. Each rule has its
//! counterpart in [`crate::check`]. The comment of a rule names the part of an
//! object that the rule applies to.

use kube::core::Rule;

use crate::bounds;

pub(super) mod availability;
pub(super) mod health_check;

/// The pattern of an object's name, which is a DNS subdomain (RFC 1123).
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

fn rule(expression: impl Into<String>, message: &str) -> Rule {
    Rule::new(expression).message(message)
}

/// CEL rule for a string: the string is the name of an object.
pub(super) fn object_name() -> Rule {
    rule(
        format!("self.matches('{SUBDOMAIN}')"),
        "cannot be the name of an object; write lower-case letters, digits, '-' and '.', beginning \
         and ending with a letter or digit",
    )
}

/// CEL rule for a string: the string is a DNS label (RFC 1123), like the name
/// of a namespace.
pub(super) fn dns_label() -> Rule {
    rule(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "cannot be such a name; write lower-case letters, digits and '-', beginning and ending \
         with a letter or digit, up to 63 characters",
    )
}

/// CEL rule for a string: the string is a network in CIDR notation.
pub(super) fn cidr() -> Rule {
    rule(
        r"isCIDR(self) && cidr(self) == cidr(self).masked() && !self.matches('/0[0-9]')",
        "is not a network; write one such as 192.0.2.0/24 or 2001:db8::/64 whose bits after the \
         prefix are 0, and one address as 192.0.2.10/32 or 2001:db8::10/128",
    )
}

/// CEL rule for a range of firewall marks: the first mark is not above the
/// last.
pub(super) fn first_mark_below_last() -> Rule {
    rule(
        "self.first <= self.last",
        "is below first; write a mark from first on",
    )
    .field_path(".last")
}

/// CEL rule for a string: the kernel accepts the string as the name of an
/// interface (`net/core/dev.c`, `dev_valid_name`). The name may contain only
/// ASCII characters.
pub(super) fn interface_name() -> Rule {
    rule(
        format!(
            "self.matches('^[!-.0-9;-~]{{1,{}}}$') && self != '.' && self != '..'",
            bounds::INTERFACE
        ),
        "cannot be the name of an interface; write one such as eth0, of up to 15 ASCII \
         characters, without '/', ':' and blanks",
    )
}

/// CEL rule for a DirectorGroup's addresses: only mode Interface allows the
/// field interface.
pub(super) fn interface_only_if_placed_there() -> Rule {
    rule(
        "!has(self.interface) || self.mode == 'Interface'",
        "interface is for mode Interface; leave it out, or write mode: Interface",
    )
}

/// CEL rule for a string: the string is an IP address.
pub(super) fn ip() -> Rule {
    rule(
        "isIP(self)",
        "is not an IP address; write one such as 192.0.2.10 or 2001:db8::10, without prefix \
         length or zone, and IPv4-mapped ones as plain IPv4",
    )
}

/// CEL rule for a string: the string is an address that can be a VIP.
pub(super) fn vip_address() -> Rule {
    rule(
        format!("!isIP(self) || {UNICAST}"),
        "cannot be a VIP; write a unicast address that clients can reach: not an unspecified, \
         loopback, multicast or broadcast one, and not an IPv6 link-local one",
    )
}

/// CEL rule for a string: the string is an address that a real server can have.
pub(super) fn server_address() -> Rule {
    rule(
        format!("!isIP(self) || {UNICAST} || ip(self).isLoopback()"),
        "cannot be a real server's address; write a unicast address: not an unspecified, multicast \
         or broadcast one, and not an IPv6 link-local one",
    )
}

/// The CEL expression for a unicast address. Go's net/netip counts private and
/// unique local addresses as global, but not IPv4 link-local addresses.
const UNICAST: &str =
    "ip(self).isGlobalUnicast() || (ip(self).isLinkLocalUnicast() && ip(self).family() == 4)";

/// CEL rule for a VirtualService's spec: exactly one of vip and firewallMark is
/// given.
pub(super) fn vip_or_mark() -> Rule {
    rule(
        "has(self.vip) != has(self.firewallMark)",
        "vip and firewallMark exclude each other, and one is needed; write exactly one of them",
    )
    .field_path(".vip")
}

/// CEL rule for a VirtualService's spec: vip never changes. Writing the same
/// address in another form does not count as a change.
pub(super) fn immutable_vip() -> Rule {
    rule(
        "has(self.vip) == has(oldSelf.vip) && (!has(self.vip) || (self.vip.port == \
         oldSelf.vip.port && self.vip.protocol == oldSelf.vip.protocol && (self.vip.address == \
         oldSelf.vip.address || (isIP(self.vip.address) && isIP(oldSelf.vip.address) && \
         ip(self.vip.address) == ip(oldSelf.vip.address)))))",
        "is immutable; make a new VirtualService and delete this one",
    )
    .field_path(".vip")
}

/// CEL rule for a VirtualService's spec: firewallMark never changes.
pub(super) fn immutable_mark() -> Rule {
    rule(
        "has(self.firewallMark) == has(oldSelf.firewallMark) && (!has(self.firewallMark) || \
         self.firewallMark == oldSelf.firewallMark)",
        "is immutable; make a new VirtualService and delete this one",
    )
    .field_path(".firewallMark")
}

/// CEL rule for a VirtualService's directorGroupName: the name never changes.
pub(super) fn immutable_group() -> Rule {
    rule(
        "self == oldSelf",
        "is immutable; make a new VirtualService and delete this one",
    )
}

/// CEL rule for a VirtualService's spec: port 0, which serves every port,
/// requires persistence.
pub(super) fn every_port_needs_persistence() -> Rule {
    rule(
        "!has(self.vip) || self.vip.port != 0 || has(self.persistence)",
        "port 0 serves every port, which needs persistence; write a port, or add persistence",
    )
    .field_path(".vip.port")
}

/// CEL rule for a VirtualService's spec: schedulerFlags are flags of the
/// service's own scheduler.
pub(super) fn flags_of_the_scheduler() -> Rule {
    rule(
        "!has(self.schedulerFlags) || self.schedulerFlags.all(flag, \
         flag.startsWith(self.scheduler + '-'))",
        "sh-port and sh-fallback are for scheduler sh, mh-port and mh-fallback for scheduler mh; \
         leave out the flags of other schedulers",
    )
    .field_path(".schedulerFlags")
}

/// CEL rule for a VirtualService's spec: onePacketScheduling requires UDP or a
/// firewall mark.
pub(super) fn one_packet_is_udp() -> Rule {
    rule(
        "!self.onePacketScheduling || !has(self.vip) || self.vip.protocol == 'UDP'",
        "only UDP can be scheduled packet by packet; leave it out, or set vip.protocol to UDP",
    )
    .field_path(".onePacketScheduling")
}

/// CEL rule for a VirtualService's spec: the persistence engine sip requires
/// UDP or a firewall mark.
pub(super) fn sip_is_udp() -> Rule {
    rule(
        "!has(self.persistence) || !has(self.persistence.engine) || !has(self.vip) || \
         self.vip.protocol == 'UDP'",
        "sip reads SIP over UDP only; leave it out, or set vip.protocol to UDP",
    )
    .field_path(".persistence.engine")
}

/// CEL rule for a VirtualService's spec: the persistence prefix is no longer
/// than an address of the service's family.
pub(super) fn prefix_of_the_family() -> Rule {
    rule(
        "!has(self.persistence) || !has(self.persistence.prefixLength) || \
         self.persistence.prefixLength <= 32 || (has(self.vip) && isIP(self.vip.address) && \
         ip(self.vip.address).family() == 6) || (has(self.firewallMark) && \
         self.firewallMark.ipFamily == 'IPv6')",
        "is longer than an IPv4 address; write 1 to 32, or leave it out for the whole address",
    )
    .field_path(".persistence.prefixLength")
}

/// CEL rule for a forwarding: only method TUN has a tunnel.
pub(super) fn tunnel_is_tun() -> Rule {
    rule(
        "!has(self.tunnel) || self.method == 'TUN'",
        "only method TUN has a tunnel; leave tunnel out, or set method to TUN",
    )
    .field_path(".tunnel")
}

/// CEL rule for a tunnel: a GUE tunnel has a port, and other tunnels have none.
pub(super) fn port_of_gue() -> Rule {
    rule(
        "has(self.port) == (self.type == 'GUE')",
        "a GUE tunnel needs the UDP port that its servers receive it on, usually 6080; no other \
         tunnel has one",
    )
    .field_path(".port")
}

/// CEL rule for a tunnel: the tunnel's type supports the checksum.
pub(super) fn checksum_of_the_tunnel() -> Rule {
    rule(
        "!has(self.checksum) || self.checksum == 'None' || self.type == 'GUE' || (self.type == \
         'GRE' && self.checksum == 'Full')",
        "IPIP has no checksum, GRE has None and Full, and GUE has None, Full and Remote; leave it \
         out for None",
    )
    .field_path(".checksum")
}

/// CEL rule for a real server's connections: lowerThreshold is at most
/// upperThreshold.
pub(super) fn lower_below_upper() -> Rule {
    rule(
        "!has(self.lowerThreshold) || self.lowerThreshold <= self.upperThreshold",
        "is above upperThreshold; write 1 to upperThreshold, or leave it out for three quarters \
         of it",
    )
    .field_path(".lowerThreshold")
}
