//! Sets and restores the host's sysctls as part of a round.
//!
//! ```text
//! services, group, host ─▶ what is wanted ─▶ read ─▶ journal ─▶ write
//!                                             └─▶ a problem, per value
//! ```
//!
//! If a sysctl cannot be set, the round still does all its other work. If
//! another process changes a sysctl, the agent sets the sysctl again a few
//! times. Then the agent accepts the other value and reports the problem.

mod facts;
mod words;

use std::{collections::BTreeSet, io, time::Duration};

use crds::api::SysctlStatus;

use super::{
    Difference, Edges, State, Wish, record,
    tuned::{Progress, Sysctls},
};
use crate::{
    decide::{
        ours::Entry,
        sysctls::{self, Needs, Setting},
    },
    host::sysctls::{self as host, ALL_IPV6_FORWARDING},
};

/// Sets the sysctls that the services need. The journal keeps the value that
/// each sysctl had before the agent first set it. When no service needs a
/// sysctl in `net.ipv4.vs` any longer, the agent restores this value. It does
/// not restore a sysctl that another process has changed. Sysctls outside
/// `net.ipv4.vs` stay set until the host is taken out of service.
pub(super) fn apply(state: &mut State, edges: &mut Edges<'_>, wish: &Wish, now: Duration) {
    let Some(tuning) = &wish.tuning else {
        return;
    };
    let tuned = &state.tuned;
    let is_time = tuned.next_look().is_some_and(|at| at <= now);
    let is_new = tuned.tuning.as_ref() != Some(tuning);
    let is_other = is_checked(wish) != tuned.needs.checks
        || is_drained(wish) != tuned.needs.drains
        || wish.kept_sysctls != tuned.kept;
    if !(state.everything_is_dirty || tuned.is_due || is_new || is_other || is_time) {
        return;
    }
    let needs = needs(state, wish);
    let is_ours = state.ours.sysctls.contains_key("net.ipv4.vs.conntrack");
    let gathered = facts::gather(&mut state.tuned.ways, edges, &needs, tuning, is_ours);
    let tuned = &mut state.tuned;
    tuned.is_due = false;
    tuned.looked = Some(now);
    tuned.kept.clone_from(&wish.kept_sysctls);
    tuned.tuning = Some(tuning.clone());
    let trouble = match gathered {
        Ok(facts) => {
            tuned.facts = facts;
            None
        }
        // If the facts cannot be gathered, the agent uses the last known facts.
        Err(error) => Some(format!("cannot find out which sysctls are needed: {error}")),
    };
    if trouble != tuned.report.trouble {
        trouble.iter().for_each(|why| tracing::warn!("{why}"));
    }
    let wanted = sysctls::wanted(&needs, tuning, &tuned.facts);
    tuned.needs = needs;
    tuned
        .progress
        .retain(|name, _| wanted.iter().any(|setting| setting.name == *name));
    for setting in &wanted {
        apply_one(state, edges, setting, now);
    }
    let mut all: Vec<_> = wanted.iter().map(|setting| told(state, setting)).collect();
    if trouble.is_none() {
        all.extend(restore(state, edges, &wanted, &wish.kept_sysctls));
    }
    state.tuned.report = Sysctls { all, trouble };
}

/// Returns the needs of all services that may need a sysctl: the services in
/// `wish`, and our services that the kernel still has.
fn needs(state: &State, wish: &Wish) -> Needs {
    let mut needs = Needs {
        checks: is_checked(wish),
        drains: is_drained(wish),
        ..Needs::default()
    };
    for (key, service) in &wish.desired.table {
        needs.service(key, &service.config);
        for (destination, config) in &service.destinations {
            needs.server(destination, config);
        }
    }
    for policy in wish.desired.checks.values() {
        if let Some((sorry, config)) = &policy.sorry {
            needs.server(sorry, config);
        }
    }
    let ours = state.ours.table.services.keys();
    for key in ours.filter(|key| !wish.desired.table.contains_key(key)) {
        let believed = state.believed.as_ref().and_then(|table| table.get(key));
        if let Some(service) = believed {
            needs.service(key, &service.config);
            for (destination, config) in &service.destinations {
                needs.server(destination, config);
            }
        }
    }
    needs
}

fn is_checked(wish: &Wish) -> bool {
    !wish.desired.checks.is_empty()
}

fn is_drained(wish: &Wish) -> bool {
    !wish.desired.drains.is_empty() || wish.desired.is_draining
}

