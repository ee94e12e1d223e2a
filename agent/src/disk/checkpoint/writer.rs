//! The thread that writes the checkpoint. After an error, the thread keeps the
//! unwritten changes, and opens the file again with growing pauses.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{Checkpoint, Note, pending::Pending, prepare};

/// Changes of the checkpoint that arrive within this time of each other are
/// written together.
const QUIET: Duration = Duration::from_secs(1);
/// The longest time that a write is delayed to collect more changes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum number of changes in one write of the checkpoint. With this
/// limit, the thread does not hold a whole listing of many objects in memory.
const LARGEST: usize = 4000;
/// The pause before the first attempt to write after an error.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to write the checkpoint.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A function that receives the reason why the checkpoint cannot be written, or
/// `None` when the checkpoint can be written again.
pub(super) type Report = Box<dyn Fn(Option<String>) + Send>;

pub(super) struct Writer {
    checkpoint: Checkpoint,
    report: Report,
    pending: Pending,
    /// The last reported reason why the checkpoint cannot be written.
    trouble: Option<String>,
    /// The pause after the last attempt to write, or `None` if the attempt
    /// succeeded.
    pause: Option<Duration>,
}

impl Writer {
    pub(super) fn new(checkpoint: Checkpoint, report: Report) -> Self {
        Self {
            // If the checkpoint could not be opened, the thread tries again at
            // once, to report the reason.
            pause: checkpoint.database.is_none().then_some(Duration::ZERO),
            checkpoint,
            report,
            pending: Pending::default(),
            trouble: None,
        }
    }

    /// Writes notes until [`Note::End`].
    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let is_last = match self.pause {
                None => self.gather(notes),
                Some(pause) => self.gather_for(pause, notes),
            };
            self.try_to_write();
            if is_last {
                return;
            }
        }
    }

    /// Waits for a note, and collects further notes that arrive soon. Returns
    /// whether [`Note::End`] is among the collected notes.
    fn gather(&mut self, notes: &Receiver<Note>) -> bool {
        let Ok(first) = notes.recv() else {
            return true;
        };
        if self.add(first) {
            return true;
        }
        let latest = Instant::now() + PATIENCE;
        for _ in 1..LARGEST {
            match notes.recv_timeout(QUIET) {
                Ok(note) => {
                    if self.add(note) {
                        return true;
                    }
                    if Instant::now() >= latest {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        false
    }

    /// Collects the notes that arrive within `pause`. Returns whether
    /// [`Note::End`] is among the collected notes.
    fn gather_for(&mut self, pause: Duration, notes: &Receiver<Note>) -> bool {
        let end = Instant::now() + pause;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            match notes.recv_timeout(rest) {
                Ok(note) => {
                    if self.add(note) {
                        return true;
                    }
                    if rest.is_zero() {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Adds a note to the notes that must be written. Returns whether the note
    /// is [`Note::End`].
    fn add(&mut self, note: Note) -> bool {
        let is_last = note == Note::End;
        self.pending.add(note);
        is_last
    }

    fn try_to_write(&mut self) {
        match self.write() {
            Ok(()) => {
                self.pending = Pending::default();
                self.pause = None;
                if self.trouble.take().is_some() {
                    tracing::info!("the checkpoint can be written again");
                    (self.report)(None);
                }
            }
            Err(error) => {
                self.checkpoint.database = None;
                let pause = self.pause.map_or(FIRST_PAUSE, |pause| pause * 2);
                self.pause = Some(pause.clamp(FIRST_PAUSE, LONGEST_PAUSE));
                let error = self.checkpoint.failure(error);
                let trouble = format!(
                    "cannot write the checkpoint {error}. If the agent restarts while the API \
                     server is away, it will start from an older state. Free space in the state \
                     folder, make it writable for the agent, or name another one with \
                     --state-dir. The agent keeps trying, and loses no change as long as it runs"
                );
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                    (self.report)(Some(trouble.clone()));
                    self.trouble = Some(trouble);
                }
            }
        }
    }

    fn write(&mut self) -> Result<(), redb::Error> {
        if self.checkpoint.database.is_none() {
            self.checkpoint.opened(prepare)?;
        }
        let database = self.checkpoint.database.as_ref();
        self.pending.write(database.expect("it was just opened"))
    }
}
