//! Which sysctls a director's services need, and why: pure.
//!
//! ```text
//! services, servers ─▶ Needs ─┐
//! the group ─▶ Tuning ────────┼─▶ wanted() ─▶ [Setting: name, value, reason]
//! the host ─▶ Facts ──────────┘
//! ```
//!
//! Only what a present service needs is wanted. What is written when, and
//! whether it was somebody else's wish, is for the round to find out.

mod fight;
mod needs;

use std::collections::{BTreeMap, BTreeSet};

use crds::{AddressRule, CheckedGroup, SysctlRule, api::SysctlProfile};

pub use self::{fight::Fight, needs::Needs};
use crate::host::{
    surroundings::KernelVersion,
    sysctls::{ALL_IPV6_FORWARDING, spelled},
};

/// What is below it is IPVS's alone, and restored when nothing needs it.
const IPVS: &str = "net.ipv4.vs.";
const CONNTRACK: &str = "net.ipv4.vs.conntrack";
const CONN_REUSE_MODE: &str = "net.ipv4.vs.conn_reuse_mode";
/// From this version on a client's port that is used again loses no time with
/// connection tracking (commit f0a5e4d7a594; kubernetes/kubernetes#93297).
const REUSE_IS_SOUND: KernelVersion = KernelVersion(5, 9);

/// What a group says about its directors' sysctls.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tuning {
    /// Which of them are set.
    pub rule: SysctlRule,
    /// Whether VIPs are on a device of the agent's own, for a routing daemon.
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

/// What the host is like.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// The running kernel; none if it does not say.
    pub kernel: Option<KernelVersion>,
    /// The interfaces that lead to NAT servers of IPv4.
    pub facing_v4: BTreeSet<String>,
    /// The same of IPv6.
    pub facing_v6: BTreeSet<String>,
    /// Interfaces where the kernel took a default route of IPv6 from a router
    /// advertisement.
    pub advertised: BTreeSet<String>,
    /// Whether IPv6 can be forwarded from single interfaces (Linux 6.17, commit
    /// f24987ef6959).
    pub has_force_forwarding: bool,
    /// Whether connections are tracked on this host.
    pub is_tracking: bool,
}

/// One sysctl as it is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Its name, as sysctl(8) has it.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Others that do as well, and are left.
    pub or: &'static [&'static str],
    /// Why, in words.
    pub reason: String,
    /// Sysctls that have to be as they are wanted before.
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

    /// Whether it is as it is to be when this was read.
    pub fn is_met_by(&self, found: &str) -> bool {
        is_same(&self.value, found) || self.or.iter().any(|value| is_same(value, found))
    }
}

/// Whether two spellings are of one value: the kernel puts tabs between numbers.
pub fn is_same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// Whether a sysctl is IPVS's own: it is restored when nothing needs it. The
/// others are shared with everything else on the host; they are left as they
/// are then, as somebody may count on them by now.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(IPVS)
}

/// Whether we may have set this, where it is not known what was set: another
/// value than any that is ever recommended is somebody else's.
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
        // An override's, of which nothing is known.
        _ => return true,
    };
    recommended.iter().any(|value| is_same(value, found))
}

