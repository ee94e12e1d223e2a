//! Upper bounds for the API's fields. Both the schema ([`crate::api`]) and the
//! checks of specs ([`crate::check`]) use these bounds. Ports, weights and
//! marks are bounded by the integer types that hold them.

/// The maximum number of characters in an object's name or a full DNS name (RFC
/// 1035).
pub(crate) const NAME: usize = 253;
/// The maximum number of characters in a label's value, or in the name part of
/// a label's key.
pub(crate) const LABEL: usize = 63;
/// The maximum number of characters in a label's key: a DNS name as prefix, a
/// slash, and the name part.
pub(crate) const LABEL_KEY: usize = NAME + 1 + LABEL;
/// The maximum number of characters in an interface's name (`IFNAMSIZ` less the
/// NUL).
pub(crate) const INTERFACE: usize = 15;

/// The maximum number of addresses of a director's host that the other directors
/// of its group learn.
pub(crate) const HOST_ADDRESSES: usize = 100;
/// The maximum number of characters in an IP address.
pub(crate) const ADDRESS: usize = 45;

/// The maximum number of entries in a list of grants.
pub(crate) const GRANTS: usize = 64;
/// The maximum number of networks in a pool of addresses.
pub(crate) const CIDRS: usize = 64;
/// The maximum number of characters in a network in CIDR notation: an IPv6
/// address in full, a slash, and the length of the prefix.
pub(crate) const CIDR: usize = 43;
/// The maximum number of namespaces in an entry of a list of grants.
pub(crate) const NAMESPACES: usize = 64;

/// The maximum number of namespaces with a budget of their own.
pub(crate) const BUDGETS: usize = 256;
/// The highest number of RealServers per service that a budget may allow.
pub(crate) const SERVERS_PER_SERVICE: i32 = 65_535;
/// The highest number of services that a budget may allow.
pub(crate) const SERVICES: i32 = 1_000_000;
/// The highest number of destinations, or of probe targets, that a budget may
/// allow.
pub(crate) const DESTINATIONS: i32 = 10_000_000;
/// The highest number of probes per second that a budget may allow. The prober
/// makes at most this many probes per second.
pub(crate) const PROBES_PER_SECOND: i32 = 8000;

/// The maximum number of labels in a selector.
pub(crate) const SELECTOR_LABELS: usize = 16;
/// The maximum number of expressions in a selector.
pub(crate) const SELECTOR_EXPRESSIONS: usize = 16;
/// The maximum number of values in one expression of a selector.
pub(crate) const SELECTOR_VALUES: usize = 64;

/// The maximum number of sysctls that a group can set.
pub(crate) const SYSCTLS: usize = 32;
/// The maximum number of characters in a sysctl's name.
pub(crate) const SYSCTL_NAME: usize = 64;
/// The maximum number of characters in a sysctl's value.
pub(crate) const SYSCTL_VALUE: usize = 64;

/// The longest time that a drain may take, in seconds: a week.
pub(crate) const DRAIN_SECONDS: i32 = 7 * 24 * 60 * 60;

/// The longest persistence timeout, in seconds. The kernel stores the timeout
/// as a 32-bit number of ticks, with up to 1000 ticks a second
/// (`ip_vs_genl_parse_service` in `net/netfilter/ipvs/ip_vs_ctl.c`).
pub(crate) const PERSISTENCE_SECONDS: u32 = u32::MAX / 1000;
/// The longest timeout of an idle connection, in seconds. The kernel stores the
/// timeout as an `int` number of ticks (`ip_vs_set_timeout` in
/// `net/netfilter/ipvs/ip_vs_ctl.c`).
pub(crate) const TIMEOUT_SECONDS: u32 = i32::MAX.cast_unsigned() / 1000;
/// The largest connection threshold.
pub(crate) const CONNECTIONS: u32 = i32::MAX.cast_unsigned();
/// The longest IPv4 prefix, in bits.
pub(crate) const PREFIX_IPV4: u8 = 32;
/// The longest IPv6 prefix, in bits.
pub(crate) const PREFIX_IPV6: u8 = 128;

/// The longest time from one probe to the next, in seconds.
pub(crate) const PERIOD_SECONDS: i32 = 3600;
/// The longest time that a probe waits for its answer, in seconds.
pub(crate) const PROBE_SECONDS: i32 = 60;
/// The maximum of a health check's successThreshold and failureThreshold. They
/// say how many probes in a row change a server's health.
pub(crate) const THRESHOLD: i32 = 10;
/// The longest time over which a server's weight grows, in seconds.
pub(crate) const SLOW_START_SECONDS: i32 = 3600;

/// The maximum number of characters in an HTTP path.
pub(crate) const PATH: usize = 2048;
/// The maximum number of additional headers in an HTTP probe.
pub(crate) const HEADERS: usize = 16;
/// The maximum number of characters in a header's name.
pub(crate) const HEADER_NAME: usize = 256;
/// The maximum number of characters in a header's value.
pub(crate) const HEADER_VALUE: usize = 4096;
/// The maximum number of statuses, or ranges of statuses, that count as a good
/// answer.
pub(crate) const STATUSES: usize = 16;
/// The maximum number of characters that a probe sends, or looks for in an
/// answer.
pub(crate) const TEXT: usize = 4096;
/// The maximum number of characters in a regular expression.
pub(crate) const PATTERN: usize = 1024;
/// The maximum number of characters in a certificate bundle in base64.
pub(crate) const CA_BUNDLE_BASE64: usize = 128 << 10;
/// The maximum number of characters in a gRPC service's name.
pub(crate) const GRPC_SERVICE: usize = 256;
/// The maximum number of characters in a DNS record.
pub(crate) const DNS_ANSWER: usize = 1024;
