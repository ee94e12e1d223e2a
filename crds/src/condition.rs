//! Every condition of the API: each type and each reason one const, each
//! condition one constructor.
//!
//! Nothing here reads a clock: a constructor leaves `lastTransitionTime` at
//! 1970, and [`set`] gives it the time of the change.

mod director;
mod real_server;
mod virtual_service;

use std::fmt::{Display, Write};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{ObjectKey, Rejection};

pub use director::*;
pub use real_server::*;
pub use virtual_service::*;

/// Condition types.
pub mod kind {
    /// The object is understood and in force as it is now.
    pub const ACCEPTED: &str = "Accepted";
    /// Every real server that a service selects fits it.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The kernels of all live directors hold it as it is now.
    pub const PROGRAMMED: &str = "Programmed";
    /// It works: the one condition to look at.
    pub const READY: &str = "Ready";
    /// A director was to remove more at once than it does without being told.
    pub const REMOVALS_HELD: &str = "RemovalsHeld";
    /// A director's probes of real servers tell something.
    pub const HEALTH_CHECKS: &str = "HealthChecks";
    /// A director's sysctls are as its services need them.
    pub const SYSCTLS: &str = "Sysctls";
    /// A director renews its Lease.
    pub const ALIVE: &str = "Alive";
}

/// Condition reasons.
pub mod reason {
    /// Nobody has looked at the object yet.
    pub const PENDING: &str = "Pending";
    /// Accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// A field is wrong by itself.
    pub const INVALID: &str = "Invalid";
    /// The spec does not parse: a newer version's, probably.
    pub const UNREADABLE: &str = "Unreadable";
    /// The group was never seen.
    pub const DIRECTOR_GROUP_NOT_FOUND: &str = "DirectorGroupNotFound";
    /// The group was seen and is gone; its directors go on.
    pub const DIRECTOR_GROUP_DELETED: &str = "DirectorGroupDeleted";
    /// An older object has the same VIP, port and protocol, or mark.
    pub const CONFLICT: &str = "Conflict";
    /// What must not change was changed.
    pub const IMMUTABLE: &str = "Immutable";
    /// All references fit.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The selector matches nothing.
    pub const NO_REAL_SERVERS: &str = "NoRealServers";
    /// Neither service nor server names a forwarding method.
    pub const NO_FORWARDING: &str = "NoForwarding";
    /// DR or TUN with another port than the service's.
    pub const PORT_MISMATCH: &str = "PortMismatch";
    /// IPv4 and IPv6 without a tunnel.
    pub const FAMILY_MISMATCH: &str = "FamilyMismatch";
    /// An older server of the service has the same address and port.
    pub const DUPLICATE_SERVER: &str = "DuplicateServer";
    /// The server itself is not accepted.
    pub const REAL_SERVER_NOT_ACCEPTED: &str = "RealServerNotAccepted";
    /// No service selects the server.
    pub const NOT_SELECTED: &str = "NotSelected";
    /// In the kernel of every live director.
    pub const PROGRAMMED: &str = "Programmed";
    /// Directors have yet to say that they have it.
    pub const PROGRAMMING: &str = "Programming";
    /// A director tried and could not.
    pub const NOT_PROGRAMMED: &str = "NotProgrammed";
    /// The kernel refused a service or a destination.
    pub const KERNEL_REFUSED: &str = "KernelRefused";
    /// Somebody else's entry with that key is in the kernel's table, and the
    /// group says to leave it.
    pub const FOREIGN_ENTRY: &str = "ForeignEntry";
    /// The director's IPVS table cannot be used.
    pub const KERNEL_UNAVAILABLE: &str = "KernelUnavailable";
    /// The director's interfaces cannot be read or changed.
    pub const INTERFACES_UNAVAILABLE: &str = "InterfacesUnavailable";
    /// The agent's state folder cannot be used.
    pub const STATE_FOLDER_UNAVAILABLE: &str = "StateFolderUnavailable";
    /// Some things are not as they should be: `status.exceptions` has them.
    pub const EXCEPTIONS: &str = "Exceptions";
    /// No director of the group has a live Lease.
    pub const NO_DIRECTORS: &str = "NoDirectors";
    /// A service or server would take the director's own traffic.
    pub const WOULD_HIJACK_DIRECTOR: &str = "WouldHijackDirector";
    /// Somebody else on the segment answers for the VIP.
    pub const VIP_TAKEN: &str = "VipTaken";
    /// The segment is asked whether somebody has the VIP.
    pub const VIP_PROBING: &str = "VipProbing";
    /// No director holds the VIP.
    pub const VIP_NOT_HELD: &str = "VipNotHeld";
    /// A director cannot take a virtual address from its interface.
    pub const VIP_NOT_RELEASED: &str = "VipNotReleased";
    /// Several directors, and the group does not say which holds the VIPs.
    pub const HOLDER_NOT_NAMED: &str = "HolderNotNamed";
    /// More was to be removed at once than a director removes without being
    /// told.
    pub const TOO_MANY_REMOVALS: &str = "TooManyRemovals";
    /// The API server is of another cluster than what is programmed.
    pub const OTHER_CLUSTER: &str = "OtherCluster";
    /// A custom resource definition of ours goes or is gone.
    pub const DEFINITION_DELETED: &str = "DefinitionDeleted";
    /// The API server does not say of which cluster it is, or how our custom
    /// resource definitions are.
    pub const CLUSTER_UNKNOWN: &str = "ClusterUnknown";
    /// No removal waits to be allowed.
    pub const NOTHING_HELD: &str = "NothingHeld";
    /// Real servers are probed.
    pub const PROBING: &str = "Probing";
    /// No service has a health check.
    pub const NOTHING_TO_CHECK: &str = "NothingToCheck";
    /// Probes could not be made, for a reason of the director's own.
    pub const PROBES_VOID: &str = "ProbesVoid";
    /// Every sysctl that is needed is as it is needed.
    pub const AS_NEEDED: &str = "AsNeeded";
    /// No service that is there needs a sysctl.
    pub const NOTHING_NEEDED: &str = "NothingNeeded";
    /// Sysctls are not as they are needed.
    pub const NOT_AS_NEEDED: &str = "NotAsNeeded";
    /// A service has fewer healthy servers than it is to have.
    pub const BELOW_MINIMUM: &str = "BelowMinimum";
    /// Probes of the server fail.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// A server, or all of a service's, are new: probes have neither succeeded
    /// nor failed for good so far.
    pub const CHECKING: &str = "Checking";
    /// A director has more to report than fits into its status, and nobody says
    /// what was asked for.
    pub const MORE_TO_REPORT: &str = "MoreToReport";
    /// Everything that can be said is well.
    pub const READY: &str = "Ready";
    /// The Lease is renewed.
    pub const ALIVE: &str = "Alive";
    /// The Lease was not renewed for its whole duration.
    pub const LEASE_EXPIRED: &str = "LeaseExpired";
    /// There never was a Lease, or it was deleted.
    pub const NO_LEASE: &str = "NoLease";
}

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

