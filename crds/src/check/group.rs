use std::collections::BTreeMap;

use super::{BudgetRule, Checked, Grants, budget, grant, invalid, name, sysctl};
use crate::{
    Rejection,
    api::{
        AddressMode, Addresses, DirectorGroup, DirectorGroupSpec, OnConflict, SysctlProfile,
        Timeouts,
    },
    bounds,
};

/// A checked DirectorGroup.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckedGroup {
    /// The addresses and firewall marks that objects of the API may use.
    pub grants: Grants,
    /// The budgets, which limit the work that API objects cause on each
    /// director.
    pub budgets: BudgetRule,
    /// Where the directors put the group's VIPs.
    pub addresses: AddressRule,
    /// The Director that holds the group's VIPs, if one is named.
    pub holder: Option<String>,
    /// The time, in seconds since 1970, until which the directors may remove
    /// any number of entries.
    pub removals_allowed_until: Option<i64>,
    /// What a director does if another program's entry in the kernel's table
    /// differs from the wanted entry.
    pub on_conflict: OnConflict,
    /// How long the kernel remembers idle connections.
    pub timeouts: TimeoutRule,
    /// The sysctls that the directors of the group set.
    pub sysctls: SysctlRule,
}

/// The sysctls that the directors of a group set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SysctlRule {
    /// The profile, which selects the sysctls that the directors set without an
    /// entry in `overrides`.
    pub profile: SysctlProfile,
    /// The sysctls that the group sets, with names as sysctl(8) writes them.
    /// Each sysctl belongs to an interface or to IPVS. No name leads to a file
    /// outside `/proc/sys`.
    pub overrides: BTreeMap<String, String>,
}

/// Where the directors put VIPs.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum AddressRule {
    /// The directors put a VIP on the interface whose subnet contains the VIP.
    #[default]
    Subnet,
    /// The directors put VIPs on the interface with this name.
    Interface(String),
    /// The directors put VIPs on a device that the agent creates.
    Dummy,
    /// Another program adds the VIPs, and the agent adds none.
    Manual,
}

/// How long the kernel remembers idle connections, in seconds. A timeout of
/// None means the value that the kernel had before a director set the timeout.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TimeoutRule {
    /// The timeout of an established TCP connection.
    pub tcp: Option<u32>,
    /// The timeout of a TCP connection after a FIN.
    pub tcp_fin: Option<u32>,
    /// The timeout of a flow of UDP datagrams.
    pub udp: Option<u32>,
}

impl Checked for CheckedGroup {
    type Object = DirectorGroup;

    const KEPT_WHEN_GONE: bool = true;

    fn check(spec: &DirectorGroupSpec) -> Result<Self, Rejection> {
        let holder = spec
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.holder.clone());
        if let Some(holder) = &holder {
            name::subdomain("spec.addresses.holder", holder)?;
        }
        let addresses = match &spec.addresses {
            Some(raw) => address_rule(raw)?,
            None => AddressRule::default(),
        };
        let allow_until = spec
            .removals
            .as_ref()
            .and_then(|removals| removals.allow_until.as_ref());
        Ok(Self {
            grants: grant::grants(spec)?,
            budgets: budget::budgets(spec.budgets.as_ref())?,
            addresses,
            holder,
            removals_allowed_until: allow_until.map(|time| time.0.as_second()),
            on_conflict: spec.on_conflict,
            timeouts: match &spec.timeouts {
                Some(raw) => timeouts(raw)?,
                None => TimeoutRule::default(),
            },
            sysctls: match &spec.sysctls {
                Some(raw) => SysctlRule {
                    profile: raw.profile,
                    overrides: sysctl::overrides(raw)?,
                },
                None => SysctlRule::default(),
            },
        })
    }
}

fn address_rule(raw: &Addresses) -> Result<AddressRule, Rejection> {
    match (raw.mode, &raw.interface) {
        (AddressMode::Interface, None) => Ok(AddressRule::Subnet),
        (AddressMode::Interface, Some(name)) => {
            name::interface("spec.addresses.interface", name)?;
            Ok(AddressRule::Interface(name.clone()))
        }
        (AddressMode::Dummy, None) => Ok(AddressRule::Dummy),
        (AddressMode::Manual, None) => Ok(AddressRule::Manual),
        (AddressMode::Dummy | AddressMode::Manual, Some(_)) => Err(invalid(
            "spec.addresses",
            "interface is for mode Interface; leave it out, or write mode: Interface",
        )),
    }
}

fn timeouts(raw: &Timeouts) -> Result<TimeoutRule, Rejection> {
    Ok(TimeoutRule {
        tcp: timeout("spec.timeouts.tcpSeconds", raw.tcp_seconds)?,
        tcp_fin: timeout("spec.timeouts.tcpFinSeconds", raw.tcp_fin_seconds)?,
        udp: timeout("spec.timeouts.udpSeconds", raw.udp_seconds)?,
    })
}

fn timeout(path: &str, raw: Option<i32>) -> Result<Option<u32>, Rejection> {
    const LONGEST: u32 = bounds::TIMEOUT_SECONDS;
    let Some(raw) = raw else {
        return Ok(None);
    };
    let seconds = u32::try_from(raw).ok();
    let seconds = seconds.filter(|seconds| (1..=LONGEST).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        invalid(
            path,
            format_args!(
                "{raw} is not a timeout; write 1 to {LONGEST} seconds, or leave it out for the \
                 kernel's own value"
            ),
        )
    })?;
    Ok(Some(seconds))
}
