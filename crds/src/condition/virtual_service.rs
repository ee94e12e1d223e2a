use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    FALSE, TRUE, UNKNOWN, condition, count, explained, find, kind, named, pending, reason,
};
use crate::{
    ObjectKey, Rejection,
    api::{DirectorException, ServiceBelowMinimum},
};

/// ResolvedRefs: all selected servers fit.
pub fn resolved_refs(servers: usize, generation: i64) -> Condition {
    condition(
        kind::RESOLVED_REFS,
        TRUE,
        reason::RESOLVED_REFS,
        format!("{} selected", count(servers, "real server")),
        generation,
    )
}

/// ResolvedRefs of a service that was never accepted.
pub fn refs_not_looked_at(generation: i64) -> Condition {
    condition(
        kind::RESOLVED_REFS,
        UNKNOWN,
        reason::NOT_PROGRAMMED,
        "Not looked at before the object is accepted",
        generation,
    )
}

/// No ResolvedRefs: the selector matches no RealServer.
pub fn no_real_servers(namespace: &str, generation: i64) -> Condition {
    condition(
        kind::RESOLVED_REFS,
        FALSE,
        reason::NO_REAL_SERVERS,
        format!(
            "spec.realServerSelector: no RealServer in namespace {namespace} has these labels; \
             label one, or change the selector"
        ),
        generation,
    )
}

/// No ResolvedRefs: these servers do not fit; the others serve. `refused` is
/// not empty ([`crate::Resolved::refused_by`]).
pub fn refused_refs<'a>(
    refused: impl IntoIterator<Item = (&'a ObjectKey, &'a Rejection)>,
    generation: i64,
) -> Condition {
    let refused: Vec<_> = refused.into_iter().collect();
    condition(
        kind::RESOLVED_REFS,
        FALSE,
        refused
            .first()
            .map_or(reason::REAL_SERVER_NOT_ACCEPTED, |(_, first)| first.reason),
        explained(&refused, "RealServer"),
        generation,
    )
}

/// Programmed: on all live directors.
pub fn programmed(directors: usize, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        TRUE,
        reason::PROGRAMMED,
        format!("On {}", count(directors, "director")),
        generation,
    )
}

/// Not yet Programmed: these directors have not used this state so far.
pub fn programming<'a>(
    waiting_for: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::PROGRAMMED,
        FALSE,
        reason::PROGRAMMING,
        format!("Waiting for director {}", named(waiting_for)),
        generation,
    )
}

/// Not Programmed: a director could not, and says why; so say others, which are
/// only counted.
///
/// A word of the director's that cannot be a condition's reason is replaced:
/// it is another version's, and whoever reads reasons counts on what
/// Kubernetes defines them to be.
pub fn not_programmed(
    director: &str,
    why: &DirectorException,
    others: usize,
    generation: i64,
) -> Condition {
    let reason = if is_reason(&why.reason) {
        &why.reason
    } else {
        reason::NOT_PROGRAMMED
    };
    let mut message = format!("Director {director}: ");
    if let Some(server) = &why.real_server
        && !why.message.contains(server.as_str())
    {
        let _ = write!(message, "RealServer {server}: ");
    }
    message.push_str(&why.message);
    if others > 0 {
        let s = if others == 1 { "" } else { "s" };
        let _ = write!(message, ". And {others} more director{s} could not");
    }
    condition(kind::PROGRAMMED, FALSE, reason, message, generation)
}

/// Not Programmed: the service is not accepted. `in_force`: an earlier version
/// of it was, and is what directors serve.
pub fn not_accepted_not_programmed(in_force: bool, generation: i64) -> Condition {
    let message = if in_force {
        "Not accepted as it is now; its last accepted version stays in force"
    } else {
        "Not accepted"
    };
    condition(
        kind::PROGRAMMED,
        FALSE,
        reason::NOT_PROGRAMMED,
        message,
        generation,
    )
}

/// Programmed is not known: the group is gone, and not every director needs to
/// have known it.
pub fn programmed_without_group(group: &str, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::DIRECTOR_GROUP_DELETED,
        format!(
            "DirectorGroup {group} was deleted: directors that have started since do not know it. \
             Create it again"
        ),
        generation,
    )
}

/// Programmed is not known: these servers, as namespace/name, are not accepted
/// as they are now, and not every director needs to have known them before.
pub fn programmed_with_outdated<'a>(
    servers: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::REAL_SERVER_NOT_ACCEPTED,
        format!(
            "RealServer {} is not accepted as it is now: directors that knew an earlier version go \
             on with that, others do not have it. Correct it",
            named(servers)
        ),
        generation,
    )
}

/// Programmed is not known: these directors left exceptions out of their
/// status.
pub fn more_exceptions<'a>(
    directors: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::NOT_PROGRAMMED,
        format!(
            "Director {} has more to report than fits into its status: see its exceptions",
            named(directors)
        ),
        generation,
    )
}

