//! Measures how long planning takes if the kernel's table already equals the
//! wanted table.

use std::time::Instant;

use anyhow::{Result, ensure};
use ipvs::OnConflict;

use crate::{
    figure::{Figure, Target},
    size::Size,
};

const SIZE: Size = Size::new(10_000, 5);
const SAMPLES: usize = 21;

pub(crate) fn measure() -> Result<()> {
    let desired = SIZE.wanted();
    let (actual, owned) = SIZE.loaded();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let plan = ipvs::plan(&desired, &actual, &owned, OnConflict::Adopt);
        samples.push(start.elapsed());
        ensure!(
            plan.is_empty(),
            "an empty plan was expected, found {:?}",
            plan.ops
        );
    }
    samples.sort();
    let median = samples[SAMPLES / 2].as_secs_f64() * 1e3;
    println!("plan of {SIZE} with nothing to do, natively: median of {SAMPLES}");
    let name = format!("plan_{}", SIZE.name());
    println!("{}", Figure::new(name, median, "ms", Target::AtMost(25.0)));
    Ok(())
}
