//! Counters of the probe engine's own work.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The number of buckets in each range of the lateness histogram. A range goes
/// from one power of two to the next, in microseconds.
const PARTS: u64 = 4;
const BUCKETS: usize = 40 * PARTS as usize;

/// Counts the probes that were made, and how late they began. Any thread can
/// read the counts.
#[derive(Debug)]
pub struct Counts {
    probes: AtomicU64,
    voids: AtomicU64,
    lateness: [AtomicU64; BUCKETS],
    longest: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            probes: AtomicU64::default(),
            voids: AtomicU64::default(),
            lateness: array::from_fn(|_| AtomicU64::default()),
            longest: AtomicU64::default(),
        }
    }
}

impl Counts {
    /// Returns the number of probes that have ended.
    pub fn probes(&self) -> u64 {
        self.probes.load(Relaxed)
    }

    /// Returns the number of ended probes that were void.
    pub fn voids(&self) -> u64 {
        self.voids.load(Relaxed)
    }

    /// Returns a quantile of the probes' lateness, such as the median if `part`
    /// is 0.5. The returned time may be up to 25 % too long. A target's first
    /// probe does not count, because it has no fixed due time.
    pub fn lateness(&self, part: f64) -> Duration {
        let counts: Vec<_> = self.lateness.iter().map(|one| one.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let mut left = (total as f64 * part).ceil() as u64;
        for (bucket, count) in counts.into_iter().enumerate() {
            left = left.saturating_sub(count);
            if left == 0 {
                return upper_end(bucket).min(self.greatest_lateness());
            }
        }
        self.greatest_lateness()
    }

    /// Returns the greatest lateness of all probes.
    pub fn greatest_lateness(&self) -> Duration {
        Duration::from_micros(self.longest.load(Relaxed))
    }

    /// Resets all counts and the greatest lateness to 0. A benchmark calls this
    /// function after its start, so the probes during the start do not count.
    pub fn reset(&self) {
        for count in self.lateness.iter().chain([&self.probes, &self.voids]) {
            count.store(0, Relaxed);
        }
        self.longest.store(0, Relaxed);
    }

    pub(super) fn began(&self, lateness: Duration) {
        let micros = u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX);
        self.lateness[bucket(micros)].fetch_add(1, Relaxed);
        self.longest.fetch_max(micros, Relaxed);
    }

    pub(super) fn ended(&self, is_void: bool) {
        self.probes.fetch_add(1, Relaxed);
        self.voids.fetch_add(is_void.into(), Relaxed);
    }
}

fn bucket(micros: u64) -> usize {
    if micros < PARTS {
        return micros as usize;
    }
    let power = u64::from(micros.ilog2());
    let part = (micros >> (power - 2)) % PARTS;
    (((power - 1) * PARTS + part) as usize).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return Duration::from_micros(bucket);
    }
    let (power, part) = (bucket / PARTS + 1, bucket % PARTS);
    Duration::from_micros(((PARTS + part + 1) << (power - 2)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_right_to_within_a_quarter() {
        let counts = Counts::default();
        for micros in 1..=1000 {
            counts.began(Duration::from_micros(micros * 10));
        }
        for (part, expected) in [(0.5, 5_000), (0.9, 9_000), (0.99, 9_900)] {
            let found = counts.lateness(part).as_micros();
            assert!(
                (expected..=expected * 5 / 4).contains(&found),
                "{part}: {found}"
            );
        }
        assert_eq!(counts.lateness(1.0), counts.greatest_lateness());
        assert_eq!(counts.greatest_lateness(), Duration::from_millis(10));
        counts.reset();
        assert_eq!(counts.lateness(0.99), Duration::ZERO);
    }

    #[test]
    fn every_bucket_ends_where_the_next_one_begins() {
        for micros in 0..100_000 {
            let upper = upper_end(bucket(micros)).as_micros() as u64;
            assert!(upper >= micros, "{micros}");
            assert_eq!(bucket(upper), bucket(micros));
            assert_eq!(bucket(upper + 1), bucket(micros) + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1, "an hour is enough");
    }
}