/// What is wanted, in the order in which it is to be set. Each name once.
pub fn wanted(needs: &Needs, tuning: &Tuning, facts: &Facts) -> Vec<Setting> {
    let overrides = &tuning.rule.overrides;
    let mut settings = match tuning.rule.profile {
        SysctlProfile::Recommended => recommended(needs, tuning, facts),
        SysctlProfile::None => Vec::new(),
    };
    settings.retain(|setting| !overrides.contains_key(&setting.name));
    // Whoever sets it as well as forwarding wants to keep a default route.
    let is_first = |name: &str| name.ends_with(".accept_ra");
    for first in [true, false] {
        let now = overrides.iter().filter(|(name, _)| is_first(name) == first);
        let reason = "the group's spec.sysctls.overrides has it";
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
            "connections are tracked on this host, and rules that go by it (ctstate INVALID, or \
             only ESTABLISHED let through) would drop the replies of NAT servers",
        ));
    }
    if needs.checks {
        settings.push(Setting::new(
            "net.ipv4.vs.expire_nodest_conn",
            "1",
            "services have health checks: connections of a server that was taken out end at once",
        ));
        settings.push(Setting::new(
            "net.ipv4.vs.expire_quiescent_template",
            "1",
            "services have health checks: clients that are bound to a server that failed go to \
             another one",
        ));
    }
    if needs.tcp {
        // A tracked connection on a port that was used before would wait for
        // a second there.
        let is_slow = facts.kernel.is_some_and(|kernel| kernel < REUSE_IS_SOUND) && tracks;
        let (value, reason) = match is_slow {
            true => (
                "0",
                "before Linux 5.9 a client's port that is used again waits a second where \
                 connections are tracked",
            ),
            false => (
                "1",
                "a client's port that is used again is scheduled afresh, and not sent to a server \
                 that is drained",
            ),
        };
        settings.push(Setting::new(CONN_REUSE_MODE, value, reason));
    }
    if needs.mh_tcp {
        settings.push(Setting::new(
            "net.ipv4.vs.sloppy_tcp",
            "1",
            "with scheduler mh, a director that takes over finds the same servers, and goes on \
             with connections of which it did not see the beginning",
        ));
    }
    if needs.mh {
        settings.push(Setting::new(
            "net.ipv4.vs.schedule_icmp",
            "1",
            "with scheduler mh, ICMP errors about connections that began at another director \
             reach their server: path MTU discovery needs them",
        ));
    }
    if tuning.are_vips_routed && needs.services {
        let mut ignore = Setting::new(
            "net.ipv4.conf.all.arp_ignore",
            "1",
            "VIPs are on a device of the agent's own (spec.addresses.mode Dummy): no interface is \
             to answer ARP for them",
        );
        // With 2 it also asks who asks, with 8 it never answers.
        ignore.or = &["2", "8"];
        settings.push(ignore);
        settings.push(Setting::new(
            "net.ipv4.conf.all.arp_announce",
            "2",
            "VIPs are on a device of the agent's own (spec.addresses.mode Dummy): no interface is \
             to name them in its own ARP requests",
        ));
    }
    settings
}

/// Packets come in for an address of this host and need no forwarding; replies
/// do, and what counts is the interface where they come in (`net/ipv4/route.c`,
/// `ip_mkroute_input`).
fn forwarding_v4(facts: &Facts) -> Vec<Setting> {
    let redirects = "else servers on the clients' own segment are told to answer them directly, \
                     past the director";
    let mut settings = Vec::new();
    for interface in &facts.facing_v4 {
        let conf = format!("net.ipv4.conf.{}", spelled(interface));
        settings.push(Setting::new(
            format!("{conf}.forwarding"),
            "1",
            format!("replies of NAT servers come in on {interface}, and go on to the clients"),
        ));
        settings.push(Setting::new(
            format!("{conf}.send_redirects"),
            "0",
            format!("NAT servers are behind {interface}: {redirects}"),
        ));
    }
    if !facts.facing_v4.is_empty() {
        // It is in force on an interface if either is 1 (IN_DEV_TX_REDIRECTS).
        settings.push(Setting::new(
            "net.ipv4.conf.all.send_redirects",
            "0",
            format!("while it is 1, an interface's own 0 counts for nothing: {redirects}"),
        ));
    }
    settings
}

/// An interface's own `forwarding` lets nothing through
/// (`net/ipv6/ip6_output.c`, `ip6_forward`), it says whether the interface is a
/// host's or a router's.
fn forwarding_v6(facts: &Facts) -> Vec<Setting> {
    if facts.facing_v6.is_empty() {
        return Vec::new();
    }
    if facts.has_force_forwarding {
        let each = facts.facing_v6.iter().map(|interface| {
            Setting::new(
                format!("net.ipv6.conf.{}.force_forwarding", spelled(interface)),
                "1",
                format!("replies of NAT servers come in on {interface}, and go on to the clients"),
            )
        });
        return each.collect();
    }
    let interfaces: Vec<_> = facts.facing_v6.iter().map(String::as_str).collect();
    vec![Setting::new(
        ALL_IPV6_FORWARDING,
        "1",
        format!(
            "replies of NAT servers come in on {}, and go on to the clients; before Linux 6.17 \
             nothing less than this lets IPv6 through. The interfaces' own values stay as they are",
            interfaces.join(", ")
        ),
    )]
}

/// Any `forwarding` of IPv6 that is switched on takes away the default routes
/// that came by router advertisement, of all interfaces
/// (`net/ipv6/route.c`, `rt6_purge_dflt_routers`).
fn ends_hosthood(setting: &Setting) -> bool {
    setting.name.starts_with("net.ipv6.conf.")
        && setting.name.ends_with(".forwarding")
        && setting.value != "0"
}

/// What has to be so before any of that.
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
                "{interface} has a default route from a router advertisement, which would go as \
                 soon as IPv6 is forwarded"
            ),
        )
    });
    each.filter(|setting| !overrides.contains_key(&setting.name))
        .collect()
}

#[cfg(test)]
mod tests;
