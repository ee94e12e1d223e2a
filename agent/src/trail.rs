//! The audit trail: what changed on this host, when, for which object, and why.
//!
//! ```text
//! loop ─▶ Round ─▶ Trail ┄ bounded channel ┄▶ writer ─▶ book ─▶ files, log
//!                                                        │
//! `ipvs-agent history` ◀─ history ◀─ files               └─▶ `ipvs-agent table`
//! ```
//!
//! After each round, the loop hands over what it wrote, and what is ours and
//! wanted in the services that changed. A thread of its own compares this with
//! what the trail knew before ([`book`]), and so finds causes and objects. The
//! loop waits for nothing and makes no system call for the trail. If the thread
//! is behind, for example because the disk does not answer, the loop leaves
//! rounds out. The next round that it hands over is then compared as a whole.

pub mod book;
mod differences;
pub mod files;
pub mod history;
mod log;
pub mod ours;
pub mod record;
pub mod round;
pub mod writer;

use std::{
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use self::round::Round;

/// The number of rounds that may wait for the trail's thread.
const MOST_WAITING: usize = 64;

/// While the trail's thread is behind, the loop hands over nothing for this long
/// after each attempt. Each attempt has the whole state.
const PAUSE: Duration = Duration::from_secs(10);

/// The loop's end of the channel to the trail's thread.
#[derive(Debug)]
pub struct Trail {
    rounds: Option<SyncSender<Round>>,
    is_behind: bool,
    /// When the last attempt to hand over a round failed.
    failed: Option<Duration>,
}

impl Trail {
    /// Returns a trail that goes to nobody.
    pub fn nowhere() -> Self {
        Self {
            rounds: None,
            is_behind: true,
            failed: None,
        }
    }

    /// Returns a trail, and the other end of its channel.
    pub fn channel() -> (Self, Receiver<Round>) {
        let (sender, rounds) = sync_channel(MOST_WAITING);
        let trail = Self {
            rounds: Some(sender),
            ..Self::nowhere()
        };
        (trail, rounds)
    }

    /// Whether the loop should hand over a round at the time `now`.
    pub fn is_ready(&self, now: Duration) -> bool {
        self.rounds.is_some() && self.failed.is_none_or(|failed| now >= failed + PAUSE)
    }

    /// Whether the next round must describe the whole state: it is the first
    /// one, or rounds were left out.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Hands over a round at the time `now`, without waiting. If there is no
    /// room, leaves the round out.
    pub fn tell(&mut self, round: Round, now: Duration) {
        let Some(rounds) = &self.rounds else {
            return;
        };
        let told = rounds.try_send(round);
        self.is_behind = told.is_err();
        self.failed = told.is_err().then_some(now);
        if let Err(TrySendError::Disconnected(_)) = told {
            self.rounds = None;
        }
    }
}

#[cfg(test)]
mod tests;
