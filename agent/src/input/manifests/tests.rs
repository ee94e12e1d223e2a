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

/// Returns the contents of a folder with the given files. The folder has the
/// same inode number in each call.
fn files(files: &[(&str, &str)]) -> Contents {
    folder(1, files)
}

/// Returns the contents of the folder with the given inode number.
fn folder(inode: u64, files: &[(&str, &str)]) -> Contents {
    let files: Files = files
        .iter()
        .map(|(name, text)| (PathBuf::from(name), Ok((*text).to_owned())))
        .collect();
    let folder = Folder {
        device: 1,
        inode,
        is_empty: files.is_empty(),
    };
    Contents {
        folder: Some(folder),
        files,
    }
}

fn names(manifests: &Manifests) -> Vec<String> {
    let mut names: Vec<_> = manifests
        .in_force
        .values()
        .flatten()
        .map(|document| document.object.to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_may_hold_several_objects_and_those_of_others() {
    let text = format!("{SERVICE}---\n{SERVER}---\napiVersion: v1\nkind: Namespace\n---\n# end\n");
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let taken = manifests.take(files(&[("a.yaml", &text)]));
    assert_eq!(taken.problems, [], "nothing is wrong with this file");
    assert_eq!(
        names(&manifests),
        ["RealServer default/web1", "VirtualService default/web"]
    );
}

#[test]
fn a_mistake_is_reported_with_file_and_line_and_the_last_good_version_stays() {
    let good = format!("{SERVICE}---\n{SERVER}");
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    manifests.take(files(&[("a.yaml", &good)]));
    for (bad, line, reason) in [
        (
            good.replace("port: 80", "port: eighty"),
            5,
            "spec.vip.port: invalid type: string \"eighty\"",
        ),
        (good.replace("port: 80", "port: 70000"), 5, "spec.vip.port"),
        (
            good.replace("method: NAT", "method: TELEPORT"),
            6,
            "spec.forwarding.method: unknown variant `TELEPORT`",
        ),
        (
            good.replace("{name: web1,", "{nome: web1,"),
            12,
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
        assert_eq!(
            names(&manifests),
            ["RealServer default/web1", "VirtualService default/web"]
        );
    }
}

#[test]
fn the_last_good_version_stays_also_over_a_restart() {
    let good = format!("{SERVICE}---\n{SERVER}");
    let mut first = Manifests::new("default", BTreeMap::new(), None);
    let notes = first.take(files(&[("a.yaml", &good)])).notes;
    let [Note::File(path, Some(text))] = notes.as_slice() else {
        panic!("the good text must be noted: {notes:?}");
    };

    let saved = BTreeMap::from([(path.clone(), text.clone())]);
    let mut second = Manifests::new("default", saved.clone(), None);
    let bad = good.replace("port: 80", "port: 70000");
    let taken = second.take(files(&[("a.yaml", &bad)]));
    let problems: Vec<_> = taken.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("last good version stays"),
        "{problems:?}"
    );
    assert_eq!(
        names(&second),
        ["RealServer default/web1", "VirtualService default/web"]
    );
    assert_eq!(taken.notes, [], "no new text is good");

    let mut third = Manifests::new("default", saved, None);
    let taken = third.take(files(&[("b.yaml", SERVER)]));
    assert_eq!(names(&third), ["RealServer default/web1"], "a is gone");
    assert_eq!(taken.notes[0], Note::File(path.clone(), None));
}

#[test]
fn a_bad_file_holds_up_no_other_and_its_own_good_objects_are_used() {
    let mixed = format!(
        "{SERVER}---\napiVersion: ipvs.dev/v1alpha1\nkind: Unicorn\nmetadata: {{name: u}}\n"
    );
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let taken = manifests.take(files(&[("bad.yaml", &mixed), ("good.yaml", SERVICE)]));
    assert_eq!(taken.problems.len(), 1);
    assert_eq!(
        names(&manifests),
        ["RealServer default/web1", "VirtualService default/web"]
    );
}

#[test]
fn a_field_that_does_not_exist_is_reported_and_the_object_used_without_it() {
    let misspelt = SERVER.replace("{address:", "{weigth: 5, address:");
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let taken = manifests.take(files(&[("a.yaml", &misspelt)]));
    let problems: Vec<_> = taken.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        ["a.yaml:5: spec.weigth: no such field; check how it is spelled. Ignored"]
    );
    assert_eq!(names(&manifests), ["RealServer default/web1"]);
    manifests.take(files(&[("a.yaml", &misspelt), ("b.yaml", SERVICE)]));
    assert_eq!(
        manifests.problems(),
        problems,
        "the mistake stays in the status until the file is correct"
    );
    manifests.take(files(&[("a.yaml", SERVER), ("b.yaml", SERVICE)]));
    assert_eq!(manifests.problems(), [""; 0]);
}

#[test]
fn a_field_that_does_not_exist_deep_in_an_object_is_reported_with_its_line() {
    let misspelt = SERVICE.replace(
        "port: 80}",
        "port: 80}\n  healthCheck:\n    tcpSocket: {}\n    perod: 5",
    );
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let taken = manifests.take(files(&[("a.yaml", &misspelt)]));
    let problems: Vec<_> = taken.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        ["a.yaml:8: spec.healthCheck.perod: no such field; check how it is spelled. Ignored"]
    );
}

