//! Runs `ipvs-agent check` as a person or a script does.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn check(folder: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipvs-agent"))
        .arg("check")
        .arg(folder)
        .args(options)
        .output()
        .expect("the agent starts")
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the agent is a folder of the project")
}

#[test]
fn each_example_passes() {
    let examples = fs::read_dir(project().join("examples")).expect("there are examples");
    let mut count = 0;
    for example in examples {
        let path = example.expect("an entry").path();
        let folder = tempfile::tempdir().expect("a folder");
        let name = path.file_name().expect("a file has a name");
        fs::copy(&path, folder.path().join(name)).expect("the example is copied");
        let checked = check(folder.path(), &[]);
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{}: {said}", path.display());
        count += 1;
    }
    assert!(count > 3, "the examples were found");
}

#[test]
fn each_manifest_that_an_api_server_refuses_is_named() {
    let bad = project().join("crds/tests/bad");
    let checked = check(&bad, &[]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stdout);
    let files = fs::read_dir(&bad).expect("there are bad manifests");
    let unnamed: Vec<_> = files
        .map(|file| file.expect("an entry").path().display().to_string())
        .filter(|file| !said.contains(&format!("{file}:")))
        .collect();
    assert_eq!(unnamed, [""; 0], "these have a mistake too");
}

#[test]
fn a_mistake_is_printed_and_makes_the_command_fail() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = "apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: a}
spec: {address: 192.0.2.300}
";
    fs::write(folder.path().join("a.yaml"), manifest).expect("the manifest is written");
    let checked = check(folder.path(), &[]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("a.yaml:4: spec.address"), "{said}");

    let checked = check(folder.path(), &["-o", "json"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let json: serde_json::Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!(json["mistakes"][0]["line"], 4, "{json}");
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let checked = check(Path::new("/nowhere"), &[]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("/nowhere"), "{said}");
}