/// How many other objects a message names before it only counts them.
const NAMED: usize = 10;

/// Puts a condition among an object's others, and says whether that changed
/// anything.
///
/// A condition that says the same already is left alone, and one whose status
/// stays keeps the time of its last transition: equal input gives an equal
/// status, which needs no patch.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition, now: Timestamp) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        new.last_transition_time = Time(now);
        conditions.push(new);
        return true;
    };
    new.last_transition_time = old.last_transition_time.clone();
    if *old == new {
        return false;
    }
    // The schema's defaults carry 1970, when nothing happened.
    if old.status != new.status || old.last_transition_time.0 == Timestamp::UNIX_EPOCH {
        new.last_transition_time = Time(now);
    }
    *old = new;
    true
}

/// The condition of one type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of one type is there and True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == TRUE)
}

/// Any condition of which nothing is known yet.
pub fn pending(kind: &str, generation: i64) -> Condition {
    condition(
        kind,
        UNKNOWN,
        reason::PENDING,
        "Waiting for the controller",
        generation,
    )
}

/// Accepted: the object is in force as it is now.
pub fn accepted(generation: i64) -> Condition {
    condition(
        kind::ACCEPTED,
        TRUE,
        reason::ACCEPTED,
        "The object is in force",
        generation,
    )
}

/// Accepted, though the service's group is gone.
pub fn accepted_without_group(group: &str, generation: i64) -> Condition {
    condition(
        kind::ACCEPTED,
        TRUE,
        reason::DIRECTOR_GROUP_DELETED,
        format!(
            "DirectorGroup {group} was deleted, and its directors go on with its last spec; create \
             it again, or delete what it serves"
        ),
        generation,
    )
}

/// Not Accepted, for the rejection's reason.
pub fn not_accepted(rejection: &Rejection, generation: i64) -> Condition {
    condition(
        kind::ACCEPTED,
        FALSE,
        rejection.reason,
        &rejection.message,
        generation,
    )
}

/// The first ten names, and how many more there are.
pub fn named<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = all.into_iter().collect();
    let shown = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    generation: i64,
) -> Condition {
    Condition {
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        message: message.into(),
        observed_generation: Some(generation),
        reason: reason.to_owned(),
        status: status.to_owned(),
        type_: kind.to_owned(),
    }
}

fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let s = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{s}")
}

fn explained(all: &[(&ObjectKey, &Rejection)], what: &str) -> String {
    let mut text = all
        .iter()
        .take(NAMED)
        .map(|(key, rejection)| format!("{what} {key}: {}", rejection.message))
        .collect::<Vec<_>>()
        .join(". ");
    if let more @ 1.. = all.len().saturating_sub(NAMED) {
        let _ = write!(text, ". And {more} more");
    }
    text
}

#[cfg(test)]
mod tests;
