//! Computes a Director's status from the loop's findings. The code is pure: it
//! does no I/O.

mod drains;
mod health;
mod held;
mod objects;
mod vips;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crds::{
    ObjectKey,
    advice::shortened,
    api::{DirectorException, DirectorStatus, Repairs, WorldDigests, int32},
    condition::{self, Release},
};
use ipvs::{DestinationKey, Op, ServiceKey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use self::held::removals_held;
pub use self::{
    drains::{DrainReport, Drained, ServerDrain},
    health::HealthReport,
    objects::{complaints, unknown_fields, unreadable},
};
use crate::{
    act::{self, Outcome, Sysctls, retry::Subject},
    decide::{caution::Hold, desired::Desired, permission::Doubt, protect},
    fair::{Room, keep, names},
    ration::Line,
};

/// The size limits of the list of exceptions in a Director's status. The lists
/// of a status together stay well below the API server's size limit of 1.5 MiB.
const EXCEPTIONS: Room = Room {
    bytes: 384 << 10,
    each: 200,
};
/// The size limits of the list of VIPs in the status of a Director that holds
/// only some of the VIPs.
const VIPS: Room = Room {
    bytes: 128 << 10,
    each: 1000,
};
/// The longest message of an exception or a notice, in bytes.
const LONGEST_MESSAGE: usize = 1000;
/// The maximum number of sysctls that a status lists.
const MOST_SYSCTLS: usize = 100;
/// The size limits of the list of notices in a Director's status.
const NOTICES: Room = Room {
    bytes: 32 << 10,
    each: 50,
};

/// The reason why no round can run.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// The agent cannot use the kernel's IPVS table.
    #[error("{0}")]
    Kernel(String),
    /// The agent cannot read the host's interfaces.
    #[error("{0}")]
    Links(String),
    /// The agent has not received the list of some kinds of objects since its
    /// start.
    #[error(
        "this director has not received the {0} from the API server since its agent started, so it decides with what its previous run knew: it removes nothing for objects that it cannot list, and without the members of its group it takes no address. The agent's log says why it cannot list them"
    )]
    NotListed(String),
    /// The agent's DirectorGroup does not exist.
    #[error(
        "DirectorGroup {0} does not exist: create it, or start the agent with another --director-group. Until then the kernel's table stays as it is"
    )]
    Group(String),
}

impl Trouble {
    fn reason(&self) -> &'static str {
        match self {
            Self::Kernel(_) => condition::reason::KERNEL_UNAVAILABLE,
            Self::Links(_) => condition::reason::INTERFACES_UNAVAILABLE,
            Self::NotListed(_) => condition::reason::NOT_LISTED,
            Self::Group(_) => condition::reason::DIRECTOR_GROUP_NOT_FOUND,
        }
    }
}

/// The loop's findings at one time, from which the status is computed.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time of the loop's findings.
    pub at: Timestamp,
    /// The name of the director's group.
    pub group: String,
    /// Digests of the objects from which the round's wanted table was computed,
    /// or `None` if no round ran.
    pub used: Option<WorldDigests>,
    /// The result of the round, or `None` if no round ran.
    pub outcome: Option<Outcome>,
    /// The reason why no round ran, or `None` if a round ran.
    pub trouble: Option<Trouble>,
    /// The removals that are held until they are allowed.
    pub removals_held: Vec<Op>,
    /// The wanted table, with the object that each entry was made for.
    pub wishes: Arc<Desired>,
    /// One exception for each object that this build of the agent cannot read.
    pub unreadable: Vec<DirectorException>,
    /// The results of the health checks.
    pub health: Arc<HealthReport>,
    /// The reason why removals are held. `None` if removals are held only
    /// because there are too many, or if no removal is held.
    pub hold: Option<Hold>,
    /// The reason why the agent ignores the group's permission for removals.
    /// `None` if the agent ignores no permission.
    pub doubt: Option<Doubt>,
    /// The reason why the checkpoint cannot be written, if there is one.
    pub checkpoint_trouble: Option<String>,
    /// The problems with what the inputs gave: the mistakes in the manifests, and
    /// fields of the group that this build does not know. One sentence each.
    pub input_problems: Vec<String>,
    /// The report of the checks that protect the host's own traffic.
    pub protection: Arc<protect::Report>,
    /// The servers that are drained.
    pub drains: Arc<DrainReport>,
}

