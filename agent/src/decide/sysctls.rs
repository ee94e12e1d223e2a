//! Decides which sysctls a director's services need, with the reasons. The
//! decision is pure: it does no I/O.
//!
//! ```text
//! services, servers ─▶ Needs ─┐
//! the group ─▶ Tuning ────────┼─▶ wanted() ─▶ [Setting: name, value, reason]
//! the host ─▶ Facts ──────────┘
//! ```
//!
//! A sysctl is wanted only while a service needs it. This module does not
//! decide when to write a value. Each round of the loop writes the wanted
//! values, and detects values that another process set.

mod fight;
mod needs;

use std::collections::{BTreeMap, BTreeSet};

use crds::{AddressRule, CheckedGroup, SysctlRule, api::SysctlProfile};

pub use self::{fight::Fight, needs::Needs};
use crate::host::{
    surroundings::KernelVersion,
    sysctls::{ALL_IPV6_FORWARDING, spelled},
};

/// The prefix of IPVS's own sysctls, which the agent restores when no service
/// needs them.
const IPVS: &str = "net.ipv4.vs.";
const CONNTRACK: &str = "net.ipv4.vs.conntrack";
const CONN_REUSE_MODE: &str = "net.ipv4.vs.conn_reuse_mode";
/// The first kernel version in which connection tracking does not delay
/// connections from a reused client port (commit f0a5e4d7a594;
/// kubernetes/kubernetes#93297).
const REUSE_IS_SOUND: KernelVersion = KernelVersion(5, 9);

/// The rules of a DirectorGroup for the sysctls of its directors.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tuning {
    /// The rule that says which sysctls the agent sets.
    pub rule: SysctlRule,
    /// Whether VIPs are on the agent's own device, so that a routing daemon can
    /// announce them.
    pub are_vips_routed: bool,
}

impl From<&CheckedGroup> for Tuning {
    fn from(group: &CheckedGroup) -> Self {
        Self {
            rule: group.sysctls.clone(),
            are_vips_routed: group.addresses == AddressRule::Dummy,
        }
    }
}

/// The facts about the host that decide which sysctls are needed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// The version of the running kernel, or none if it is not known.
    pub kernel: Option<KernelVersion>,
    /// The interfaces that lead to IPv4 servers reached by NAT.
    pub facing_v4: BTreeSet<String>,
    /// The interfaces that lead to IPv6 servers reached by NAT.
    pub facing_v6: BTreeSet<String>,
    /// The interfaces on which the kernel took an IPv6 default route from a
    /// router advertisement.
    pub advertised: BTreeSet<String>,
    /// Whether the kernel can switch on IPv6 forwarding for single interfaces
    /// (Linux 6.17, commit f24987ef6959).
    pub has_force_forwarding: bool,
    /// Whether connection tracking is active on this host.
    pub is_tracking: bool,
}

/// The wanted value of one sysctl.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The sysctl's name, as sysctl(8) spells it.
    pub name: String,
    /// The value to write if the sysctl does not have an accepted value yet.
    pub value: String,
    /// Other accepted values, which the agent does not change.
    pub or: &'static [&'static str],
    /// The reason why the value is wanted, as text for users.
    pub reason: String,
    /// The sysctls that must have their wanted values before this sysctl is
    /// written.
    pub after: Vec<String>,
}

impl Setting {
    fn new(name: impl Into<String>, value: &str, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.to_owned(),
            or: &[],
            reason: reason.into(),
            after: Vec::new(),
        }
    }

    /// Whether the setting accepts `found`, the value that the sysctl has.
    pub fn is_met_by(&self, found: &str) -> bool {
        is_same(&self.value, found) || self.or.iter().any(|value| is_same(value, found))
    }
}

/// Whether two spellings mean the same value of a sysctl. The kernel separates
/// the numbers of a sysctl by tabs, but a setting may use spaces.
pub fn is_same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// Whether a sysctl is IPVS's own. The agent restores a sysctl of IPVS when no
/// service needs it. All sysctls outside `net.ipv4.vs` are shared with the
/// other programs on the host. A shared sysctl keeps the value that the agent
/// wrote, because another program may depend on the value.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(IPVS)
}

