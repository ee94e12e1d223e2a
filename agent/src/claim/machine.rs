//! Decides whether virtual addresses are free on their Ethernet segments, and
//! which frames to send on these segments. The code is pure: time is an
//! argument.
//!
//! ```text
//!            no answer to 3 probes               the address was added
//! Asking ─────────────────────────────────▶ Free ──────────────────────▶ Held
//!    ▲ ╲─▶ another host has it: probe again  │                            announced at once,
//!    ╰───────────────────────────────────────╯                            after 5 and 30 s
//! ```
//!
//! The state machine follows RFC 5227 for IPv4 and RFC 4862 for IPv6. Beyond
//! the RFCs, the state machine keeps probing for an address while another host
//! has the address. The state machine also listens for hosts that claim an
//! address of this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::packet::{Heard, Word};
use crate::{
    event::claims::Verdict,
    host::interface::{Card, Mac},
};

/// The longest wait before the first probe (RFC 5227, `PROBE_WAIT`; RFC 4862,
/// `MAX_RTR_SOLICITATION_DELAY`).
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The number of probes that must remain unanswered before an address counts as
/// free (RFC 5227, `PROBE_NUM`).
const PROBES: u32 = 3;
/// The shortest and longest wait between two IPv4 probes (RFC 5227, `PROBE_MIN`
/// and `PROBE_MAX`).
const V4_SPACING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// The wait after the last IPv4 probe (RFC 5227, `ANNOUNCE_WAIT`).
const V4_LAST_WAIT: Duration = Duration::from_secs(2);
/// The wait between two IPv6 probes, and after the last IPv6 probe (RFC 4861,
/// `RETRANS_TIMER`).
const V6_SPACING: Duration = Duration::from_secs(1);
/// After this many conflicts about an address, the agent probes for the address
/// less often (RFC 5227, `MAX_CONFLICTS`).
const MOST_CONFLICTS: u32 = 10;
/// The wait between two probes for a taken or watched address.
const SELDOM: Duration = Duration::from_secs(10);
/// How long this host pauses its own probes for an address after it received
/// another host's probe. The pause gives the other host time to complete its
/// probes.
const YIELD: Duration = Duration::from_secs(10);
/// How long an address counts as free after its probes got no answer.
const FREE_FOR: Duration = Duration::from_secs(10);
/// The delays between the addition of an address and its announcements.
const ANNOUNCEMENTS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(30),
];
/// The shortest time between two defences of an address (RFC 5227,
/// `DEFEND_INTERVAL`).
const DEFENCE: Duration = Duration::from_secs(10);
/// How long the agent reports a conflict about an address after the last frame
/// of the other host.
const CONTESTED_FOR: Duration = Duration::from_secs(60);

/// The loop's order to the claims thread about one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Find out whether the address is free on the card's segment.
    Ask(Card),
    /// Announce and defend an address on the card. The number changes each
    /// time the address is added again. The address must then be announced
    /// again.
    Hold(Card, u64),
    /// Find out whether another host has an address that is on the card. A
    /// watched address is neither announced nor defended.
    Watch(Card),
}

impl Order {
    /// Returns the Ethernet card that the order is about.
    pub fn card(&self) -> Card {
        let (Self::Ask(card) | Self::Hold(card, _) | Self::Watch(card)) = self;
        *card
    }
}

/// A frame to send on a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Say {
    /// The Ethernet card that sends the frame.
    pub card: Card,
    /// The virtual address that the frame is about.
    pub address: IpAddr,
    /// Whether the sender asks for the address ([`Word::Asks`]) or has the
    /// address ([`Word::Has`]).
    pub word: Word,
}

