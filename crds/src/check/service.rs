use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    Checked, Selector, address, availability::availability, drain, forwarding::forwarding,
    health_check::health_check, invalid, name::subdomain,
};
use crate::{
    Availability, ForwardingRule, HealthCheck, Loose, PersistenceRule, REMOVAL_GRACE_PERIOD,
    Rejection, ServiceId,
    api::{
        FirewallMark, IpFamily, Persistence, PersistenceEngine, Protocol, Scheduler, SchedulerFlag,
        Vip, VirtualService, VirtualServiceSpec, default_group,
    },
    bounds,
    condition::reason,
};

/// A checked VirtualService.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedService {
    /// The name of the DirectorGroup whose directors serve the service.
    pub group: String,
    /// The key of the service in the kernel's table.
    pub id: ServiceId,
    /// The scheduler, which chooses the server of each new connection.
    pub scheduler: Scheduler,
    /// Whether the scheduler flag sh-fallback or mh-fallback is set.
    pub fallback: bool,
    /// Whether the scheduler flag sh-port or mh-port is set.
    pub hash_port: bool,
    /// Whether the scheduler chooses a server for each datagram (one-packet
    /// scheduling).
    pub one_packet: bool,
    /// How a client stays with its server. With a `persistence` of None, the
    /// service has no persistence.
    pub persistence: Option<PersistenceRule>,
    /// How the servers are probed. With a `health_check` of None, the service's
    /// servers are not checked.
    pub health_check: Option<Arc<HealthCheck>>,
    /// How the service reacts to servers that fail their health check.
    pub availability: Availability,
    /// How packets reach the servers that have no forwarding of their own.
    pub forwarding: Option<ForwardingRule>,
    /// Which servers belong to the service.
    pub selector: Selector,
    /// How long connections may go on after their server no longer belongs to the
    /// service.
    pub removal_grace_period: Duration,
}

impl Checked for CheckedService {
    type Object = VirtualService;

    fn check(spec: &VirtualServiceSpec) -> Result<Self, Rejection> {
        let id = id(spec)?;
        let (fallback, hash_port) = scheduler_flags(spec)?;
        one_packet(spec, id)?;
        subdomain("spec.directorGroupName", &spec.director_group_name)?;
        let own_forwarding = spec
            .forwarding
            .as_ref()
            .map(|raw| forwarding("spec.forwarding", raw))
            .transpose()?;
        Ok(Self {
            group: spec.director_group_name.clone(),
            id,
            scheduler: spec.scheduler,
            fallback,
            hash_port,
            one_packet: spec.one_packet_scheduling,
            persistence: spec
                .persistence
                .as_ref()
                .map(|raw| persistence(raw, id))
                .transpose()?,
            health_check: spec
                .health_check
                .as_ref()
                .map(|raw| health_check(raw, id).map(Arc::new))
                .transpose()?,
            availability: availability(spec, id, own_forwarding)?,
            forwarding: own_forwarding,
            selector: Selector::check(&spec.real_server_selector)?,
            removal_grace_period: drain::seconds(
                "spec.removalGracePeriodSeconds",
                spec.removal_grace_period_seconds,
                REMOVAL_GRACE_PERIOD,
            )?,
        })
    }

    fn may_follow(&self, before: &Self) -> Result<(), Rejection> {
        let (path, was) = if self.id != before.id {
            let path = match before.id {
                ServiceId::Vip { .. } => "spec.vip",
                ServiceId::FirewallMark { .. } => "spec.firewallMark",
            };
            (path, before.id.to_string())
        } else if self.group != before.group {
            ("spec.directorGroupName", before.group.clone())
        } else {
            return Ok(());
        };
        Err(Rejection {
            reason: reason::IMMUTABLE,
            message: format!(
                "{path}: is immutable, and was {was}; make a new VirtualService and delete this one"
            ),
        })
    }

    fn group(object: &Loose<VirtualService>) -> Option<String> {
        Some(match &object.spec {
            Ok(spec) => spec.director_group_name.clone(),
            Err(_) => object.group.clone().unwrap_or_else(default_group),
        })
    }
}

fn id(spec: &VirtualServiceSpec) -> Result<ServiceId, Rejection> {
    match (&spec.vip, &spec.firewall_mark) {
        (Some(raw), None) => vip(raw, spec.persistence.is_some()),
        (None, Some(raw)) => firewall_mark(raw),
        (Some(_), Some(_)) => Err(invalid(
            "spec.vip",
            "vip and firewallMark exclude each other; write one of them",
        )),
        (None, None) => Err(invalid(
            "spec.vip",
            "neither vip nor firewallMark is given; write one of them",
        )),
    }
}

