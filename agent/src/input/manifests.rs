//! Reads objects from a folder of YAML files, like a kubelet's static pods.
//! With a folder of manifests, a director works without a Kubernetes API.

mod check;
mod file;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use crds::{
    Change, Kind, Loose, ObjectKey,
    api::{DirectorGroup, DirectorGroupSpec},
};
use kube::{Resource, core::object::HasSpec};

pub use self::check::{Checked, Mistake, check};
use self::file::{Document, Object, identify, parse};
use super::Input;
use crate::{
    disk::checkpoint::Note,
    event::{
        Event,
        origin::{Folder, Source},
    },
    said::Said,
};

/// The interval at which the folder of manifests is read. The agent finds
/// changes by comparing the files' content, because a mounted folder may send
/// no notifications.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the folder's content must stay the same before a change is used.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// Watches the folder of manifests until the loop ends. Sends the folder's
/// objects when the objects change. `me` is the only director of `group`.
pub fn watch(folder: &Path, me: &str, group: &str, input: Input) {
    let Input {
        events,
        recorder,
        files,
        folder: known,
    } = input;
    let mut manifests = Manifests::new(group, files, known);
    let mut said = Said::default();
    let mut told = Vec::new();
    let first = [
        Event::Directors(BTreeSet::from([me.to_owned()])),
        // The agent reads manifests instead of an API server. So the loop must
        // forget the addresses of API servers from the previous run.
        Event::ApiServers(BTreeSet::new()),
        Event::DirectorAddresses(BTreeMap::new()),
    ];
    for event in first {
        if events.send(event).is_err() {
            return;
        }
    }
    loop {
        match quiet_contents(folder, &manifests.seen) {
            Ok(None) => {
                said.clear();
            }
            Ok(Some(contents)) => {
                said.clear();
                let taken = manifests.take(contents);
                for problem in &taken.problems {
                    match problem.severity {
                        Severity::Ignored => tracing::warn!("{problem}"),
                        Severity::NotUsed | Severity::KeptOld => tracing::error!("{problem}"),
                    }
                }
                for note in taken.notes {
                    recorder.note(note);
                }
                if taken.changed && manifests.send(&events).is_err() {
                    return;
                }
                let problems = manifests.problems();
                if problems != told {
                    told.clone_from(&problems);
                    if events.send(Event::ManifestProblems(problems)).is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let message = format!(
                    "cannot read the manifests in {}: {error}. Trying again; what was read before stays in force",
                    folder.display()
                );
                said.error([message]);
            }
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Reads the folder of manifests, or returns `None` while the folder's contents
/// are still changing. Otherwise, a file that is only partly written could look
/// as if its objects had been removed.
fn quiet_contents(folder: &Path, seen: &Contents) -> io::Result<Option<Contents>> {
    let contents = read(folder)?;
    if contents == *seen {
        return Ok(Some(contents));
    }
    thread::sleep(SETTLE_TIME);
    Ok((read(folder)? == contents).then_some(contents))
}

/// Maps each file's path to its text, or to the reason why the file cannot be
/// read.
type Files = BTreeMap<PathBuf, Result<String, String>>;

/// A manifest folder as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    /// The folder's device and inode numbers, and whether the folder is empty.
    /// `None` before the first reading.
    folder: Option<Folder>,
    files: Files,
}

fn read(folder: &Path) -> io::Result<Contents> {
    let metadata = fs::metadata(folder)?;
    let mut files = Files::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !yaml || hidden || path.is_dir() {
            continue;
        }
        match fs::read_to_string(&path) {
            // The file was removed after the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => {
                files.insert(path, text.map_err(|error| error.to_string()));
            }
        }
    }
    let folder = Folder {
        device: metadata.dev(),
        inode: metadata.ino(),
        is_empty: files.is_empty(),
    };
    Ok(Contents {
        folder: Some(folder),
        files,
    })
}

/// A mistake in a manifest file, which becomes one line of the log.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Problem {
    file: PathBuf,
    line: u64,
    reason: String,
    severity: Severity,
}

/// The consequence of a problem in a manifest file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Severity {
    /// The object in the file is used without its unknown field.
    Ignored,
    /// The object in the file is not used at all.
    NotUsed,
    /// The new content of the file is not used, and the file's last good
    /// version stays in force.
    KeptOld,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.file.display(), self.line);
        write!(f, "{file}:{line}: {}", self.reason)?;
        f.write_str(match self.severity {
            Severity::Ignored => ". Ignored",
            Severity::NotUsed => ". The object is not used",
            Severity::KeptOld => ". The file's last good version stays in force",
        })
    }
}

