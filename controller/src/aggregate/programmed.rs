//! Decides whether the directors' kernels have the current version of one
//! service.

use std::fmt::Write as _;

use crds::{
    AddressRule, Kind, ObjectKey, Objects, Resolved, Service, ServiceId,
    api::{DirectorCounts, DirectorException, VipHolder, int32},
    condition::{self, ExpectedHolder, kind, reason},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{DirectorView, Group};
use crate::need::Need;

/// One service, with the objects and reports that decide its condition
/// Programmed.
pub(super) struct ServiceView<'a> {
    pub(super) objects: &'a Objects,
    pub(super) resolved: &'a Resolved,
    pub(super) key: &'a ObjectKey,
    /// The version of the service that is in force, if any.
    pub(super) service: Option<&'a Service>,
    /// Whether the current version of the service is accepted. If not, an
    /// earlier version may be in force.
    pub(super) accepted: bool,
    pub(super) need: Option<&'a Need>,
    pub(super) generation: i64,
    pub(super) group: &'a Group<'a>,
}

/// The reports of the group's working directors about one service. A director
/// counts as programmed only if it is in none of the lists.
#[derive(Default)]
struct Answers<'a> {
    failing: Vec<(&'a DirectorView<'a>, &'a DirectorException)>,
    waiting: Vec<&'a DirectorView<'a>>,
    /// The directors whose reports do not name the service, but are incomplete:
    /// they leave out exceptions of the service's namespace.
    silent: Vec<&'a DirectorView<'a>>,
    programmed: usize,
}

/// What the directors' reports say about one service.
pub(super) struct Programmed {
    /// The condition Programmed.
    pub(super) condition: Condition,
    /// The numbers of directors.
    pub(super) counts: DirectorCounts,
    /// The directors that hold the service's VIP, if it has one.
    pub(super) vip: Option<VipHolder>,
}

/// Computes a service's condition Programmed, and the directors in its status.
pub(super) fn programmed(view: &ServiceView<'_>) -> Programmed {
    let answers = answers(view);
    let live = view.group.live.len();
    let counts = DirectorCounts {
        live: int32(live),
        programmed: int32(answers.programmed),
        summary: format!("{}/{live}", answers.programmed),
    };
    let mut programmed = condition(view, &answers);
    if view.accepted && !view.group.dead.is_empty() {
        let _ = write!(
            programmed.message,
            ". Directors without a live Lease are not counted: {}",
            condition::named(view.group.dead.iter().map(|director| director.name))
        );
    }
    Programmed {
        condition: programmed,
        counts,
        vip: holders(view, &answers),
    }
}

/// Returns the directors that hold the service's VIP.
fn holders(view: &ServiceView<'_>, answers: &Answers<'_>) -> Option<VipHolder> {
    let service = view.service?;
    let ServiceId::Vip { address, .. } = service.id else {
        return None;
    };
    let waiting = answers.waiting.iter().map(|director| director.name);
    let exceptions = view.group.exceptions.get(view.key).into_iter().flatten();
    let others = waiting.chain(exceptions.map(|(by, _)| by.name)).collect();
    Some(view.group.named(view.group.holders.of(&address, &others)))
}

fn condition(view: &ServiceView<'_>, answers: &Answers<'_>) -> Condition {
    let generation = view.generation;
    let (Some(service), true) = (view.service, view.accepted) else {
        return condition::not_accepted_not_programmed(view.service.is_some(), generation);
    };
    let group = service.group.as_str();
    if view.group.live.is_empty() {
        return condition::no_directors(group, generation);
    }
    if let Some((director, exception)) = answers.failing.first() {
        let others = answers.failing.len() - 1;
        return condition::not_programmed(director.name, exception, others, generation);
    }
    if let Some((director, why)) = view.group.broken.first() {
        let exception = DirectorException {
            virtual_service: view.key.clone(),
            real_server: None,
            reason: why.reason.clone(),
            message: why.message.clone(),
        };
        return condition::not_programmed(director.name, &exception, 0, generation);
    }
    if !answers.waiting.is_empty() {
        return waiting(&answers.waiting, generation);
    }
    if !view.need.is_some_and(|need| need.provable) {
        return not_provable(view, service, generation);
    }
    if !answers.silent.is_empty() {
        let names = answers.silent.iter().map(|director| director.name);
        return condition::more_exceptions(names, generation);
    }
    if let Some(not_held) = vip_not_held(view, service) {
        return not_held;
    }
    condition::programmed(view.group.live.len(), generation)
}

