use std::{num::NonZeroU16, time::Duration};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{address, forwarding::forwarding, invalid, port};
use crate::{
    Availability, BelowMinimum, ForwardingRule, OnFailure, Quantity, Rejection, ServiceId,
    SorryServer,
    api::{self, BelowMinimumAction, Protocol, Scheduler, VirtualServiceSpec},
    bounds,
    service::family,
};

const PATH: &str = "spec.availability";
const SORRY: &str = "spec.availability.belowMinimum.sorryServer";

/// Checks `spec.availability` of a service and fills in the defaults.
pub(super) fn availability(
    spec: &VirtualServiceSpec,
    service: ServiceId,
    own_forwarding: Option<ForwardingRule>,
) -> Result<Availability, Rejection> {
    let default = api::Availability::default();
    let raw = match &spec.availability {
        Some(_) if spec.health_check.is_none() => {
            return Err(invalid(
                PATH,
                "without a health check no server fails; write spec.healthCheck too, or leave it \
                 out",
            ));
        }
        Some(raw) => raw,
        None => &default,
    };
    let (minimum, recover_above) = minimum(raw)?;
    Ok(Availability {
        on_failure: on_failure(raw, spec, service)?,
        minimum,
        recover_above,
        below: match &raw.below_minimum {
            Some(raw) => below_minimum(raw, service, own_forwarding)?,
            None => BelowMinimum::FailOpen,
        },
        slow_start: slow_start(raw, spec.scheduler)?,
    })
}

/// Returns what happens to a server that fails. By default, a failed server is
/// removed if its clients would keep using it at weight 0. UDP clients would do
/// so, for example: the kernel never treats their packets as a new connection,
/// even with `expire_nodest_conn` (`ip_vs_in_hook` in
/// `net/netfilter/ipvs/ip_vs_core.c`). With the schedulers sh and mh, a server
/// is never removed. The tables of sh and mh depend on the order in which
/// servers were added. If a server were removed and added again, the clients of
/// other servers would move. A service with a firewall mark does not count as
/// UDP, because the protocol of marked packets is not known.
fn on_failure(
    raw: &api::Availability,
    spec: &VirtualServiceSpec,
    service: ServiceId,
) -> Result<OnFailure, Rejection> {
    let hashes = matches!(spec.scheduler, Scheduler::Sh | Scheduler::Mh);
    let is_udp = matches!(
        service,
        ServiceId::Vip {
            protocol: Protocol::Udp,
            ..
        }
    );
    let clients_stay = is_udp
        || spec.one_packet_scheduling
        || spec.persistence.is_some()
        || spec.scheduler == Scheduler::Dh;
    match raw.on_failure {
        Some(api::OnFailure::Remove) if hashes => Err(invalid(
            &format!("{PATH}.onFailure"),
            "with schedulers sh and mh, removing one server moves the clients of others; write \
             Quiesce, or leave it out",
        )),
        Some(api::OnFailure::Remove) => Ok(OnFailure::Remove),
        Some(api::OnFailure::Quiesce) => Ok(OnFailure::Quiesce),
        None if clients_stay && !hashes => Ok(OnFailure::Remove),
        None => Ok(OnFailure::Quiesce),
    }
}

/// Returns the checked values of minimumHealthy and recoverAbove.
fn minimum(raw: &api::Availability) -> Result<(Option<Quantity>, Option<Quantity>), Rejection> {
    let path = format!("{PATH}.recoverAbove");
    let checked = |field, raw: &Option<_>| raw.as_ref().map(|it| quantity(field, it)).transpose();
    let minimum = checked("minimumHealthy", &raw.minimum_healthy)?;
    let recover_above = checked("recoverAbove", &raw.recover_above)?;
    let is_below = match (minimum, recover_above) {
        (None, Some(_)) => {
            return Err(invalid(
                &path,
                "needs minimumHealthy; write minimumHealthy too, or leave recoverAbove out",
            ));
        }
        (Some(Quantity::Count(minimum)), Some(Quantity::Count(recover))) => recover < minimum,
        (Some(Quantity::Percent(minimum)), Some(Quantity::Percent(recover))) => recover < minimum,
        _ => false,
    };
    if is_below {
        return Err(invalid(
            &path,
            "is below minimumHealthy; raise it to minimumHealthy, or leave it out",
        ));
    }
    Ok((minimum, recover_above))
}

