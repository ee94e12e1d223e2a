use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    FALSE, TRUE, UNKNOWN, condition, count, explained, find, kind, named, pending, reason,
};
use crate::{
    ObjectKey, Rejection,
    api::{DirectorException, ServiceBelowMinimum},
};

/// ResolvedRefs is True: all selected servers fit the service.
pub fn resolved_refs(servers: usize, generation: i64) -> Condition {
    condition(
        kind::RESOLVED_REFS,
        TRUE,
        reason::RESOLVED_REFS,
        format!("{} selected", count(servers, "real server")),
        generation,
    )
}

/// ResolvedRefs is Unknown: the service was never accepted.
pub fn refs_not_looked_at(generation: i64) -> Condition {
    condition(
        kind::RESOLVED_REFS,
        UNKNOWN,
        reason::PENDING,
        "Not checked until the object is accepted",
        generation,
    )
}

/// ResolvedRefs is False: the selector matches no RealServer.
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

/// ResolvedRefs is False: some servers do not fit the service. The service does
/// not use these servers. `refused` must not be empty
/// ([`crate::Resolved::refused_by`]). `left_out` is the number of further
/// servers that a budget leaves out ([`crate::Service::left_out`]). The message
/// gives only the number of these further servers.
pub fn refused_refs<'a>(
    refused: impl IntoIterator<Item = (&'a ObjectKey, &'a Rejection)>,
    left_out: usize,
    generation: i64,
) -> Condition {
    let refused: Vec<_> = refused.into_iter().collect();
    condition(
        kind::RESOLVED_REFS,
        FALSE,
        refused
            .first()
            .map_or(reason::REAL_SERVER_NOT_ACCEPTED, |(_, first)| first.reason),
        explained(&refused, left_out, "RealServer"),
        generation,
    )
}

/// Programmed is True: all live directors hold the service.
pub fn programmed(directors: usize, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        TRUE,
        reason::PROGRAMMED,
        format!("On {}", count(directors, "director")),
        generation,
    )
}

/// Programmed is False: some directors have not used the current objects yet.
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

/// Programmed is False: `director` failed, and its exception `why` gives the
/// reason. `others` is the number of other directors that failed too.
///
/// An agent of another version may report a reason that Kubernetes does not
/// accept as a condition's reason. An invalid reason is replaced, because
/// programs rely on Kubernetes' rules.
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
        && !why.message.contains(&server.to_string())
    {
        let _ = write!(message, "RealServer {server}: ");
    }
    message.push_str(&why.message);
    if others > 0 {
        let s = if others == 1 { "" } else { "s" };
        let _ = write!(message, ". {others} more director{s} failed");
    }
    condition(kind::PROGRAMMED, FALSE, reason, message, generation)
}

/// Programmed is False: the service is not accepted. If `in_force` is true,
/// directors serve an earlier version of the service.
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

/// Programmed is Unknown: the DirectorGroup was deleted, and some directors may
/// never have known the group.
pub fn programmed_without_group(group: &str, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::DIRECTOR_GROUP_DELETED,
        format!(
            "DirectorGroup {group} was deleted, and directors that were started since then do \
             not know it. Create it again"
        ),
        generation,
    )
}

/// Programmed is Unknown: `servers` (given as namespace/name) are not accepted
/// in their current version. Some directors may never have known an accepted
/// version of these servers.
pub fn programmed_with_outdated<'a>(
    servers: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::REAL_SERVER_NOT_ACCEPTED,
        format!(
            "RealServer {} is not accepted: directors that knew an earlier version still use that, \
             others do not have the server. Correct it",
            named(servers)
        ),
        generation,
    )
}

/// Programmed is Unknown: a budget leaves out servers of the service. Directors
/// may leave out different servers, because a director may not know the last
/// accepted version of every object in the budget.
pub fn programmed_as_budgets_allow(namespace: &str, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        UNKNOWN,
        reason::BUDGET_EXCEEDED,
        format!(
            "A budget leaves real servers out, and which ones may differ between directors because \
             of objects in namespace {namespace} that are not accepted as they are now. Correct \
             them"
        ),
        generation,
    )
}

/// Programmed is Unknown: some directors left exceptions out of their status.
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

/// Programmed is False: no director of the group renews its Lease.
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

