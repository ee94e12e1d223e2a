//! Decides which statuses are published, and when. This module reads no clock:
//! callers pass the time as `now`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use crate::{
    bucket::Bucket,
    difference::Difference,
    liveness::Time,
    scope::Scope,
    status::{Id, Status},
};

/// The shortest time between two patches of one object. A patch that changes a
/// condition's status does not wait.
pub const PAUSE: Duration = Duration::from_secs(5);

/// The largest number of concurrent patches.
pub const CONCURRENT: usize = 16;

/// The number of statuses with a soft difference ([`Difference::Soft`]) that
/// are published at once. After the burst, one such status is published per
/// [`SOFT_PAUSE`]. Soft differences often appear for all services of a group at
/// the same time.
pub const SOFT_BURST: u32 = 20;

/// The pause between two statuses with a soft difference, after the first
/// [`SOFT_BURST`] such statuses.
pub const SOFT_PAUSE: Duration = Duration::from_secs(5);

/// The shortest time between two patches of one object, if the second one has
/// only a soft difference. In a large fleet, the directors report one after
/// another that they use a change. A status that counts the others changes with
/// each report, and every director gets each patch as an event.
pub const SOFT_PAUSE_OF_ONE: Duration = Duration::from_secs(30);

/// How long a soft or a brief difference must last before it is published. While
/// directors use a change one after another, many statuses differ for seconds. The
/// reports of a thousand directors take about 10 s (docs/benchmarks.md).
pub const LASTING: Duration = Duration::from_secs(20);

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A status that must be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// The object that the status is for.
    pub id: Id,
    /// The object's uid, which keeps a later object of the same name from
    /// getting this status.
    pub uid: String,
    /// The wanted status, without the transition times of its conditions.
    pub status: Status,
    /// The status that the object has now, if any.
    pub published: Option<Status>,
    /// How the wanted status differs from the published status.
    pub difference: Difference,
}

/// The result of a pass over objects.
#[derive(Debug)]
pub struct Pass {
    /// The objects that the pass looked at.
    pub scope: Scope,
    /// Those of their wanted statuses that differ from the published ones.
    pub letters: Vec<Letter>,
}

/// The result of a patch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The status was written.
    Written,
    /// The object was deleted, or replaced by a new object of the same name.
    Gone,
    /// The patch failed, but a later attempt may succeed.
    Failed,
}

/// The statuses that wait to be published, and the recently sent patches.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The statuses that wait, by their difference. A fleet has thousands of
    /// soft differences that wait for hours, so no search for other statuses
    /// may look at them.
    letters: BTreeMap<Difference, BTreeMap<Id, Letter>>,
    under_way: BTreeSet<Id>,
    sent: BTreeMap<Id, Sent>,
    retries: BTreeMap<Id, Retry>,
    soft: Bucket,
    /// The soft and the brief differences of the waiting statuses, and since when
    /// each lasts.
    differs_since: BTreeMap<Id, (Difference, Time)>,
    /// For each of these two differences, a time before which no status has had
    /// it for long enough. While thousands of statuses wait, no search looks at
    /// them.
    none_before: BTreeMap<Difference, Time>,
    /// The object of the last status that was sent because of a soft
    /// difference. The search for the next such status starts after this
    /// object, so that every object gets its turn.
    last_soft: Option<Id>,
}

#[derive(Debug)]
struct Sent {
    at: Time,
    /// The status, until the time is [`PAUSE`] ago.
    status: Option<Status>,
}

#[derive(Debug)]
struct Retry {
    after: Duration,
    at: Time,
}

impl Outbox {
    /// Takes the result of a pass. Statuses of an earlier pass that were not
    /// sent yet are dropped, if the new pass looked at their objects.
    pub fn update(&mut self, pass: Pass, now: Time) {
        let mut before = BTreeMap::new();
        match pass.scope.ids() {
            None => {
                self.letters.clear();
                self.none_before.clear();
                before = std::mem::take(&mut self.differs_since);
            }
            Some(ids) => {
                for id in ids {
                    for letters in self.letters.values_mut() {
                        letters.remove(&id);
                    }
                    before.extend(self.differs_since.remove_entry(&id));
                }
            }
        }
        for mut letter in pass.letters {
            // This status is compared with a published one that is older than the
            // one that was sent: either the watch has not shown the patch yet, or
            // another writer overwrites the status. Until the watch shows it, only
            // what the sent status does not say either is urgent.
            let sent = self.sent.get(&letter.id);
            if let Some(sent) = sent.and_then(|sent| sent.status.as_ref()) {
                let news = letter.status.difference(Some(sent));
                letter.difference = letter.difference.min(news.max(Difference::Plain));
            }
            if must_last(letter.difference) {
                let same = before.get(&letter.id).copied();
                let same = same.filter(|(before, _)| *before == letter.difference);
                let since = same.unwrap_or((letter.difference, now));
                let lasting = since.1 + LASTING;
                let none_before = self.none_before.entry(letter.difference);
                let none_before = none_before.or_insert(lasting);
                *none_before = lasting.min(*none_before);
                self.differs_since.insert(letter.id.clone(), since);
            }
            let alike = self.letters.entry(letter.difference).or_default();
            alike.insert(letter.id.clone(), letter);
        }
        self.sent.retain(|_, sent| {
            if now >= sent.at + PAUSE {
                sent.status = None;
            }
            now < sent.at + SOFT_PAUSE_OF_ONE
        });
        let letters = &self.letters;
        let under_way = &self.under_way;
        let is_waiting = |id: &Id| letters.values().any(|alike| alike.contains_key(id));
        self.retries
            .retain(|id, _| is_waiting(id) || under_way.contains(id));
    }

