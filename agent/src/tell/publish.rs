//! Publishes the loop's findings on the API server. The findings go into the
//! Director's status and the DirectorGroupMember, and a Lease shows that the
//! agent works.

mod attempt;
mod definition;
mod director;
mod lease;
pub mod undone;

use std::time::Duration;

use crds::{advice::shortened, api::DirectorStatus, condition};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};

pub(super) use self::lease::LONGEST_SILENCE;
use self::{
    attempt::{Failure, REPORT_TIME, insist, once, succeeded},
    director::{DirectorWriter, Registered, interval, texts},
};
use crate::{
    heartbeat::Heartbeat,
    pauses::Pauses,
    said::Said,
    tell::report::{self, Observed},
};

/// The field manager of all objects that the agent applies.
const FIELD_MANAGER: &str = "ipvs-agent";
/// The interval at which an unchanged status is written again. Writing an
/// unchanged status recreates a deleted Director. If the Director still exists,
/// the write of the same status changes nothing in the API server's storage.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The longest wait before a failed write to the API server is repeated, without
/// the random part.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// If the API server answers no write for this long, the Lease says so. A restart
/// of the API server is shorter.
const LASTING: SignedDuration = SignedDuration::from_secs(60);
/// The maximum length of the annotation that says why a report is refused.
const LONGEST_ANNOTATION: usize = 1000;

/// The identity under which a director publishes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of the director.
    pub name: String,
    /// The name of the director's DirectorGroup.
    pub group: String,
    /// The id of the machine's current boot. A Director's status from another
    /// boot is outdated.
    pub boot_id: String,
    /// The release of the machine's kernel, from /proc/sys/kernel/osrelease.
    pub kernel: String,
    /// The controller's namespace. Until version 0.2, the agent renews a second
    /// Lease there.
    pub lease_namespace: String,
}

impl Identity {
    /// Returns the status of a director before the first findings of the loop.
    pub fn first_status(&self) -> DirectorStatus {
        DirectorStatus {
            director_group_name: self.group.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_version: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            ..DirectorStatus::default()
        }
    }
}

/// What the publisher learns from the agent's other threads.
pub struct Sources<'a> {
    /// The loop's latest findings.
    pub observed: watch::Receiver<Option<Observed>>,
    /// The number of directors in the group.
    pub directors: watch::Receiver<usize>,
    /// Notified after the director's DirectorGroupMember was deleted.
    pub vanished: &'a Notify,
    /// The heartbeat of the loop.
    pub heartbeat: &'a Heartbeat,
}

/// Registers the director, then publishes its status and renews its Lease,
/// without end.
pub async fn publish(client: Client, identity: &Identity, sources: Sources<'_>) {
    let writer = DirectorWriter::new(&client, identity);
    // Other programs trust a status while its Lease is renewed, so the status
    // is written before the Lease.
    let registered = insist("register this director", LONGEST_WAIT, || writer.register()).await;
    let (refused, is_refused) = watch::channel(None);
    tokio::join!(
        lease::renew(&client, identity, sources.heartbeat, is_refused),
        Reporter::new(writer, registered, refused).run(sources),
    );
}

/// Writes the director's report: the DirectorGroupMember, and the Director's
/// status.
struct Reporter<'a> {
    writer: DirectorWriter<'a>,
    registered: Registered,
    /// The status that was written last.
    status: DirectorStatus,
    /// The addresses in the DirectorGroupMember, or `None` if the object may be
    /// missing.
    addresses: Option<Vec<String>>,
    /// Whether the Director's status must be written although it is the same.
    is_status_missing: bool,
    /// The time of the last written status.
    written: Instant,
    /// The last report, if it failed.
    failed: Option<Failed>,
    pauses: Pauses,
    said: Said,
    /// Since when and why the API server does not take the report.
    refused: watch::Sender<Option<String>>,
}

/// A report that could not be written.
struct Failed {
    status: DirectorStatus,
    /// The time of the next attempt to write the same report.
    again: Instant,
    /// Whether the API server refused the report. If so, another report is
    /// tried at once.
    is_refusal: bool,
    since: Timestamp,
}

/// What the report, and each part of it, is called in messages.
const REPORT: &str = "write this director's report";
const STATUS: &str = "report this director's status";
const MEMBER: &str = "write this director's DirectorGroupMember";