fn vip(raw: &Vip, persistent: bool) -> Result<ServiceId, Rejection> {
    const PATH: &str = "spec.vip.port";
    let address = address::vip("spec.vip.address", &raw.address)?;
    let port = u16::try_from(raw.port).map_err(|_| {
        invalid(
            PATH,
            format_args!("{} is not a port; write 1 to 65535", raw.port),
        )
    })?;
    if port == 0 && !persistent {
        return Err(invalid(
            PATH,
            "port 0 serves every port, which needs persistence; write a port, or add persistence",
        ));
    }
    Ok(ServiceId::Vip {
        address,
        port,
        protocol: raw.protocol,
    })
}

fn firewall_mark(raw: &FirewallMark) -> Result<ServiceId, Rejection> {
    let mark = u32::try_from(raw.mark)
        .ok()
        .and_then(NonZeroU32::new)
        .ok_or_else(|| {
            invalid(
                "spec.firewallMark.mark",
                format_args!("{} is not a mark; write 1 to {}", raw.mark, u32::MAX),
            )
        })?;
    Ok(ServiceId::FirewallMark {
        mark,
        family: raw.ip_family,
    })
}

/// Returns the service's scheduler flags as (fallback, hash_port).
fn scheduler_flags(spec: &VirtualServiceSpec) -> Result<(bool, bool), Rejection> {
    const PATH: &str = "spec.schedulerFlags";
    let hashes = matches!(spec.scheduler, Scheduler::Sh | Scheduler::Mh);
    let Some(flags) = &spec.scheduler_flags else {
        return Ok((hashes, false));
    };
    for (index, flag) in flags.iter().enumerate() {
        if flags[..index].contains(flag) {
            return Err(invalid(PATH, "write each flag only once"));
        }
        let owner = match flag {
            SchedulerFlag::ShFallback | SchedulerFlag::ShPort => Scheduler::Sh,
            SchedulerFlag::MhFallback | SchedulerFlag::MhPort => Scheduler::Mh,
        };
        if owner != spec.scheduler {
            return Err(invalid(
                PATH,
                "sh-port and sh-fallback are for scheduler sh, mh-port and mh-fallback for \
                 scheduler mh; leave out the flags of other schedulers",
            ));
        }
    }
    let has = |sh, mh| flags.contains(&sh) || flags.contains(&mh);
    Ok((
        has(SchedulerFlag::ShFallback, SchedulerFlag::MhFallback),
        has(SchedulerFlag::ShPort, SchedulerFlag::MhPort),
    ))
}

/// One-packet scheduling is allowed with a firewall mark, as ipvsadm(8)
/// documents. The kernel ignores one-packet scheduling for packets that are not
/// UDP (`ip_vs_schedule` in `net/netfilter/ipvs/ip_vs_core.c`).
fn one_packet(spec: &VirtualServiceSpec, id: ServiceId) -> Result<(), Rejection> {
    if spec.one_packet_scheduling && !may_be_udp(id) {
        return Err(invalid(
            "spec.onePacketScheduling",
            "only UDP can be scheduled packet by packet; leave it out, or set spec.vip.protocol to \
             UDP",
        ));
    }
    Ok(())
}

fn may_be_udp(id: ServiceId) -> bool {
    match id {
        ServiceId::Vip { protocol, .. } => protocol == Protocol::Udp,
        ServiceId::FirewallMark { .. } => true,
    }
}

fn persistence(raw: &Persistence, id: ServiceId) -> Result<PersistenceRule, Rejection> {
    const LONGEST: u32 = bounds::PERSISTENCE_SECONDS;
    let timeout_seconds = u32::try_from(raw.timeout_seconds)
        .ok()
        .filter(|seconds| (1..=LONGEST).contains(seconds))
        .ok_or_else(|| {
            invalid(
                "spec.persistence.timeoutSeconds",
                format_args!(
                    "{} is not a timeout; write 1 to {LONGEST} seconds",
                    raw.timeout_seconds
                ),
            )
        })?;
    let (family, bits) = match id.family() {
        IpFamily::IPv4 => ("IPv4", bounds::PREFIX_IPV4),
        IpFamily::IPv6 => ("IPv6", bounds::PREFIX_IPV6),
    };
    let prefix_length = match raw.prefix_length {
        None => bits,
        Some(length) => u8::try_from(length)
            .ok()
            .filter(|length| (1..=bits).contains(length))
            .ok_or_else(|| {
                invalid(
                    "spec.persistence.prefixLength",
                    format_args!(
                        "{length} is not a prefix length of {family}; write 1 to {bits}, or leave \
                         it out for the whole address"
                    ),
                )
            })?,
    };
    if raw.engine == Some(PersistenceEngine::Sip) && !may_be_udp(id) {
        return Err(invalid(
            "spec.persistence.engine",
            "sip reads SIP over UDP only; leave it out, or set spec.vip.protocol to UDP",
        ));
    }
    Ok(PersistenceRule {
        timeout_seconds,
        prefix_length,
        engine: raw.engine,
    })
}
