use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{FALSE, TRUE, UNKNOWN, condition, count, kind, named, reason};
use crate::{advice::APPLY_DEFINITIONS, schema::SCHEMA};

/// The types of the conditions that a Director's agent writes, the most
/// important first. The controller writes the others.
pub const WRITTEN_BY_AGENTS: [&str; 6] = [
    kind::PROGRAMMED,
    kind::REMOVALS_HELD,
    kind::UNDISTURBED,
    kind::PROBES_WORKING,
    kind::SYSCTLS_APPLIED,
    kind::DEFINITION_OLDER,
];

/// A Director's condition Programmed is True: the director's kernel has every
/// wanted entry.
pub fn director_programmed(services: i32, destinations: i32, generation: i64) -> Condition {
    condition(
        kind::PROGRAMMED,
        TRUE,
        reason::PROGRAMMED,
        format!(
            "{}, {}",
            count(services, "service"),
            count(destinations, "destination")
        ),
        generation,
    )
}

/// A Director's condition Programmed is False: the director cannot program any
/// service, or it has `status.exceptions`. `reason` is one of the consts of
/// [`reason`].
pub fn director_not_programmed(
    reason: &'static str,
    message: impl Into<String>,
    generation: i64,
) -> Condition {
    condition(kind::PROGRAMMED, FALSE, reason, message, generation)
}

/// A Director's condition Programmed is False: `ipvs-agent undo` took the
/// director out of service.
pub fn undone(generation: i64) -> Condition {
    let message = "ipvs-agent undo took this director out of service: nothing of the agent is left \
                   on its host. Start the agent to put it back, or run `kubectl delete idir NAME`";
    director_not_programmed(reason::UNDONE, message, generation)
}

/// How an administrator allows held removals: a command that works on any
/// machine, because it has a time of its own instead of computing one.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The name of the DirectorGroup.
    pub group: &'a str,
    /// The time of the message. The permission lasts until a full hour, 30 to 90
    /// minutes later, so the message changes at most once an hour.
    pub now: Timestamp,
}

impl Display for Release<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = (self.now.as_second() + 1800).div_euclid(3600) + 1;
        let until = Timestamp::from_second(hour * 3600).unwrap_or(Timestamp::MAX);
        write!(
            f,
            "To allow them: kubectl patch idg {} --type=merge -p \
             '{{\"spec\":{{\"removals\":{{\"allowUntil\":\"{until}\"}}}}}}'",
            self.group
        )
    }
}

/// RemovalsHeld of a Director is True: the listed removals wait for permission.
pub fn removals_held<'a>(
    removals: impl IntoIterator<Item = &'a str>,
    release: Release<'_>,
    generation: i64,
) -> Condition {
    let removals: Vec<_> = removals.into_iter().collect();
    condition(
        kind::REMOVALS_HELD,
        TRUE,
        reason::TOO_MANY_REMOVALS,
        format!("{}. {release}", held(removals)),
        generation,
    )
}

/// RemovalsHeld of a Director is True: the listed removals wait for permission.
/// `why` says why the removals wait. Removals that are not listed do not wait.
pub fn missing_objects_held<'a>(
    why: &str,
    removals: impl IntoIterator<Item = &'a str>,
    release: Release<'_>,
    generation: i64,
) -> Condition {
    let removals: Vec<_> = removals.into_iter().collect();
    condition(
        kind::REMOVALS_HELD,
        TRUE,
        reason::OBJECTS_MISSING,
        format!("{}; {why}. {release}", held(removals)),
        generation,
    )
}

/// RemovalsHeld of a Director is True: every removal waits for permission.
/// `why` says why the removals wait. `removals` lists the removals that wait
/// now.
pub fn every_removal_held<'a>(
    reason: &'static str,
    why: &str,
    removals: impl IntoIterator<Item = &'a str>,
    release: Release<'_>,
    generation: i64,
) -> Condition {
    let removals: Vec<_> = removals.into_iter().collect();
    let held = match removals.is_empty() {
        true => "no removal waits".to_owned(),
        false => held(removals),
    };
    condition(
        kind::REMOVALS_HELD,
        TRUE,
        reason,
        format!("Every removal is held: {why}. So far, {held}. {release}"),
        generation,
    )
}

fn held(removals: Vec<&str>) -> String {
    format!(
        "{} held, and still served: {}",
        count(removals.len(), "removal"),
        named(removals)
    )
}

