//! The commands that print what the agent sees, did or would do.

use std::{path::Path, process::ExitCode};

use agent::{
    args::Output,
    input::manifests,
    tell::local,
    trail::{self, history::Filter},
};
use anyhow::Context;

/// Prints what the agent on this host sees.
pub(crate) fn status(state_dir: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let answer = local::ask(state_dir).map_err(anyhow::Error::msg)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
        Output::Text => print!("{}", answer.text(jiff::Timestamp::now())),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the filter for the given options of `ipvs-agent history`.
pub(crate) fn filter(
    since: Option<jiff::Span>,
    until: Option<jiff::Timestamp>,
    service: Option<(String, String)>,
) -> anyhow::Result<Filter> {
    let since = match since {
        None => None,
        Some(span) => {
            let ago = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
            let ago = ago.context("--since takes days, hours, minutes and seconds")?;
            let since = jiff::Timestamp::now().checked_sub(ago.abs());
            Some(since.context("--since is too long ago")?)
        }
    };
    Ok(Filter {
        since,
        until,
        service,
    })
}

/// Prints the trail, or the table according to the trail.
pub(crate) fn history(
    state_dir: &Path,
    filter: &Filter,
    table: bool,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let lines = trail::files::read(state_dir)
        .with_context(|| format!("cannot read the history in {}", state_dir.display()))?;
    anyhow::ensure!(
        !lines.is_empty(),
        "no agent has written a history in the state folder {}: use --state-dir to name another",
        state_dir.display()
    );
    match (table, output) {
        (true, Output::Text) => print!("{}", trail::history::table(&filter.ours(&lines))),
        (true, Output::Json) => {
            println!("{}", serde_json::to_string_pretty(&filter.ours(&lines))?);
        }
        (false, Output::Text) => {
            let text = trail::history::text(&filter.events(&lines), &jiff::tz::TimeZone::system());
            print!("{text}");
        }
        (false, Output::Json) => {
            println!("{}", serde_json::to_string_pretty(&filter.events(&lines))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a folder of manifests, and prints every mistake.
pub(crate) fn check(folder: &Path, group: &str, output: Output) -> anyhow::Result<ExitCode> {
    let checked = manifests::check(folder, group)
        .with_context(|| format!("cannot read the manifests in {}", folder.display()))?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&checked)?),
        Output::Text => {
            for mistake in &checked.mistakes {
                println!("{mistake}");
            }
            eprintln!(
                "{}: {} objects, {} mistakes",
                folder.display(),
                checked.objects,
                checked.mistakes.len()
            );
        }
    }
    Ok(ExitCode::from(u8::from(!checked.mistakes.is_empty())))
}