impl<'a> Reporter<'a> {
    fn new(
        writer: DirectorWriter<'a>,
        registered: Registered,
        refused: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            writer,
            status: registered.status.clone(),
            registered,
            addresses: None,
            is_status_missing: false,
            written: Instant::now(),
            failed: None,
            pauses: Pauses::up_to(LONGEST_WAIT),
            said: Said::default(),
            refused,
        }
    }

    /// Reports the loop's findings whenever they change, until the loop has
    /// ended. The first report after a quiet interval is written at once.
    async fn run(mut self, mut sources: Sources<'_>) {
        loop {
            let latest = sources.observed.borrow_and_update().clone();
            if self.report(latest.as_ref()).await {
                let directors = *sources.directors.borrow();
                time::sleep(interval(directors)).await;
            }
            let refresh = self.written + REFRESH_INTERVAL;
            let wake = self.failed.as_ref().map_or(refresh, |failed| failed.again);
            let look = self.writer.definition.next_look();
            let wake = look.map_or(wake, |look| look.min(wake));
            tokio::select! {
                changed = sources.observed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sources.vanished.notified() => {
                    // The Director was probably deleted as well.
                    self.is_status_missing = true;
                    self.addresses = None;
                }
                () = time::sleep_until(wake) => {}
            }
        }
    }

    /// Writes the parts of the report that differ from what was written last.
    /// Writes everything if the last write was long ago. Returns whether
    /// anything was tried.
    async fn report(&mut self, latest: Option<&Observed>) -> bool {
        self.writer.definition.look().await;
        let mut status = self.wanted(latest);
        // Before the first round, the agent does not know the host's addresses.
        let round = latest.filter(|latest| latest.outcome.is_some());
        let addresses = round.map(|round| texts(&round.protection.addresses));
        let now = Instant::now();
        let is_old = now >= self.written + REFRESH_INTERVAL;
        let is_status_due = is_old || status != self.status || self.is_status_missing;
        let is_member_due = is_old
            || self.addresses.is_none()
            || addresses.is_some() && addresses != self.addresses;
        let may_try = self.failed.as_ref().is_none_or(|failed| {
            now >= failed.again || failed.is_refusal && status != failed.status
        });
        if !(is_status_due || is_member_due) {
            // What could not be written is no longer wanted.
            if self.failed.is_some() {
                self.succeeded();
            }
            return false;
        }
        if !may_try {
            return false;
        }
        // Each part is written even if the API server refuses the other part.
        let mut failure = None;
        if is_status_due {
            let mut written = once(STATUS, REPORT_TIME, self.write_status(&status)).await;
            if let Err(failed) = &written
                && failed.is_refusal
                && self.writer.definition.read().await
            {
                status = self.wanted(latest);
                written = once(STATUS, REPORT_TIME, self.write_status(&status)).await;
            }
            match written {
                Ok(()) => {
                    self.status = status.clone();
                    self.is_status_missing = false;
                    self.written = now;
                }
                Err(failed) => failure = Some(failed),
            }
        }
        if is_member_due || self.addresses.is_none() {
            let written = once(MEMBER, REPORT_TIME, self.write_member(addresses)).await;
            failure = failure.or(written.err());
        }
        match failure {
            None => self.succeeded(),
            Some(failure) => self.fail(status, failure),
        }
        true
    }

    /// Returns the status that should be written. Before the first findings of the
    /// loop, that is the present one.
    fn wanted(&self, latest: Option<&Observed>) -> DirectorStatus {
        let generation = self.registered.generation;
        let status = latest.map(|latest| report::status(latest, &self.status, generation));
        let mut status = status.unwrap_or_else(|| self.status.clone());
        match self.writer.definition.condition(generation) {
            Some(definition) => {
                condition::set(&mut status.conditions, definition, Timestamp::now());
            }
            None => {
                let kind = condition::kind::DEFINITION_OLDER;
                status.conditions.retain(|known| known.type_ != kind);
            }
        }
        status
    }

    /// Writes the status. If the Director was deleted, registers the director
    /// again.
    async fn write_status(&mut self, status: &DirectorStatus) -> Result<(), kube::Error> {
        match self.writer.write_status(status).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                self.registered = self.writer.register().await?;
                self.addresses = None;
                self.writer.write_status(status).await
            }
            result => result,
        }
    }

    /// Writes the DirectorGroupMember. If the addresses are not known yet, keeps
    /// those of the existing object.
    async fn write_member(&mut self, addresses: Option<Vec<String>>) -> Result<(), kube::Error> {
        let addresses = match addresses.or_else(|| self.addresses.clone()) {
            Some(addresses) => addresses,
            None => {
                let existing = self.writer.addresses(&self.registered).await?;
                existing.unwrap_or_default()
            }
        };
        self.writer
            .write_member(&self.registered, &addresses)
            .await?;
        self.addresses = Some(addresses);
        Ok(())
    }

    fn succeeded(&mut self) {
        succeeded(REPORT, &mut self.said);
        self.failed = None;
        self.pauses.reset();
        self.refused.send_replace(None);
    }

    fn fail(&mut self, status: DirectorStatus, failure: Failure) {
        let before = self.failed.as_ref().map(|failed| failed.since);
        let since = before.unwrap_or_else(Timestamp::now);
        let lasts = Timestamp::now().duration_since(since) >= LASTING;
        if failure.is_refusal || lasts {
            let why = shortened(failure.why.clone(), LONGEST_ANNOTATION);
            let text = format!("since {since:.0}: {why}");
            self.refused.send_replace(Some(text));
        }
        self.said.warn([failure.why]);
        self.failed = Some(Failed {
            status,
            again: Instant::now() + self.pauses.next(),
            is_refusal: failure.is_refusal,
            since,
        });
    }
}

#[cfg(test)]
mod tests;
