//! The real journal on the modelled disk. If a write failed or the agent died
//! during a write, the disk has the complete write or nothing of it. The test
//! therefore records every possible content of the disk.

use std::path::Path;

use super::*;
use crate::{
    decide::{departures::Record, ours::Change, refusals::Refused},
    disk::{
        database,
        journal::{FileJournal, JournalError},
    },
    fixtures::{Disk, disk::OpenFile},
};

/// All possible contents of the disk after writes with an uncertain outcome.
#[derive(Clone, Debug)]
pub(super) struct MayHold(Arc<Mutex<Vec<Disk>>>);

impl MayHold {
    /// Returns the record of an empty disk.
    pub(super) fn nothing() -> Self {
        Self(Arc::new(Mutex::new(vec![Disk::default()])))
    }

    /// Notes that the host was rebooted. After a reboot, no entry is ours, and
    /// the disk records which services were ours.
    pub(super) fn reboot(&self) {
        let mut all = self.all();
        // The journal may still be empty after the reboot. Either no run opened it before the
        // reboot, or the next run creates a new journal.
        let empty = all.iter().filter(|disk| **disk == Disk::default());
        let rebooted = all.iter().map(Disk::rebooted).chain(empty.cloned());
        *all = rebooted.collect();
    }

    pub(super) fn all(&self) -> MutexGuard<'_, Vec<Disk>> {
        self.0.lock().expect("no test panics while it has the lock")
    }

    fn wrote(&self, is_certain: bool, write: impl Fn(&mut Disk)) {
        let mut all = self.all();
        let mut written = all.clone();
        written.iter_mut().for_each(write);
        match is_certain {
            true => *all = written,
            false => all.extend(written),
        }
    }

    /// Notes that the disk was read and that its content is `found`.
    fn holds(&self, found: &Remembered) {
        let mut all = self.all();
        let held = all.iter().find(|disk| disk.remembered() == *found);
        let held = held.unwrap_or_else(|| panic!("{found:?} was never written: {all:?}"));
        *all = vec![held.clone()];
    }
}

/// The journal that one run of the agent uses.
pub(super) struct DiskJournal {
    world: ModelWorld,
    file: FileJournal,
    may_hold: MayHold,
}

impl DiskJournal {
    /// Opens the journal. Creates a new journal if there is no journal, or if
    /// the existing journal was never opened successfully.
    pub(super) fn open(
        world: &ModelWorld,
        may_hold: &MayHold,
        boot: &str,
    ) -> Result<(Self, Remembered), JournalError> {
        let open = || {
            let world = world.clone();
            let open =
                move |_: &Path| Ok(database::builder().create_with_backend(OpenFile::new(&world))?);
            FileJournal::open_with(Path::new("/state/journal"), boot, Box::new(open))
        };
        let opened = match open() {
            Err(JournalError::Database { source, .. }) if database::is_content(&source) => {
                let nothing_lost = may_hold.all().contains(&Disk::default());
                assert!(nothing_lost, "the journal was damaged: {source}");
                world.parts().file.remove();
                open()
            }
            other => other,
        };
        let (file, found) = opened?;
        may_hold.holds(&found);
        let journal = Self {
            world: world.clone(),
            file,
            may_hold: may_hold.clone(),
        };
        Ok((journal, found))
    }
}

impl Journal for DiskJournal {
    fn intend(&mut self, intent: &Intent) -> Result<(), JournalError> {
        let result = self.file.intend(intent);
        self.may_hold
            .wrote(result.is_ok(), |disk| disk.intent = intent.clone());
        self.world.parts().log.push(Effect::Intended);
        result
    }

    fn settle(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let result = self.file.settle(changes);
        self.may_hold
            .wrote(result.is_ok(), |disk| disk.settle(changes));
        self.world.parts().log.push(Effect::Settled);
        result
    }

    // The property test of the rounds involves no cluster.
    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError> {
        self.file.remember_cluster(cluster)
    }

    fn remember_taken_over(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), JournalError> {
        let result = self.file.remember_taken_over(addresses);
        self.may_hold
            .wrote(result.is_ok(), |disk| disk.taken_over.clone_from(addresses));
        result
    }

    // The rounds in the property test refuse no entries.
    fn remember_refused(&mut self, refused: &Refused) -> Result<(), JournalError> {
        self.file.remember_refused(refused)
    }

    // Nor do they drain servers.
    fn remember_drains(&mut self, record: &Record) -> Result<(), JournalError> {
        self.file.remember_drains(record)
    }
}