fn quantity(field: &str, raw: &IntOrString) -> Result<Quantity, Rejection> {
    let text = match raw {
        IntOrString::Int(count) => count.to_string(),
        IntOrString::String(text) => text.clone(),
    };
    let quantity = match text.strip_suffix('%') {
        Some(percent) => number(percent)
            .and_then(|percent| u8::try_from(percent).ok())
            .filter(|percent| *percent <= 100)
            .map(Quantity::Percent),
        None => number(&text)
            .filter(|count| *count <= 10_000)
            .map(Quantity::Count),
    };
    quantity.ok_or_else(|| {
        invalid(
            &format!("{PATH}.{field}"),
            format_args!(
                "{text} is neither a count nor a percentage; write 0 to 10000, or \"0%\" to \
                 \"100%\""
            ),
        )
    })
}

/// Parses a decimal number without leading zeros.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn below_minimum(
    raw: &api::BelowMinimum,
    service: ServiceId,
    own_forwarding: Option<ForwardingRule>,
) -> Result<BelowMinimum, Rejection> {
    match (raw.action, &raw.sorry_server) {
        (BelowMinimumAction::FailOpen, None) => Ok(BelowMinimum::FailOpen),
        (BelowMinimumAction::Reject, None) => Ok(BelowMinimum::Reject),
        (BelowMinimumAction::SorryServer, Some(raw)) => {
            sorry_server(raw, service, own_forwarding).map(BelowMinimum::Sorry)
        }
        (BelowMinimumAction::SorryServer, None) => Err(invalid(
            SORRY,
            "action SorryServer needs sorryServer; write its address, or set another action",
        )),
        (BelowMinimumAction::FailOpen | BelowMinimumAction::Reject, Some(_)) => Err(invalid(
            SORRY,
            "only action SorryServer has sorryServer; leave it out, or set action to SorryServer",
        )),
    }
}

fn sorry_server(
    raw: &api::SorryServer,
    service: ServiceId,
    own_forwarding: Option<ForwardingRule>,
) -> Result<SorryServer, Rejection> {
    let port_path = format!("{SORRY}.port");
    let address_path = format!("{SORRY}.address");
    let address = address::server(&address_path, &raw.address)?;
    let port = raw
        .port
        .map(|raw| port(&port_path, raw, "the service's own"))
        .transpose()?;
    let own_port = service.port().map_or(0, NonZeroU16::get);
    let forwarding = match &raw.forwarding {
        Some(raw) => Some(forwarding(&format!("{SORRY}.forwarding"), raw)?),
        None => own_forwarding,
    };
    let forwarding = forwarding.ok_or_else(|| {
        invalid(
            SORRY,
            "neither the service nor the sorry server says how packets reach it; set \
             forwarding.method of one of them to NAT, DR or TUN",
        )
    })?;
    if forwarding != ForwardingRule::Nat && port.is_some_and(|port| port != own_port) {
        return Err(invalid(
            &port_path,
            "DR and TUN cannot change the port, and this is not the service's port; leave it out, \
             or set the sorry server's forwarding.method to NAT",
        ));
    }
    if family(address) != service.family() && !forwarding.is_tunnel() {
        return Err(invalid(
            &address_path,
            format_args!(
                "{address} is not an {:?} address as the service's are, and only a tunnel joins \
                 the two families; write one that is, or set the sorry server's forwarding.method \
                 to TUN",
                service.family()
            ),
        ));
    }
    Ok(SorryServer {
        address,
        port: port.unwrap_or(own_port),
        forwarding,
    })
}

fn slow_start(
    raw: &api::Availability,
    scheduler: Scheduler,
) -> Result<Option<Duration>, Rejection> {
    const LONGEST: i32 = bounds::SLOW_START_SECONDS;
    let path = format!("{PATH}.slowStartSeconds");
    let Some(raw) = raw.slow_start_seconds else {
        return Ok(None);
    };
    if matches!(scheduler, Scheduler::Sh | Scheduler::Mh | Scheduler::Dh) {
        return Err(invalid(
            &path,
            "schedulers sh, mh and dh choose by hash, and each step would move clients; leave it \
             out, or set another scheduler",
        ));
    }
    let seconds = Some(raw).filter(|seconds| (1..=LONGEST).contains(seconds));
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds.ok_or_else(|| {
        invalid(
            &path,
            format_args!("{raw} is out of range; write 1 to {LONGEST} seconds, or leave it out"),
        )
    })?;
    Ok(Some(Duration::from_secs(seconds)))
}
