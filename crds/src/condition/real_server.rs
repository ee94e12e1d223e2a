use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{FALSE, NAMED, TRUE, UNKNOWN, condition, count, explained, kind, named, reason};
use crate::{
    ObjectKey, Rejection,
    api::{CheckingDirectors, UnhealthyServer, UnhealthyState, int32},
};

/// The health of one server, combined over all services that use the server and
/// all live directors that check the server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerHealth<'a> {
    healthy: usize,
    /// Maps each director that does not report the server healthy to the
    /// reason.
    others: BTreeMap<&'a str, Sight>,
    /// Maps each reported reason why the server is not healthy to the directors
    /// that report this reason.
    words: BTreeMap<String, BTreeSet<&'a str>>,
}

/// Why a director does not report a server healthy. If several reasons apply to
/// a director, the reason that comes last in this enum counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Sight {
    /// The director has not reported yet that it uses the server.
    Waiting,
    /// The director's report does not name the server, but the report omits
    /// some unhealthy servers.
    LeftOut,
    /// The server is new to the director. No probe has succeeded yet, and fewer
    /// than `failureThreshold` probes have failed.
    New,
    /// The director's probes of the server fail.
    Failing,
}

impl<'a> ServerHealth<'a> {
    /// Adds `directors` to the number of directors that report the server
    /// healthy for all of its services.
    pub fn healthy(&mut self, directors: usize) {
        self.healthy += directors;
    }

    /// Adds the report of a director that names the server as unhealthy.
    pub fn named(&mut self, director: &'a str, entry: &UnhealthyServer) {
        let sight = match entry.state {
            UnhealthyState::Unknown => Sight::New,
            UnhealthyState::Down | UnhealthyState::Flapping => Sight::Failing,
        };
        self.unnamed(director, sight);
        self.words.entry(words(entry)).or_default().insert(director);
    }

    /// Adds a director whose report does not name the server. The server may be
    /// unhealthy on this director all the same. `sight` says why the report
    /// does not name the server.
    pub fn unnamed(&mut self, director: &'a str, sight: Sight) {
        let before = self.others.entry(director).or_insert(sight);
        *before = sight.max(*before);
    }

    /// Returns the directors that do not report the server healthy for all of
    /// its services.
    pub fn others(&self) -> impl Iterator<Item = &'a str> {
        self.others.keys().copied()
    }

    /// Returns the numbers for the server's status: how many directors check
    /// the server, and how many report it healthy or unhealthy.
    pub fn counts(&self) -> CheckingDirectors {
        let unhealthy = self.seen_as(Sight::Failing).count();
        let mark = match unhealthy == self.others.len() {
            true => "",
            false => "?",
        };
        let checking = self.checking();
        CheckingDirectors {
            checking: int32(checking),
            healthy: int32(self.healthy),
            unhealthy: int32(unhealthy),
            summary: format!("{}/{checking}{mark}", self.healthy),
        }
    }

    fn checking(&self) -> usize {
        self.healthy + self.others.len()
    }

    fn seen_as(&self, sight: Sight) -> impl Iterator<Item = &'a str> {
        self.others
            .iter()
            .filter(move |(_, other)| **other == sight)
            .map(|(director, _)| *director)
    }

    fn is_seen_as(&self, sight: Sight) -> bool {
        self.seen_as(sight).next().is_some()
    }

    /// The message has no times and no counts of probes, because the message
    /// must not change with every probe.
    fn message(&self) -> String {
        let mut text = format!(
            "healthy on {} of {}",
            self.healthy,
            count(self.checking(), "director")
        );
        for (words, directors) in self.words.iter().take(NAMED) {
            let _ = write!(text, "; on {}: {words}", named(directors.iter().copied()));
        }
        if let more @ 1.. = self.words.len().saturating_sub(NAMED) {
            let _ = write!(text, "; and {more} more reasons");
        }
        if self.is_seen_as(Sight::Waiting) {
            let _ = write!(
                text,
                "; waiting for {}",
                named(self.seen_as(Sight::Waiting))
            );
        }
        if self.is_seen_as(Sight::LeftOut) {
            let _ = write!(
                text,
                "; not known on {}: more unhealthy servers than fit into a Director's status",
                named(self.seen_as(Sight::LeftOut))
            );
        }
        text
    }
}

fn words(entry: &UnhealthyServer) -> String {
    let state = match entry.state {
        UnhealthyState::Down => "",
        UnhealthyState::Flapping => "flapping: ",
        UnhealthyState::Unknown => "new: ",
    };
    let mut text = format!("{state}{}", entry.message);
    match entry.virtual_services.split_first() {
        None => text.push_str(", for all services that check it"),
        Some((first, others)) => {
            let _ = write!(text, ", for {first}");
            if !others.is_empty() {
                let _ = write!(text, " and {} more", others.len());
            }
        }
    }
    text
}

/// The condition Ready of an accepted RealServer. Ready is True if at least one
/// service uses the server. For a checked server, at least one director must
/// also report the server healthy. Ready is False if probes fail on a director
/// and no other director reports the server healthy. Ready is Unknown if no
/// director knows the server's health.
///
/// A server that only some directors reach is Ready: the server still serves
/// clients, and the fault may not be in the server itself. The condition's
/// message names the directors that do not reach the server.
pub fn server_ready<'a>(
    services: usize,
    health: Option<&ServerHealth<'_>>,
    refused_by: impl IntoIterator<Item = (&'a ObjectKey, &'a Rejection)>,
    generation: i64,
) -> Condition {
    let refused_by: Vec<_> = refused_by.into_iter().collect();
    let refusals = explained(&refused_by, 0, "VirtualService");
    if services == 0 {
        return match refused_by.first() {
            None => condition(
                kind::READY,
                FALSE,
                reason::NOT_SELECTED,
                "No VirtualService in its namespace selects it; give it the labels that one \
                 selects",
                generation,
            ),
            Some((_, first)) => condition(kind::READY, FALSE, first.reason, refusals, generation),
        };
    }
    let (status, reason, mut message) = match health {
        Some(health) if health.healthy == 0 => not_healthy(services, health),
        _ => {
            let mut message = format!("Serves {}", count(services, "virtual service"));
            if let Some(health) = health {
                let _ = write!(message, "; {}", health.message());
            }
            (TRUE, reason::READY, message)
        }
    };
    if !refused_by.is_empty() {
        let _ = write!(message, "; refused by {refusals}");
    }
    condition(kind::READY, status, reason, message, generation)
}

fn not_healthy(services: usize, health: &ServerHealth<'_>) -> (&'static str, &'static str, String) {
    if health.checking() == 0 {
        let message = "No director that should check it renews its Lease; see kubectl get \
                       directors";
        return (UNKNOWN, reason::NO_DIRECTORS, message.to_owned());
    }
    let (status, reason) = if health.is_seen_as(Sight::Failing) {
        (FALSE, reason::UNHEALTHY)
    } else if health.is_seen_as(Sight::LeftOut) {
        (UNKNOWN, reason::MORE_TO_REPORT)
    } else {
        (UNKNOWN, reason::CHECKING)
    };
    let behind = count(services, "virtual service");
    let message = format!("Behind {behind}; {}", health.message());
    (status, reason, message)
}

/// The condition Ready of a RealServer that is not accepted repeats the
/// condition Accepted.
pub fn server_not_ready(accepted: &Condition, generation: i64) -> Condition {
    condition(
        kind::READY,
        &accepted.status,
        &accepted.reason,
        &accepted.message,
        generation,
    )
}