    /// Returns the statuses to send now. The caller must report the result of
    /// each patch to [`Outbox::done`].
    pub fn due(&mut self, now: Time) -> Vec<Letter> {
        let mut due = Vec::new();
        for difference in [
            Difference::Flip,
            Difference::Plain,
            Difference::Brief,
            Difference::Soft,
        ] {
            for id in self.next(difference, now) {
                if difference == Difference::Soft {
                    if !self.soft.take(SOFT_BURST, SOFT_PAUSE, now) {
                        break;
                    }
                    self.last_soft = Some(id.clone());
                }
                self.differs_since.remove(&id);
                let alike = self.letters.get_mut(&difference);
                if let Some(letter) = alike.and_then(|alike| alike.remove(&id)) {
                    self.sent.insert(
                        id.clone(),
                        Sent {
                            at: now,
                            status: Some(letter.status.clone()),
                        },
                    );
                    self.under_way.insert(id);
                    due.push(letter);
                }
            }
        }
        due
    }

    /// Returns the objects whose statuses can be sent now and have the given
    /// kind of difference. Returns no more objects than the limit of concurrent
    /// patches allows.
    fn next(&self, difference: Difference, now: Time) -> Vec<Id> {
        let Some(letters) = self.letters.get(&difference) else {
            return Vec::new();
        };
        if now < self.none_before(difference) {
            return Vec::new();
        }
        let turn = match (difference, &self.last_soft) {
            (Difference::Soft, Some(last)) => Bound::Excluded(last),
            _ => Bound::Unbounded,
        };
        let later = letters.range((turn, Bound::Unbounded));
        let earlier = match turn {
            Bound::Excluded(last) => Some(letters.range(..=last)),
            _ => None,
        };
        later
            .chain(earlier.into_iter().flatten())
            .map(|(_, letter)| letter)
            .filter(|letter| self.ready_at(letter) <= now)
            .filter(|letter| !self.under_way.contains(&letter.id))
            .take(CONCURRENT.saturating_sub(self.under_way.len()))
            .map(|letter| letter.id.clone())
            .collect()
    }

    /// Records the result of a patch.
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

    /// Forgets all waiting statuses and all patches, because this process no
    /// longer leads.
    pub fn clear(&mut self) {
        *self = Self {
            soft: std::mem::take(&mut self.soft),
            last_soft: self.last_soft.take(),
            ..Self::default()
        };
    }

    /// The earliest time at which [`Outbox::due`] returns a status, if the
    /// waiting statuses do not change.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.under_way.len() >= CONCURRENT {
            return None;
        }
        let mut earliest = None;
        for (difference, letters) in &self.letters {
            let not_before = match difference {
                Difference::Soft => self.soft.ready_at(SOFT_BURST, SOFT_PAUSE, now),
                _ => Time::ZERO,
            };
            let not_before = not_before.max(self.none_before(*difference));
            let mut waiting = letters
                .values()
                .filter(|letter| !self.under_way.contains(&letter.id))
                .map(|letter| self.ready_at(letter));
            // No letter is ready sooner than `not_before` or now, so the search
            // ends at the first that is ready then.
            let soonest = not_before.max(now);
            let first =
                waiting.try_fold(None, |least: Option<Time>, ready| match ready <= soonest {
                    true => Err(ready.max(not_before)),
                    false => Ok(Some(least.map_or(ready, |least| least.min(ready)))),
                });
            let first = first.unwrap_or_else(Some);
            earliest = [earliest, first].into_iter().flatten().min();
        }
        earliest
    }

    fn none_before(&self, difference: Difference) -> Time {
        let none_before = self.none_before.get(&difference);
        none_before.copied().unwrap_or(Time::ZERO)
    }

    fn ready_at(&self, letter: &Letter) -> Time {
        let pause = match letter.difference {
            Difference::Flip => None,
            Difference::Soft => Some(SOFT_PAUSE_OF_ONE),
            Difference::Brief | Difference::Plain | Difference::None => Some(PAUSE),
        };
        let sent = self.sent.get(&letter.id);
        let paused = pause.zip(sent).map(|(pause, sent)| sent.at + pause);
        let paused = paused.unwrap_or(Time::ZERO);
        let retry = self
            .retries
            .get(&letter.id)
            .map_or(Time::ZERO, |retry| retry.at);
        let since = self.differs_since.get(&letter.id);
        let since = since.filter(|_| must_last(letter.difference));
        let lasting = since.map_or(Time::ZERO, |(_, since)| *since + LASTING);
        paused.max(retry).max(lasting)
    }
}

/// Whether a difference must last for a while before it is published.
fn must_last(difference: Difference) -> bool {
    matches!(difference, Difference::Soft | Difference::Brief)
}

#[cfg(test)]
mod tests;