/// Returns the Director's new status. Fields that `observed` does not cover
/// keep their value from `before`. The transition time of a condition changes
/// only with the condition's status. `generation` is the generation of the
/// Director object.
pub fn status(observed: &Observed, before: &DirectorStatus, generation: i64) -> DirectorStatus {
    let mut status = DirectorStatus {
        director_group_name: observed.group.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..before.clone()
    };
    if let Some(outcome) = &observed.outcome {
        let mut exceptions = observed.unreadable.clone();
        exceptions.extend_from_slice(&observed.protection.exceptions);
        let held = &observed.removals_held;
        exceptions.extend(exceptions_of(outcome, held, &observed.wishes));
        // If the journal or the interfaces cannot be used, a wanted entry may
        // be missing without an exception. So the status's field `used` keeps
        // its previous value. The controller then does not count the service of
        // the missing entry as programmed.
        if host_failure(outcome).is_none() {
            status.used.clone_from(&observed.used);
        }
        status.services = int32(outcome.services);
        status.real_servers = int32(outcome.destinations);
        status.removals_held = int32(held.len());
        tell_exceptions(&mut status, exceptions);
        if !outcome.failures.contains_key(&Subject::Links) {
            vips::tell(&mut status, outcome, &observed.wishes, VIPS);
        }
        status.repairs = Repairs {
            count: i32::try_from(outcome.repairs.count).unwrap_or(i32::MAX),
            latest: outcome.repairs.latest.iter().cloned().collect(),
        };
        let doubt = observed.doubt.as_ref().map(ToString::to_string);
        let own = doubt.into_iter().chain(observed.checkpoint_trouble.clone());
        let own = own.chain(observed.input_problems.iter().cloned());
        let protected = observed.protection.notices.iter().cloned();
        let of_host = own.chain(protected).map(Line::of_host);
        let all = of_host.chain(notices(outcome, &observed.wishes));
        tell_notices(&mut status, all);
        tell_sysctls(&mut status, &outcome.sysctls);
        let sysctls = sysctls(&outcome.sysctls, generation);
        condition::set(&mut status.conditions, sysctls, observed.at);
        let undisturbed = undisturbed(&outcome.repairs, generation);
        condition::set(&mut status.conditions, undisturbed, observed.at);
        let hold = observed.hold.as_ref();
        let release = Release {
            group: &observed.group,
            now: observed.at,
        };
        let mut removals = removals_held(held, hold, release, generation);
        held::explain(&mut removals, observed.doubt.as_ref());
        condition::set(&mut status.conditions, removals, observed.at);
    }
    status.drains = observed.drains.status(before.drains.as_ref());
    status.health.clone_from(&observed.health.found);
    let health_checks = observed.health.condition(generation);
    condition::set(&mut status.conditions, health_checks, observed.at);
    let programmed = programmed(observed, &status, generation);
    condition::set(&mut status.conditions, programmed, observed.at);
    status
}

/// Writes the exceptions into the status. If there is no room for all
/// exceptions, each namespace gets a fair share of the room.
fn tell_exceptions(status: &mut DirectorStatus, mut exceptions: Vec<DirectorException>) {
    fn namespace(exception: &DirectorException) -> &str {
        &exception.virtual_service.namespace
    }
    for exception in &mut exceptions {
        let message = std::mem::take(&mut exception.message);
        exception.message = shortened(message, LONGEST_MESSAGE);
    }
    let (kept, left_out) = keep(exceptions, namespace, EXCEPTIONS);
    status.exceptions = kept;
    status.exceptions_omitted = int32(left_out.len());
    status.exceptions_omitted_namespaces = names(left_out.iter().map(namespace));
}

/// Writes the notices into the status. If there is no room for all notices,
/// each namespace gets a fair share of the room.
fn tell_notices(status: &mut DirectorStatus, notices: impl Iterator<Item = Line>) {
    let notices = notices.map(|line| Line {
        text: shortened(line.text, LONGEST_MESSAGE),
        ..line
    });
    let (kept, left_out) = keep(notices.collect(), |line: &Line| &*line.namespace, NOTICES);
    status.notices = kept.into_iter().map(|line| line.text).collect();
    status.notices_omitted = int32(left_out.len());
}

/// Writes the sysctls into the status. If there are too many sysctls, the
/// sysctls with a problem come first.
fn tell_sysctls(status: &mut DirectorStatus, sysctls: &Sysctls) {
    let mut all = sysctls.all.clone();
    status.sysctls_omitted = int32(all.len().saturating_sub(MOST_SYSCTLS));
    if all.len() > MOST_SYSCTLS {
        all.sort_by_key(|sysctl| sysctl.problem.is_none());
        all.truncate(MOST_SYSCTLS);
    }
    status.sysctls = all;
}

