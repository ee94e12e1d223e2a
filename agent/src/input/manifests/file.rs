//! Parses the objects of one YAML file.

use std::{
    fmt::{self, Debug},
    path::Path,
};

use crds::{
    Checked, Loose, ObjectKey,
    api::{DirectorGroup, RealServer, VirtualService},
    check::{CheckedGroup, CheckedServer, CheckedService},
};
use kube::{Resource, core::object::HasSpec};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Problem, Severity,
    yaml::{Wrong, Yaml},
};

const API_VERSION: &str = "ipvs.dev/v1alpha1";

/// One object of a manifest file, and the line where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    pub(super) line: u64,
    pub(super) object: Object,
}

/// An object of one of the kinds that manifest files may contain.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    VirtualService(Box<VirtualService>),
    RealServer(Box<RealServer>),
    DirectorGroup(Box<DirectorGroup>),
}

/// Formats the object's kind and name, as in `RealServer default/web1`.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualService(object) => {
                write!(f, "VirtualService {}", ObjectKey::of(object.as_ref()))
            }
            Self::RealServer(object) => {
                write!(f, "RealServer {}", ObjectKey::of(object.as_ref()))
            }
            Self::DirectorGroup(object) => {
                write!(f, "DirectorGroup {}", ObjectKey::of(object.as_ref()))
            }
        }
    }
}

/// Returns the good objects of a file, and the problems with the other objects.
pub(super) fn parse(path: &Path, text: &str) -> (Vec<Document>, Vec<Problem>) {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for (before, part) in split(text) {
        let begin = first_line(before, &part);
        let mut add = |severity, (line, reason): Wrong| {
            problems.push(Problem {
                file: path.to_owned(),
                line: line.unwrap_or(begin),
                reason,
                severity,
            });
        };
        let numbered = format!("{}{part}", "\n".repeat(before));
        match Yaml::read(&numbered).and_then(|yaml| document(&yaml)) {
            Ok(None) => {}
            Ok(Some((object, unknown))) => {
                for warning in unknown {
                    add(Severity::Ignored, warning);
                }
                documents.push(Document {
                    line: begin,
                    object,
                });
            }
            Err(wrong) => add(Severity::NotUsed, wrong),
        }
    }
    (documents, problems)
}

/// Splits a YAML stream into documents. Each document comes with the number of
/// lines before it.
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

/// Returns the line at which a document's text begins, counted from 1.
fn first_line(before: usize, part: &str) -> u64 {
    let blank = part
        .lines()
        .take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        .count();
    u64::try_from(before + blank + 1).unwrap_or(u64::MAX)
}

type Found = (Object, Vec<Wrong>);

/// Reads one document's object, and finds the fields that this build does not
/// know. Returns `None` if the object's kind is from another project. For
/// example, a file for kubectl may also contain a Namespace.
fn document(yaml: &Yaml) -> Result<Option<Found>, Wrong> {
    let at = |path: &str, reason: String| (yaml.line(path), format!("{path}: {reason}"));
    let text = |pointer: &str| {
        let found = yaml.value.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default()
    };
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err(at("apiVersion", "apiVersion or kind is missing".to_owned()));
    }
    if kind == "List" {
        let reason = "kind List is not supported; write its items as separate documents, with --- \
                      between them";
        return Err(at("kind", reason.to_owned()));
    }
    if !api_version.starts_with("ipvs.dev/") {
        return Ok(None);
    }
    if api_version != API_VERSION {
        let reason = format!(
            "{api_version} is not known to this build; write {API_VERSION}, or upgrade the agent"
        );
        return Err(at("apiVersion", reason));
    }
    if text("/metadata/name").is_empty() {
        return Err(at("metadata.name", "is missing".to_owned()));
    }
    let (found, unknown) = match kind {
        "VirtualService" => {
            let (object, unknown) = object::<VirtualService, CheckedService>(yaml)?;
            (Object::VirtualService(Box::new(object)), unknown)
        }
        "RealServer" => {
            let (object, unknown) = object::<RealServer, CheckedServer>(yaml)?;
            (Object::RealServer(Box::new(object)), unknown)
        }
        "DirectorGroup" => {
            let (object, unknown) = object::<DirectorGroup, CheckedGroup>(yaml)?;
            (Object::DirectorGroup(Box::new(object)), unknown)
        }
        _ => {
            let reason =
                format!("{kind} is not known; write VirtualService, RealServer or DirectorGroup");
            return Err(at("kind", reason));
        }
    };
    Ok(Some((found, unknown)))
}

fn object<K, C>(yaml: &Yaml) -> Result<(K, Vec<Wrong>), Wrong>
where
    K: HasSpec<Spec: Serialize + DeserializeOwned + Debug>
        + Resource<DynamicType = ()>
        + DeserializeOwned,
    C: Checked<Object = K>,
{
    // Each `reason` begins with the path of the field that has the mistake.
    let at = |reason: String| {
        let path = reason.split(": ").next().unwrap_or_default();
        (yaml.line(&path.replace('[', ".").replace(']', "")), reason)
    };
    let loose: Loose<K> = serde_json::from_value(yaml.value.clone())
        .map_err(|error| (yaml.line("metadata"), format!("metadata: {error}")))?;
    let spec = loose.spec.map_err(at)?;
    C::check(&spec).map_err(|rejection| at(rejection.message))?;

    let mut unknown = Vec::new();
    let mut object: K = serde_ignored::deserialize(&yaml.value, |path| {
        let path = crds::spelled(&path);
        let reason = format!("{path}: no such field; check how it is spelled");
        unknown.push((yaml.line(&path), reason));
    })
    .map_err(|error| (None, error.to_string()))?;
    unknown.retain(|(_, reason)| reason.starts_with("spec."));
    identify(&mut object);
    Ok((object, unknown))
}

/// Sets the metadata that an API server sets on an object: a uid from the
/// object's name, a generation from the object's content, and the namespace
/// `default`.
pub(super) fn identify<K>(object: &mut K)
where
    K: HasSpec<Spec: Serialize> + Resource<DynamicType = ()>,
{
    let content = serde_json::to_string(object.spec()).expect("specs have only string keys");
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
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
