//! The commands that print what the agent sees, did or would do.

use std::{path::Path, process::ExitCode};

use agent::{
    args::{Args, Command, Output},
    input::manifests,
    tell::local::{self, Question},
    trail::{self, history::Filter},
};
use anyhow::Context;
use clap::CommandFactory;

/// Runs a command that only prints. Returns the exit code, or `None` if the
/// options ask for something else.
pub(crate) fn print(args: &Args) -> Option<anyhow::Result<ExitCode>> {
    let state_dir = &args.state_dir;
    Some(match args.command.as_ref()? {
        Command::Completion { shell } => {
            let mut command = Args::command();
            clap_complete::generate(*shell, &mut command, "ipvs-agent", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { folder, output } => check(folder, &args.director_group, *output),
        Command::Status { output } => status(state_dir, *output),
        Command::Table { output } => table(state_dir, *output),
        Command::History {
            since,
            until,
            service,
            table,
            output,
        } => filter(*since, *until, service.clone())
            .and_then(|filter| history(state_dir, &filter, *table, *output)),
        Command::Undo { .. } => return None,
    })
}

/// Prints what the agent on this host sees. If no agent answers, prints what the
/// history tells, and fails.
fn status(state_dir: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let answer = match local::ask(state_dir, Question::Status) {
        Ok(answer) => answer,
        Err(why) => {
            let known = trail::files::read(state_dir).unwrap_or_default();
            if let Some(summary) = trail::history::summary(&known) {
                println!("{summary}");
            }
            anyhow::bail!(why)
        }
    };
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
        Output::Text => print!("{}", answer.text(jiff::Timestamp::now())),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the IPVS table of this host.
fn table(state_dir: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let mut socket = ipvs::Socket::open()?;
    let kernel = ipvs::Kernel::table(&mut socket)?;
    let statistics = socket.statistics()?;
    let known = match local::ask(state_dir, Question::Table) {
        Ok(answer) => {
            eprint!("{}", answer.heading(jiff::Timestamp::now()));
            answer.table.unwrap_or_default()
        }
        Err(why) => {
            eprintln!("{why}. The owners of the entries are those that the history tells");
            let ours = trail::files::read_ours(state_dir).unwrap_or_default();
            local::table::known_to_trail(&ours)
        }
    };
    let exceptions = known.exceptions.clone();
    let rows = known.with_kernel(&kernel, &statistics);
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Text => print!("{}", local::table::text(&rows, &exceptions)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the filter for the given options of `ipvs-agent history`.
fn filter(
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
fn history(
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
fn check(folder: &Path, group: &str, output: Output) -> anyhow::Result<ExitCode> {
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
