//! Reads the Leases of the directors that the loop asks about. A renewed Lease
//! shows that a director's agent is alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc::Sender,
    time::Duration,
};

use crds::advice;
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

/// Reads the Leases that the loop asks for in `namespace`, at the requested
/// intervals. If the API server does not answer, no event is sent, and the
/// Leases are read again after growing pauses.
pub async fn watch(
    client: Client,
    namespace: &str,
    mut asked: UnboundedReceiver<Looks>,
    events: Sender<Event>,
) {
    let leases = Api::<Lease>::namespaced(client, namespace);
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
                    match look(&leases, &name).await {
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

/// Returns the renewal time in a director's Lease, or `None` if the Lease does
/// not exist. An `Err` contains a message for the log.
async fn look(leases: &Api<Lease>, name: &str) -> Result<Option<String>, String> {
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