/// RemovalsHeld of a Director is False: no removal waits for permission.
pub fn no_removals_held(generation: i64) -> Condition {
    condition(
        kind::REMOVALS_HELD,
        FALSE,
        reason::NOTHING_HELD,
        "No removal is held",
        generation,
    )
}

/// Undisturbed of a Director is True: other programs leave the director's
/// entries alone, or change them only now and then.
pub fn undisturbed(generation: i64) -> Condition {
    condition(
        kind::UNDISTURBED,
        TRUE,
        reason::UNDISTURBED,
        "No other program changes entries of this director again and again",
        generation,
    )
}

/// Undisturbed of a Director is False: another program changes the director's
/// entries again and again. `repairs` are the latest commands with which the
/// agent repaired the entries. The message names each command once, in an order
/// that does not depend on the latest repair.
pub fn foreign_writer<'a>(
    repairs: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    let repairs: BTreeSet<_> = repairs.into_iter().collect();
    condition(
        kind::UNDISTURBED,
        FALSE,
        reason::FOREIGN_WRITER,
        format!(
            "Another program on this host changes entries of this director again and again, and \
             the agent repairs them each time. Stop that program: keepalived, ldirectord, \
             kube-proxy in mode ipvs, or a script with ipvsadm or ip. Repaired with: {}",
            named(repairs)
        ),
        generation,
    )
}

/// ProbesWorking of a Director is True, with the number of targets that the
/// director probes. A target is one server under one health check.
pub fn health_checks_probing(targets: usize, generation: i64) -> Condition {
    let is = if targets == 1 { "is" } else { "are" };
    condition(
        kind::PROBES_WORKING,
        TRUE,
        reason::PROBING,
        format!("{} {is} probed", count(targets, "target")),
        generation,
    )
}

/// ProbesWorking of a Director is True: none of the director's services has a
/// health check.
pub fn health_checks_nothing(generation: i64) -> Condition {
    condition(
        kind::PROBES_WORKING,
        TRUE,
        reason::NOTHING_TO_CHECK,
        "No service has a health check",
        generation,
    )
}

/// ProbesWorking of a Director is False: the director cannot probe some targets
/// because of its own problems. The message lists these problems, each with the
/// number of affected targets.
pub fn health_checks_void<'a>(
    reasons: impl Iterator<Item = (&'a str, usize)>,
    targets: usize,
    generation: i64,
) -> Condition {
    let mut void = 0;
    let reasons: Vec<_> = reasons
        .map(|(reason, of)| {
            void += of;
            format!("{reason} ({of})")
        })
        .collect();
    condition(
        kind::PROBES_WORKING,
        FALSE,
        reason::PROBES_VOID,
        format!(
            "{void} of {} cannot be probed because of the director itself: {}. Their servers keep \
             their last state",
            count(targets, "target"),
            named(reasons.iter().map(String::as_str))
        ),
        generation,
    )
}

/// ProbesWorking of a Director is False: some namespaces want more probes than
/// their share. `reasons` has one entry for each of these namespaces: the
/// reason, and the number of targets that are probed late.
pub fn health_checks_late<'a>(
    reasons: impl Iterator<Item = (&'a str, usize)>,
    targets: usize,
    generation: i64,
) -> Condition {
    let mut late = 0;
    let reasons: Vec<_> = reasons
        .map(|(reason, of)| {
            late += of;
            format!("{reason} ({of})")
        })
        .collect();
    let are = if late == 1 { "is" } else { "are" };
    condition(
        kind::PROBES_WORKING,
        FALSE,
        reason::PROBES_LATE,
        format!(
            "{late} of {} {are} probed late, and no other namespace's: {}",
            count(targets, "target"),
            named(reasons.iter().map(String::as_str))
        ),
        generation,
    )
}

/// SysctlsApplied of a Director is True: all sysctls that the services need have the
/// needed value.
pub fn sysctls_as_needed(count_of: usize, generation: i64) -> Condition {
    let (reason, message) = match count_of {
        0 => (reason::NOTHING_NEEDED, "No sysctl is needed".to_owned()),
        _ => {
            let is = if count_of == 1 { "is" } else { "are" };
            let message = format!("{} {is} as needed", count(count_of, "sysctl"));
            (reason::AS_NEEDED, message)
        }
    };
    condition(kind::SYSCTLS_APPLIED, TRUE, reason, message, generation)
}

