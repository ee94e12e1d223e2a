//! Checks a folder of manifests without using it: `ipvs-agent check`.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::mpsc,
};

use crds::{Kind, ObjectKey, Objects};
use serde::Serialize;

use super::{Contents, Document, Manifests, Object, read};
use crate::event::Event;

/// A mistake in a manifest, with its place and what to do about it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Mistake {
    /// The file's path.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong. The message begins with the field, if there is one.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// The result of a check.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Checked {
    /// The number of objects without a mistake of their own.
    pub objects: usize,
    /// All mistakes, by file and line.
    pub mistakes: Vec<Mistake>,
}

/// Reads the manifests in a folder as an agent of `group` would, and returns
/// every mistake. A field that the agent would ignore, because it does not know
/// it, is a mistake too.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn check(folder: &Path, group: &str) -> io::Result<Checked> {
    Ok(check_contents(read(folder)?, group))
}

fn check_contents(contents: Contents, group: &str) -> Checked {
    let mut manifests = Manifests::new(group, BTreeMap::new(), None);
    let taken = manifests.take(contents);
    let of_files = taken.problems.into_iter().map(|problem| Mistake {
        file: problem.file,
        line: problem.line,
        message: problem.reason,
    });
    let mut mistakes: Vec<_> = of_files.chain(against_each_other(&manifests)).collect();
    mistakes.sort();
    Checked {
        objects: manifests.effective().0.len(),
        mistakes,
    }
}

/// Returns the mistakes of objects that do not fit each other.
fn against_each_other(manifests: &Manifests) -> Vec<Mistake> {
    let (objects, places) = (objects(manifests), places(manifests));
    let resolved = crds::resolve(&objects);
    let rejected = resolved.rejected.iter();
    let rejected = rejected.map(|((kind, key), why)| ((*kind, key), why.message.clone()));
    let refused = resolved.refused.iter();
    let refused = refused.map(|((service, server), why)| {
        let message = format!("VirtualService {service} cannot use it: {}", why.message);
        ((Kind::RealServer, server), message)
    });
    let found = rejected
        .chain(refused)
        .filter_map(|((kind, key), message)| {
            let (file, line) = places.get(&(kind, key.clone()))?;
            Some(Mistake {
                file: file.clone(),
                line: *line,
                message: format!("{kind} {key}: {message}"),
            })
        });
    found.collect()
}

/// Returns the objects that the agent's loop would receive.
fn objects(manifests: &Manifests) -> Objects {
    let (events, heard) = mpsc::channel();
    manifests.send(&events).expect("this function listens");
    drop(events);
    let mut objects = Objects::default();
    for event in heard {
        match event {
            Event::VirtualService(change) => objects.virtual_services.change(change),
            Event::RealServer(change) => objects.real_servers.change(change),
            Event::DirectorGroup(change) => objects.director_groups.change(change),
            _ => false,
        };
    }
    objects
}

/// Returns the file and line of each object.
fn places(manifests: &Manifests) -> BTreeMap<(Kind, ObjectKey), (PathBuf, u64)> {
    let files = manifests.in_force.iter();
    let all = files.flat_map(|(file, documents)| documents.iter().map(move |of| (file, of)));
    let mut places = BTreeMap::new();
    for (file, Document { line, object }) in all {
        let key = match object {
            Object::VirtualService(of) => (Kind::VirtualService, ObjectKey::of(of.as_ref())),
            Object::RealServer(of) => (Kind::RealServer, ObjectKey::of(of.as_ref())),
            Object::DirectorGroup(of) => (Kind::DirectorGroup, ObjectKey::of(of.as_ref())),
        };
        places.entry(key).or_insert_with(|| (file.clone(), *line));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: web}
spec:
  vip: {address: 192.0.2.10, port: 80}
  forwarding: {method: DR}
  realServerSelector: {matchLabels: {app: web}}
";
    const SERVER: &str = "apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: a, labels: {app: web}}
spec: {address: 198.51.100.1}
";

    fn said(files: &[(&str, String)]) -> (usize, Vec<String>) {
        let files = files
            .iter()
            .map(|(name, text)| (PathBuf::from(name), Ok(text.clone())));
        let contents = Contents {
            folder: None,
            files: files.collect(),
        };
        let checked = check_contents(contents, "default");
        let mistakes = checked.mistakes.iter().map(ToString::to_string);
        (checked.objects, mistakes.collect())
    }

    #[test]
    fn good_manifests_have_no_mistakes() {
        let files = [("web.yaml", format!("{WEB}---\n{SERVER}"))];
        assert_eq!(said(&files), (2, vec![]));
    }

    #[test]
    fn a_mistake_is_told_with_file_and_line_and_so_is_a_misspelt_field() {
        let bad = SERVER.replace("198.51.100.1", "198.51.100.1, wieght: 3");
        let (objects, mistakes) = said(&[
            ("a.yaml", bad),
            ("b.yaml", WEB.replace("port: 80", "port: 80000")),
        ]);
        assert_eq!(objects, 1, "the object with the misspelt field is read");
        let [misspelt, port] = &*mistakes else {
            panic!("two mistakes: {mistakes:?}");
        };
        assert!(
            misspelt.starts_with("a.yaml:4: spec.wieght: no such field"),
            "{misspelt}"
        );
        assert!(port.starts_with("b.yaml:5: spec.vip.port"), "{port}");
    }

    #[test]
    fn objects_that_do_not_fit_each_other_are_mistakes() {
        let other_port = SERVER.replace("198.51.100.1", "198.51.100.1, port: 8080");
        let rival = WEB.replace("name: web", "name: web2");
        let elsewhere = WEB
            .replace("name: web", "name: far")
            .replace("port: 80", "port: 81")
            .replace("  forwarding", "  directorGroupName: edge\n  forwarding");
        let (_, mistakes) = said(&[
            ("a.yaml", format!("{WEB}---\n{other_port}")),
            ("b.yaml", rival),
            ("c.yaml", elsewhere),
        ]);
        for words in [
            "a.yaml:9: RealServer default/a: VirtualService default/web cannot use it",
            "b.yaml:1: VirtualService default/web2: ",
            "c.yaml:1: VirtualService default/far: ",
        ] {
            assert!(
                mistakes.iter().any(|mistake| mistake.starts_with(words)),
                "{words}: {mistakes:#?}"
            );
        }
    }
}