/// Whether the agent may have set a sysctl to the value `found`. The caller
/// uses this function after a restart, when the agent no longer knows which
/// value it wrote. If `found` is a value that the agent never recommends,
/// another process is assumed to have set it.
pub fn may_be_set_by_us(name: &str, found: &str) -> bool {
    let recommended: &[_] = match name.strip_prefix(IPVS) {
        Some("conn_reuse_mode") => &["0", "1"],
        Some(
            "conntrack"
            | "expire_nodest_conn"
            | "expire_quiescent_template"
            | "schedule_icmp"
            | "sloppy_tcp",
        ) => &["1"],
        // A group's override of a sysctl can have any value.
        _ => return true,
    };
    recommended.iter().any(|value| is_same(value, found))
}

/// Returns the wanted settings in the order in which to write them, with one
/// setting for each sysctl.
pub fn wanted(needs: &Needs, tuning: &Tuning, facts: &Facts) -> Vec<Setting> {
    let overrides = &tuning.rule.overrides;
    let mut settings = match tuning.rule.profile {
        SysctlProfile::Recommended => recommended(needs, tuning, facts),
        SysctlProfile::None => Vec::new(),
    };
    settings.retain(|setting| !overrides.contains_key(&setting.name));
    // Overrides of accept_ra come first. They can keep a default route that an
    // override of forwarding would otherwise remove.
    let is_first = |name: &str| name.ends_with(".accept_ra");
    for first in [true, false] {
        let now = overrides.iter().filter(|(name, _)| is_first(name) == first);
        let reason = "the group's spec.sysctls.overrides sets it";
        settings.extend(now.map(|(name, value)| Setting::new(name, value, reason)));
    }
    let first = before_forwarding(&settings, overrides, facts);
    let names: Vec<_> = first.iter().map(|setting| setting.name.clone()).collect();
    for setting in settings.iter_mut().filter(|setting| ends_hosthood(setting)) {
        setting.after.clone_from(&names);
    }
    first.into_iter().chain(settings).collect()
}

fn recommended(needs: &Needs, tuning: &Tuning, facts: &Facts) -> Vec<Setting> {
    let mut settings = Vec::new();
    settings.extend(forwarding_v4(facts));
    settings.extend(forwarding_v6(facts));
    let tracks = !needs.nat_servers.is_empty() && facts.is_tracking;
    if tracks {
        settings.push(Setting::new(
            CONNTRACK,
            "1",
            "connections are tracked on this host, and firewall rules on their state (drop ctstate \
             INVALID, or accept only ESTABLISHED) would drop the replies of NAT servers",
        ));
    }
    // Without these two, a removed server's clients wait for their timeouts, and
    // clients that are bound to a server of weight 0 stay with it.
    let ends = match (needs.checks, needs.drains) {
        (true, _) => Some((
            "services have health checks: connections to a removed server end at once",
            "services have health checks: clients that are bound to a failed server go to \
             another one",
        )),
        (false, true) => Some((
            "servers are drained: connections to a removed server end at once",
            "servers are drained: clients that are bound to a drained server go to another one",
        )),
        (false, false) => None,
    };
    if let Some((removed, bound)) = ends {
        settings.push(Setting::new("net.ipv4.vs.expire_nodest_conn", "1", removed));
        settings.push(Setting::new(
            "net.ipv4.vs.expire_quiescent_template",
            "1",
            bound,
        ));
    }
    if needs.tcp {
        // Before Linux 5.9, conn_reuse_mode 1 delays a tracked connection by a
        // second if its client port was used before.
        let is_slow = facts.kernel.is_some_and(|kernel| kernel < REUSE_IS_SOUND) && tracks;
        let (value, reason) = match is_slow {
            true => (
                "0",
                "before Linux 5.9 a connection from a reused client port waits a second where \
                 connections are tracked",
            ),
            false => (
                "1",
                "a connection from a reused client port is scheduled afresh, and not sent to a \
                 server that is drained",
            ),
        };
        settings.push(Setting::new(CONN_REUSE_MODE, value, reason));
    }
    if needs.mh_tcp {
        settings.push(Setting::new(
            "net.ipv4.vs.sloppy_tcp",
            "1",
            "with scheduler mh, a director that takes over chooses the same servers, and continues \
             connections that it did not see begin",
        ));
    }
    if needs.mh {
        settings.push(Setting::new(
            "net.ipv4.vs.schedule_icmp",
            "1",
            "with scheduler mh, ICMP errors about connections that began on another director \
             reach their server: path MTU discovery needs them",
        ));
    }
    if tuning.are_vips_routed && needs.services {
        let mut ignore = Setting::new(
            "net.ipv4.conf.all.arp_ignore",
            "1",
            "VIPs are on a device of the agent's own (spec.addresses.mode Dummy): no interface \
             should answer ARP for them",
        );
        // With arp_ignore 2, the kernel also checks the sender's address. With
        // arp_ignore 8, the kernel never answers.
        ignore.or = &["2", "8"];
        settings.push(ignore);
        settings.push(Setting::new(
            "net.ipv4.conf.all.arp_announce",
            "2",
            "VIPs are on a device of the agent's own (spec.addresses.mode Dummy): no interface \
             should name them in its own ARP requests",
        ));
    }
    settings
}

