use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{FALSE, TRUE, UNKNOWN, condition, count, kind, named, reason};
use crate::{
    DrainRule,
    api::{AtEnd, DrainingServer},
};

/// The drain of one server, combined over all directors that serve it.
#[derive(Clone, Debug, Default)]
pub struct ServerDrain<'a> {
    /// The directors that report the server, and on which it is not drained yet,
    /// with the number of its connections.
    left: BTreeMap<&'a str, i32>,
    /// When the time of the drain ends on the last of these directors.
    until: Option<Timestamp>,
    /// The live directors that have not reported the drain yet.
    waiting: BTreeSet<&'a str>,
    /// The directors whose reports leave out servers of the namespace.
    omitting: BTreeSet<&'a str>,
    /// The directors that do not renew their Leases and did not report the
    /// server drained.
    dead: BTreeSet<&'a str>,
    /// The directors on which the server is drained.
    drained: BTreeSet<&'a str>,
    /// What a user should know about the services that use the server.
    remarks: BTreeSet<String>,
}

impl<'a> ServerDrain<'a> {
    /// Adds the report of a director about the server.
    pub fn named(&mut self, director: &'a str, entry: &DrainingServer) {
        if entry.drained {
            self.drained.insert(director);
            return;
        }
        self.left.insert(director, entry.connections);
        self.until = self.until.max(Some(entry.until.0));
    }

    /// Adds a live director that has not reported the drain yet.
    pub fn waiting(&mut self, director: &'a str) {
        self.waiting.insert(director);
    }

    /// Adds a director whose report leaves out servers of the namespace.
    pub fn omitting(&mut self, director: &'a str) {
        self.omitting.insert(director);
    }

    /// Adds a director that does not renew its Lease, and whose last report does
    /// not say that the server is drained.
    pub fn dead(&mut self, director: &'a str) {
        self.dead.insert(director);
    }

    /// Adds a sentence about a service that uses the server.
    pub fn remark(&mut self, sentence: String) {
        self.remarks.insert(sentence);
    }

    fn connections(&self) -> i32 {
        let counts = self.left.values().copied();
        counts.fold(0, i32::saturating_add)
    }

    /// Returns the condition Drained of the server.
    pub fn condition(&self, rule: &DrainRule, services: usize, generation: i64) -> Condition {
        let say = |status, reason, message: String| {
            condition(kind::DRAINED, status, reason, message, generation)
        };
        if services == 0 && self.left.is_empty() {
            let message = "No virtual service uses the server".to_owned();
            return say(TRUE, reason::DRAINED, message);
        }
        if !self.left.is_empty() || !self.waiting.is_empty() {
            return say(FALSE, reason::DRAINING, self.what_is_left(rule));
        }
        if !self.omitting.is_empty() {
            let message = format!(
                "Not known on {}: more drained servers than fit into a Director's status. On the \
                 director, ipvs-agent status -o wide lists them all",
                named(self.omitting.iter().copied())
            );
            return say(UNKNOWN, reason::MORE_TO_REPORT, message);
        }
        if !self.dead.is_empty() {
            let message = format!(
                "Not known on {}, where no agent renews the Lease: the kernel may still have \
                 connections. Start the agent, or delete the Director if its machine is gone",
                named(self.dead.iter().copied())
            );
            return say(UNKNOWN, reason::NOT_ALIVE, message);
        }
        let message = format!(
            "No connection is left on {}",
            count(self.drained.len(), "director")
        );
        say(TRUE, reason::DRAINED, message)
    }

    fn what_is_left(&self, rule: &DrainRule) -> String {
        let mut text = String::new();
        if !self.left.is_empty() {
            let each = self.left.iter();
            let each: Vec<_> = each
                .map(|(name, left)| format!("{left} on {name}"))
                .collect();
            let _ = write!(
                text,
                "{} left: {}. ",
                count(self.connections(), "connection"),
                named(each.iter().map(String::as_str))
            );
            if self.connections() == 0 {
                text.push_str(
                    "Packets still go to the server, or clients are still bound to it by \
                     persistence. ",
                );
            }
            if let Some(until) = self.until {
                // Users need no fractions of a second.
                let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
                let then = match rule.at_end {
                    AtEnd::Keep => "What is left then goes on (spec.drain.atEnd: Keep)",
                    AtEnd::Disconnect => {
                        "What is left then is ended (spec.drain.atEnd: Disconnect)"
                    }
                };
                let _ = write!(text, "The time of the drain ends at {until}. {then}. ");
            }
        }
        if !self.waiting.is_empty() {
            let names = named(self.waiting.iter().copied());
            let _ = write!(text, "Waiting for director {names}. ");
        }
        for remark in &self.remarks {
            let _ = write!(text, "{remark}. ");
        }
        text.truncate(text.trim_end().trim_end_matches('.').len());
        text
    }
}

/// Returns the field `state` of the status of a RealServer. `drained` is the
/// server's condition Drained, if the server is being drained.
pub fn server_state(drained: Option<(&Condition, &ServerDrain<'_>)>) -> String {
    match drained {
        None => "Active".to_owned(),
        Some((condition, _)) if condition.status == TRUE => "Drained".to_owned(),
        Some((_, drain)) => match drain.connections() {
            0 => "Draining".to_owned(),
            left => format!("Draining ({left} left)"),
        },
    }
}
