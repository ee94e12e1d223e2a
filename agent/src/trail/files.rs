//! The files of the trail in the state folder: `history.jsonl`, and older files
//! `history.1.jsonl` to `history.4.jsonl`. Each line is one JSON document. Each
//! file begins with a snapshot of what was ours, so each file can be read alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    book::News,
    ours::Ours,
    record::{Cause, Record},
};
use crate::disk::{FILE_MODE, HISTORY};

/// A file gets no more lines when it has this many bytes after its first
/// snapshot, or [`PART`] of a small disk.
const FULL_BYTES: u64 = 4 << 20;
/// The part of the disk that the lines of one file may use. The journal on the
/// same disk is more important than the trail.
const PART: u64 = 64;
/// The number of files, with the current one.
const FILES: usize = 5;
/// The bytes of a line that are in memory while it is written. A snapshot may
/// have tens of megabytes.
const BUFFER: usize = 64 << 10;

/// One line of a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// An agent started. Everything before this line is of earlier runs.
    Start {
        /// When the agent started.
        at: Timestamp,
        /// The version of the agent.
        version: String,
    },
    /// One change of an entry, an address or a sysctl.
    Record(Box<Record>),
    /// Everything that was ours at one time.
    Snapshot {
        /// When this was ours.
        at: Timestamp,
        /// Why the snapshot was made, if it is not only the beginning of a
        /// file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<ManyChanges>,
        /// Everything that was ours, in place of all lines before.
        ours: Arc<Ours>,
    },
}

impl Line {
    /// Returns the lines for what a round added to the trail. `ours` is what was
    /// ours afterwards.
    pub fn of(news: News, at: Timestamp, ours: &Arc<Ours>) -> Vec<Self> {
        match news {
            News::Records(records) => records.into_iter().map(Self::record).collect(),
            News::Snapshot { writes, cause } => vec![Self::Snapshot {
                at,
                change: Some(ManyChanges { writes, cause }),
                ours: ours.clone(),
            }],
        }
    }

    /// Returns the line for a record.
    pub fn record(record: Record) -> Self {
        Self::Record(Box::new(record))
    }

    /// Returns the time of the line.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Start { at, .. } | Self::Snapshot { at, .. } => *at,
            Self::Record(record) => record.at,
        }
    }
}

/// A round with too many differences for one record each.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManyChanges {
    /// The number of writes.
    pub writes: usize,
    /// The cause of most differences.
    pub cause: Cause,
}

/// The files, open for writing.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    file: Option<File>,
    /// The size of the current file.
    size: u64,
    /// The size of the current file's first snapshot.
    first: u64,
    /// The limit for the bytes after the first snapshot.
    room: u64,
    /// The largest value of `room`.
    pub(super) most: u64,
}