#[test]
fn of_an_object_in_two_files_the_first_counts_and_the_second_is_reported_once() {
    let other = SERVER.replace("198.51.100.1", "198.51.100.2");
    let both = files(&[("a.yaml", SERVER), ("b.yaml", &other)]);
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let taken = manifests.take(both.clone());
    let problems: Vec<_> = taken.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "b.yaml:2: RealServer default/web1 is already in a.yaml:2; remove one of the two. The object is not used"
        ]
    );
    let (objects, _) = manifests.effective();
    let [Object::RealServer(server)] = objects.as_slice() else {
        panic!("one server was expected: {objects:?}");
    };
    assert_eq!(server.spec.address, "198.51.100.1");
    assert_eq!(manifests.take(both).problems, [], "it was reported before");
    let taken = manifests.take(files(&[("b.yaml", &other)]));
    assert!(taken.changed, "b's counts once a is gone");
}

#[test]
fn a_file_that_cannot_be_read_is_reported_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.yaml"), SERVICE).unwrap();
    fs::write(path("b.yaml"), SERVER).unwrap();
    fs::create_dir(path("folder.yaml")).unwrap();
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    assert_eq!(manifests.take(read(folder.path()).unwrap()).problems, []);

    fs::write(path("a.yaml"), b"# caf\xe9\n").unwrap();
    let other = SERVER.replace("web1", "web2");
    fs::write(path("b.yaml"), &other).unwrap();
    let taken = manifests.take(read(folder.path()).unwrap());
    let [problem] = taken.problems.as_slice() else {
        panic!("one problem was expected: {:?}", taken.problems);
    };
    let text = problem.to_string();
    assert!(
        text.contains("a.yaml:1:") && text.contains("UTF-8") && text.contains("last good"),
        "{text}"
    );
    assert_eq!(
        names(&manifests),
        ["RealServer default/web2", "VirtualService default/web"]
    );
}

#[test]
fn a_list_that_kubectl_prints_is_reported_and_not_passed_over() {
    let list = "apiVersion: v1\nkind: List\nitems: []\n";
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let taken = manifests.take(files(&[("a.yaml", list)]));
    let [problem] = taken.problems.as_slice() else {
        panic!("one problem was expected: {:?}", taken.problems);
    };
    assert_eq!(problem.line, 2);
    assert!(problem.reason.contains("---"), "{problem}");
}

#[test]
fn an_unchanged_folder_is_not_sent_again_and_a_removed_file_is() {
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let both = files(&[("a.yaml", SERVICE), ("b.yaml", SERVER)]);
    assert!(manifests.take(both.clone()).changed, "the first look");
    assert!(!manifests.take(both).changed, "nothing is different");
    assert!(
        manifests.take(files(&[("a.yaml", SERVICE)])).changed,
        "b is gone"
    );
    assert_eq!(names(&manifests), ["VirtualService default/web"]);
}

#[test]
fn the_directors_group_is_implied() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut manifests = Manifests::new("edge", BTreeMap::new(), None);
    manifests.take(files(&[]));
    manifests.send(&sender).unwrap();
    drop(sender);
    assert_eq!(groups(receiver), ["edge"]);
}

