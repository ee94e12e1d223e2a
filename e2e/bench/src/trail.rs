//! Counts what the audit trail costs the agent's loop.

use std::{fs, process::Command, thread, time::Duration};

use agent::{
    act::Difference,
    trail::{files, round::Round, writer::Writer},
};
use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;

use crate::{
    figure::{Figure, Target},
    scratch::scratch,
    trace,
};

/// The number of rounds that the loop tells the trail.
const ROUNDS: usize = 60;

/// Traces a thread that tells rounds to the trail, and counts its system calls.
pub(crate) fn measure() -> Result<()> {
    println!("{ROUNDS} rounds with one write each, told to the audit trail:");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tell-trail");
    let calls = trace::window_of_thread(&command)?;
    let (name, unit) = ("trail_system_calls_of_the_loop", "calls");
    let calls = calls.len() as f64;
    println!("{}", Figure::new(name, calls, unit, Target::AtMost(0.0)));
    Ok(())
}

/// Tells rounds to a running trail. Writes a mark into the trace before and
/// after.
pub(crate) fn run() -> Result<()> {
    let folder = scratch("trail")?;
    let (mut trail, writer) = Writer::start(&folder)?;
    let rounds: Vec<_> = (0..ROUNDS).map(round).collect();
    // The trail's thread now waits for rounds.
    thread::sleep(Duration::from_secs(1));
    trace::begin();
    for round in rounds {
        trail.tell(round, Duration::ZERO);
    }
    trace::end();
    ensure!(
        !trail.is_behind(),
        "the trail had no room for {ROUNDS} rounds"
    );
    drop(trail);
    writer.finish();
    let written = files::read(&folder)?.len();
    ensure!(written > ROUNDS, "the trail has only {written} lines");
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn round(number: usize) -> Round {
    let write = Difference::Sysctl {
        name: "net.ipv4.vs.conntrack".to_owned(),
        old: Some("0".to_owned()),
        new: Some(number.to_string()),
        ours: true,
    };
    Round {
        at: Timestamp::now(),
        writes: vec![write],
        count: 1,
        is_whole: false,
        services: [].into(),
        host: None,
    }
}
