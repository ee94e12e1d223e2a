//! The pauses before a request to the API server is repeated. The pauses grow
//! and are random, so the agents of a fleet do not all ask at the same moment
//! when their API server is back.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The shortest pause of most requests, without the random part.
const SECOND: Duration = Duration::from_secs(1);

/// Pauses that double from attempt to attempt. A random part of at most the
/// same length is added to each pause.
#[derive(Debug)]
pub(crate) struct Pauses {
    shortest: Duration,
    longest: Duration,
    pauses: ExponentialBackoff,
}

impl Pauses {
    /// Returns pauses that grow from one second to `longest`, without the random
    /// part.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self::between(SECOND, longest)
    }

    /// Returns pauses that grow from `shortest` to `longest`, without the
    /// random part.
    pub(crate) fn between(shortest: Duration, longest: Duration) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(shortest)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter()
            .build();
        Self {
            shortest,
            longest,
            pauses,
        }
    }

    /// Returns the pause before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    /// Begins again with the shortest pause, after the API server answered.
    pub(crate) fn reset(&mut self) {
        *self = Self::between(self.shortest, self.longest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again_after_an_answer() {
        let mut pauses = Pauses::up_to(LONGEST);
        for least in [1, 2, 4, 8, 16, 30, 30] {
            let (pause, least) = (pauses.next(), Duration::from_secs(least));
            assert!(least <= pause && pause <= least * 2, "{pause:?}");
        }
        pauses.reset();
        assert!(pauses.next() <= 2 * SECOND);
    }

    #[test]
    fn a_thousand_agents_do_not_ask_in_step() {
        let first = |_| Pauses::up_to(LONGEST).next().as_millis();
        let moments: BTreeSet<_> = (0..1000).map(first).collect();
        assert!(moments.len() > 300, "{} different moments", moments.len());
    }
}
