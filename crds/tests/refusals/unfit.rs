//! Tests objects that admission accepts, but that [`resolve`] refuses because
//! they do not fit each other.

use std::{fs, path::Path};

use crds::{Change, Kind, ObjectKey, Objects, Rejection, Resolved, condition, resolve};
use serde_json::Value;

use crate::schema::Admission;

/// An expectation from a line `# expect: VirtualService NAME TYPE REASON TEXT |
/// TEXT`. The service's condition TYPE must be False with the reason REASON,
/// and its message must contain each TEXT.
struct Expected<'a> {
    service: ObjectKey,
    kind: &'a str,
    reason: &'a str,
    texts: Vec<&'a str>,
}

impl<'a> Expected<'a> {
    fn read(line: &'a str) -> Self {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().expect("five words");
        assert_eq!(word(), "VirtualService");
        Self {
            service: ObjectKey::new("default", word()),
            kind: word(),
            reason: word(),
            texts: word().split(" | ").collect(),
        }
    }
}

#[test]
fn every_unfit_object_is_admitted_and_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unfit");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display();
        let text = fs::read_to_string(&path).unwrap();
        let resolved = resolve(&admitted(&serde_saphyr::from_multiple(&text).unwrap()));
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect: "))
        {
            let expected = Expected::read(line);
            let (reason, message) = finding(&resolved, &expected.service, expected.kind);
            assert_eq!(reason, expected.reason, "{name}");
            for text in expected.texts {
                assert!(message.contains(text), "{name}: {message}");
            }
        }
        files += 1;
    }
    assert_eq!(files, 14);
}

fn admitted(documents: &[Value]) -> Objects {
    let mut objects = Objects::default();
    for (second, document) in documents.iter().enumerate() {
        let kind = document["kind"].as_str().unwrap();
        assert_eq!(Admission::of(kind).refusals(document, None), [""; 0]);
        let mut object = document.clone();
        object["metadata"]["uid"] = format!("{second}").into();
        object["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{second:02}Z").into();
        match kind {
            "VirtualService" => objects
                .virtual_services
                .change(Change::Apply(serde_json::from_value(object).unwrap())),
            "RealServer" => objects
                .real_servers
                .change(Change::Apply(serde_json::from_value(object).unwrap())),
            _ => objects
                .director_groups
                .change(Change::Apply(serde_json::from_value(object).unwrap())),
        };
    }
    objects
}

/// Returns the reason and message of the first problem: the service is not
/// accepted, it refuses a server, or it has no server.
fn finding(resolved: &Resolved, service: &ObjectKey, kind: &str) -> (&'static str, String) {
    let said = |rejection: &Rejection| (rejection.reason, rejection.message.clone());
    if kind == condition::kind::ACCEPTED {
        let rejection = resolved.rejection(Kind::VirtualService, service);
        return said(rejection.expect("the service is not accepted"));
    }
    assert_eq!(kind, condition::kind::RESOLVED_REFS);
    assert_eq!(resolved.rejection(Kind::VirtualService, service), None);
    if let Some((_, rejection)) = resolved.refused_by(service).next() {
        return said(rejection);
    }
    assert_eq!(resolved.services[service].servers, []);
    let condition = condition::no_real_servers(&service.namespace, 1);
    (condition::reason::NO_REAL_SERVERS, condition.message)
}