/// Sets one sysctl to its wanted value and records its state.
fn apply_one(state: &mut State, edges: &mut Edges<'_>, setting: &Setting, now: Duration) {
    let name = &setting.name;
    let before = state.tuned.progress.remove(name);
    let mut progress = before
        .filter(|before| before.wanted == setting.value)
        .unwrap_or_default();
    progress.wanted.clone_from(&setting.value);
    let said = progress.problem.take();
    progress.problem = match edges.sysctls.read(name) {
        Err(error) => {
            progress.found = None;
            Some(words::unreadable(name, &error))
        }
        Ok(found) if setting.is_met_by(&found) => {
            progress.found = Some(found);
            progress.was_met = true;
            progress.fight.end();
            None
        }
        Ok(found) => {
            progress.found = Some(found.clone());
            change(state, edges, setting, &mut progress, &found, now).err()
        }
    };
    if progress.problem.is_none()
        && state.ours.sysctls.contains_key(name)
        && let Some(found) = &progress.found
    {
        state.tuned.made.insert(name.clone(), found.clone());
    }
    if let Some(problem) = &progress.problem
        && said.as_ref() != Some(problem)
    {
        tracing::warn!("{name} is not {}: {problem}", setting.value);
    }
    state.tuned.progress.insert(name.clone(), progress);
}

/// Sets a sysctl whose current value is not the wanted value.
///
/// # Errors
/// Returns an error message for people, with the problem and its remedy.
fn change(
    state: &mut State,
    edges: &mut Edges<'_>,
    setting: &Setting,
    progress: &mut Progress,
    found: &str,
    now: Duration,
) -> Result<(), String> {
    let (name, value) = (&setting.name, &setting.value);
    let is_met = |name: &&String| {
        let progress = state.tuned.progress.get(*name);
        progress.is_some_and(|progress| progress.problem.is_none())
    };
    if let Some(first) = setting.after.iter().find(|name| !is_met(name)) {
        return Err(words::waits_for(first));
    }
    if progress.was_met && !progress.fight.goes_on(now) {
        return Err(words::fought_over(name, value, found));
    }
    let with_it = changed_with(edges, name)?;
    let itself = (name.clone(), found.to_owned());
    let new: Vec<_> = [itself]
        .into_iter()
        .chain(with_it)
        .filter(|(name, _)| !state.ours.sysctls.contains_key(name))
        .collect();
    for (name, before) in new.clone() {
        state.own(Entry::Sysctl(name, before));
    }
    // The journal must have the sysctl's previous value before the write.
    // Otherwise, the agent could not restore the sysctl after a crash.
    let set = match !is_unsettled(state) || record::settle(state, edges, now) {
        true => host::set(edges.sysctls, name, value)
            .map_err(|error| words::unwritable(name, value, &error)),
        false => Err(words::NOT_WRITTEN_DOWN.to_owned()),
    };
    // After a failed write, the current value shows whether the write had an
    // effect.
    let is_touched = set.is_ok() || edges.sysctls.read(name).is_ok_and(|now| now != found);
    for (of, before) in new {
        let is_put_back = set.is_ok() && of != *name;
        if is_put_back || !is_touched {
            state.disown(Entry::Sysctl(of, before));
        }
    }
    if is_touched {
        state.writes.other(Difference::Sysctl {
            name: name.clone(),
            old: Some(found.to_owned()),
            new: Some(value.clone()),
            ours: true,
        });
    }
    set?;
    let now_found = edges.sysctls.read(name);
    let now_found = now_found.map_err(|error| words::unreadable(name, &error))?;
    let is_met = setting.is_met_by(&now_found);
    progress.found = Some(now_found.clone());
    if !is_met {
        return Err(words::made_otherwise(value, &now_found));
    }
    match progress.was_met {
        true => state.repairs.note_sysctl(format!("sysctl {name}={value}")),
        false => tracing::info!("{name} is {value} now, and was {found}: {}", setting.reason),
    }
    progress.was_met = true;
    Ok(())
}

/// Returns the sysctls that [`host::set`] changes for a moment when it sets
/// `name`. Each sysctl comes with its current value. The journal keeps these
/// values, in case the agent dies before [`host::set`] has restored them.
fn changed_with(edges: &mut Edges<'_>, name: &str) -> Result<Vec<(String, String)>, String> {
    if name != ALL_IPV6_FORWARDING {
        return Ok(Vec::new());
    }
    let all = host::changed_with_it(edges.sysctls);
    all.map_err(|error| words::unreadable(name, &error))
}

