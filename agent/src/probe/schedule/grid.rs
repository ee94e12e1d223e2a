//! Spreads the probes of targets with the same period over the period.

use std::{collections::BTreeSet, time::Duration};

/// 2^64 divided by the golden ratio. Consecutive multiples of this constant,
/// modulo 2^64, are spread evenly, however many there are (Knuth, TAOCP 3,
/// section 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The slots of all targets with the same period.
#[derive(Debug)]
pub(super) struct Grid {
    origin: u64,
    /// Slots that were used before and are free again.
    free: BTreeSet<u32>,
    used: u32,
}

impl Grid {
    /// Makes a grid without targets. `origin` shifts all slots of the grid.
    pub(super) fn new(origin: u64) -> Self {
        Self {
            origin,
            free: BTreeSet::new(),
            used: 0,
        }
    }

    /// Takes a free slot.
    pub(super) fn take(&mut self) -> u32 {
        let slot = self.free.pop_first().unwrap_or(self.used);
        self.used += 1;
        slot
    }

    /// Frees a slot. Returns true if all slots of the grid are free.
    pub(super) fn give_back(&mut self, slot: u32) -> bool {
        self.used -= 1;
        self.free.insert(slot);
        self.used == 0
    }

    /// Returns the time of a slot, counted from the start of each period.
    pub(super) fn phase(&self, slot: u32, period: Duration) -> Duration {
        let part = u128::from(self.origin.wrapping_add(GOLDEN.wrapping_mul(slot.into())));
        let phase = (period.as_nanos() * part) >> 64;
        Duration::from_nanos(phase.try_into().expect("less than a period"))
    }
}
