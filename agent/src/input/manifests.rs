//! Objects from a folder of YAML files, as a kubelet's static pods: how a
//! director serves without a Kubernetes API.

mod file;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use crds::{
    Change, Loose,
    api::{DirectorGroup, DirectorGroupSpec},
};
use kube::{Resource, core::object::HasSpec};

use self::file::{Document, Object, identify, parse};
use super::Input;
use crate::{disk::checkpoint::Note, event::Event, said::Said};

/// How often the folder is read. Its content is compared, because a folder that
/// is mounted from elsewhere sends no notifications.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a change must stay as it is before it counts.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// Reads the folder, and sends what is in it whenever that changes, until the
/// loop has ended. `me` is the only director of `group`.
pub fn watch(folder: &Path, me: &str, group: &str, input: Input) {
    let Input {
        events,
        recorder,
        files,
    } = input;
    let mut manifests = Manifests::new(group, files);
    let mut said = Said::default();
    let first = [
        Event::Directors(BTreeSet::from([me.to_owned()])),
        // There is no API server, whatever the previous run used.
        Event::ApiServers(BTreeSet::new()),
        Event::DirectorAddresses(BTreeMap::new()),
    ];
    for event in first {
        if events.send(event).is_err() {
            return;
        }
    }
    loop {
        match quiet_files(folder, &manifests.seen) {
            Ok(None) => {
                said.clear();
            }
            Ok(Some(files)) => {
                said.clear();
                let taken = manifests.take(files);
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

/// The folder's files, once they stay the same for a moment: half of a file
/// that is being written must not look like the removal of the other half.
/// None while it is being written to.
fn quiet_files(folder: &Path, seen: &Files) -> io::Result<Option<Files>> {
    let files = read(folder)?;
    if files == *seen {
        return Ok(Some(files));
    }
    thread::sleep(SETTLE_TIME);
    Ok((read(folder)? == files).then_some(files))
}

/// Each file's text, or why it cannot be read.
type Files = BTreeMap<PathBuf, Result<String, String>>;

fn read(folder: &Path) -> io::Result<Files> {
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
            // Removed a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => {
                files.insert(path, text.map_err(|error| error.to_string()));
            }
        }
    }
    Ok(files)
}

/// What is wrong with a file, for one line of the log.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Problem {
    file: PathBuf,
    line: u64,
    reason: String,
    severity: Severity,
}

/// What happens because of a problem.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Severity {
    /// The object is used, without the part that is wrong.
    Ignored,
    /// The object is not used at all.
    NotUsed,
    /// The file is not used; its last good version stays in force.
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

/// The folder's objects, file by file.
struct Manifests {
    group: String,
    /// The folder as last read, good or bad.
    seen: Files,
    /// The objects in force, by file.
    in_force: BTreeMap<PathBuf, Vec<Document>>,
    /// Objects that are in more than one place, as last logged.
    repeated: BTreeSet<Problem>,
    /// The last good text of each file, even if it is from the previous run.
    last_good: BTreeMap<PathBuf, String>,
    /// Whether anything was ever sent.
    begun: bool,
}

/// The loop has ended.
#[derive(Debug)]
struct NobodyListens;

#[derive(Debug, Default)]
struct Taken {
    changed: bool,
    problems: Vec<Problem>,
    /// What the checkpoint must record.
    notes: Vec<Note>,
}

impl Manifests {
    fn new(group: &str, last_good: BTreeMap<PathBuf, String>) -> Self {
        Self {
            group: group.to_owned(),
            last_good,
            seen: Files::new(),
            in_force: BTreeMap::new(),
            repeated: BTreeSet::new(),
            begun: false,
        }
    }

    /// Reads the folder as it is now. A file with a mistake keeps its last good
    /// version; if it never had one, its good objects are used.
    fn take(&mut self, files: Files) -> Taken {
        let mut taken = Taken {
            changed: !std::mem::replace(&mut self.begun, true),
            ..Taken::default()
        };
        let before = self.in_force.clone();
        self.in_force.retain(|path, _| files.contains_key(path));
        self.last_good.retain(|path, _| {
            let is_there = files.contains_key(path);
            if !is_there {
                taken.notes.push(Note::File(path.clone(), None));
            }
            is_there
        });
        for (path, text) in &files {
            if self.seen.get(path) == Some(text) {
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
            taken.problems.extend(problems);
        }
        self.seen = files;
        let repeated = self.effective().1;
        taken
            .problems
            .extend(repeated.difference(&self.repeated).cloned());
        self.repeated = repeated;
        taken.changed |= self.in_force != before;
        taken
    }

    /// The objects that count, and a problem for each object that does not
    /// count because an earlier file, by name, has it already.
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

    /// Sends everything that is in force, as three listings.
    fn send(&self, events: &Sender<Event>) -> Result<(), NobodyListens> {
        let (mut services, mut servers) = (Vec::new(), Vec::new());
        let mut implied = DirectorGroup::new(&self.group, DirectorGroupSpec::default());
        identify(&mut implied);
        let mut groups = BTreeMap::from([(self.group.clone(), implied)]);
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
        list(events, services, Event::VirtualService)?;
        list(events, servers, Event::RealServer)?;
        list(events, groups.into_values().collect(), Event::DirectorGroup)
    }
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
    Loose<K>: From<K>,
{
    let send = |change| events.send(event(change)).map_err(|_| NobodyListens);
    send(Change::Listing)?;
    for object in objects {
        send(Change::Item(object.into()))?;
    }
    send(Change::Listed)
}

#[cfg(test)]
mod tests;
