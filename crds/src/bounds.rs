//! The largest values of the API's fields. The schema ([`crate::api`]) and the
//! check of objects that had no admission ([`crate::check`]) both use them. The
//! bounds of ports, weights and marks are those of the integer type that holds
//! them.

/// Characters of an object's name, and of a DNS name in full (RFC 1035).
pub(crate) const NAME: usize = 253;
/// Characters of a label's value, and of the name in its key.
pub(crate) const LABEL: usize = 63;
/// Characters of a label's key: a name, a slash, and a label.
pub(crate) const LABEL_KEY: usize = NAME + 1 + LABEL;
/// Characters of an interface's name (`IFNAMSIZ` less the NUL).
pub(crate) const INTERFACE: usize = 15;

/// Entries of a list of grants.
pub(crate) const GRANTS: usize = 64;
/// Networks of a pool of addresses.
pub(crate) const CIDRS: usize = 64;
/// Characters of a network in CIDR notation: those of an IPv6 address in full
/// and of its prefix length.
pub(crate) const CIDR: usize = 43;
/// Namespaces that an entry of a list of grants names.
pub(crate) const NAMESPACES: usize = 64;

/// Labels of a selector.
pub(crate) const SELECTOR_LABELS: usize = 16;
/// Expressions of a selector.
pub(crate) const SELECTOR_EXPRESSIONS: usize = 16;
/// Values of one expression of a selector.
pub(crate) const SELECTOR_VALUES: usize = 64;

/// Sysctls that a group sets.
pub(crate) const SYSCTLS: usize = 32;
/// Characters of a sysctl's name.
pub(crate) const SYSCTL_NAME: usize = 64;
/// Characters of a sysctl's value.
pub(crate) const SYSCTL_VALUE: usize = 64;

/// Seconds that a client keeps its server. The kernel counts them in 32 bits of
/// ticks, with up to 1000 ticks a second (`ip_vs_genl_parse_service` in
/// `net/netfilter/ipvs/ip_vs_ctl.c`).
pub(crate) const PERSISTENCE_SECONDS: u32 = u32::MAX / 1000;
/// Seconds after which the kernel forgets a connection without packets. The
/// kernel counts them in an `int` of ticks (`ip_vs_set_timeout` in the same
/// file).
pub(crate) const TIMEOUT_SECONDS: u32 = i32::MAX.cast_unsigned() / 1000;
/// Connections in a threshold.
pub(crate) const CONNECTIONS: u32 = i32::MAX.cast_unsigned();
/// Length of an IPv4 prefix, in bits.
pub(crate) const PREFIX_IPV4: u8 = 32;
/// Length of an IPv6 prefix, in bits.
pub(crate) const PREFIX_IPV6: u8 = 128;

/// Seconds from one probe to the next.
pub(crate) const PERIOD_SECONDS: i32 = 3600;
/// Seconds that a probe's answer may take.
pub(crate) const PROBE_SECONDS: i32 = 60;
/// Probes in a row that turn a healthy server into a failed one, or back.
pub(crate) const THRESHOLD: i32 = 10;
/// Seconds over which a server's weight grows.
pub(crate) const SLOW_START_SECONDS: i32 = 3600;

/// Characters of an HTTP path.
pub(crate) const PATH: usize = 2048;
/// Headers of an HTTP probe.
pub(crate) const HEADERS: usize = 16;
/// Characters of a header's name.
pub(crate) const HEADER_NAME: usize = 256;
/// Characters of a header's value.
pub(crate) const HEADER_VALUE: usize = 4096;
/// Statuses, or ranges of them, that count as a good answer.
pub(crate) const STATUSES: usize = 16;
/// Characters that a probe sends, or looks for in an answer.
pub(crate) const TEXT: usize = 4096;
/// Characters of a regular expression.
pub(crate) const PATTERN: usize = 1024;
/// Characters of a certificate bundle in base64.
pub(crate) const CA_BUNDLE_BASE64: usize = 128 << 10;
/// Characters of a gRPC service's name.
pub(crate) const GRPC_SERVICE: usize = 256;
/// Characters of a DNS record.
pub(crate) const DNS_ANSWER: usize = 1024;
