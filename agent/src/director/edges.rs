//! Opens the loop's connections to the outside, called edges. Each edge
//! (connection to the outside) is opened when it is first needed, and opened
//! again after an error.

use std::time::Duration;

use ipvs::Kernel;

use super::{Loop, World, reason::Reason};
use crate::{
    act::{Edges, retry::Subject},
    disk::journal::{Journal, NoJournal},
    host::netlink::Links,
    tell::report::Trouble,
};

/// Returns the edges that a round uses. [`Loop::obstacle`] must have opened the
/// edges before.
pub(super) fn edges<'a>(
    kernel: &'a mut Option<Box<dyn Kernel>>,
    links: &'a mut Option<Box<dyn Links>>,
    journal: &'a mut Result<Box<dyn Journal>, NoJournal>,
    world: &'a mut World,
) -> Edges<'a> {
    let opened = "no round runs before its edges are open";
    Edges {
        kernel: kernel.as_mut().expect(opened).as_mut(),
        links: links.as_mut().expect(opened).as_mut(),
        journal: match journal {
            Ok(journal) => journal.as_mut(),
            Err(none) => none,
        },
        sysctls: world.sysctls.as_mut(),
        surroundings: world.surroundings.as_mut(),
        segments: world.segments.as_mut(),
        heartbeat: &world.heartbeat,
    }
}

impl Loop {
    /// Opens the edges that a round needs and that are not open. Returns the
    /// reason why no round can run, if there is one.
    pub(super) fn obstacle(
        &mut self,
        before: &Option<Trouble>,
        now: Duration,
    ) -> Result<(), Trouble> {
        self.open_journal(now);
        let waits = [Subject::Kernel, Subject::Links]
            .into_iter()
            .any(|subject| !self.retry.allows(subject, now));
        if let (true, Some(trouble)) = (waits, before) {
            return Err(trouble.clone());
        }
        if self.kernel.is_none() {
            let opened = (self.world.kernel)().map_err(|error| Trouble::Kernel(error.to_string()));
            self.kernel = Some(self.tried(Subject::Kernel, opened, before, now)?);
        }
        if self.links.is_none() {
            let opened = (self.world.links)().map_err(|error| Trouble::Links(error.to_string()));
            self.links = Some(self.tried(Subject::Links, opened, before, now)?);
        }
        if self.objects.is_listed() && self.objects.group(&self.group).is_none() {
            let trouble = Trouble::Group(self.group.clone());
            if before.as_ref() != Some(&trouble) {
                tracing::error!("{trouble}");
            }
            return Err(trouble);
        }
        Ok(())
    }

    /// Opens the journal if it is not open and the next attempt is due. Without
    /// a journal, rounds still run, but create no entries.
    fn open_journal(&mut self, now: Duration) {
        if self.journal.is_ok() || !self.retry.allows(Subject::Journal, now) {
            return;
        }
        match (self.world.journal)() {
            Ok((journal, remembered)) => {
                let mut remembered = remembered;
                self.caution.remember(remembered.cluster.clone());
                let refused = std::mem::take(&mut remembered.refused);
                let before_boot = remembered.before_boot.take();
                self.protection.remember(refused, before_boot);
                self.retention.restore(&remembered.drains);
                self.state.remember(remembered);
                // The journal may list more of the host's addresses as ours, so
                // the agent must check the host again.
                self.protection.look_again();
                self.retry.succeeded(Subject::Journal);
                // Entries that are ours are still served, even beyond a budget.
                // Only the journal says which entries are ours, so the wanted
                // state must be computed again.
                self.reason = self.reason.max(Reason::Resolve);
                if let Err(NoJournal(said)) = std::mem::replace(&mut self.journal, Ok(journal))
                    && !said.is_empty()
                {
                    tracing::info!("the state folder can be used again");
                }
            }
            Err(error) => {
                let NoJournal(said) = self.journal.as_ref().err().expect("looked at above");
                let message = error.to_string();
                if *said != message {
                    tracing::error!("{message}");
                }
                self.journal = Err(NoJournal(message));
                self.retry.failed(Subject::Journal, now);
            }
        }
    }

    /// Records that the kernel did not answer, or gave a wrong answer.
    pub(super) fn kernel_failed(
        &mut self,
        error: &ipvs::Error,
        before: &Option<Trouble>,
        now: Duration,
    ) {
        let trouble = Trouble::Kernel(error.to_string());
        if before.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}");
        }
        if !matches!(error, ipvs::Error::RepliesLost) {
            self.kernel = None;
        }
        self.retry.failed(Subject::Kernel, now);
        self.trouble = Some(trouble);
    }

    fn tried<T>(
        &mut self,
        subject: Subject,
        opened: Result<T, Trouble>,
        before: &Option<Trouble>,
        now: Duration,
    ) -> Result<T, Trouble> {
        match opened {
            // Opening an edge does not end its back-off, because the next use
            // of the edge may fail.
            Ok(edge) => Ok(edge),
            Err(trouble) => {
                if before.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}");
                }
                self.retry.failed(subject, now);
                Err(trouble)
            }
        }
    }
}
