//! What is to be published, and when. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use crate::{
    bucket::Bucket,
    difference::Difference,
    liveness::Time,
    status::{Id, Status},
};

/// Between two patches of one object, unless a condition flips.
pub const PAUSE: Duration = Duration::from_secs(5);

/// Patches under way at one time.
pub const CONCURRENT: usize = 16;

/// Soft differences that are published at once; from then on one a
/// [`SOFT_PAUSE`]. They come for all services of a group at a time.
pub const SOFT_BURST: u32 = 20;

/// See [`SOFT_BURST`].
pub const SOFT_PAUSE: Duration = Duration::from_secs(5);

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A status that should be and is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Whose.
    pub id: Id,
    /// The object that it is meant for, and not a later one of the same name.
    pub uid: String,
    /// The status, not dated yet.
    pub status: Status,
    /// What is published now.
    pub published: Option<Status>,
    /// How the two differ.
    pub difference: Difference,
}

/// How a patch went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Written.
    Written,
    /// The object is not there any more, or is another of the same name.
    Gone,
    /// It may go better another time.
    Failed,
}

/// Letters, and what was sent of late.
#[derive(Debug, Default)]
pub struct Outbox {
    letters: BTreeMap<Id, Letter>,
    under_way: BTreeSet<Id>,
    sent: BTreeMap<Id, Sent>,
    retries: BTreeMap<Id, Retry>,
    soft: Bucket,
    /// Whose soft difference was sent last: the next in order is next, so that
    /// everybody's turn comes.
    last_soft: Option<Id>,
}

#[derive(Debug)]
struct Sent {
    at: Time,
    status: Status,
}

#[derive(Debug)]
struct Retry {
    after: Duration,
    at: Time,
}

impl Outbox {
    /// All that there is to be published now. What was not sent of an earlier
    /// call is forgotten.
    pub fn replace(&mut self, letters: impl IntoIterator<Item = Letter>, now: Time) {
        self.letters.clear();
        for mut letter in letters {
            let repeated = self.sent.get(&letter.id).is_some_and(|sent| {
                letter.status.difference(Some(&sent.status)) == Difference::None
            });
            // The watch has yet to show it, or somebody overwrites it.
            if repeated {
                letter.difference = letter.difference.min(Difference::Plain);
            }
            self.letters.insert(letter.id.clone(), letter);
        }
        self.sent.retain(|_, sent| now < sent.at + PAUSE);
        let letters = &self.letters;
        self.retries.retain(|id, _| letters.contains_key(id));
    }

    /// What to send now. Whoever sends says [`Outbox::done`] for each.
    pub fn due(&mut self, now: Time) -> Vec<Letter> {
        let mut due = Vec::new();
        for difference in [Difference::Flip, Difference::Plain, Difference::Soft] {
            for id in self.next(difference, now) {
                if difference == Difference::Soft {
                    if !self.soft.take(SOFT_BURST, SOFT_PAUSE, now) {
                        break;
                    }
                    self.last_soft = Some(id.clone());
                }
                if let Some(letter) = self.letters.remove(&id) {
                    self.sent.insert(
                        id.clone(),
                        Sent {
                            at: now,
                            status: letter.status.clone(),
                        },
                    );
                    self.under_way.insert(id);
                    due.push(letter);
                }
            }
        }
        due
    }

    /// As many as may be under way, in order.
    fn next(&self, difference: Difference, now: Time) -> Vec<Id> {
        let turn = match (difference, &self.last_soft) {
            (Difference::Soft, Some(last)) => Bound::Excluded(last),
            _ => Bound::Unbounded,
        };
        let later = self.letters.range((turn, Bound::Unbounded));
        let earlier = match turn {
            Bound::Excluded(last) => Some(self.letters.range(..=last)),
            _ => None,
        };
        later
            .chain(earlier.into_iter().flatten())
            .map(|(_, letter)| letter)
            .filter(|letter| letter.difference == difference)
            .filter(|letter| self.ready_at(letter) <= now)
            .filter(|letter| !self.under_way.contains(&letter.id))
            .take(CONCURRENT.saturating_sub(self.under_way.len()))
            .map(|letter| letter.id.clone())
            .collect()
    }

    /// A letter arrived or did not.
    pub fn done(&mut self, id: &Id, outcome: Outcome, now: Time) {
        self.under_way.remove(id);
        match outcome {
            Outcome::Written | Outcome::Gone => {
                self.retries.remove(id);
            }
            Outcome::Failed => {
                self.sent.remove(id);
                let after = self
                    .retries
                    .get(id)
                    .map_or(FIRST_RETRY, |retry| (retry.after * 2).min(LAST_RETRY));
                self.retries.insert(
                    id.clone(),
                    Retry {
                        after,
                        at: now + after,
                    },
                );
            }
        }
    }

    /// Nothing is under way any more, and nothing is to be sent: another
    /// process leads.
    pub fn clear(&mut self) {
        *self = Self {
            soft: std::mem::take(&mut self.soft),
            last_soft: self.last_soft.take(),
            ..Self::default()
        };
    }

    /// When [`Outbox::due`] has something, if nothing else happens.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.under_way.len() >= CONCURRENT {
            return None;
        }
        self.letters
            .values()
            .filter(|letter| !self.under_way.contains(&letter.id))
            .map(|letter| {
                let ready = self.ready_at(letter);
                match letter.difference {
                    Difference::Soft => ready.max(self.soft.ready_at(SOFT_BURST, SOFT_PAUSE, now)),
                    _ => ready,
                }
            })
            .min()
    }

    fn ready_at(&self, letter: &Letter) -> Time {
        let paused = match letter.difference {
            Difference::Flip => Time::ZERO,
            _ => self
                .sent
                .get(&letter.id)
                .map_or(Time::ZERO, |sent| sent.at + PAUSE),
        };
        let retry = self
            .retries
            .get(&letter.id)
            .map_or(Time::ZERO, |retry| retry.at);
        paused.max(retry)
    }
}

#[cfg(test)]
mod tests;
