//! A random walk of the real agent. The walk changes Kubernetes objects and
//! grants, and edits the kernel's table as a stranger. The walk kills the agent
//! at random system calls, fills the agent's disk, and stops the API server.
//! When the walk pauses, the test waits for the expected table. This table
//! contains exactly the wanted entries and the strangers' entries.
//!
//! `IPVS_WALK_SEED` chooses the walk: the same seed gives the same steps, but
//! not the same timing. `IPVS_WALK_STEPS` sets the number of steps.

mod deeds;
mod life;
mod objects;
mod strangers;
mod table;
mod walk;

use std::env;

use walk::Walk;

/// The default seed of the walk. The seed is fixed, so that two runs of one
/// commit take the same steps.
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
    Some(number.unwrap_or_else(|| panic!("{name}={text} is not a number")))
}