fn undisturbed(repairs: &act::Repairs, generation: i64) -> Condition {
    let latest = repairs.latest.iter().map(String::as_str);
    let latest = latest.filter(|repair| !repair.starts_with("sysctl "));
    match repairs.are_endless {
        true => condition::foreign_writer(latest, generation),
        false => condition::undisturbed(generation),
    }
}

fn sysctls(sysctls: &Sysctls, generation: i64) -> Condition {
    let each = sysctls.all.iter().filter_map(|sysctl| {
        let problem = sysctl.problem.as_ref()?;
        Some(format!("{} {problem}", sysctl.name))
    });
    let problems: Vec<_> = sysctls.trouble.clone().into_iter().chain(each).collect();
    match problems.is_empty() {
        true => condition::sysctls_as_needed(sysctls.all.len(), generation),
        false => {
            let problems = problems.iter().map(String::as_str);
            condition::sysctls_not_as_needed(problems, generation)
        }
    }
}

fn programmed(observed: &Observed, status: &DirectorStatus, generation: i64) -> Condition {
    if let Some(trouble) = &observed.trouble {
        return condition::director_not_programmed(
            trouble.reason(),
            trouble.to_string(),
            generation,
        );
    }
    if let Some((reason, message)) = observed.outcome.as_ref().and_then(host_failure) {
        return condition::director_not_programmed(reason, message, generation);
    }
    if let Some(first) = status.exceptions.first() {
        let others = status.exceptions.len() - 1 + omitted(status);
        let mut message = format!("{}: {}", first.virtual_service, first.message);
        if others > 0 {
            message.push_str(&format!(" (and {others} more)"));
        }
        return condition::director_not_programmed(
            condition::reason::EXCEPTIONS,
            message,
            generation,
        );
    }
    // An operation may fail for an entry that no object wants any longer. The
    // status has no exception for such an entry, but this condition must still
    // report the failure.
    let mut failures = observed
        .outcome
        .iter()
        .flat_map(|outcome| outcome.failures.values());
    if let Some(message) = failures.next() {
        return condition::director_not_programmed(
            condition::reason::EXCEPTIONS,
            message,
            generation,
        );
    }
    condition::director_programmed(status.services, status.real_servers, generation)
}

/// Returns the reason and message of a failure of the host that made the round
/// incomplete.
fn host_failure(outcome: &Outcome) -> Option<(&'static str, &str)> {
    outcome
        .failures
        .iter()
        .find_map(|(subject, message)| match subject {
            Subject::Journal => Some((condition::reason::STATE_FOLDER_UNAVAILABLE, &**message)),
            Subject::Links => Some((condition::reason::INTERFACES_UNAVAILABLE, &**message)),
            _ => None,
        })
}

fn omitted(status: &DirectorStatus) -> usize {
    usize::try_from(status.exceptions_omitted).unwrap_or_default()
}

fn exceptions_of(outcome: &Outcome, held: &[Op], wishes: &Desired) -> Vec<DirectorException> {
    let mut exceptions = Vec::new();
    for (subject, message) in &outcome.failures {
        match subject {
            Subject::Service(key) => {
                if let Some(service) = wishes.services.get(key) {
                    exceptions.push(exception(
                        service,
                        None,
                        condition::reason::KERNEL_REFUSED,
                        message,
                    ));
                }
            }
            Subject::Destination(key, destination) => {
                if let Some(service) = wishes.services.get(key) {
                    exceptions.push(exception(
                        service,
                        wishes.servers.get(&(*key, *destination)),
                        condition::reason::KERNEL_REFUSED,
                        message,
                    ));
                }
            }
            Subject::Vip(address) => {
                let reason = if outcome.stays.contains_key(address) {
                    condition::reason::VIP_NOT_RELEASED
                } else {
                    condition::reason::VIP_NOT_HELD
                };
                exceptions.extend(about_vip(wishes, *address, reason, message));
            }
            Subject::Kernel
            | Subject::Links
            | Subject::Journal
            | Subject::Timeouts
            | Subject::Device => {}
        }
    }
    for (key, destination) in &outcome.left {
        if let Some(service) = wishes.services.get(key) {
            let server =
                destination.and_then(|destination| wishes.servers.get(&(*key, destination)));
            let reason = condition::reason::FOREIGN_ENTRY;
            exceptions.push(exception(service, server, reason, &left(key, *destination)));
        }
    }
    // If the removal of a server is held, the kernel's service still has the
    // server. The kernel's service then differs from the wanted service. So the
    // VirtualService gets an exception.
    for op in held {
        if op.destination().is_some()
            && let Some(service) = wishes.services.get(&op.service())
        {
            let message = format!("{op} waits to be allowed: see condition RemovalsHeld");
            let reason = condition::reason::TOO_MANY_REMOVALS;
            exceptions.push(exception(service, None, reason, &message));
        }
    }
    for (address, reason, message) in vips::problems(outcome, wishes) {
        exceptions.extend(about_vip(wishes, address, reason, &message));
    }
    exceptions
}

