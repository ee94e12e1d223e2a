//! The real journal on the model's disk, and what the disk may hold: all or
//! nothing of a write that failed or in which the agent died.

use std::path::Path;

use super::*;
use crate::{
    decide::ours::Change,
    disk::{
        database,
        journal::{FileJournal, JournalError},
    },
    fixtures::{Disk, disk::OpenFile},
};

/// The possible contents of a disk that was not looked at: one of these.
#[derive(Clone, Debug)]
pub(super) struct MayHold(Arc<Mutex<Vec<Disk>>>);

impl MayHold {
    /// Returns a disk with nothing on it.
    pub(super) fn nothing() -> Self {
        Self(Arc::new(Mutex::new(vec![Disk::default()])))
    }

    /// Makes everything on it void.
    pub(super) fn forget(&self) {
        *self.all() = vec![Disk::default()];
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

    /// Notes that the disk was looked at and has this on it.
    fn holds(&self, found: &Remembered) {
        let mut all = self.all();
        let held = all.iter().find(|disk| disk.remembered() == *found);
        let held = held.unwrap_or_else(|| panic!("{found:?} was never written: {all:?}"));
        *all = vec![held.clone()];
    }
}

/// The journal of one agent.
pub(super) struct DiskJournal {
    world: ModelWorld,
    file: FileJournal,
    may_hold: MayHold,
}

impl DiskJournal {
    /// Opens the journal, or makes one if there is none or none that was ever
    /// opened.
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
                let nothing_lost = *may_hold.all() == [Disk::default()];
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

    // These tests involve no cluster.
    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError> {
        self.file.remember_cluster(cluster)
    }
}
