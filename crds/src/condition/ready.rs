use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    FALSE, TRUE, UNKNOWN, WRITTEN_BY_AGENTS, condition, count, kind, needs_attention, pending,
    reason,
};

/// Ready of a Director repeats the first condition that needs attention of
/// Alive, Reporting, Programmed, RemovalsHeld, Undisturbed, ProbesWorking,
/// SysctlsApplied and DefinitionOlder. If none does, Ready is True. The message
/// then has no numbers: a fleet's controller must not write each Director when a
/// service is added.
///
/// Ready is Unknown while a condition is missing, which a new director has not
/// reported yet. Only Undisturbed and DefinitionOlder may be missing: agents of
/// the first release do not report them, nor do agents that may not read the
/// definition.
pub fn director_ready(conditions: &[&Condition], generation: i64) -> Condition {
    let all = [kind::ALIVE, kind::REPORTING].into_iter();
    for kind in all.chain(WRITTEN_BY_AGENTS) {
        let mut conditions = conditions.iter();
        let Some(found) = conditions.find(|condition| condition.type_ == kind) else {
            if [kind::UNDISTURBED, kind::DEFINITION_OLDER].contains(&kind) {
                continue;
            }
            return Condition {
                message: format!("The agent has not reported its condition {kind} yet"),
                ..pending(kind::READY, generation)
            };
        };
        if needs_attention(found) {
            let status = match found.status.as_str() {
                UNKNOWN => UNKNOWN,
                _ => FALSE,
            };
            let (reason, message) = (&found.reason, &found.message);
            return condition(kind::READY, status, reason, message, generation);
        }
    }
    condition(
        kind::READY,
        TRUE,
        reason::READY,
        "The director works",
        generation,
    )
}

/// Ready of a DirectorGroup repeats Accepted if the group is not accepted. If a
/// director of the group is not ready, Ready repeats that director's condition:
/// `not_ready` has the name and the condition Ready of each such director.
/// `directors` is the number of all directors of the group.
pub fn group_ready(
    accepted: &Condition,
    not_ready: &[(&str, &Condition)],
    directors: usize,
    group: &str,
    generation: i64,
) -> Condition {
    if accepted.status != TRUE {
        let (reason, message) = (&accepted.reason, &accepted.message);
        return condition(kind::READY, &accepted.status, reason, message, generation);
    }
    if directors == 0 {
        return condition(
            kind::READY,
            FALSE,
            reason::NO_DIRECTORS,
            format!("No director is in this group: start an agent with --director-group {group}"),
            generation,
        );
    }
    // A director that is known not to work comes before one that may not.
    let is_known = |(_, ready): &&(&str, &Condition)| ready.status == FALSE;
    let Some((name, first)) = not_ready
        .iter()
        .find(is_known)
        .or_else(|| not_ready.first())
    else {
        let message = format!("{} ready", count(directors, "director"));
        return condition(kind::READY, TRUE, reason::READY, message, generation);
    };
    let others = match not_ready.len() - 1 {
        0 => String::new(),
        more => format!(" (and {} not ready)", count(more, "more director")),
    };
    condition(
        kind::READY,
        &first.status,
        &first.reason,
        format!("Director {name}: {}{others}", first.message),
        generation,
    )
}
