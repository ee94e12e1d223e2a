//! When the state folder is read-only, full, or damaged, the agent keeps the
//! table and does all work that needs no journal. The Director reports how to
//! fix the folder.

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry},
    os::unix::fs::MetadataExt,
};

use e2e::{
    Host, Process, SmallDisk,
    cluster::{Cluster, PATIENCE, agent, example, expect_table, wait_for_words, wait_until_ready},
    course::{Course, another_service},
    eventually, kubectl, kubectl_apply, layout,
};

const TABLE: [&str; 3] = [
    "-A -t 192.168.4.5:80 -s wrr",
    "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1",
    "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 1",
];

/// A state folder on its own small file system.
struct StateFolder(SmallDisk);

impl StateFolder {
    fn mount(name: &str) -> Self {
        Self(SmallDisk::mount(layout::file(name)))
    }

    fn start_agent(&self, host: &Host) -> Process {
        let mut command = agent("director1");
        command.env("IPVS_STATE_DIR", self.0.path());
        Process::start(host, "agent-director1", &mut command)
    }
}

fn other_service() -> String {
    example("nat-cluster.yaml")
        .replace("name: web\n", "name: other\n")
        .replace("port: 80", "port: 81")
}

fn set_weight(weight: u32) {
    let patch = format!(r#"{{"spec":{{"weight":{weight}}}}}"#);
    kubectl(&["patch", "irs/web2", "--type=merge", "-p", &patch]);
}

#[track_caller]
fn expect_told() {
    // The message of the condition also explains how to fix the state folder.
    let words = ["StateFolderUnavailable", "--state-dir"];
    wait_for_words("idir/director1", "Programmed", &words);
}

/// Waits until `are_expected` returns true for the Director's notices.
#[track_caller]
fn wait_for_notices(are_expected: impl Fn(&str) -> bool) {
    let path = "jsonpath={.status.notices}";
    eventually("the Director's notices", PATIENCE, || {
        let notices = kubectl(&["get", "idir/director1", "-o", path]);
        match are_expected(&notices) {
            true => Ok(()),
            false => Err(notices),
        }
    });
}

#[test]
fn with_a_read_only_folder_what_is_there_is_kept_right_and_nothing_is_made() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    let folder = StateFolder::mount("state-read-only");
    let mut first = folder.start_agent(director);
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    first.terminate(PATIENCE);
    folder.0.shell("mount -o remount,ro");

    let _second = folder.start_agent(director);
    expect_told();
    set_weight(5);
    let edited = "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 5";
    expect_table(director, &[TABLE[0], TABLE[1], edited]);
    kubectl_apply(&other_service());
    set_weight(7);
    let edited = "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 7";
    expect_table(director, &[TABLE[0], TABLE[1], edited]);

    folder.0.shell("mount -o remount,rw");
    wait_until_ready(&["web", "other"]);
}

#[test]
fn a_full_disk_is_told_and_served_once_there_is_space() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let folder = StateFolder::mount("state-full");
    folder.0.fill();
    let _agent = folder.start_agent(&course.director);
    kubectl_apply(&example("nat-cluster.yaml"));
    expect_told();
    expect_table(&course.director, &[]);
    wait_for_notices(|notices| notices.contains("cannot write the checkpoint"));

    folder.0.free();
    wait_until_ready(&["web"]);
    expect_table(&course.director, &TABLE);
    wait_for_notices(|notices| matches!(notices, "" | "[]"));
    let entries = fs::read_dir(folder.0.path()).expect("the state folder");
    let entries = entries.map(|entry| entry.expect("a file that stays"));
    let mode = |file: &DirEntry| file.metadata().expect("a file that stays").mode() & 0o777;
    let files: BTreeMap<_, _> = entries
        .map(|file| (file.file_name(), mode(&file)))
        .collect();
    let expected =
        ["agent.sock", "checkpoint.redb", "journal.redb"].map(|name| (name.into(), 0o600));
    assert_eq!(files, expected.into(), "nothing was set aside");
}

#[test]
fn after_a_damaged_journal_what_is_wanted_is_adopted_and_nothing_else_touched() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    let folder = StateFolder::mount("state-damaged");
    let mut first = folder.start_agent(director);
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl_apply(&other_service());
    wait_until_ready(&["web", "other"]);
    first.kill();
    kubectl(&["delete", "ivs/other"]);
    let journal = folder.0.path().join("journal.redb");
    let mut bytes = fs::read(&journal).expect("the agent left a journal");
    for byte in bytes.iter_mut().skip(4096).step_by(7) {
        *byte ^= 0x5a;
    }
    fs::write(&journal, bytes).expect("the journal can be written");

    // The agent could read the wanted services from the checkpoint, so the test
    // removes the checkpoint.
    fs::remove_file(folder.0.path().join("checkpoint.redb")).expect("the agent left a checkpoint");

    let mut second = folder.start_agent(director);
    let line = second.wait_for_log("set aside", PATIENCE);
    assert!(
        line.contains("journal.redb.unusable"),
        "the log line must name the file: {line}"
    );
    // When the new service is Ready, the agent has also processed all older
    // objects.
    kubectl_apply(&another_service("new", 82));
    wait_until_ready(&["new", "web"]);
    let new = [
        "-A -t 192.168.4.5:82 -s wlc",
        "-a -t 192.168.4.5:82 -r 192.168.2.100:82 -m -w 1",
        "-a -t 192.168.4.5:82 -r 192.168.2.200:82 -m -w 1",
    ];
    // Without the journal, the entries of the deleted VirtualService count as a
    // stranger's entries and stay in the kernel.
    let other = [
        "-A -t 192.168.4.5:81 -s wrr",
        "-a -t 192.168.4.5:81 -r 192.168.2.100:81 -m -w 1",
        "-a -t 192.168.4.5:81 -r 192.168.2.200:81 -m -w 1",
    ];
    expect_table(director, &[TABLE, other, new].concat());
    second.terminate(PATIENCE);
}
