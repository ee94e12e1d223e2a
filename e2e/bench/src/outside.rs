//! Runs the measurements, natively or in the lab, and collects their figures.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    Part,
    figure::{self, Figure},
};

/// The time limit of the lab. The limit is longer than all measurements
/// together.
const LAB_TIMEOUT_SECONDS: u32 = 3600;

pub(crate) fn run(parts: Vec<Part>, check: bool) -> Result<ExitCode> {
    let parts = match parts.is_empty() {
        true => Part::value_variants().to_vec(),
        false => parts,
    };
    let (native, lab): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.is_native());
    let bench = env::current_exe()?;
    let mut figures = Vec::new();
    if !native.is_empty() {
        let mut command = Command::new(&bench);
        figures.extend(collect(here(&mut command, &native))?);
    }
    let (api, lab): (Vec<_>, Vec<_>) = lab.into_iter().partition(|part| part.needs_api_server());
    if !lab.is_empty() {
        let mut command = in_lab(&bench, &[]);
        figures.extend(collect(here(&mut command, &lab))?);
    }
    for part in api {
        let mut command = in_lab(&bench, &["--api-server"]);
        figures.extend(collect(here(&mut command, &[part]))?);
    }
    println!("\n{}", figure::table(&figures));
    let is_any_short = figures.iter().any(Figure::is_short);
    Ok(ExitCode::from(u8::from(check && is_any_short)))
}

fn here<'a>(command: &'a mut Command, parts: &[Part]) -> &'a mut Command {
    command.arg("here");
    for part in parts {
        let name = part.to_possible_value().expect("no part is skipped");
        command.arg(name.get_name());
    }
    command
}

fn in_lab(bench: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(bench.with_file_name("lab"));
    command
        .arg("run")
        .args(options)
        .arg("--timeout")
        .arg(LAB_TIMEOUT_SECONDS.to_string())
        .arg("--")
        .arg(bench);
    command
}

/// Runs a command, prints the command's output, and returns the figures in the
/// output.
fn collect(command: &mut Command) -> Result<Vec<Figure>> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} starts"))?;
    let output = child.stdout.take().expect("the output is piped");
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        figures.extend(line.parse::<Figure>());
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(figures)
}
