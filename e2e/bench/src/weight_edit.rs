//! Measures the cost of one changed weight in a big table.

use std::{fs, process::Command, sync::Arc};

use anyhow::{Result, ensure};
use ipvs::{DestinationKey, ServiceKey};

use crate::{
    contestant::empty_namespace,
    director::{self, Director},
    figure::{Figure, Target},
    load::tally,
    scratch::scratch,
    size::Size,
    trace,
};

const SIZE: Size = Size::new(10_000, 5);
const WEIGHT: u32 = 7;
/// The flags of a netlink dump request as strace prints them. strace does not
/// know the netlink family IPVS, and prints some flags as numbers.
const DUMP: [&str; 2] = ["NLM_F_DUMP", "NLM_F_REQUEST|0x300"];

/// Traces the edit of a weight in a separate process, and counts the system
/// calls of the edit.
pub(crate) fn measure() -> Result<()> {
    println!("one server's weight in a table of {SIZE}:");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("edit-weight");
    let calls = trace::window(&command)?;
    println!("  system calls: {}", tally(&calls));
    let count = |words: &[&str]| {
        let calls = calls.iter();
        let named = calls.filter(|call| words.iter().any(|word| call.contains(word)));
        named.count() as f64
    };
    // A datagram of this edit has no room for two requests, so each datagram
    // counts as one request.
    let writes = count(&["sendto(", "sendmsg("]) - count(&DUMP);
    for (name, value, unit, most) in [
        ("writes", writes, "writes", 1.0),
        ("system_calls", calls.len() as f64, "calls", 10.0),
        ("dumps", count(&DUMP), "dumps", 0.0),
        ("fsyncs", count(&["fsync(", "fdatasync("]), "calls", 0.0),
    ] {
        let name = format!("weight_edit_{name}");
        println!("{}", Figure::new(name, value, unit, Target::AtMost(most)));
    }
    Ok(())
}

/// Loads a table, and then edits one weight. Writes a mark into the trace
/// before and after the edit.
pub(crate) fn run() -> Result<()> {
    empty_namespace()?;
    let folder = scratch("weight-edit")?;
    let mut desired = director::desired(SIZE.wanted());
    let mut director = Director::start(&folder)?;
    director.round(&desired)?;

    let (service, server) = edit(&mut Arc::make_mut(&mut desired).table);
    let before = director.kernel.writes();
    trace::begin();
    director.wish_changed([service]);
    director.round(&desired)?;
    trace::end();
    let writes = director.kernel.writes() - before;
    ensure!(
        writes == 1,
        "one write was expected, but {writes} were sent"
    );
    let found = director.weight_of(&service, &server)?;
    ensure!(
        found == Some(WEIGHT),
        "the weight {WEIGHT} was expected in the kernel, found {found:?}"
    );
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn edit(table: &mut ipvs::WantedTable) -> (ServiceKey, DestinationKey) {
    let middle = table.len() / 2;
    let (service, wanted) = table.iter_mut().nth(middle).expect("there are services");
    let (server, config) = wanted.destinations.first_mut().expect("there are servers");
    config.weight = WEIGHT;
    (*service, *server)
}