/// The objects of the manifest folder, by file.
struct Manifests {
    group: String,
    /// The folder's contents at the last reading, including files with
    /// mistakes.
    seen: Contents,
    /// The folder of manifests that an earlier reading found, if any.
    known: Option<Folder>,
    /// True if the manifest of the director's own group has been missing since
    /// the folder was empty or replaced. The agent then does not treat the
    /// group as deleted, and the group keeps its last spec.
    is_group_missing: bool,
    /// The objects in force, by the file that contains them.
    in_force: BTreeMap<PathBuf, Vec<Document>>,
    /// The problems of each file, as last read.
    problems: BTreeMap<PathBuf, Vec<Problem>>,
    /// The last reading's problems with objects that appear more than once.
    repeated: BTreeSet<Problem>,
    /// The last good text of each file, possibly from the previous run.
    last_good: BTreeMap<PathBuf, String>,
    /// Whether the objects were sent to the loop at least once.
    begun: bool,
}

/// The error that says that the loop has ended and receives no events.
#[derive(Debug)]
struct NobodyListens;

#[derive(Debug, Default)]
struct Taken {
    changed: bool,
    problems: Vec<Problem>,
    /// The changed manifest files, to be recorded in the checkpoint.
    notes: Vec<Note>,
}

impl Manifests {
    /// Returns the state before the first reading of the folder. `last_good`
    /// has the files' texts from the previous run, and `known` is the folder
    /// that the previous run read.
    fn new(group: &str, last_good: BTreeMap<PathBuf, String>, known: Option<Folder>) -> Self {
        Self {
            group: group.to_owned(),
            last_good,
            seen: Contents::default(),
            known,
            is_group_missing: false,
            in_force: BTreeMap::new(),
            problems: BTreeMap::new(),
            repeated: BTreeSet::new(),
            begun: false,
        }
    }

    /// Replaces the objects in force with the objects of the folder's current
    /// files. A file with a mistake keeps its last good version. If a file
    /// never had a good version, the agent uses its valid objects, and leaves
    /// out its other objects.
    ///
    /// The loop decides whether the objects of deleted files may be removed
    /// ([`crate::decide::absence`]). If the folder is empty or was replaced,
    /// the last good texts are kept.
    fn take(&mut self, contents: Contents) -> Taken {
        let Contents { folder, files } = &contents;
        let mut taken = Taken {
            changed: !std::mem::replace(&mut self.begun, true),
            ..Taken::default()
        };
        let is_doubtful = files.is_empty() || is_another(&self.known, folder);
        taken.changed |= is_another(&self.known, folder);
        self.known = *folder;
        let had_group = self.has_group();
        let before = self.in_force.clone();
        self.in_force.retain(|path, _| files.contains_key(path));
        self.problems.retain(|path, _| files.contains_key(path));
        if !is_doubtful {
            self.last_good.retain(|path, _| {
                let is_there = files.contains_key(path);
                if !is_there {
                    taken.notes.push(Note::File(path.clone(), None));
                }
                is_there
            });
        }
        for (path, text) in files {
            if self.seen.files.get(path) == Some(text) {
                continue;
            }
            let (documents, mut problems) = match text {
                Ok(text) => parse(path, text),
                Err(why) => (Vec::new(), vec![unreadable(path, why)]),
            };
            let mut bad: Vec<_> = problems
                .iter_mut()
                .filter(|problem| problem.severity == Severity::NotUsed)
                .collect();
            if bad.is_empty()
                && let Ok(text) = text
            {
                self.last_good.insert(path.clone(), text.clone());
                taken
                    .notes
                    .push(Note::File(path.clone(), Some(text.clone())));
            } else if let (false, Some(good)) =
                (self.in_force.contains_key(path), self.last_good.get(path))
            {
                self.in_force.insert(path.clone(), parse(path, good).0);
            }
            if !bad.is_empty() && self.in_force.contains_key(path) {
                for problem in &mut bad {
                    problem.severity = Severity::KeptOld;
                }
            } else {
                self.in_force.insert(path.clone(), documents);
            }
            taken.problems.extend(problems.iter().cloned());
            self.problems.insert(path.clone(), problems);
        }
        let has_group = self.in_force.values().flatten().any(|of| self.is_group(of));
        self.is_group_missing = !has_group && had_group && (is_doubtful || self.is_group_missing);
        self.seen = contents;
        let repeated = self.effective().1;
        taken
            .problems
            .extend(repeated.difference(&self.repeated).cloned());
        self.repeated = repeated;
        taken.changed |= self.in_force != before;
        taken
    }

