//! Reads the Leases of the directors that the loop asks about. A renewed Lease
//! shows that a director's agent is alive.
//!
//! A director's Lease is in [`DIRECTORS_NAMESPACE`]. Agents of earlier versions
//! renew their Leases in the controller's namespace. Until version 0.2, the
//! newest renewal in either namespace counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc::Sender,
    time::Duration,
};

use crds::{advice, api::DIRECTORS_NAMESPACE};
use futures::future;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{self, Instant},
};

use crate::{event::Event, pauses::Pauses, said::Said};

/// The directors whose Leases the agent reads, each with the time between two
/// readings.
pub type Looks = BTreeMap<String, Duration>;

/// The maximum wait for the API server's answer to a request for a Lease.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest pause before a Lease is read again that could not be read,
/// without the random part. The pause is short, because a director whose Lease
/// cannot be read does not count as live for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The interface to the reader of other directors' Leases. The interface is
/// small, so that tests can replace the reader with a model.
pub trait Leases {
    /// Replaces the set of directors whose Leases are read. Each reading is
    /// sent to the loop as an [`Event::Lease`].
    fn look_at(&mut self, directors: Looks);
}

impl Leases for UnboundedSender<Looks> {
    fn look_at(&mut self, directors: Looks) {
        // Sending to the reader fails only when the process ends.
        self.send(directors).unwrap_or_default();
    }
}

/// Reads the Leases that the loop asks for, at the requested intervals. Besides
/// the directors' namespace, reads the namespace `earlier`, in which agents of
/// earlier versions renew their Leases. If the API server does not answer, no
/// event is sent, and the Leases are read again after growing pauses.
pub async fn watch(
    client: Client,
    earlier: &str,
    mut asked: UnboundedReceiver<Looks>,
    events: Sender<Event>,
) {
    let places = [DIRECTORS_NAMESPACE, earlier];
    let places = places.map(|namespace| Api::<Lease>::namespaced(client.clone(), namespace));
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut due: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
    let mut said = Said::default();
    let mut pauses = Pauses::up_to(LONGEST_PAUSE);
    loop {
        let next = due.values().map(|(at, _)| *at).min();
        tokio::select! {
            names = asked.recv() => {
                let Some(names) = names else {
                    return;
                };
                let now = Instant::now();
                seen.retain(|name, _| names.contains_key(name));
                due = names
                    .into_iter()
                    .map(|(name, interval)| {
                        // A Lease that was just read is read again only after
                        // its interval.
                        let at = due.get(&name).map_or(now, |(at, _)| *at);
                        (name, (at.min(now + interval), interval))
                    })
                    .collect();
            }
            () = sleep_until(next) => {
                let now = Instant::now();
                let mut names = Vec::new();
                for (name, (at, interval)) in &mut due {
                    if *at <= now {
                        *at = now + *interval;
                        names.push(name.clone());
                    }
                }
                let (mut problems, mut unread) = (BTreeSet::new(), Vec::new());
                for name in names {
                    match look(&places, &name, &mut seen).await {
                        Ok(renewal) => {
                            let at = std::time::Instant::now();
                            let event = Event::Lease(name, at, renewal);
                            if events.send(event).is_err() {
                                return;
                            }
                        }
                        Err(why) => {
                            problems.insert(why);
                            unread.push(name);
                        }
                    }
                }
                if unread.is_empty() {
                    pauses.reset();
                } else {
                    let again = Instant::now() + pauses.next();
                    for name in unread {
                        due.entry(name).and_modify(|(at, _)| *at = again);
                    }
                }
                said.warn(problems);
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The renewal times that were last read in a director's Leases, in the
/// directors' namespace and in the earlier one, and the newest renewal.
struct Seen {
    places: [Option<String>; 2],
    newest: Option<String>,
}

/// Reads a director's Lease in both namespaces. Returns the newest renewal, or
/// `None` if there is no Lease. An `Err` contains a message for the log: without
/// one of the Leases, nobody knows that the director did not renew it.
async fn look(
    places: &[Api<Lease>; 2],
    name: &str,
    seen: &mut BTreeMap<String, Seen>,
) -> Result<Option<String>, String> {
    let [directors, earlier] = places;
    let (directors, earlier) = future::join(read(directors, name), read(earlier, name)).await;
    let Some(before) = seen.get_mut(name) else {
        let now = [directors?, earlier?];
        let newest = now.iter().max_by_key(|renewal| time_of(renewal)).cloned();
        let newest = newest.flatten();
        let found = Seen {
            places: now,
            newest: newest.clone(),
        };
        seen.insert(name.to_owned(), found);
        return Ok(newest);
    };
    let mut is_renewed = false;
    let mut problem = None;
    for (place, read) in before.places.iter_mut().zip([directors, earlier]) {
        match read {
            Ok(renewal) => {
                if renewal.is_some() && renewal != *place {
                    before.newest.clone_from(&renewal);
                    is_renewed = true;
                }
                *place = renewal;
            }
            Err(why) => problem = Some(why),
        }
    }
    if before.places == [None, None] {
        before.newest = None;
    }
    match problem {
        Some(why) if !is_renewed => Err(why),
        _ => Ok(before.newest.clone()),
    }
}

/// The time of a renewal. Both Leases of a director have times of the same
/// clock.
fn time_of(renewal: &Option<String>) -> Option<Timestamp> {
    renewal.as_ref()?.parse().ok()
}

/// Returns the renewal time in one Lease of a director, or `None` if the Lease
/// does not exist. An `Err` contains a message for the log.
async fn read(leases: &Api<Lease>, name: &str) -> Result<Option<String>, String> {
    let what = format!("look at the Lease {name}");
    match time::timeout(ANSWER_TIME, leases.get_opt(name)).await {
        Ok(Ok(lease)) => {
            let spec = lease.and_then(|lease| lease.spec);
            let renewal = spec.and_then(|spec| spec.renew_time);
            Ok(renewal.map(|renewal| renewal.0.to_string()))
        }
        Ok(Err(kube::Error::Api(status))) => Err(advice::api_error(&what, &status)
            .unwrap_or_else(|| format!("cannot {what}: {}", status.message))),
        Ok(Err(error)) => Err(format!("cannot {what}: {}", advice::with_sources(&error))),
        Err(_) => Err(format!("cannot {what}: no answer in time")),
    }
}

#[cfg(test)]
mod tests;
