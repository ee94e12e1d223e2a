//! The text of `ipvs-agent status`.

use std::fmt::Write as _;

use crds::{
    api::{DirectorStatus, DrainCause, DrainingServer, VipsHeld},
    condition,
};
use jiff::Timestamp;

use super::{Answer, Away};
use crate::tell::publish::LONGEST_SILENCE;

/// The largest number of lines for one list, unless the text is wide.
const MOST: usize = 20;

/// Returns the first lines for an answer: whose it is, and how old.
pub(super) fn heading(answer: &Answer, now: Timestamp) -> String {
    let Answer {
        director_name,
        loop_silent_seconds,
        api_server_away,
        observed_at,
        status,
        ..
    } = answer;
    let mut text = String::new();
    let group = &status.director_group_name;
    let versions = (&status.agent_version, &status.kernel_version);
    let _ = writeln!(
        text,
        "Director {director_name} of group {group}, agent {}, kernel {}",
        versions.0, versions.1
    );
    match observed_at {
        None => text.push_str("The agent has not completed a round yet\n"),
        Some(at) => {
            let age = now.duration_since(at.0).as_secs().max(0);
            let _ = writeln!(text, "As the agent saw it {age} s ago");
        }
    }
    if *loop_silent_seconds > LONGEST_SILENCE.as_secs() {
        let _ = writeln!(
            text,
            "THE LOOP HAS NOT ANSWERED FOR {loop_silent_seconds} s: what follows is old. The disk \
             of the state folder or the kernel does not answer; the agent's log has more"
        );
    }
    if let Some(away) = api_server_away {
        text.push_str(&without_api_server(away, now));
    }
    text
}

/// Returns the text for an answer: what needs attention comes first.
pub(super) fn of(answer: &Answer, now: Timestamp, is_wide: bool) -> String {
    let most = if is_wide { usize::MAX } else { MOST };
    let status = &answer.status;
    let mut text = heading(answer, now);
    for kind in condition::WRITTEN_BY_AGENTS {
        if let Some(found) = condition::find(&status.conditions, kind) {
            let mark = if condition::needs_attention(found) {
                '!'
            } else {
                ' '
            };
            let (value, reason) = (&found.status, &found.reason);
            let _ = writeln!(text, "{mark} {kind}={value} {reason}: {}", found.message);
        }
    }
    list(&mut text, "Virtual addresses", &vips(status), most);
    let exceptions = status.exceptions.iter().map(|exception| {
        let service = &exception.virtual_service;
        format!("{service}: {}: {}", exception.reason, exception.message)
    });
    list(
        &mut text,
        "Exceptions",
        &exceptions.collect::<Vec<_>>(),
        most,
    );
    let unhealthy = status.health.iter().flat_map(|health| &health.unhealthy);
    let unhealthy = unhealthy.map(|server| {
        let (name, state) = (&server.real_server, &server.state);
        let since = server.since.0;
        format!("{name}: {state:?} since {since}: {}", server.message)
    });
    list(
        &mut text,
        "Unhealthy servers",
        &unhealthy.collect::<Vec<_>>(),
        most,
    );
    let drains: Vec<_> = answer.drains.iter().map(drained).collect();
    list(&mut text, "Servers without new connections", &drains, most);
    list(&mut text, "Notices", &status.notices, most);
    list(&mut text, "Last repairs", &status.repairs.latest, most);
    text
}

/// Says that the API server does not answer, what that means, and what to look
/// at. Without a URL, the agent has no usable configuration.
fn without_api_server(away: &Away, now: Timestamp) -> String {
    let Away {
        since,
        url,
        message,
    } = away;
    let seconds = now.duration_since(*since).as_secs().max(0);
    let at = url.as_ref().map(|url| format!(" at {url}"));
    let remedy = match url {
        Some(url) => format!(
            "Look at the API server, and at the network, the firewall and DNS on the way to it. \
             On this host: curl -k {}/readyz",
            url.trim_end_matches('/')
        ),
        None => "Look at the agent's options: --kubeconfig, or --manifests to run without an API \
                 server"
            .to_owned(),
    };
    format!(
        "THE API SERVER{} HAS NOT ANSWERED FOR {seconds} s, since {since:.0}: {message}\n\
         This director keeps serving what it last knew. Changes of objects wait, and so do its \
         reports.\n{remedy}\n",
        at.unwrap_or_default()
    )
}

fn drained(server: &DrainingServer) -> String {
    let (name, since, until) = (&server.real_server, server.since.0, server.until.0);
    let left = match (server.drained, server.connections) {
        (true, _) => "no connection left".to_owned(),
        (false, 1) => "1 connection left".to_owned(),
        (false, left) => format!("{left} connections left"),
    };
    let why = match server.cause {
        DrainCause::Drained => "drained",
        DrainCause::Leaving => "leaving",
    };
    format!("{name}: {why}, {left}, since {since}, until {until}")
}

fn vips(status: &DirectorStatus) -> Vec<String> {
    let listed = status.vips.iter();
    let mut all: Vec<_> = listed
        .map(|vip| format!("{} on {}", vip.address, vip.interface))
        .collect();
    if status.vips_held == VipsHeld::All && status.vips_omitted > 0 {
        all.push(format!(
            "and {} more, all that are wanted",
            status.vips_omitted
        ));
    }
    all
}

fn list(text: &mut String, title: &str, lines: &[String], most: usize) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    for line in lines.iter().take(most) {
        let _ = writeln!(text, "  {line}");
    }
    if lines.len() > most {
        let _ = writeln!(text, "  and {} more: see -o wide", lines.len() - most);
    }
}