    /// Returns all mistakes in the folder's files, as one sentence each.
    fn problems(&self) -> Vec<String> {
        let of_files = self.problems.values().flatten();
        let all = of_files.chain(&self.repeated);
        all.map(Problem::to_string).collect()
    }

    /// Whether the director's own group exists. Before the first reading, the
    /// group exists if the previous run had a good manifest of the group. While
    /// `is_group_missing` is true, the group exists without a manifest.
    fn has_group(&self) -> bool {
        let in_force = || self.in_force.values().flatten().any(|of| self.is_group(of));
        // Before the first reading, only the texts of the previous run are known.
        let before = || {
            let parsed = self.last_good.iter();
            let mut parsed = parsed.flat_map(|(path, text)| parse(path, text).0);
            self.seen.folder.is_none() && parsed.any(|of| self.is_group(&of))
        };
        self.is_group_missing || in_force() || before()
    }

    fn is_group(&self, document: &Document) -> bool {
        match &document.object {
            Object::DirectorGroup(group) => {
                ObjectKey::of(group.as_ref()) == ObjectKey::cluster(self.group.as_str())
            }
            Object::VirtualService(_) | Object::RealServer(_) => false,
        }
    }

    /// Returns the objects that are used, and a problem for each repeated
    /// object. If an object appears in several files, the first file by name
    /// counts.
    fn effective(&self) -> (Vec<&Object>, BTreeSet<Problem>) {
        let mut places = BTreeMap::new();
        let mut objects = Vec::new();
        let mut repeated = BTreeSet::new();
        let all = self
            .in_force
            .iter()
            .flat_map(|(path, documents)| documents.iter().map(move |document| (path, document)));
        for (file, Document { line, object }) in all {
            match places.entry(object.to_string()) {
                Entry::Vacant(free) => {
                    free.insert((file, *line));
                    objects.push(object);
                }
                Entry::Occupied(first) => {
                    let (first_file, first_line) = *first.get();
                    repeated.insert(Problem {
                        file: file.clone(),
                        line: *line,
                        reason: format!(
                            "{object} is already in {}:{first_line}; remove one of the two",
                            first_file.display()
                        ),
                        severity: Severity::NotUsed,
                    });
                }
            }
        }
        (objects, repeated)
    }

    /// Sends all objects in force in three listings: VirtualServices,
    /// RealServers and DirectorGroups. A group without a manifest is sent with
    /// the default settings.
    fn send(&self, events: &Sender<Event>) -> Result<(), NobodyListens> {
        let (mut services, mut servers) = (Vec::new(), Vec::new());
        let mut groups = BTreeMap::new();
        if !self.is_group_missing {
            let mut implied = DirectorGroup::new(&self.group, DirectorGroupSpec::default());
            identify(&mut implied);
            groups.insert(self.group.clone(), implied);
        }
        for object in self.effective().0 {
            match object {
                Object::VirtualService(service) => services.push((**service).clone()),
                Object::RealServer(server) => servers.push((**server).clone()),
                Object::DirectorGroup(group) => {
                    let name = group.metadata.name.clone().unwrap_or_default();
                    groups.insert(name, (**group).clone());
                }
            }
        }
        let groups = groups.into_values().collect();
        let begin = |kind| {
            let source = self.seen.folder.map(Source::Folder);
            let begun = source.map(|source| Event::Listing(kind, source));
            begun.map_or(Ok(()), |event| {
                events.send(event).map_err(|_| NobodyListens)
            })
        };
        begin(Kind::VirtualService)?;
        list(events, services, Event::VirtualService)?;
        begin(Kind::RealServer)?;
        list(events, servers, Event::RealServer)?;
        begin(Kind::DirectorGroup)?;
        list(events, groups, Event::DirectorGroup)
    }
}

/// Whether `known` and `found` are different folders. False if either is
/// `None`.
fn is_another(known: &Option<Folder>, found: &Option<Folder>) -> bool {
    matches!((known, found), (Some(known), Some(found)) if !known.is_same(found))
}

fn unreadable(file: &Path, why: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 1,
        reason: format!("the file cannot be read: {why}"),
        severity: Severity::NotUsed,
    }
}

fn list<K>(
    events: &Sender<Event>,
    objects: Vec<K>,
    event: impl Fn(Change<K>) -> Event,
) -> Result<(), NobodyListens>
where
    K: HasSpec<Spec: fmt::Debug + Clone> + Resource,
{
    let send = |change| events.send(event(change)).map_err(|_| NobodyListens);
    send(Change::Listing)?;
    for object in objects {
        send(Change::Item(Loose::from_file(&object)))?;
    }
    send(Change::Listed)
}

#[cfg(test)]
mod tests;