/// SysctlsApplied of a Director is False: some sysctls have the listed problems.
pub fn sysctls_not_as_needed<'a>(
    problems: impl IntoIterator<Item = &'a str>,
    generation: i64,
) -> Condition {
    let problems: Vec<_> = problems.into_iter().collect();
    condition(
        kind::SYSCTLS_APPLIED,
        FALSE,
        reason::NOT_AS_NEEDED,
        format!(
            "Traffic that needs it may not pass; everything else goes on: {}",
            named(problems)
        ),
        generation,
    )
}

/// DefinitionOlder of a Director is True: the installed definition of Directors
/// has the schema number `installed`, and lacks the listed fields.
pub fn definition_older<'a>(
    fields: impl IntoIterator<Item = &'a str>,
    installed: u32,
    generation: i64,
) -> Condition {
    let fields: Vec<_> = fields.into_iter().collect();
    // A controller of this release leaves a definition of its own number alone.
    let who = match installed < SCHEMA {
        true => "A controller of this release upgrades it when it begins to lead; by hand",
        false => "Apply the definitions of this release",
    };
    condition(
        kind::DEFINITION_OLDER,
        TRUE,
        reason::FIELDS_LEFT_OUT,
        format!(
            "The installed definition of Directors has schema {installed}, and this agent knows \
             schema {SCHEMA}: the report goes on without {}. {who}: {APPLY_DEFINITIONS}",
            named(fields)
        ),
        generation,
    )
}

/// DefinitionOlder of a Director is False: the installed definition has every
/// field that the agent reports.
pub fn definition_not_older(generation: i64) -> Condition {
    condition(
        kind::DEFINITION_OLDER,
        FALSE,
        reason::NO_FIELD_LEFT_OUT,
        "The custom resource definitions have every field that this agent reports",
        generation,
    )
}

/// Alive of a Director is True: the agent renews the director's Lease.
pub fn alive(generation: i64) -> Condition {
    condition(
        kind::ALIVE,
        TRUE,
        reason::ALIVE,
        "The agent renews its Lease",
        generation,
    )
}

/// Alive of a Director is False: the agent has not renewed its Lease for
/// `seconds`. `last` is the time of the last renewal, if known. The time is
/// from the agent's own clock.
pub fn lease_expired(
    director: &str,
    seconds: u64,
    last: Option<&str>,
    generation: i64,
) -> Condition {
    let last = last.map_or_else(String::new, |last| {
        let second = last.trim_end_matches('Z').split('.').next();
        format!(", the last time at {}Z", second.unwrap_or_default())
    });
    condition(
        kind::ALIVE,
        FALSE,
        reason::LEASE_EXPIRED,
        format!(
            "The agent has not renewed its Lease for {seconds} s{last}. Its kernel forwards what \
             it knew then. Restart the agent, even if it seems to run: kubectl get pods -A \
             --field-selector spec.nodeName={director}"
        ),
        generation,
    )
}

/// Alive of a Director is False: the director never had a Lease, or its Lease
/// was deleted.
pub fn no_lease(director: &str, generation: i64) -> Condition {
    condition(
        kind::ALIVE,
        FALSE,
        reason::NO_LEASE,
        format!(
            "The agent has no Lease {director}; its log on that node says why. If the node is no \
             longer a director: kubectl delete idir {director}"
        ),
        generation,
    )
}

/// Reporting of a Director is True: the API server accepts the status that the
/// agent writes.
pub fn reporting(generation: i64) -> Condition {
    condition(
        kind::REPORTING,
        TRUE,
        reason::REPORTING,
        "The API server takes what this director reports",
        generation,
    )
}

/// Reporting of a Director is False: the API server refuses the status that the
/// agent writes. `why` says since when and why, in the agent's words.
pub fn report_refused(why: &str, generation: i64) -> Condition {
    condition(
        kind::REPORTING,
        FALSE,
        reason::REPORT_REFUSED,
        format!("The API server does not take all that this director reports: {why}"),
        generation,
    )
}

/// Reporting of a Director is Unknown: the agent's Lease is not renewed.
pub fn reporting_unknown(generation: i64) -> Condition {
    condition(
        kind::REPORTING,
        UNKNOWN,
        reason::NOT_ALIVE,
        "The agent does not renew its Lease: see condition Alive",
        generation,
    )
}
