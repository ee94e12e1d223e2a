//! All conditions of the API. Each condition type and each reason is one const,
//! and each condition has one constructor.
//!
//! No function in this module reads a clock. A constructor sets
//! `lastTransitionTime` to 1970. [`set`] then writes the real time: its
//! argument `now`, or the time of the old condition.

mod director;
mod drained;
mod ready;
mod real_server;
mod virtual_service;

use std::fmt::{Display, Write};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{ObjectKey, Rejection};

pub use director::*;
pub use drained::*;
pub use ready::*;
pub use real_server::*;
pub use virtual_service::*;

/// The types of conditions.
pub mod kind {
    /// The object is valid, and its current generation is in force.
    pub const ACCEPTED: &str = "Accepted";
    /// Every real server that a service selects fits the service.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The kernels of all live directors hold the current version of the
    /// object.
    pub const PROGRAMMED: &str = "Programmed";
    /// The object works: a VirtualService or RealServer is in use, a Director
    /// needs no attention, and neither does any Director of a DirectorGroup.
    /// Users should look at this condition first.
    pub const READY: &str = "Ready";
    /// No director has a connection to a drained RealServer. Only drained servers
    /// have this condition.
    pub const DRAINED: &str = "Drained";
    /// A director holds back removals of entries until an administrator permits
    /// the removals.
    pub const REMOVALS_HELD: &str = "RemovalsHeld";
    /// No other program undoes again and again what a director's agent writes.
    pub const UNDISTURBED: &str = "Undisturbed";
    /// A director can probe real servers, and its probe results are valid.
    pub const PROBES_WORKING: &str = "ProbesWorking";
    /// A director's sysctls have the values that its services need.
    pub const SYSCTLS_APPLIED: &str = "SysctlsApplied";
    /// A director's agent renews its Lease.
    pub const ALIVE: &str = "Alive";
    /// The API server accepts the status that a director's agent writes.
    pub const REPORTING: &str = "Reporting";
    /// The installed definition of Directors lacks fields that a director's
    /// agent reports.
    pub const DEFINITION_OLDER: &str = "DefinitionOlder";
}

