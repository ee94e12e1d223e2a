use super::*;

const SERVICE: &str = "\
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: web}
spec:
  vip: {address: 192.0.2.1, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: web}}
";
const SERVER: &str = "\
# A web server.
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: web1, labels: {app: web}}
spec: {address: 198.51.100.1}
";

fn files(files: &[(&str, &str)]) -> Files {
    files
        .iter()
        .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()))
        .collect()
}

fn names(manifests: &Manifests) -> Vec<String> {
    let mut names: Vec<_> = manifests
        .in_force
        .values()
        .flatten()
        .map(|document| match document {
            Document::VirtualService(object) => ObjectKey::of(object.as_ref()).to_string(),
            Document::RealServer(object) => ObjectKey::of(object.as_ref()).to_string(),
            Document::DirectorGroup(object) => ObjectKey::of(object.as_ref()).to_string(),
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_may_hold_several_objects_and_those_of_others() {
    let text = format!("{SERVICE}---\n{SERVER}---\napiVersion: v1\nkind: Namespace\n---\n# end\n");
    let mut manifests = Manifests::new("default");
    let taken = manifests.take(files(&[("a.yaml", &text)]));
    assert_eq!(taken.problems, [], "nothing is wrong with this file");
    assert_eq!(names(&manifests), ["default/web", "default/web1"]);
}

#[test]
fn a_mistake_is_told_with_file_and_line_and_the_last_good_version_stays() {
    let good = format!("{SERVICE}---\n{SERVER}");
    let mut manifests = Manifests::new("default");
    manifests.take(files(&[("a.yaml", &good)]));
    for (bad, line, reason) in [
        (good.replace("port: 80", "port: eighty"), 5, "port"),
        (good.replace("port: 80", "port: 70000"), 1, "spec.vip.port"),
        (
            good.replace("method: NAT", "method: TELEPORT"),
            6,
            "TELEPORT",
        ),
        (
            good.replace("{name: web1,", "{nome: web1,"),
            10,
            "metadata.name",
        ),
        (
            good.replace("v1alpha1\nkind: Real", "v7\nkind: Real"),
            10,
            "v7",
        ),
    ] {
        let taken = manifests.take(files(&[("a.yaml", &bad)]));
        let [problem] = taken.problems.as_slice() else {
            panic!("one problem was expected: {:?}", taken.problems);
        };
        assert_eq!(problem.line, line, "the line of: {problem}");
        assert!(problem.reason.contains(reason), "{reason} in: {problem}");
        assert!(problem.to_string().starts_with("a.yaml:"), "{problem}");
        assert!(!taken.changed, "the last good version stays: {problem}");
        assert_eq!(names(&manifests), ["default/web", "default/web1"]);
    }
}

#[test]
fn a_bad_file_holds_up_no_other_and_its_own_good_objects_are_used() {
    let mixed = format!(
        "{SERVER}---\napiVersion: ipvs.dev/v1alpha1\nkind: Unicorn\nmetadata: {{name: u}}\n"
    );
    let mut manifests = Manifests::new("default");
    let taken = manifests.take(files(&[("bad.yaml", &mixed), ("good.yaml", SERVICE)]));
    assert_eq!(taken.problems.len(), 1);
    assert_eq!(names(&manifests), ["default/web", "default/web1"]);
}

#[test]
fn an_unchanged_folder_is_not_sent_again_and_a_removed_file_is() {
    let mut manifests = Manifests::new("default");
    let both = files(&[("a.yaml", SERVICE), ("b.yaml", SERVER)]);
    assert!(manifests.take(both.clone()).changed, "the first look");
    assert!(!manifests.take(both).changed, "nothing is different");
    assert!(
        manifests.take(files(&[("a.yaml", SERVICE)])).changed,
        "b is gone"
    );
    assert_eq!(names(&manifests), ["default/web"]);
}

#[test]
fn the_directors_group_is_implied() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut manifests = Manifests::new("edge");
    manifests.take(Files::new());
    manifests.send(&sender).unwrap();
    drop(sender);
    let groups: Vec<_> = receiver
        .into_iter()
        .filter_map(|event| match event {
            Event::DirectorGroup(Change::Item(group)) => group.metadata.name,
            _ => None,
        })
        .collect();
    assert_eq!(groups, ["edge"]);
}
