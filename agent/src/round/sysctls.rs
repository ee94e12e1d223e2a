//! The host's sysctls, in a round.

use std::{collections::BTreeMap, io, time::Duration};

use super::{Edges, State, Wish, record};
use crate::{
    journal::{Change, Entry},
    retry::Subject,
};

/// What a service with a health check needs: connections of a server that was
/// taken out end at once, and clients that were bound to one that failed are
/// sent elsewhere (`Documentation/networking/ipvs-sysctl.rst`).
const FOR_CHECKS: [(&str, &str); 2] = [
    ("net.ipv4.vs.expire_nodest_conn", "1"),
    ("net.ipv4.vs.expire_quiescent_template", "1"),
];

type Settings = BTreeMap<&'static str, &'static str>;

/// Sets what is needed. What was found before we first set a value stands in
/// the journal from then on, and is what it becomes again when it is needed no
/// more, unless somebody else has changed it meanwhile.
pub(super) fn settle(state: &mut State, edges: &mut Edges<'_>, wish: &Wish<'_>, now: Duration) {
    // What leaves, and is held, is checked still.
    let is_checked = !wish.desired.guarded.is_empty() || !wish.leaving.is_empty();
    let wanted: Settings = match is_checked {
        true => FOR_CHECKS.into(),
        false => Settings::new(),
    };
    let is_settled = state.sysctls_settled.as_ref() == Some(&wanted);
    if is_settled && !state.everything_is_dirty || !state.retry.allows(Subject::Sysctls, now) {
        return;
    }
    state.sysctls_settled = None;
    for (name, value) in &wanted {
        match set(state, edges, name, value, now) {
            Ok(Done::Was) => {}
            Ok(Done::Set) if is_settled => state.repairs.note(format!("sysctl {name}={value}")),
            Ok(Done::Set) => tracing::info!("{name} is {value}: failed servers need it"),
            // The journal says why.
            Ok(Done::Waits) => return,
            Err(error) => return fail(state, name, value, &error, now),
        }
    }
    let ours = state.ours.sysctls.clone().into_iter();
    for (name, before) in ours.filter(|(name, _)| !wanted.contains_key(name.as_str())) {
        if let Err(error) = restore(edges, &name, &before) {
            return fail(state, &name, &before, &error, now);
        }
        state.disown(Entry::Sysctl(name, before));
    }
    state.succeeded(Subject::Sysctls);
    state.sysctls_settled = Some(wanted);
}

enum Done {
    /// It was so.
    Was,
    /// It is so now.
    Set,
    /// What was there before cannot be written down.
    Waits,
}

fn set(
    state: &mut State,
    edges: &mut Edges<'_>,
    name: &str,
    value: &str,
    now: Duration,
) -> io::Result<Done> {
    let found = edges.sysctls.read(name)?;
    if found == value {
        return Ok(Done::Was);
    }
    if !state.ours.sysctls.contains_key(name) {
        state.own(Entry::Sysctl(name.to_owned(), found));
    }
    // Nobody could tell afterwards what was there before.
    if is_unsettled(state) && !record::settle(state, edges, now) {
        return Ok(Done::Waits);
    }
    edges.sysctls.write(name, value)?;
    Ok(Done::Set)
}

fn restore(edges: &mut Edges<'_>, name: &str, before: &str) -> io::Result<()> {
    let found = edges.sysctls.read(name)?;
    let is_ours = FOR_CHECKS.contains(&(name, &found));
    if is_ours {
        edges.sysctls.write(name, before)?;
    }
    Ok(())
}

fn fail(state: &mut State, name: &str, value: &str, error: &io::Error, now: Duration) {
    let message = format!(
        "cannot set {name} to {value}, which services with health checks need: {error}; give the \
         agent a folder where the host's sysctls can be written, with --sysctl-dir"
    );
    state.failed(Subject::Sysctls, None, message, now);
}

/// Whether what a value was before does not stand in the journal so far.
fn is_unsettled(state: &State) -> bool {
    state.unsettled.iter().any(|change| {
        let (Change::Own(entry) | Change::Disown(entry)) = change;
        matches!(entry, Entry::Sysctl(..))
    })
}
