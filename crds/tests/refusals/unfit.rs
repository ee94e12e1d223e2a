//! What no object shows alone: accepted at admission, and said in conditions.

use std::{fs, path::Path};

use crds::{Change, Kind, ObjectKey, Objects, condition, resolve};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use crate::schema::Admission;

/// A line `# expect: VirtualService NAME TYPE REASON TEXT | TEXT`: the
/// condition of that type is False, and its message holds the texts.
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
        let objects = admitted(&serde_saphyr::from_multiple(&text).unwrap());
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect: "))
        {
            let expected = Expected::read(line);
            let condition = explained(&objects, &expected.service, expected.kind);
            assert_eq!(condition.status, "False", "{name}");
            assert_eq!(condition.reason, expected.reason, "{name}");
            for text in expected.texts {
                assert!(
                    condition.message.contains(text),
                    "{name}: {}",
                    condition.message
                );
            }
        }
        files += 1;
    }
    assert_eq!(files, 9);
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

fn explained(objects: &Objects, service: &ObjectKey, kind: &str) -> Condition {
    let resolved = resolve(objects);
    if kind == condition::kind::ACCEPTED {
        return match resolved.rejection(Kind::VirtualService, service) {
            Some(rejection) => condition::not_accepted(rejection, 1),
            None => condition::accepted(1),
        };
    }
    let servers = resolved.services[service].servers.len();
    if resolved.refused_by(service).next().is_some() {
        condition::refused_refs(resolved.refused_by(service), 1)
    } else if servers == 0 {
        condition::no_real_servers(&service.namespace, 1)
    } else {
        condition::resolved_refs(servers, 1)
    }
}