/// Returns the IPv4 settings that NAT servers need. Only the servers' replies
/// need forwarding, because packets from clients are addressed to this host.
/// The setting of the incoming interface decides whether a reply is forwarded
/// (`net/ipv4/route.c`, `ip_mkroute_input`).
fn forwarding_v4(facts: &Facts) -> Vec<Setting> {
    let redirects = "otherwise ICMP redirects make servers on the clients' own segment answer \
                     directly, past the director";
    let mut settings = Vec::new();
    for interface in &facts.facing_v4 {
        let conf = format!("net.ipv4.conf.{}", spelled(interface));
        settings.push(Setting::new(
            format!("{conf}.forwarding"),
            "1",
            format!("replies of NAT servers come in on {interface} and go on to the clients"),
        ));
        settings.push(Setting::new(
            format!("{conf}.send_redirects"),
            "0",
            format!("NAT servers are behind {interface}: {redirects}"),
        ));
    }
    if !facts.facing_v4.is_empty() {
        // An interface sends redirects if its own value or the value of `all`
        // is 1 (IN_DEV_TX_REDIRECTS).
        settings.push(Setting::new(
            "net.ipv4.conf.all.send_redirects",
            "0",
            format!("while it is 1, an interface's own 0 has no effect: {redirects}"),
        ));
    }
    settings
}

/// Returns the IPv6 settings that NAT servers need. An interface's own
/// `forwarding` does not make the kernel forward packets
/// (`net/ipv6/ip6_output.c`, `ip6_forward`). `forwarding` only makes the
/// interface behave like a router's interface instead of a host's interface.
fn forwarding_v6(facts: &Facts) -> Vec<Setting> {
    if facts.facing_v6.is_empty() {
        return Vec::new();
    }
    if facts.has_force_forwarding {
        let each = facts.facing_v6.iter().map(|interface| {
            Setting::new(
                format!("net.ipv6.conf.{}.force_forwarding", spelled(interface)),
                "1",
                format!("replies of NAT servers come in on {interface} and go on to the clients"),
            )
        });
        return each.collect();
    }
    let interfaces: Vec<_> = facts.facing_v6.iter().map(String::as_str).collect();
    vec![Setting::new(
        ALL_IPV6_FORWARDING,
        "1",
        format!(
            "replies of NAT servers come in on {} and go on to the clients; before Linux 6.17 \
             no narrower setting forwards IPv6. The interfaces' own values stay as they are",
            interfaces.join(", ")
        ),
    )]
}

/// Whether writing the setting removes the default routes that came by router
/// advertisement. Switching on any IPv6 `forwarding` removes the default routes
/// from router advertisements on all interfaces (`net/ipv6/route.c`,
/// `rt6_purge_dflt_routers`).
fn ends_hosthood(setting: &Setting) -> bool {
    setting.name.starts_with("net.ipv6.conf.")
        && setting.name.ends_with(".forwarding")
        && setting.value != "0"
}

/// Returns the settings that must be written before IPv6 forwarding is switched
/// on.
fn before_forwarding(
    settings: &[Setting],
    overrides: &BTreeMap<String, String>,
    facts: &Facts,
) -> Vec<Setting> {
    if !settings.iter().any(ends_hosthood) {
        return Vec::new();
    }
    let each = facts.advertised.iter().map(|interface| {
        Setting::new(
            format!("net.ipv6.conf.{}.accept_ra", spelled(interface)),
            "2",
            format!(
                "{interface} has a default route from a router advertisement, which would be \
                 removed as soon as IPv6 is forwarded"
            ),
        )
    });
    each.filter(|setting| !overrides.contains_key(&setting.name))
        .collect()
}

#[cfg(test)]
mod tests;