/// Restores IPVS's own sysctls that no service needs any longer. Returns the
/// sysctls that could not be restored.
fn restore(
    state: &mut State,
    edges: &mut Edges<'_>,
    wanted: &[Setting],
    kept: &BTreeSet<String>,
) -> Vec<SysctlStatus> {
    let wanted: BTreeSet<_> = wanted.iter().map(|setting| &setting.name).collect();
    let ours = state.ours.sysctls.clone().into_iter();
    let idle = ours.filter(|(name, _)| {
        sysctls::is_ours(name) && !wanted.contains(name) && !kept.contains(name)
    });
    let mut stuck = Vec::new();
    for (name, before) in idle.collect::<Vec<_>>() {
        let made = state.tuned.made.get(&name).cloned();
        match restore_one(edges, &name, &before, made.as_deref()) {
            Ok(written) => {
                state.tuned.made.remove(&name);
                if let Some(found) = written {
                    state.writes.other(restored(&name, found, &before));
                }
                state.disown(Entry::Sysctl(name, before));
            }
            Err(error) => stuck.push(SysctlStatus {
                problem: Some(words::unwritable(&name, &before, &error)),
                found: made,
                before: Some(before.clone()),
                wanted: before,
                reason: "no longer needed: the previous value should be restored".to_owned(),
                name,
            }),
        }
    }
    stuck
}

/// Restores one sysctl if nobody else changed it. Returns the value that was
/// overwritten, or `None` if nothing was written.
fn restore_one(
    edges: &mut Edges<'_>,
    name: &str,
    before: &str,
    made: Option<&str>,
) -> io::Result<Option<String>> {
    let found = match edges.sysctls.read(name) {
        // The module ip_vs was unloaded, so the sysctl no longer exists.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let is_ours = match made {
        Some(made) => sysctls::is_same(made, &found),
        None => sysctls::may_be_set_by_us(name, &found),
    };
    if is_ours && !sysctls::is_same(before, &found) {
        edges.sysctls.write(name, before)?;
        tracing::info!("{name} is {before} again: it is no longer needed");
        return Ok(Some(found));
    }
    Ok(None)
}

fn restored(name: &str, found: String, before: &str) -> Difference {
    Difference::Sysctl {
        name: name.to_owned(),
        old: Some(found),
        new: Some(before.to_owned()),
        ours: false,
    }
}

/// The result of restoring all sysctls that the agent set.
#[derive(Debug, Default)]
pub struct Restored {
    /// A message for each sysctl that was restored.
    pub done: Vec<String>,
    /// A message for each sysctl that could not be restored, with the reason.
    pub stuck: Vec<String>,
}

/// Restores every sysctl that the agent set, even outside `net.ipv4.vs`, when
/// the host is taken out of service.
pub fn restore_all(state: &mut State, edges: &mut Edges<'_>) -> Restored {
    let mut restored = Restored::default();
    for (name, before) in state.ours.sysctls.clone() {
        let result = match edges.sysctls.read(&name) {
            // The interface or the module ip_vs is gone, so the sysctl no
            // longer exists.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(words::unreadable(&name, &error)),
            Ok(found) if sysctls::is_same(&found, &before) => Ok(()),
            Ok(found) => match host::set(edges.sysctls, &name, &before) {
                Ok(()) => {
                    let line = format!("{name} was {found} and is {before} again");
                    state.writes.other(self::restored(&name, found, &before));
                    restored.done.push(line);
                    Ok(())
                }
                Err(error) => Err(words::unwritable(&name, &before, &error)),
            },
        };
        match result {
            Ok(()) => state.disown(Entry::Sysctl(name, before)),
            Err(why) => restored.stuck.push(format!("{name}: {why}")),
        }
    }
    if !record::settle(state, edges, Duration::MAX) {
        restored.stuck.push(words::NOT_WRITTEN_DOWN.to_owned());
    }
    restored
}

fn told(state: &State, setting: &Setting) -> SysctlStatus {
    let progress = state.tuned.progress.get(&setting.name);
    SysctlStatus {
        name: setting.name.clone(),
        wanted: setting.value.clone(),
        found: progress.and_then(|progress| progress.found.clone()),
        before: state.ours.sysctls.get(&setting.name).cloned(),
        reason: setting.reason.clone(),
        problem: progress.and_then(|progress| progress.problem.clone()),
    }
}

/// Whether the journal still lacks the previous value of a sysctl.
fn is_unsettled(state: &State) -> bool {
    let is_sysctl = |entry: &Entry| matches!(entry, Entry::Sysctl(..));
    state.unsettled.has(is_sysctl)
}