/// Not Programmed: no director of the group is alive.
pub fn no_directors(group: &str, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        FALSE,
        reason::NO_DIRECTORS,
        format!(
            "No director of group {group} renews its Lease; start an agent with --director-group \
             {group}, or look at kubectl get directors"
        ),
        generation,
    )
}

/// Not Programmed: the service is in the kernels, but no director holds the
/// address.
pub fn vip_not_held(address: &str, group: &str, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        FALSE,
        reason::VIP_NOT_HELD,
        format!(
            "No director of group {group} holds {address}; see why in the status of the director \
             that DirectorGroup {group} names in spec.addresses.holder"
        ),
        generation,
    )
}

/// Programmed is not known: these directors left addresses out of their status,
/// and nobody names this one.
pub fn more_vips<'a>(
    directors: impl IntoIterator<Item = &'a str>,
    address: &str,
    generation: i64,
) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::VIP_NOT_HELD,
        format!(
            "Director {} holds more VIPs than fit into its status, and nobody names {address}",
            named(directors)
        ),
        generation,
    )
}

/// Not Programmed: no director holds the address, and none is named to.
pub fn holder_not_named(address: &str, group: &str, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        FALSE,
        reason::HOLDER_NOT_NAMED,
        format!(
            "No director of group {group} holds {address}, and the group has several. Name the one \
             that is to: kubectl patch idg {group} --type=merge -p \
             '{{\"spec\":{{\"addresses\":{{\"holder\":\"NAME\"}}}}}}'"
        ),
        generation,
    )
}

/// Ready of a VirtualService: what the first of Accepted, ResolvedRefs and
/// Programmed that is not True says, or else True.
pub fn service_ready(conditions: &[Condition], generation: i64) -> Condition {
    let mut last = None;
    for kind in [kind::ACCEPTED, kind::RESOLVED_REFS, kind::PROGRAMMED] {
        let Some(found) = find(conditions, kind) else {
            return pending(kind::READY, generation);
        };
        if found.status != TRUE {
            return condition(
                kind::READY,
                &found.status,
                &found.reason,
                &found.message,
                generation,
            );
        }
        last = Some(found);
    }
    let message = last.map_or("", |last| &last.message);
    condition(kind::READY, TRUE, reason::READY, message, generation)
}

/// Not Ready: all is as the objects say, and still nobody can connect.
pub fn no_weight(servers: i32, generation: i64) -> Condition {
    condition(
        kind::READY,
        FALSE,
        reason::NO_REAL_SERVERS,
        format!(
            "No real server takes new connections: the weight of all {servers} is 0. Raise \
             spec.weight of one"
        ),
        generation,
    )
}

/// Not Ready: too few of its servers are healthy on a director, and something
/// else is in force there; so it is on others, which are only counted.
pub fn below_minimum(
    director: &str,
    below: &ServiceBelowMinimum,
    others: usize,
    generation: i64,
) -> Condition {
    let ServiceBelowMinimum {
        action,
        healthy,
        total,
        minimum,
        ..
    } = below;
    let needed = if healthy < minimum {
        format!("{minimum} needed")
    } else {
        format!("and not enough yet after fewer than {minimum}")
    };
    let in_force = match action.as_str() {
        "FailOpen" => ": all but drained servers are served as if healthy",
        "Reject" => ": new connections are refused",
        "SorryServer" => ": new connections go to the sorry server",
        // A newer agent's.
        _ => "",
    };
    let mut message = format!(
        "Director {director}: {healthy} of {total} real servers healthy, {needed}. \
         {action}{in_force}"
    );
    if others > 0 {
        let _ = write!(message, ". So on {}", count(others, "more director"));
    }
    condition(
        kind::READY,
        FALSE,
        reason::BELOW_MINIMUM,
        message,
        generation,
    )
}

/// Ready is not known: these directors left services out that have too few
/// healthy servers.
pub fn more_below_minimum<'a>(
    directors: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::READY,
        UNKNOWN,
        reason::MORE_TO_REPORT,
        format!(
            "Director {} has more services with too few healthy servers than fit into its status; \
             this may be one of them",
            named(directors)
        ),
        generation,
    )
}

/// Not Ready: on these directors no server is healthy, and the service's minimum
/// of 0 leaves it at that.
pub fn none_healthy<'a>(
    directors: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::READY,
        FALSE,
        reason::UNHEALTHY,
        format!(
            "Director {} has no healthy real server, and with spec.availability.minimumHealthy 0 \
             nothing is done about that",
            named(directors)
        ),
        generation,
    )
}

/// Ready is not known: on these directors no server is healthy, and it is too
/// early to say that too few are.
pub fn first_results<'a>(
    directors: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::READY,
        UNKNOWN,
        reason::CHECKING,
        format!(
            "Director {} waits for the first results of the health check; no real server is \
             healthy there so far",
            named(directors)
        ),
        generation,
    )
}

/// Whether Kubernetes takes a word for a condition's reason.
fn is_reason(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 1024
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte))
        && !text.ends_with([',', ':'])
}