/// The director that should hold a VIP that no director holds.
#[derive(Clone, Copy, Debug)]
pub enum ExpectedHolder<'a> {
    /// A live director, and the message of its condition Programmed.
    Live(&'a str, &'a str),
    /// The named holder is no live director of the group. The second director,
    /// if there is one, is live and could hold the VIP instead.
    NotLive(&'a str, Option<&'a str>),
    /// Another program adds the VIPs (mode Manual).
    AnotherProgram,
}

/// Programmed is False: the kernels hold the service, but no director holds the
/// VIP.
pub fn vip_not_held(
    address: &str,
    group: &str,
    expected: ExpectedHolder<'_>,
    generation: i64,
) -> Condition {
    let why = match expected {
        ExpectedHolder::Live(director, says) => format!("Director {director} says: {says}"),
        ExpectedHolder::NotLive(director, standby) => format!(
            "{director}, the named holder, is no live director of the group: start its agent, or \
             name another one: kubectl patch idg {group} --type=merge -p \
             '{{\"spec\":{{\"addresses\":{{\"holder\":\"{}\"}}}}}}'",
            standby.unwrap_or("NAME")
        ),
        ExpectedHolder::AnotherProgram => format!(
            "The group's spec.addresses.mode is Manual, so the agents add no VIP. Look at the \
             program that is to add it, keepalived for example, and at `ip address show to \
             {address}` on each director"
        ),
    };
    condition(
        kind::PROGRAMMED,
        FALSE,
        reason::VIP_NOT_HELD,
        format!("No director of group {group} holds {address}. {why}"),
        generation,
    )
}

/// Programmed is Unknown: no director names the service's VIP, but some
/// directors left addresses out of their status.
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
            "Director {} holds more VIPs than fit into its status, and no director lists {address}",
            named(directors)
        ),
        generation,
    )
}

/// Programmed is False: no director holds the VIP, and the group does not name
/// a holder.
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

/// The condition Ready of a VirtualService repeats the first of Accepted,
/// ResolvedRefs and Programmed that is not True. If Accepted, ResolvedRefs and
/// Programmed are True, Ready is True.
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

/// Ready is False: the service is programmed, but no server takes new
/// connections because all weights are 0.
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

/// Ready is False: a director has fewer healthy servers than the service's
/// minimum, and applies the service's `belowMinimum` action. `unhealthy` are the
/// names of the servers that the director reports unhealthy. `others` is the
/// number of other directors with too few healthy servers.
pub fn below_minimum(
    director: &str,
    below: &ServiceBelowMinimum,
    unhealthy: &[&str],
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
        format!("not enough yet to recover from fewer than {minimum}")
    };
    let in_force = match action.as_str() {
        "FailOpen" => ": every server that is not drained counts as healthy",
        "Reject" => ": new connections are refused",
        "SorryServer" => ": new connections go to the sorry server",
        // A newer agent may report an action that this version of the
        // controller does not know.
        _ => "",
    };
    let not_healthy = match unhealthy {
        [] => String::new(),
        names => format!(" (not {})", named(names.iter().copied())),
    };
    let mut message = format!(
        "Director {director}: {healthy} of {total} real servers healthy{not_healthy}, {needed}. \
         {action}{in_force}"
    );
    if others > 0 {
        let _ = write!(message, ". The same on {}", count(others, "more director"));
    }
    condition(
        kind::READY,
        FALSE,
        reason::BELOW_MINIMUM,
        message,
        generation,
    )
}

/// Ready is Unknown: some directors cannot name all services with too few
/// healthy servers, because their status has no room.
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

/// Ready is False: some directors have no healthy server, and take no action
/// because the service's minimum is 0.
pub fn none_healthy<'a>(
    directors: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    condition(
        kind::READY,
        FALSE,
        reason::UNHEALTHY,
        format!(
            "Director {} has no healthy real server, and nothing is done about it because \
             spec.availability.minimumHealthy is 0",
            named(directors)
        ),
        generation,
    )
}

/// Ready is Unknown: some directors have no healthy server, because the first
/// probes have not shown yet which servers are healthy.
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

/// Returns whether Kubernetes accepts a text as a condition's reason.
fn is_reason(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 1024
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte))
        && !text.ends_with([',', ':'])
}