/// The reasons of conditions.
pub mod reason {
    /// The controller has not processed the object yet.
    pub const PENDING: &str = "Pending";
    /// The object is accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// A field's value is invalid by itself, independent of other objects.
    pub const INVALID: &str = "Invalid";
    /// The spec does not parse. The object was probably written for a newer
    /// version.
    pub const UNREADABLE: &str = "Unreadable";
    /// The controller or agent never received the DirectorGroup that the object
    /// names.
    pub const DIRECTOR_GROUP_NOT_FOUND: &str = "DirectorGroupNotFound";
    /// The DirectorGroup was deleted. The directors of a deleted group continue
    /// with the group's last spec.
    pub const DIRECTOR_GROUP_DELETED: &str = "DirectorGroupDeleted";
    /// An older VirtualService has the same VIP, port and protocol, or the same
    /// firewall mark.
    pub const CONFLICT: &str = "Conflict";
    /// The DirectorGroup does not grant an address to the object's namespace.
    pub const ADDRESS_NOT_GRANTED: &str = "AddressNotGranted";
    /// The DirectorGroup does not grant the firewall mark to the object's
    /// namespace.
    pub const MARK_NOT_GRANTED: &str = "MarkNotGranted";
    /// The object exceeds a budget of its DirectorGroup.
    pub const BUDGET_EXCEEDED: &str = "BudgetExceeded";
    /// The spec has fields that a director's agent does not know. The agent goes
    /// on without them.
    pub const UNKNOWN_FIELDS: &str = "UnknownFields";
    /// An immutable field was changed.
    pub const IMMUTABLE: &str = "Immutable";
    /// Every selected real server fits the service.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The selector matches no RealServer.
    pub const NO_REAL_SERVERS: &str = "NoRealServers";
    /// Neither the service nor the server names a forwarding method.
    pub const NO_FORWARDING: &str = "NoForwarding";
    /// The server's port differs from the service's port. DR and TUN cannot
    /// translate ports.
    pub const PORT_MISMATCH: &str = "PortMismatch";
    /// The server and the service have different address families, and the
    /// forwarding method is not a tunnel.
    pub const FAMILY_MISMATCH: &str = "FamilyMismatch";
    /// An older server of the service has the same address and port.
    pub const DUPLICATE_SERVER: &str = "DuplicateServer";
    /// The RealServer itself is not accepted.
    pub const REAL_SERVER_NOT_ACCEPTED: &str = "RealServerNotAccepted";
    /// No VirtualService selects the server.
    pub const NOT_SELECTED: &str = "NotSelected";
    /// The kernels of all live directors hold the object.
    pub const PROGRAMMED: &str = "Programmed";
    /// Some directors have not reported yet that they hold the object.
    pub const PROGRAMMING: &str = "Programming";
    /// The object has waited for minutes for something that should take
    /// seconds.
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    /// A director tried to program the object and failed.
    pub const NOT_PROGRAMMED: &str = "NotProgrammed";
    /// The kernel refused a service or a destination.
    pub const KERNEL_REFUSED: &str = "KernelRefused";
    /// The wanted entry is already in the kernel's table, but another program
    /// made it. The DirectorGroup says to leave other programs' entries alone.
    pub const FOREIGN_ENTRY: &str = "ForeignEntry";
    /// The director cannot use its IPVS table.
    pub const KERNEL_UNAVAILABLE: &str = "KernelUnavailable";
    /// The director cannot read or change its network interfaces.
    pub const INTERFACES_UNAVAILABLE: &str = "InterfacesUnavailable";
    /// The agent cannot use its state folder.
    pub const STATE_FOLDER_UNAVAILABLE: &str = "StateFolderUnavailable";
    /// The director's kernel does not match the objects. `status.exceptions`
    /// lists the differences.
    pub const EXCEPTIONS: &str = "Exceptions";
    /// `ipvs-agent undo` took the director out of service.
    pub const UNDONE: &str = "Undone";
    /// No director of the group has a live Lease.
    pub const NO_DIRECTORS: &str = "NoDirectors";
    /// The service or server would capture the director's own traffic.
    pub const WOULD_HIJACK_DIRECTOR: &str = "WouldHijackDirector";
    /// Another host on the segment answers for the VIP.
    pub const VIP_TAKEN: &str = "VipTaken";
    /// The agent is probing the segment for another host that has the VIP.
    pub const VIP_PROBING: &str = "VipProbing";
    /// No director holds the VIP.
    pub const VIP_NOT_HELD: &str = "VipNotHeld";
    /// A director cannot remove a virtual address from its interface.
    pub const VIP_NOT_RELEASED: &str = "VipNotReleased";
    /// The group has several directors and names no holder of the VIPs.
    pub const HOLDER_NOT_NAMED: &str = "HolderNotNamed";
    /// The removals exceed the number of entries that a director may remove at
    /// once without permission.
    pub const TOO_MANY_REMOVALS: &str = "TooManyRemovals";
    /// The director's entries come from the objects of one cluster, but the API
    /// server now belongs to another cluster.
    pub const OTHER_CLUSTER: &str = "OtherCluster";
    /// One of our custom resource definitions is deleted or being deleted.
    pub const DEFINITION_DELETED: &str = "DefinitionDeleted";
    /// The API server does not report its cluster's identity, or the state of
    /// our custom resource definitions.
    pub const CLUSTER_UNKNOWN: &str = "ClusterUnknown";
    /// Objects are missing from a listing. The objects may still exist, because
    /// the listing does not prove their deletion.
    pub const OBJECTS_MISSING: &str = "ObjectsMissing";
    /// The director holds back no removal.
    pub const NOTHING_HELD: &str = "NothingHeld";
    /// No other program undoes again and again what the agent writes.
    pub const UNDISTURBED: &str = "Undisturbed";
    /// Another program changes the agent's entries again and again.
    pub const FOREIGN_WRITER: &str = "ForeignWriter";
    /// The director is probing real servers.
    pub const PROBING: &str = "Probing";
    /// No service has a health check.
    pub const NOTHING_TO_CHECK: &str = "NothingToCheck";
    /// A problem of the director itself makes its probe results invalid.
    pub const PROBES_VOID: &str = "ProbesVoid";
    /// A namespace wants more probes than its share, so the namespace's probes
    /// begin late.
    pub const PROBES_LATE: &str = "ProbesLate";
    /// Every sysctl that the services need has the needed value.
    pub const AS_NEEDED: &str = "AsNeeded";
    /// The current services need no sysctl.
    pub const NOTHING_NEEDED: &str = "NothingNeeded";
    /// Some sysctls do not have the value that the services need.
    pub const NOT_AS_NEEDED: &str = "NotAsNeeded";
    /// A service has fewer healthy servers than its minimum.
    pub const BELOW_MINIMUM: &str = "BelowMinimum";
    /// Probes of the server fail.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// Probes have not shown yet whether the server, or a server of the
    /// service, is healthy. No probe has succeeded yet, and fewer than
    /// `failureThreshold` probes have failed.
    pub const CHECKING: &str = "Checking";
    /// A director's status has no room for all reports, so the state of the
    /// object is unknown.
    pub const MORE_TO_REPORT: &str = "MoreToReport";
    /// The object works as it should.
    pub const READY: &str = "Ready";
    /// The agent renews its Lease.
    pub const ALIVE: &str = "Alive";
    /// The agent did not renew its Lease within the Lease's duration.
    pub const LEASE_EXPIRED: &str = "LeaseExpired";
    /// The director has no Lease: none was ever created, or the Lease was
    /// deleted.
    pub const NO_LEASE: &str = "NoLease";
    /// The director has not received the list of some kinds of objects.
    pub const NOT_LISTED: &str = "NotListed";
    /// The API server accepts the director's report.
    pub const REPORTING: &str = "Reporting";
    /// The API server refuses the director's report.
    pub const REPORT_REFUSED: &str = "ReportRefused";
    /// Nobody knows whether the agent reports, because its Lease is not renewed.
    pub const NOT_ALIVE: &str = "NotAlive";
    /// The server is drained, and no connection to it is left.
    pub const DRAINED: &str = "Drained";
    /// The server is drained, and connections to it are left.
    pub const DRAINING: &str = "Draining";
    /// The installed definition lacks fields, and a report goes on without them.
    pub const FIELDS_LEFT_OUT: &str = "FieldsLeftOut";
    /// The installed definition has every field of a report.
    pub const NO_FIELD_LEFT_OUT: &str = "NoFieldLeftOut";
}

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