/// Describes an entry of the kernel's table that the agent did not make. The
/// entry has the key of a wanted entry, but other settings.
fn left(service: &ServiceKey, destination: Option<DestinationKey>) -> String {
    let (entry, delete) = match destination {
        None => (service.to_string(), Op::DeleteService(*service)),
        Some(destination) => (
            format!("{service} -r {destination}"),
            Op::DeleteDestination(*service, destination),
        ),
    };
    format!(
        "the kernel's table has an entry {entry} that the agent did not make, with other settings than the objects want, and the group's spec.onConflict is Leave: delete it with `ipvsadm {delete}`, or set spec.onConflict to Adopt"
    )
}

/// Returns one log line for each unusual finding about this host or its IPVS
/// table. Failures are not included.
pub fn oddities(
    outcome: &Outcome,
    held: &[Op],
    wishes: &Desired,
    hold: Option<&Hold>,
    release: Release<'_>,
) -> BTreeSet<Line> {
    let vips = vips::problems(outcome, wishes).into_iter();
    // It is normal that an address is missing while the agent asks the segment
    // whether another host has the address.
    let vips = vips.filter(|(_, reason, _)| *reason != condition::reason::VIP_PROBING);
    let vips = vips.map(|(address, _, message)| {
        let services = wishes.vips.get(&address);
        line(services.and_then(BTreeSet::first), message)
    });
    let foreign = outcome.left.iter();
    let foreign = foreign.map(|(service, destination)| {
        line(wishes.services.get(service), left(service, *destination))
    });
    let held = (!held.is_empty()).then(|| removals_held(held, hold, release, 0).message);
    let held = held.map(Line::of_host);
    vips.chain(foreign)
        .chain(notices(outcome, wishes))
        .chain(held)
        .collect()
}

/// Returns a line for each unusual entry of the kernel's table and each unusual
/// address. Failures of operations get no line here.
fn notices<'a>(outcome: &'a Outcome, wishes: &'a Desired) -> impl Iterator<Item = Line> + 'a {
    let about = move |service: &ServiceKey, text| line(wishes.services.get(service), text);
    let strangers = outcome.strangers.iter().map(move |(service, destination)| {
        about(service, format!(
            "service {service} has a server {destination} that the agent did not add: the agent leaves this server alone, and it gets its share of the connections"
        ))
    });
    let misordered = outcome.misordered.iter().map(move |service| {
        about(service, format!(
            "the servers of service {service} were not added in the order of their age, and the service's scheduler depends on this order: a director that creates the service anew sends some clients to other servers. To correct the order, delete the service and create it again, which ends its connections"
        ))
    });
    let left_over = vips::left_over(outcome).map(Line::of_host);
    strangers.chain(misordered).chain(left_over)
}

/// Returns a line about the object that wants a service, or about this host if
/// no object wants the service.
fn line(object: Option<&ObjectKey>, text: String) -> Line {
    Line {
        namespace: object.map_or_else(Arc::default, |object| object.namespace.clone()),
        text,
    }
}

fn about_vip<'a>(
    wishes: &'a Desired,
    address: IpAddr,
    reason: &'a str,
    message: &'a str,
) -> impl Iterator<Item = DirectorException> + 'a {
    wishes
        .vips
        .get(&address)
        .into_iter()
        .flatten()
        .map(move |service| exception(service, None, reason, message))
}

fn exception(
    service: &ObjectKey,
    server: Option<&ObjectKey>,
    reason: &str,
    message: &str,
) -> DirectorException {
    DirectorException {
        virtual_service: service.clone(),
        real_server: server.cloned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests;