fn groups(sent: std::sync::mpsc::Receiver<Event>) -> Vec<String> {
    let groups = sent.into_iter().filter_map(|event| match event {
        Event::DirectorGroup(Change::Item(group)) => group.metadata.name,
        _ => None,
    });
    groups.collect()
}

const GROUP: &str = "\
apiVersion: ipvs.dev/v1alpha1
kind: DirectorGroup
metadata: {name: default}
spec: {onConflict: Leave}
";

/// Returns the groups that the input sends after it has read the given folders,
/// one after another.
fn groups_after(mut manifests: Manifests, folders: &[Contents]) -> Vec<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    for contents in folders {
        manifests.take(contents.clone());
    }
    manifests.send(&sender).unwrap();
    drop(sender);
    groups(receiver)
}

#[test]
fn a_group_whose_manifest_is_missing_by_mistake_does_not_become_the_default_one() {
    let new = || Manifests::new("default", BTreeMap::new(), None);
    let full = files(&[("a.yaml", SERVICE), ("group.yaml", GROUP)]);
    let without = |inode| folder(inode, &[("a.yaml", SERVICE)]);
    for (after, expected) in [
        (vec![files(&[])], vec![]),
        (vec![without(2)], vec![]),
        (vec![without(2), without(2)], vec![]),
        (vec![files(&[]), full.clone()], vec!["default"]),
        // Only the manifest of the group was removed from the folder.
        (vec![without(1)], vec!["default"]),
    ] {
        let folders: Vec<_> = [full.clone()].into_iter().chain(after.clone()).collect();
        assert_eq!(groups_after(new(), &folders), expected, "{after:?}");
    }

    // The previous run read the group's manifest in the folder with inode
    // number 1.
    let saved = BTreeMap::from([(PathBuf::from("group.yaml"), GROUP.to_owned())]);
    let restarted = || Manifests::new("default", saved.clone(), full.folder);
    assert_eq!(groups_after(restarted(), &[files(&[])]), [""; 0]);
    assert_eq!(groups_after(restarted(), &[without(2)]), [""; 0]);
    assert_eq!(groups_after(restarted(), &[without(1)]), ["default"]);
}

#[test]
fn what_was_in_an_emptied_or_swapped_folder_is_not_forgotten() {
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    manifests.take(files(&[("a.yaml", SERVICE), ("b.yaml", SERVER)]));
    for contents in [files(&[]), folder(2, &[("b.yaml", SERVER)])] {
        let taken = manifests.take(contents);
        let forgets = |note: &Note| matches!(note, Note::File(_, None));
        assert!(!taken.notes.iter().any(forgets), "{:?}", taken.notes);
        assert!(taken.changed, "the loop must hear of it");
    }
    let taken = manifests.take(folder(2, &[("b.yaml", SERVER)]));
    assert!(!taken.changed, "it is the same folder now");
}

#[test]
fn a_listing_says_which_folder_it_is_from() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut manifests = Manifests::new("default", BTreeMap::new(), None);
    let contents = folder(7, &[]);
    manifests.take(contents.clone());
    manifests.send(&sender).unwrap();
    drop(sender);
    let begun = receiver.into_iter().filter_map(|event| match event {
        Event::Listing(kind, source) => Some((kind, source)),
        _ => None,
    });
    let source = Source::Folder(contents.folder.expect("it was read"));
    let kinds = [Kind::VirtualService, Kind::RealServer, Kind::DirectorGroup];
    assert!(begun.eq(kinds.map(|kind| (kind, source.clone()))));
}

#[test]
fn a_folder_is_known_by_its_device_and_inode() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    for name in ["manifests", "other"] {
        fs::create_dir(path(name)).unwrap();
    }
    let read = |name: &str| read(&path(name)).unwrap().folder.expect("it was read");
    let first = read("manifests");
    assert!(first.is_empty);
    fs::write(path("manifests").join("a.yaml"), SERVICE).unwrap();
    let full = read("manifests");
    assert!(first.is_same(&full) && !full.is_empty);
    fs::rename(path("manifests"), path("old")).unwrap();
    fs::rename(path("other"), path("manifests")).unwrap();
    assert!(!first.is_same(&read("manifests")));
    assert!(first.is_same(&read("old")));
}