/// The maximum number of objects that a message names. Of the remaining
/// objects, the message gives only the number.
const NAMED: usize = 10;

/// Adds a condition, or replaces the condition of the same type. Returns
/// whether the conditions changed.
///
/// If the new condition differs only in its time, the old condition stays. A
/// condition whose status did not change keeps the time of its last transition.
/// So the conditions need no patch if only their times would change.
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
    // A condition from the schema's defaults has 1970 as its time.
    if old.status != new.status || old.last_transition_time.0 == Timestamp::UNIX_EPOCH {
        new.last_transition_time = Time(now);
    }
    *old = new;
    true
}

/// Returns the condition of the type `kind`.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Returns whether the condition of the type `kind` exists and is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == TRUE)
}

/// Returns whether a user should look at the condition. RemovalsHeld and
/// DefinitionOlder need attention unless they are False, and every other
/// condition unless it is True. A drain needs no attention.
pub fn needs_attention(condition: &Condition) -> bool {
    let fine = match &*condition.type_ {
        kind::DRAINED => return false,
        kind::REMOVALS_HELD | kind::DEFINITION_OLDER => FALSE,
        _ => TRUE,
    };
    condition.status != fine
}

/// Returns a condition with status Unknown, for an object that the controller
/// has not looked at yet.
pub fn pending(kind: &str, generation: i64) -> Condition {
    condition(
        kind,
        UNKNOWN,
        reason::PENDING,
        "Waiting for the controller",
        generation,
    )
}

/// The words before the time in the message of a condition that waits.
const WAITING_SINCE: &str = ". Waiting since ";

/// Adds to a condition since when the object waits. If the wait is too long,
/// the condition becomes an error: False, with what to look at.
pub fn say_how_long(waiting: &mut Condition, since: Timestamp, is_too_long: bool) {
    // Users need no fractions of a second.
    let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
    let _ = write!(waiting.message, "{WAITING_SINCE}{since}");
    if is_too_long {
        FALSE.clone_into(&mut waiting.status);
        reason::PROGRESS_DEADLINE_EXCEEDED.clone_into(&mut waiting.reason);
        waiting.message.push_str(
            ", which is too long: look at the directors with kubectl describe idir, and at the \
             logs of their agents",
        );
    }
}

/// Returns since when an object waits, according to [`say_how_long`].
pub fn waiting_since(condition: &Condition) -> Option<Timestamp> {
    let (_, since) = condition.message.rsplit_once(WAITING_SINCE)?;
    let (since, _) = since.split_once(',').unwrap_or((since, ""));
    since.parse().ok()
}

/// Accepted is True: the object's current generation is in force.
pub fn accepted(generation: i64) -> Condition {
    condition(
        kind::ACCEPTED,
        TRUE,
        reason::ACCEPTED,
        "The object is in force",
        generation,
    )
}

/// Accepted is True, although the service's DirectorGroup was deleted.
pub fn accepted_without_group(group: &str, generation: i64) -> Condition {
    condition(
        kind::ACCEPTED,
        TRUE,
        reason::DIRECTOR_GROUP_DELETED,
        format!(
            "DirectorGroup {group} was deleted, and its directors continue with its last spec; \
             create it again, or delete what it serves"
        ),
        generation,
    )
}

/// Accepted is False, with the rejection's reason and message.
pub fn not_accepted(rejection: &Rejection, generation: i64) -> Condition {
    condition(
        kind::ACCEPTED,
        FALSE,
        rejection.reason,
        &rejection.message,
        generation,
    )
}

/// Returns a text with the first ten names and the number of the names that it
/// leaves out.
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

/// Explains the first rejections in `all`, and then gives the number of the
/// remaining rejections. `unnamed` is the number of rejections that are not in
/// `all`.
fn explained(all: &[(&ObjectKey, &Rejection)], unnamed: usize, what: &str) -> String {
    let mut text = all
        .iter()
        .take(NAMED)
        .map(|(key, rejection)| format!("{what} {key}: {}", rejection.message))
        .collect::<Vec<_>>()
        .join(". ");
    if let more @ 1.. = all.len().saturating_sub(NAMED) + unnamed {
        let _ = write!(text, ". And {more} more");
    }
    text
}

#[cfg(test)]
mod tests;