/// Sorts the group's working directors by what they report about the service.
/// Looks at single directors only where they may differ, because a fleet has
/// thousands of services, and a pass may ask for all of them.
fn answers<'a>(view: &ServiceView<'a>) -> Answers<'a> {
    let mut answers = Answers::default();
    let (Some(_), Some(need), true) = (view.service, view.need, view.accepted) else {
        return answers;
    };
    let group = view.group;
    let has_reached = |director: &DirectorView<'_>| director.places.has_reached(&need.since);
    if !group.has_reached(&need.since) {
        let waiting = group.working.iter().copied();
        answers.waiting = waiting.filter(|director| !has_reached(director)).collect();
    }
    // A director's table is correct even if no director may take the VIP.
    // `vip_not_held` checks whether a director holds the VIP.
    let exceptions = group.exceptions.get(view.key).into_iter().flatten();
    answers.failing = exceptions
        .filter(|(by, exception)| has_reached(by) && exception.reason != reason::HOLDER_NOT_NAMED)
        .copied()
        .collect();
    answers.failing.dedup_by_key(|(by, _)| by.name);
    let fails = |director: &DirectorView<'_>| {
        let mut failing = answers.failing.iter();
        failing.any(|(by, _)| by.name == director.name)
    };
    let silent = group.leaving_out.iter().copied();
    answers.silent = silent
        .filter(|director| {
            director
                .status
                .leaves_out_exceptions_of(&view.key.namespace)
        })
        .filter(|director| has_reached(director) && !fails(director))
        .collect();
    if need.provable {
        let others = [
            answers.failing.len(),
            answers.waiting.len(),
            answers.silent.len(),
        ];
        answers.programmed = group.working.len() - others.into_iter().sum::<usize>();
    }
    answers
}

fn waiting(directors: &[&DirectorView<'_>], generation: i64) -> Condition {
    let names = directors.iter().map(|director| director.name);
    let mut waiting = condition::programming(names, generation);
    // If the controller cannot read a director's report, waiting does not help.
    // So the message says what to do.
    let unreadable = directors
        .iter()
        .find(|director| !director.unreadable.is_empty());
    if let Some(director) = unreadable {
        let _ = write!(
            waiting.message,
            ". {} of Director {} cannot be read: its agent is probably newer than this \
             controller. Upgrade the controller",
            director.unreadable.join(", "),
            director.name
        );
    }
    waiting
}

/// Returns the condition that says why a director cannot program any service,
/// if it cannot. The director's last report is then not reliable, and waiting
/// for the next report does not help.
pub(super) fn broken<'a>(director: &DirectorView<'a>) -> Option<&'a Condition> {
    let programmed = condition::find(&director.status.conditions, kind::PROGRAMMED)?;
    let is_broken = programmed.status == "False" && programmed.reason != reason::EXCEPTIONS;
    is_broken.then_some(programmed)
}

fn not_provable(view: &ServiceView<'_>, service: &Service, generation: i64) -> Condition {
    if view.objects.is_group_gone(&service.group) {
        return condition::programmed_without_group(&service.group, generation);
    }
    let resolved = view.resolved;
    let outdated: Vec<String> = service
        .servers
        .iter()
        .map(|server| &server.object)
        .chain(resolved.refused_by(view.key).map(|(server, _)| server))
        .filter(|server| resolved.rejection(Kind::RealServer, server).is_some())
        .map(ToString::to_string)
        .collect();
    if outdated.is_empty() {
        return condition::programmed_as_budgets_allow(&view.key.namespace, generation);
    }
    condition::programmed_with_outdated(outdated.iter().map(String::as_str), generation)
}

/// Returns the condition of a service whose VIP no live director is known to
/// hold. The caller has found that every live director has used the service, and
/// reports no exception of it.
fn vip_not_held(view: &ServiceView<'_>, service: &Service) -> Option<Condition> {
    let ServiceId::Vip { address, .. } = service.id else {
        return None;
    };
    if view.group.holders.has(&address) {
        return None;
    }
    let address = address.to_string();
    let generation = view.generation;
    let live = &view.group.live;
    let group = view.objects.group(&service.group);
    let group = group.and_then(|group| group.in_force());
    let holder = group.and_then(|group| group.holder.as_deref());
    let is_manual = group.is_some_and(|group| group.addresses == AddressRule::Manual);
    let leaving_out: Vec<&str> = live
        .iter()
        .filter(|director| director.status.leaves_out_vips_of(&view.key.namespace))
        .map(|director| director.name)
        .collect();
    // If the group names no holder, a director takes the VIP only if the group
    // has no other director. Dead directors count as well, because they may
    // still have the VIP.
    let to_hold = holder.or(match (&live[..], &view.group.dead[..]) {
        ([only], []) => Some(only.name),
        _ => None,
    });
    // If the report of `to_hold` leaves out VIPs, this VIP is one of them. A
    // director that fails to take a VIP reports an exception, but `to_hold`
    // reports no exception.
    if to_hold.is_some_and(|director| leaving_out.contains(&director)) {
        return None;
    }
    if !leaving_out.is_empty() {
        return Some(condition::more_vips(leaving_out, &address, generation));
    }
    let not_held = |expected| {
        let group = &service.group;
        Some(condition::vip_not_held(
            &address, group, expected, generation,
        ))
    };
    if is_manual {
        return not_held(ExpectedHolder::AnotherProgram);
    }
    let Some(to_hold) = to_hold else {
        return Some(condition::holder_not_named(
            &address,
            &service.group,
            generation,
        ));
    };
    not_held(match live.iter().find(|live| live.name == to_hold) {
        Some(director) => {
            let programmed = condition::find(&director.status.conditions, kind::PROGRAMMED);
            let not_true = programmed.filter(|programmed| programmed.status != "True");
            let says = not_true.map_or("nothing about it", |not_true| &not_true.message);
            ExpectedHolder::Live(director.name, says)
        }
        None => ExpectedHolder::NotLive(to_hold, live.first().map(|live| live.name)),
    })
}