/// The addresses that this host probes for, has or watches.
#[derive(Debug)]
pub struct Claims {
    claims: BTreeMap<IpAddr, Claim>,
    /// The addresses, sorted by the due time of their next frame. There may be
    /// a thousand addresses.
    due: BTreeSet<(Duration, IpAddr)>,
    /// The addresses whose verdict may have changed since the last report.
    changed: BTreeSet<IpAddr>,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Claim {
    card: Card,
    state: State,
    due: Option<Duration>,
    told: Option<Verdict>,
}

#[derive(Debug)]
enum State {
    Asking {
        /// The number of probes for the address since its last conflict.
        quiet: u32,
        conflicts: u32,
        /// The other host that has the address, according to the last frame
        /// about the address.
        taken: Option<Mac>,
    },
    Free,
    Held {
        number: u64,
        since: Duration,
        /// How many of the [`ANNOUNCEMENTS`] were already sent for the address.
        said: usize,
        defended: Option<Duration>,
        contested: Option<(Mac, Duration)>,
    },
    Watched {
        /// The other host that answered for the address.
        taken: Option<Mac>,
    },
}

impl State {
    const NEW: Self = Self::Asking {
        quiet: 0,
        conflicts: 0,
        taken: None,
    };
}

impl Claims {
    /// Returns a state machine that claims no address yet. `seed` determines
    /// the random waits.
    pub fn new(seed: u64) -> Self {
        Self {
            claims: BTreeMap::new(),
            due: BTreeSet::new(),
            changed: BTreeSet::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Returns the addresses that this host probes for, has or watches, each
    /// with its card. The boolean is true if this host still probes for the
    /// address.
    pub fn asked(&self) -> impl Iterator<Item = (IpAddr, Card, bool)> {
        self.claims.iter().map(|(address, claim)| {
            let is_asked = !matches!(claim.state, State::Held { .. } | State::Watched { .. });
            (*address, claim.card, is_asked)
        })
    }

    /// Replaces all previous orders, and drops the claims of addresses without
    /// an order. `now` is the time of the new orders.
    pub fn order(&mut self, orders: &BTreeMap<IpAddr, Order>, now: Duration) {
        self.claims.retain(|address, claim| {
            let stays = orders.contains_key(address);
            if !stays && let Some(due) = claim.due {
                self.due.remove(&(due, *address));
            }
            stays
        });
        for (address, order) in orders {
            self.order_one(*address, *order, now);
        }
    }

    fn order_one(&mut self, address: IpAddr, order: Order, now: Duration) {
        let card = order.card();
        let first = now + FIRST_WAIT.mul_f64(self.random.f64());
        let claim = self.claims.entry(address).or_insert_with(|| Claim {
            card,
            state: State::NEW,
            due: Some(first),
            told: None,
        });
        let before = std::mem::replace(&mut claim.card, card);
        let is_elsewhere = (before.index, before.mac) != (card.index, card.mac);
        let came_up = !before.up && card.up;
        let due = match (order, &claim.state) {
            (Order::Hold(_, number), State::Held { number: known, .. })
                if number == *known && !is_elsewhere && !came_up =>
            {
                claim.due
            }
            (Order::Hold(_, number), _) => {
                claim.state = State::Held {
                    number,
                    since: now,
                    said: 0,
                    defended: None,
                    contested: None,
                };
                Some(now)
            }
            (Order::Ask(_), State::Asking { .. } | State::Free) if !is_elsewhere && !came_up => {
                claim.due.or(Some(first))
            }
            (Order::Ask(_), _) => {
                claim.state = State::NEW;
                Some(first)
            }
            (Order::Watch(_), State::Watched { .. }) if !is_elsewhere && !came_up => {
                claim.due.or(Some(first))
            }
            (Order::Watch(_), _) => {
                claim.state = State::Watched { taken: None };
                Some(first)
            }
        };
        self.set_due(address, due);
        self.changed.insert(address);
    }

    /// Handles a frame that was received on the interface `index`.
    pub fn hear(&mut self, index: u32, heard: &Heard, now: Duration) {
        let address = heard.address;
        let Some(claim) = self.claims.get_mut(&address) else {
            return;
        };
        if claim.card.index != index || heard.from == claim.card.mac {
            return;
        }
        let from = heard.from;
        let mine = claim.card.mac;
        let due = match (&mut claim.state, heard.word) {
            // A host that only asks for an address does not have it.
            (State::Held { .. } | State::Watched { .. }, Word::Asks) => return,
            (State::Watched { taken }, Word::Has) => {
                *taken = Some(from);
                claim.due
            }
            (
                State::Held {
                    contested,
                    defended,
                    ..
                },
                Word::Has,
            ) => {
                *contested = Some((from, now));
                let rest = defended.map_or(now, |at| at + DEFENCE);
                claim
                    .due
                    .map(|due| due.min(rest.max(now)))
                    .or(Some(rest.max(now)))
            }
            // If two hosts probe for an address at the same time, the host with
            // the lower Ethernet address continues. The host with the lower
            // address sends its next probe at once, so that the other host
            // hears it.
            (state, Word::Asks) if mine < from => {
                let (quiet, conflicts) = match state {
                    State::Asking {
                        quiet, conflicts, ..
                    } => (*quiet, *conflicts),
                    _ => (PROBES, 0),
                };
                *state = State::Asking {
                    quiet: quiet.min(PROBES - 1),
                    conflicts,
                    taken: None,
                };
                Some(now)
            }
            (state, word) => {
                let conflicts = match state {
                    State::Asking { conflicts, .. } => *conflicts + 1,
                    _ => 1,
                };
                *state = State::Asking {
                    quiet: 0,
                    conflicts,
                    taken: Some(from),
                };
                let wait = match word {
                    Word::Asks => YIELD + FIRST_WAIT.mul_f64(self.random.f64()),
                    Word::Has if conflicts > MOST_CONFLICTS => SELDOM,
                    Word::Has => spacing(address, &mut self.random),
                };
                Some(now + wait)
            }
        };
        self.set_due(address, due);
        self.changed.insert(address);
    }

    /// Returns the frames to send at `now`.
    pub fn say(&mut self, now: Duration) -> Vec<Say> {
        let mut words = Vec::new();
        while let Some(&(due, address)) = self.due.first()
            && due <= now
        {
            let claim = self
                .claims
                .get_mut(&address)
                .expect("what is due has a claim");
            let spacing = spacing(address, &mut self.random);
            let (word, next) = step(claim, address, spacing, now);
            if let Some(word) = word
                && claim.card.up
            {
                let card = claim.card;
                words.push(Say {
                    card,
                    address,
                    word,
                });
            }
            self.set_due(address, next);
            self.changed.insert(address);
        }
        words
    }

    /// Returns when the next frame or verdict is due. When a frame is
    /// received, this deadline may change.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns the verdicts that changed since the last report, by address.
    pub fn news(&mut self) -> BTreeMap<IpAddr, Verdict> {
        let mut news = BTreeMap::new();
        for address in std::mem::take(&mut self.changed) {
            if let Some(claim) = self.claims.get_mut(&address) {
                let verdict = claim.verdict();
                if claim.told.replace(verdict) != Some(verdict) {
                    news.insert(address, verdict);
                }
            }
        }
        news
    }

    fn set_due(&mut self, address: IpAddr, due: Option<Duration>) {
        let claim = self
            .claims
            .get_mut(&address)
            .expect("the caller found it there");
        // No frame is sent on a card that is down or not connected.
        let due = due.filter(|_| claim.card.up);
        if let Some(before) = std::mem::replace(&mut claim.due, due) {
            self.due.remove(&(before, address));
        }
        if let Some(due) = due {
            self.due.insert((due, address));
        }
    }
}

/// Advances a claim that is due. Returns the frame to send, if any, and the
/// time at which the claim is due again.
fn step(
    claim: &mut Claim,
    address: IpAddr,
    spacing: Duration,
    now: Duration,
) -> (Option<Word>, Option<Duration>) {
    match &mut claim.state {
        State::Asking { quiet, .. } if *quiet == PROBES => {
            claim.state = State::Free;
            (None, Some(now + FREE_FOR))
        }
        State::Asking { quiet, .. } => {
            *quiet += 1;
            let next = match (*quiet == PROBES, address) {
                (true, IpAddr::V4(_)) => V4_LAST_WAIT,
                _ => spacing,
            };
            (Some(Word::Asks), Some(now + next))
        }
        State::Free => {
            claim.state = State::NEW;
            (None, Some(now + spacing))
        }
        State::Watched { .. } => (Some(Word::Asks), Some(now + SELDOM)),
        State::Held {
            since,
            said,
            defended,
            contested,
            ..
        } => {
            let mut word = None;
            if ANNOUNCEMENTS
                .get(*said)
                .is_some_and(|after| *since + *after <= now)
            {
                *said += 1;
                word = Some(Word::Has);
            }
            if let Some((_, at)) = *contested {
                if at + CONTESTED_FOR <= now {
                    *contested = None;
                } else if defended.is_none_or(|last| last < at && last + DEFENCE <= now) {
                    *defended = Some(now);
                    word = Some(Word::Has);
                }
            }
            let announcement = ANNOUNCEMENTS.get(*said).map(|after| *since + *after);
            let end = contested.map(|(_, at)| at + CONTESTED_FOR);
            let heard_since = |last: &Duration| contested.is_some_and(|(_, at)| at > *last);
            let defence = defended.filter(heard_since).map(|last| last + DEFENCE);
            let next = [announcement, end, defence].into_iter().flatten().min();
            (word, next)
        }
    }
}

impl Claim {
    fn verdict(&self) -> Verdict {
        match self.state {
            State::Asking { taken: None, .. } => Verdict::Asking,
            State::Asking {
                taken: Some(mac), ..
            } => Verdict::Taken(mac),
            State::Free => Verdict::Free(self.card.index),
            State::Held {
                contested: Some((mac, _)),
                ..
            } => Verdict::Contested(mac),
            State::Watched { taken: Some(mac) } => Verdict::Taken(mac),
            State::Held { .. } | State::Watched { taken: None } => Verdict::Held,
        }
    }
}

fn spacing(address: IpAddr, random: &mut fastrand::Rng) -> Duration {
    match address {
        IpAddr::V4(_) => {
            let [least, most] = V4_SPACING;
            least + (most - least).mul_f64(random.f64())
        }
        IpAddr::V6(_) => V6_SPACING,
    }
}

#[cfg(test)]
mod tests;
