//! The commands that print what the agent sees, did or would do.

use std::{path::Path, process::ExitCode};

use agent::{
    args::{Args, Command, Output},
    input::manifests,
    tell::{
        health,
        local::{self, Question},
    },
    trail::{self, history::Filter},
};
use anyhow::Context;
use clap::CommandFactory;
use serde::Serialize;

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
        Command::Probe { question } => probe(args.health_socket.as_deref(), *question),
        Command::Undo { .. } => return None,
    })
}

/// Answers a kubelet's probe.
fn probe(socket: Option<&Path>, question: health::Question) -> anyhow::Result<ExitCode> {
    let socket = socket.context("give --health-socket, the same path as the agent has")?;
    health::ask(socket, question).map_err(anyhow::Error::msg)?;
    Ok(ExitCode::SUCCESS)
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
    let now = jiff::Timestamp::now();
    show(output, &answer, |is_wide| answer.text(now, is_wide))
}

/// Prints a value in the given format. `text` returns the value as text, and has
/// to leave nothing out if its argument is true.
fn show(
    output: Output,
    value: &impl Serialize,
    text: impl FnOnce(bool) -> String,
) -> anyhow::Result<ExitCode> {
    match output {
        Output::Text => print!("{}", text(false)),
        Output::Wide => print!("{}", text(true)),
        Output::Json => println!("{}", serde_json::to_string_pretty(value)?),
        Output::Yaml => print!(
            "{}",
            serde_saphyr::to_string(&serde_json::to_value(value)?)?
        ),
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
            local::table::known_to_trail(ours)
        }
    };
    let exceptions = known.exceptions.clone();
    let rows = known.with_kernel(&kernel, &statistics);
    show(output, &rows, |_| local::table::text(&rows, &exceptions))
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
    if table {
        let ours = filter.ours(&lines);
        return show(output, &ours, |_| trail::history::table(&ours));
    }
    let events = filter.events(&lines);
    let zone = jiff::tz::TimeZone::system();
    show(output, &events, |is_wide| {
        trail::history::text(&events, &zone, is_wide)
    })
}

/// Checks a folder of manifests, and prints every mistake.
fn check(folder: &Path, group: &str, output: Output) -> anyhow::Result<ExitCode> {
    let checked = manifests::check(folder, group)
        .with_context(|| format!("cannot read the manifests in {}", folder.display()))?;
    show(output, &checked, |_| {
        let mistakes = checked.mistakes.iter();
        mistakes.map(|mistake| format!("{mistake}\n")).collect()
    })?;
    eprintln!(
        "{}: {} objects, {} mistakes",
        folder.display(),
        checked.objects,
        checked.mistakes.len()
    );
    Ok(ExitCode::from(u8::from(!checked.mistakes.is_empty())))
}
