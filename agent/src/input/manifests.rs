//! Objects from a folder of YAML files, as a kubelet's static pods: how a
//! director serves without a Kubernetes API.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    thread,
    time::Duration,
};

use crds::{
    Change, Checked, Loose, ObjectKey,
    api::{DirectorGroup, DirectorGroupSpec, RealServer, VirtualService},
    check::{CheckedGroup, CheckedServer, CheckedService},
};
use kube::{Resource, core::object::HasSpec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::event::Event;

/// How often the folder is looked at. By content, as a folder that is mounted
/// from elsewhere brings no notifications.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const API_VERSION: &str = "ipvs.dev/v1alpha1";

/// Reads the folder and sends what is in it whenever that differs from before,
/// until nobody listens. `me` is the only director that there is, of `group`.
pub fn watch(folder: &Path, me: &str, group: &str, events: &Sender<Event>) {
    let mut manifests = Manifests::new(group);
    let mut said = None;
    if events
        .send(Event::Directors(BTreeSet::from([me.to_owned()])))
        .is_err()
    {
        return;
    }
    loop {
        match read(folder) {
            Ok(files) => {
                said = None;
                let taken = manifests.take(files);
                for problem in &taken.problems {
                    tracing::error!("{problem}");
                }
                if taken.changed && manifests.send(events).is_err() {
                    return;
                }
            }
            Err(error) => {
                let message = format!(
                    "cannot read the manifests in {}: {error}. Trying again; what was read before stays in force",
                    folder.display()
                );
                if said.as_ref() != Some(&message) {
                    tracing::error!("{message}");
                    said = Some(message);
                }
            }
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

type Files = BTreeMap<PathBuf, String>;

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
        if yaml && !hidden && path.is_file() {
            let text = fs::read_to_string(&path)?;
            files.insert(path, text);
        }
    }
    Ok(files)
}

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
enum Document {
    VirtualService(Box<VirtualService>),
    RealServer(Box<RealServer>),
    DirectorGroup(Box<DirectorGroup>),
}

/// What is wrong with a file, for one line of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Problem {
    file: PathBuf,
    line: u64,
    reason: String,
    kept: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.file.display(), self.line);
        write!(f, "{file}:{line}: {}", self.reason)?;
        if self.kept {
            f.write_str(". The file's last good version stays in force")?;
        }
        Ok(())
    }
}

/// The folder's objects, file by file.
struct Manifests {
    group: String,
    /// As last read, good or bad.
    seen: Files,
    /// What is in force of each file.
    in_force: BTreeMap<PathBuf, Vec<Document>>,
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
}

