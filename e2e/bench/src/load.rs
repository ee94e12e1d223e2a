//! Measures how long the agent and other programs take to load a table into an
//! empty kernel.

use std::{thread, time::Duration};

use anyhow::Result;

use crate::{
    contestant::Contestant,
    figure::{Figure, Target},
    size::Size,
};

const SIZES: [Size; 2] = [Size::new(1_000, 10), Size::new(10_000, 2)];
/// The number of samples of a program that needs only milliseconds per load.
const FAST_SAMPLES: usize = 11;
/// The number of samples of a program that needs up to a minute per load.
const SLOW_SAMPLES: usize = 3;
/// The pause after a load, while the kernel removes the program's network
/// namespace in the background.
const REST: Duration = Duration::from_millis(500);

pub(crate) fn measure() -> Result<()> {
    // Two small loads, which are not measured, first make the kernel load the
    // IPVS modules.
    for contestant in [Contestant::Floor, Contestant::Ours] {
        contestant.sample(Size::new(10, 1))?;
    }
    for size in SIZES {
        compare(size)?;
    }
    Ok(())
}

fn compare(size: Size) -> Result<()> {
    println!(
        "{size} into an empty kernel, {} operations:",
        size.operations()
    );
    let [ours, floor] = alternate([Contestant::Ours, Contestant::Floor], size, FAST_SAMPLES)?;
    alternate([Contestant::OursCold], size, SLOW_SAMPLES)?;
    let calls = Contestant::Ours.system_calls(size)?;
    println!("  system calls of ours: {}", tally(&calls));
    let name = size.name();
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!(
        "{}",
        Figure::new(
            format!("load_{name}_over_floor"),
            ratio(ours, floor),
            "x",
            Target::AtMost(1.3),
        )
    );
    println!(
        "{}",
        Figure::new(
            format!("load_{name}_system_calls"),
            calls.len() as f64 / f64::from(size.operations()),
            "calls/op",
            Target::AtMost(0.02),
        )
    );
    for (contestant, short, limit) in [
        (Contestant::Moby, "moby", 100.0),
        (Contestant::Ipvsadm, "ipvsadm", 400.0),
    ] {
        let [theirs] = alternate([contestant], size, SLOW_SAMPLES)?;
        println!(
            "{}",
            Figure::new(
                format!("load_{name}_faster_than_{short}"),
                ratio(theirs, ours),
                "x",
                Target::AtLeast(limit),
            )
        );
    }
    Ok(())
}

/// Measures programs in turns, and returns each program's median time for a
/// load.
fn alternate<const N: usize>(
    contestants: [Contestant; N],
    size: Size,
    samples: usize,
) -> Result<[Duration; N]> {
    let mut taken = [const { Vec::new() }; N];
    for _ in 0..samples {
        for (contestant, taken) in contestants.iter().zip(&mut taken) {
            taken.push(contestant.sample(size)?);
            thread::sleep(REST);
        }
    }
    let mut medians = [Duration::ZERO; N];
    for (position, mut taken) in taken.into_iter().enumerate() {
        taken.sort();
        let median = taken[taken.len() / 2];
        println!(
            "  {:32} {:9.4} s  {:8.1} us/op  (median of {samples}; {:.4} to {:.4} s)",
            contestants[position].title(),
            median.as_secs_f64(),
            median.as_secs_f64() * 1e6 / f64::from(size.operations()),
            taken[0].as_secs_f64(),
            taken[taken.len() - 1].as_secs_f64(),
        );
        medians[position] = median;
    }
    Ok(medians)
}

/// Returns the number of system calls by name, as text such as `sendto 24,
/// recvfrom 24`.
pub(crate) fn tally(calls: &[String]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for call in calls {
        let name = call.split('(').next().unwrap_or_default();
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts = counts.iter().map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}
