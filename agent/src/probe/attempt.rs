//! Runs one probe, from its start to a verdict or a void result.

use std::{io, sync::Arc};

use crds::{HealthCheck, Probe};
use tokio::time::{Instant, timeout_at};

use super::{
    Target,
    dns::Dns,
    firewall::{Firewall, Unheard},
    grpc,
    http::Http,
    icmp::Pings,
    progress::Progress,
    route::Routes,
    tcp,
    trouble::{Failed, OWN_FIREWALL},
    udp,
    worker::{Share, Worker},
};
use crate::probe::tally::Verdict;

/// A failure's message is cut to this number of characters, because the text
/// may come from a server.
const LONGEST: usize = 200;

/// The result of a probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The probe succeeded, or failed because of the server.
    Verdict(Verdict),
    /// The probe failed because of this host, so the probe does not count; the
    /// field is the reason.
    Void(Arc<str>),
}

/// The requests or queries of a check, prepared once for all probes of the
/// check.
pub(super) enum Prepared {
    /// The HTTP requests of the check.
    Http(Box<Http>),
    /// The DNS queries of the check.
    Dns(Dns),
    /// The check needs no preparation.
    Plain,
    /// No probe of the check can be made; the field is the reason.
    Unfit(String),
}

/// The sockets and caches that all probes of the agent share.
pub(super) struct Shared {
    pings: Pings,
    routes: Routes,
    firewall: Firewall,
    worker: Worker,
}

impl Prepared {
    /// Prepares the requests or queries of a check.
    pub(super) fn new(check: &HealthCheck) -> Self {
        let prepared = match &check.probe {
            Probe::Http(probe) => Http::new(probe).map(|http| Self::Http(Box::new(http))),
            Probe::Dns(probe) => Dns::new(probe).map(Self::Dns),
            Probe::Tcp { .. } | Probe::Grpc { .. } | Probe::Udp { .. } | Probe::Icmp => {
                Ok(Self::Plain)
            }
        };
        prepared.unwrap_or_else(Self::Unfit)
    }
}

impl Shared {
    /// Opens the sockets that all probes share. The caller must be inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the system has no socket left.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            pings: Pings::default(),
            routes: Routes::open()?,
            firewall: Firewall::new(),
            worker: Worker::default(),
        })
    }

    /// Returns the problem of this host that may have caused the failure
    /// `failed`. Returns `None` if no such problem is known.
    async fn trouble(
        &self,
        target: &Target,
        failed: &Failed,
        progress: &Progress,
    ) -> Option<Arc<str>> {
        let address = target.address;
        let unheard = match failed {
            Failed::Silence(_) => {
                let trouble = self.routes.trouble(address.ip()).await;
                if trouble.is_some() {
                    return trouble;
                }
                Unheard::Silent
            }
            Failed::Refused => Unheard::Refused,
            Failed::Answer(_) | Failed::Own(_) => return None,
        };
        let is_swallowed = is_over_tcp(&target.check.probe) && !progress.is_any();
        (is_swallowed && self.firewall.forbids(address, unheard)).then(|| OWN_FIREWALL.into())
    }
}

/// Probes a target once. The timeout of the target's check counts from `began`.
pub(super) async fn attempt(
    target: &Target,
    prepared: &Prepared,
    shared: &Shared,
    began: Instant,
) -> Outcome {
    let check = &*target.check;
    let progress = Progress::default();
    let deadline = began + check.timeout;
    let exchange = exchange(target, prepared, shared, &progress);
    let in_time = timeout_at(deadline, exchange).await;
    // If a UDP check expects no particular answer, a timeout without any answer
    // is not a failure.
    let is_silence_good =
        in_time.is_err() && matches!(&check.probe, Probe::Udp { expect, .. } if expect.is_empty());
    let out_of_time = || progress.out_of_time(check.timeout, &target.namespace);
    let result = in_time.unwrap_or_else(|_| Err(out_of_time()));
    let failed = match result {
        Ok(()) => {
            shared.firewall.answered(target.address);
            return Outcome::Verdict(Verdict::Success);
        }
        Err(failed) => failed,
    };
    if let Some(why) = shared.trouble(target, &failed, &progress).await {
        return Outcome::Void(why);
    }
    match failed {
        _ if is_silence_good => Outcome::Verdict(Verdict::Success),
        Failed::Answer(words) => {
            let words = words.text(target.may_quote);
            Outcome::Verdict(Verdict::Failure(readable(words)))
        }
        Failed::Silence(words) => Outcome::Verdict(Verdict::Failure(readable(&words))),
        Failed::Refused => Outcome::Verdict(Verdict::Failure("connection refused".into())),
        Failed::Own(words) => Outcome::Void(words.into()),
    }
}

fn is_over_tcp(probe: &Probe) -> bool {
    match probe {
        Probe::Tcp { .. } | Probe::Http(_) | Probe::Grpc { .. } => true,
        Probe::Udp { .. } | Probe::Dns(_) | Probe::Icmp => false,
    }
}

async fn exchange(
    target: &Target,
    prepared: &Prepared,
    shared: &Shared,
    progress: &Progress,
) -> Result<(), Failed> {
    let address = target.address;
    match (&target.check.probe, prepared) {
        // Large futures are boxed, to save memory in the most frequent probes:
        // plain TCP probes.
        (Probe::Tcp { send, expect }, _) => tcp::probe(address, send, expect, progress).await,
        (Probe::Grpc { service }, _) => Box::pin(grpc::probe(address, service, progress)).await,
        (Probe::Udp { send, expect }, _) => udp::probe(address, send, expect).await,
        (Probe::Icmp, _) => Box::pin(shared.pings.probe(address.ip())).await,
        (_, Prepared::Http(http)) => {
            let share = Share {
                worker: &shared.worker,
                namespace: &target.namespace,
            };
            Box::pin(http.probe(address, share, progress)).await
        }
        (_, Prepared::Dns(dns)) => Box::pin(dns.probe(address)).await,
        (_, Prepared::Unfit(why)) => Err(Failed::Own(
            format!("the check cannot be made: {why}").into(),
        )),
        (Probe::Http(_) | Probe::Dns(_), Prepared::Plain) => {
            unreachable!("HTTP and DNS checks are prepared")
        }
    }
}

fn readable(words: &str) -> Arc<str> {
    let shown = words
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut shown: String = shown.take(LONGEST + 1).collect();
    if let Some((end, _)) = shown.char_indices().nth(LONGEST) {
        shown.truncate(end);
        shown.push('…');
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_server_chose_stay_on_one_short_line() {
        assert_eq!(&*readable("gRPC UNKNOWN: a\nb"), "gRPC UNKNOWN: a b");
        let long = "é".repeat(1000);
        let shown = readable(&long);
        assert_eq!(shown.chars().count(), LONGEST + 1);
        assert!(shown.ends_with("é…"));
        let just = "é".repeat(LONGEST);
        assert_eq!(*readable(&just), *just);
    }
}
