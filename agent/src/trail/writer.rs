//! The thread that writes the trail.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::field;

use super::{
    Trail,
    book::{Book, News},
    files::{self, Files, Line},
    log::Log,
    record::{Cause, Record},
    round::Round,
};

/// The pause between two looks at the channel. The thread does not sleep in the
/// channel, because the loop would then need a system call to wake it.
const PAUSE: Duration = Duration::from_millis(250);
/// The pause after which the thread tries again to write to the disk.
const RETRY: Duration = Duration::from_secs(10);
/// How long the end of the agent waits for the thread.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The running thread, as the agent's main thread holds it.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<()>,
    /// What the trail knows.
    pub book: Arc<Mutex<Book>>,
}

impl Writer {
    /// Starts the thread with the files in `folder`. Returns the loop's end of
    /// the channel too.
    ///
    /// # Errors
    /// Returns an error if the system cannot start a thread.
    pub fn start(folder: &Path) -> io::Result<(Trail, Self)> {
        let (trail, rounds) = Trail::channel();
        let book = Arc::new(Mutex::new(Book::default()));
        let pen = Pen::new(folder, book.clone());
        let thread = thread::Builder::new().name("history".to_owned());
        let thread = thread.spawn(move || pen.run(&rounds))?;
        Ok((trail, Self { thread, book }))
    }

    /// Waits until the thread has written all rounds. The loop's end of the
    /// channel must be gone. Waits only for a short time, because the disk may
    /// not answer.
    pub fn finish(self) {
        let until = Instant::now() + LAST_WAIT;
        self.thread.thread().unpark();
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the thread writes with.
struct Pen {
    folder: PathBuf,
    files: Files,
    book: Arc<Mutex<Book>>,
    log: Log,
    /// When writing failed, or `None` if it did not.
    failed: Option<Instant>,
}

impl Pen {
    fn new(folder: &Path, book: Arc<Mutex<Book>>) -> Self {
        Self {
            folder: folder.to_owned(),
            files: Files::new(folder),
            book,
            log: Log::default(),
            failed: None,
        }
    }

    fn run(mut self, rounds: &Receiver<Round>) {
        self.begin(Timestamp::now());
        loop {
            match rounds.try_recv() {
                Ok(round) => self.hear(round),
                Err(TryRecvError::Empty) => {
                    self.try_again();
                    thread::park_timeout(PAUSE);
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Reads the trail of earlier runs, and notes that the agent started.
    fn begin(&mut self, now: Timestamp) {
        match files::read_ours(&self.folder) {
            Ok(ours) => *self.locked() = Book::new(ours),
            Err(error) => tracing::warn!("cannot read the history of earlier runs: {error}"),
        }
        let resumed = self.files.resume();
        let start = Line::Start {
            at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let written = resumed.and_then(|()| self.write(now, &[start]));
        self.tell(written);
    }

    fn hear(&mut self, round: Round) {
        let at = round.at;
        let mut book = self.locked();
        let news = book.hear(round);
        let counts = book.ours.counts();
        let lines = match &news {
            News::Records(records) if records.is_empty() => Vec::new(),
            news => Line::of(news.clone(), at, &book.ours),
        };
        drop(book);
        self.log(&news, counts, at);
        if !lines.is_empty() && self.failed.is_none() {
            let written = self.write(at, &lines);
            self.tell(written);
        }
    }

    /// After a failure, begins a new file if it is time for another attempt.
    fn try_again(&mut self) {
        if self.failed.is_some_and(|failed| failed.elapsed() >= RETRY) {
            let written = self.begin_file(Timestamp::now());
            self.tell(written);
        }
    }

    /// Appends lines. If the file is full then, begins a new one.
    fn write(&mut self, at: Timestamp, lines: &[Line]) -> io::Result<()> {
        if !self.files.is_open() {
            self.begin_file(at)?;
        }
        self.files.append(lines)?;
        match self.files.is_full() {
            true => self.begin_file(at),
            false => Ok(()),
        }
    }

    fn begin_file(&mut self, at: Timestamp) -> io::Result<()> {
        let ours = self.locked().ours.clone();
        self.files.begin(at, &ours)
    }

    fn tell(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) if self.failed.take().is_some() => {
                tracing::info!("the history can be written again; it lacks the time between");
            }
            Ok(()) => {}
            Err(error) => {
                if self.failed.is_none() {
                    tracing::warn!(
                        "cannot write the history in {}: {error}. The agent goes on without it, and tries again",
                        self.folder.display()
                    );
                }
                self.failed = Some(Instant::now());
            }
        }
    }

    fn log(&mut self, news: &News, ours: (usize, usize), now: Timestamp) {
        let records = match news {
            News::Records(records) => records,
            News::Snapshot { writes, cause } => {
                let (services, destinations) = ours;
                tracing::info!(
                    cause = cause.name(),
                    "{writes} writes in one round; {services} services with {destinations} destinations are the agent's now"
                );
                return;
            }
        };
        let (each, others) = self.log.take(records, now);
        for record in each {
            let objects = &record.objects;
            tracing::info!(
                cause = record.cause.name(),
                virtual_service = objects.virtual_service.as_ref().map(field::display),
                real_server = objects.real_server.as_ref().map(field::display),
                "{}",
                record.what()
            );
        }
        if let Some(others) = others {
            tracing::info!("{others} more changes: see `ipvs-agent history`");
        }
    }

    fn locked(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records that `ipvs-agent undo` brought the host to the state of `round`. No
/// agent may run with the state folder.
///
/// # Errors
/// Returns an error if the trail cannot be read or written.
pub fn record_undo(folder: &Path, round: Round) -> io::Result<()> {
    let at = round.at;
    let mut book = Book::new(files::read_ours(folder)?);
    let cause = Cause::Undo;
    let undone = match book.hear(round) {
        News::Records(records) => {
            let records = records.into_iter();
            News::Records(records.map(|record| Record { cause, ..record }).collect())
        }
        News::Snapshot { writes, .. } => News::Snapshot { writes, cause },
    };
    let lines = Line::of(undone, at, &book.ours);
    let mut pen = Pen::new(folder, Arc::new(Mutex::new(book)));
    pen.files.resume()?;
    pen.write(at, &lines)
}