impl Manifests {
    fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            seen: Files::new(),
            in_force: BTreeMap::new(),
            begun: false,
        }
    }

    /// Takes in the folder as it is now. A file with a mistake keeps its last
    /// good version; if it never had one, its good objects are used.
    fn take(&mut self, files: Files) -> Taken {
        let mut taken = Taken {
            changed: !std::mem::replace(&mut self.begun, true),
            ..Taken::default()
        };
        let before = self.in_force.clone();
        self.in_force.retain(|path, _| files.contains_key(path));
        for (path, text) in &files {
            if self.seen.get(path) == Some(text) {
                continue;
            }
            let (documents, mut problems) = parse(path, text);
            let kept = !problems.is_empty() && self.in_force.contains_key(path);
            for problem in &mut problems {
                problem.kept = kept;
            }
            if !kept {
                self.in_force.insert(path.clone(), documents);
            }
            taken.problems.extend(problems);
        }
        self.seen = files;
        taken.changed |= self.in_force != before;
        taken
    }

    /// Sends everything that is in force, as three listings.
    fn send(&self, events: &Sender<Event>) -> Result<(), NobodyListens> {
        let (mut services, mut servers) = (Vec::new(), Vec::new());
        let mut implied = DirectorGroup::new(&self.group, DirectorGroupSpec::default());
        identify(&mut implied);
        let mut groups = BTreeMap::from([(self.group.clone(), implied)]);
        for document in self.in_force.values().flatten() {
            match document {
                Document::VirtualService(service) => services.push((**service).clone()),
                Document::RealServer(server) => servers.push((**server).clone()),
                Document::DirectorGroup(group) => {
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

fn parse(path: &Path, text: &str) -> (Vec<Document>, Vec<Problem>) {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for (line, part) in split(text) {
        let before = "\n".repeat(line);
        match document(&format!("{before}{part}")) {
            Ok(found) => documents.extend(found),
            Err((at, reason)) => problems.push(Problem {
                file: path.to_owned(),
                line: at.unwrap_or_else(|| first_line(line, &part)),
                reason,
                kept: false,
            }),
        }
    }
    (documents, problems)
}

/// The documents of a YAML stream, each with the number of lines before it.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            parts.push((number + 1, String::new()));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|(_, part)| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    parts
}

/// Where a document's text begins, counted from 1.
fn first_line(before: usize, part: &str) -> u64 {
    let blank = part
        .lines()
        .take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        .count();
    u64::try_from(before + blank + 1).unwrap_or(u64::MAX)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Name,
}

#[derive(Default, Deserialize)]
struct Name {
    name: Option<String>,
}

type Wrong = (Option<u64>, String);

/// One document's object; none for kinds that are not ours, such as a
/// Namespace in a file that kubectl uses too.
fn document(text: &str) -> Result<Option<Document>, Wrong> {
    let header: Header = yaml(text)?;
    let (api_version, kind) = (header.api_version, header.kind);
    if !api_version.starts_with("ipvs.dev/") {
        if api_version.is_empty() || kind.is_empty() {
            return Err((None, "apiVersion and kind are missing".to_owned()));
        }
        return Ok(None);
    }
    if api_version != API_VERSION {
        return Err((
            None,
            format!(
                "apiVersion {api_version} is not known to this build: write {API_VERSION}, or upgrade the agent"
            ),
        ));
    }
    if header.metadata.name.is_none_or(|name| name.is_empty()) {
        return Err((None, "metadata.name is missing".to_owned()));
    }
    let document = match kind.as_str() {
        "VirtualService" => {
            Document::VirtualService(Box::new(object::<VirtualService, CheckedService>(text)?))
        }
        "RealServer" => Document::RealServer(Box::new(object::<RealServer, CheckedServer>(text)?)),
        "DirectorGroup" => {
            Document::DirectorGroup(Box::new(object::<DirectorGroup, CheckedGroup>(text)?))
        }
        _ => {
            return Err((
                None,
                format!(
                    "kind {kind} is not known: write VirtualService, RealServer or DirectorGroup"
                ),
            ));
        }
    };
    Ok(Some(document))
}

fn object<K, C>(text: &str) -> Result<K, Wrong>
where
    K: HasSpec<Spec: Serialize> + Resource<DynamicType = ()> + DeserializeOwned + Serialize,
    C: Checked<Object = K>,
{
    let mut object: K = yaml(text)?;
    C::check(object.spec()).map_err(|rejection| (None, rejection.message))?;
    identify(&mut object);
    Ok(object)
}

/// Gives an object of a file what an API server would have given it: a uid
/// from its name, a generation from its content, the namespace `default`.
fn identify<K>(object: &mut K)
where
    K: HasSpec<Spec: Serialize> + Resource<DynamicType = ()>,
{
    let content = serde_json::to_string(object.spec()).expect("specs have string keys alone");
    let cluster_scoped = K::kind(&()) == DirectorGroup::kind(&());
    if !cluster_scoped && object.meta().namespace.is_none() {
        object.meta_mut().namespace = Some("default".to_owned());
    }
    let key = ObjectKey::of(object);
    let metadata = object.meta_mut();
    metadata.uid = Some(format!("{}/{key}", K::kind(&())));
    metadata.generation = Some(hash(&content).cast_signed() & i64::MAX);
    metadata.creation_timestamp = None;
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Wrong> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        let reason = error.without_snippet().to_string();
        (line, reason.lines().collect::<Vec<_>>().join(" "))
    })
}

#[cfg(test)]
mod tests;
