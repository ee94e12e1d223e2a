//! Shows to other threads that a thread still works. The thread's loop calls
//! [`Heartbeat::beat`] at least every few seconds. If the loop hangs in a system
//! call, for example, the last beat grows old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The time of a thread's last beat. All clones share the same time.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    started: Instant,
    /// The last beat, in milliseconds after `started`.
    last: Arc<AtomicU64>,
}

impl Default for Heartbeat {
    /// Returns a heartbeat whose last beat is now.
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: Arc::default(),
        }
    }
}

impl Heartbeat {
    /// Records that the thread works now.
    pub fn beat(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    /// Returns a heartbeat whose last beat was `age` ago.
    #[cfg(test)]
    pub(crate) fn aged(age: Duration) -> Self {
        Self {
            started: Instant::now() - age,
            last: Arc::default(),
        }
    }

    /// Returns the time since the last beat. The time includes pauses of the
    /// whole process, but not the time during which the host was suspended.
    pub fn age(&self) -> Duration {
        let last = self.last.load(Ordering::Relaxed);
        Duration::from_millis(self.elapsed().saturating_sub(last))
    }

    fn elapsed(&self) -> u64 {
        // A process does not run for 500 million years.
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_grows_old_until_the_next_one() {
        let heart = Heartbeat::aged(Duration::from_secs(100));
        assert!(heart.age() >= Duration::from_secs(100), "it never beat");
        let loops = heart.clone();
        loops.beat();
        assert!(heart.age() < Duration::from_secs(100), "it has just beaten");
    }
}
