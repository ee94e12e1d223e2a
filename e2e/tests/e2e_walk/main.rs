//! A random walk: objects change, strangers edit the kernel's table, the agent
//! is killed between any two of its system calls, the API server goes away.
//! Whenever things settle, the kernel's table is what is wanted, plus what
//! strangers made.
//!
//! `IPVS_WALK_SEED` chooses another walk, or the same again: the steps depend on
//! nothing else, though their timing does. `IPVS_WALK_STEPS` makes it longer.

mod deeds;
mod life;
mod objects;
mod strangers;
mod table;
mod walk;

use std::env;

use walk::Walk;

/// Two runs of one commit take the same walk.
const SEED: u64 = 2026;
const STEPS: usize = 500;

#[test]
fn at_every_settling_the_kernel_has_what_is_wanted_and_what_strangers_made() {
    let seed = number("IPVS_WALK_SEED").unwrap_or(SEED);
    let steps = number("IPVS_WALK_STEPS").unwrap_or(STEPS);
    println!("IPVS_WALK_SEED={seed} IPVS_WALK_STEPS={steps}");
    Walk::new(seed).run(steps);
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{name}={text}, which is no number")))
}