impl Files {
    /// Returns the files in a folder. None of them is open yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file: None,
            size: 0,
            first: 0,
            room: 0,
            most: FULL_BYTES,
        }
    }

    /// Continues the current file, if it exists and can be used.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub fn resume(&mut self) -> io::Result<()> {
        let path = path(&self.folder, 0);
        let mut options = OpenOptions::new();
        let mut file = match options.append(true).read(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let mut first = Vec::new();
        BufReader::new(File::open(&path)?).read_until(b'\n', &mut first)?;
        if !is_snapshot(&first) {
            return Ok(());
        }
        // A run that was killed may have left a part of a line.
        file.write_all(b"\n")?;
        self.room = self.room();
        self.first = first.len() as u64;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Whether a file is open.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Whether the current file should get no more lines.
    pub fn is_full(&self) -> bool {
        self.size > self.first + self.room
    }

    /// Appends lines to the current file.
    ///
    /// # Errors
    /// Returns an error if no file is open, or if the disk does not accept the
    /// lines. The file is then closed, because it may lack a part.
    pub fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let Some(file) = self.file.take() else {
            return Err(io::Error::other("no file is open"));
        };
        write(&file, lines)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new file with a snapshot, and removes the oldest file.
    ///
    /// # Errors
    /// Returns an error if the disk does not accept the file. The older files
    /// then stay as they are.
    pub fn begin(&mut self, at: Timestamp, ours: &Arc<Ours>) -> io::Result<()> {
        self.file = None;
        self.room = self.room();
        let new = self.folder.join(format!("{HISTORY}.new.jsonl"));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        let file = options.mode(FILE_MODE).open(&new)?;
        let snapshot = Line::Snapshot {
            at,
            change: None,
            ours: ours.clone(),
        };
        if let Err(error) = write(&file, &[snapshot]) {
            // On a full disk, the incomplete file takes room from the journal.
            fs::remove_file(&new).unwrap_or_default();
            return Err(error);
        }
        for number in (0..FILES - 1).rev() {
            match fs::rename(path(&self.folder, number), path(&self.folder, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let current = path(&self.folder, 0);
        fs::rename(&new, &current)?;
        let file = OpenOptions::new().append(true).open(&current)?;
        self.size = file.metadata()?.len();
        self.first = self.size;
        self.file = Some(file);
        Ok(())
    }

    /// Returns the limit for the bytes of one file.
    fn room(&self) -> u64 {
        let disk = nix::sys::statvfs::statvfs(&self.folder);
        let size = disk.map(|disk| disk.blocks() * disk.fragment_size());
        size.map_or(self.most, |size| self.most.min(size / PART))
    }
}

fn write(file: &File, lines: &[Line]) -> io::Result<()> {
    let mut buffer = BufWriter::with_capacity(BUFFER, file);
    for line in lines {
        serde_json::to_writer(&mut buffer, line)?;
        buffer.write_all(b"\n")?;
    }
    buffer.flush()
}

fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(match number {
        0 => format!("{HISTORY}.jsonl"),
        number => format!("{HISTORY}.{number}.jsonl"),
    })
}

fn is_snapshot(line: &[u8]) -> bool {
    let line = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(line);
    line.is_ok_and(|line| line.contains_key("snapshot"))
}

/// Reads all lines of the trail, oldest first. Leaves out lines that a run did
/// not finish because it was killed.
///
/// # Errors
/// Returns an error if a file exists but cannot be read.
pub fn read(folder: &Path) -> io::Result<Vec<Line>> {
    // The newest file is opened first. If a new file begins meanwhile, the files
    // get other names, and one of them would be read twice.
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    for number in 0..FILES {
        let Some(file) = open(&path(folder, number))? else {
            continue;
        };
        if known.insert(file.metadata()?.ino()) {
            files.push(file);
        }
    }
    let mut lines = Vec::new();
    for file in files.into_iter().rev() {
        for line in lines_in(file) {
            lines.extend(line?);
        }
    }
    Ok(lines)
}

/// Reads what is ours according to the trail.
///
/// # Errors
/// Returns an error if a file exists but cannot be read.
pub fn read_ours(folder: &Path) -> io::Result<Arc<Ours>> {
    let mut ours = Arc::default();
    for number in 0..FILES {
        let mut is_empty = true;
        for line in open(&path(folder, number))?.into_iter().flat_map(lines_in) {
            if let Some(line) = line? {
                follow(&mut ours, &line);
                is_empty = false;
            }
        }
        if !is_empty {
            break;
        }
    }
    Ok(ours)
}

/// Returns what is ours after `lines`.
pub fn replay<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Arc<Ours> {
    let mut ours = Arc::default();
    for line in lines {
        follow(&mut ours, line);
    }
    ours
}

/// Makes `ours` what is ours after `line`.
fn follow(ours: &mut Arc<Ours>, line: &Line) {
    match line {
        Line::Start { .. } => {}
        Line::Record(record) => Arc::make_mut(ours).apply(record),
        Line::Snapshot { ours: whole, .. } => ours.clone_from(whole),
    }
}

/// Opens a file, if it exists.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Reads the lines of a file. `None` is a line that is not complete.
fn lines_in(file: File) -> impl Iterator<Item = io::Result<Option<Line>>> {
    let lines = BufReader::new(file).split(b'\n');
    lines.map(|line| Ok(serde_json::from_slice(&line?).ok()))
}
