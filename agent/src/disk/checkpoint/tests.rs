use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crds::Store;
use serde_json::json;

use super::*;
use crate::{event::origin::Doubt, fixtures::filling_disk};

/// The time after which a waiting test fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn service(name: &str, scheduler: &str, generation: i64) -> Loose<VirtualService> {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "generation": generation,
            "labels": {"tier": "edge"}, "creationTimestamp": "2026-01-01T00:00:07Z",
        },
        "spec": {
            "vip": {"address": "192.0.2.10", "port": 80},
            "scheduler": scheduler,
            "realServerSelector": {"matchLabels": {"app": "web"}},
        },
    }))
    .expect("an envelope that parses")
}

fn group() -> Loose<DirectorGroup> {
    serde_json::from_value(json!({
        "metadata": {"name": "default", "uid": "group", "generation": 1},
        "spec": {},
    }))
    .expect("an envelope that parses")
}

/// Simulates one run of an agent. The function `live` sends the notes of the
/// run. Returns the content of the checkpoint at the start of the run.
fn run(folder: &Path, live: impl FnOnce(&Recorder)) -> Restored {
    let (checkpoint, restored) = Checkpoint::open(folder);
    let restored = restored.expect("a folder of our own");
    let (recorder, notes) = Recorder::new();
    let report = |trouble| assert_eq!(trouble, None, "the disk works");
    let writer = checkpoint.record(notes, report).expect("a thread");
    live(&recorder);
    recorder.note(Note::End);
    writer.join().expect("the writer does not panic");
    restored
}

/// Returns the name and the scheduler of each service that a run restored.
fn services(restored: Restored) -> Vec<(String, String)> {
    let mut store = Store::<crds::check::CheckedService>::default();
    for event in restored.events {
        if let Event::VirtualService(change) = event {
            store.change(change);
        }
    }
    store
        .iter()
        .map(|(key, stored)| {
            let good = stored.in_force().expect("only what is good is remembered");
            assert_eq!(
                (stored.created, stored.labels.get("tier")),
                (1_767_225_607, Some("edge"))
            );
            (
                key.to_string(),
                format!("{:?}", good.scheduler).to_lowercase(),
            )
        })
        .collect()
}

fn named(name: &str, scheduler: &str) -> (String, String) {
    (format!("shop/{name}"), scheduler.to_owned())
}

#[test]
fn the_next_run_finds_the_last_good_version_of_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path(), |recorder| {
        let mut tee = Tee::new(Kind::VirtualService, recorder.clone());
        let mut store = Store::<crds::check::CheckedService>::default();
        tee.change(&mut store, Change::Listing);
        for name in ["web", "gone", "kept"] {
            tee.change(&mut store, Change::Item(service(name, "rr", 1)));
        }
        tee.change(&mut store, Change::Listed);
        tee.change(&mut store, Change::Apply(service("web", "wlc", 2)));
        tee.change(&mut store, Change::Apply(service("kept", "quantum", 2)));
        tee.change(&mut store, Change::Delete(ObjectKey::new("shop", "gone")));
    });
    assert!(
        first.events.is_empty(),
        "the checkpoint of a new folder is empty"
    );
    let second = run(folder.path(), |recorder| {
        // In this listing, one object cannot be read and another object is
        // missing.
        let mut tee = Tee::new(Kind::VirtualService, recorder.clone());
        let mut store = Store::<crds::check::CheckedService>::default();
        tee.change(&mut store, Change::Listing);
        tee.change(&mut store, Change::Item(service("kept", "quantum", 2)));
        tee.change(&mut store, Change::Listed);
    });
    assert_eq!(
        services(second),
        [named("kept", "rr"), named("web", "wlc")],
        "the edit that cannot be read left the good version alone"
    );
    let third = run(folder.path(), |_| ());
    assert_eq!(services(third), [named("kept", "rr")]);
}

#[test]
fn directors_files_and_groups_that_are_gone_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let names: BTreeSet<_> = ["a".to_owned(), "b".to_owned()].into();
    let path = PathBuf::from("/etc/web.yaml");
    run(folder.path(), |recorder| {
        let mut tee = Tee::new(Kind::DirectorGroup, recorder.clone());
        let mut store = Store::<crds::check::CheckedGroup>::default();
        tee.change(&mut store, Change::Apply(group()));
        tee.change(&mut store, Change::Delete(ObjectKey::cluster("default")));
        recorder.note(Note::Directors(names.clone()));
        recorder.note(Note::File(path.clone(), Some("text".to_owned())));
        recorder.note(Note::File("/etc/gone.yaml".into(), Some("text".to_owned())));
        recorder.note(Note::File("/etc/gone.yaml".into(), None));
    });
    let restored = run(folder.path(), |_| ());
    assert_eq!(restored.files, [(path, "text".to_owned())].into());
    let [
        Event::DirectorGroup(Change::Apply(found)),
        Event::Directors(found_names),
    ] = restored.events.as_slice()
    else {
        panic!("the group and its directors: {:?}", restored.events);
    };
    assert_eq!(found.metadata.name.as_deref(), Some("default"));
    assert_eq!(*found_names, names);
}

#[test]
fn the_api_servers_and_the_directors_addresses_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let servers =
        BTreeSet::from(["[2001:db8::1]:6443", "192.0.2.1:443"].map(|at| at.parse().unwrap()));
    let hosts = BTreeMap::from([("b".to_owned(), ["192.0.2.2".parse().unwrap()].into())]);
    run(folder.path(), |recorder| {
        recorder.note(Note::ApiServers(servers.clone()));
        recorder.note(Note::DirectorAddresses(hosts.clone()));
    });
    let restored = run(folder.path(), |_| ());
    let [
        Event::DirectorAddresses(found_hosts),
        Event::ApiServers(found_servers),
    ] = restored.events.as_slice()
    else {
        panic!("both: {:?}", restored.events);
    };
    assert_eq!((found_hosts, found_servers), (&hosts, &servers));
}

#[test]
fn a_damaged_or_newer_checkpoint_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let aside = path.with_extension("redb.unusable");
    fs::write(&path, [0x5a; 8192]).unwrap();
    run(folder.path(), |recorder| {
        recorder.note(Note::Directors(["a".to_owned()].into()));
    });
    assert_eq!(
        fs::read(&aside).unwrap(),
        [0x5a; 8192],
        "the damaged file keeps its content"
    );
    fs::remove_file(&aside).unwrap();

    let (checkpoint, found) = Checkpoint::open(folder.path());
    assert_eq!(found.unwrap().events.len(), 1);
    let database = checkpoint.database.expect("it was opened");
    let transaction = database.begin_write().unwrap();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", "999").unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let (_, found) = Checkpoint::open(folder.path());
    let found = found.unwrap();
    assert!(found.events.is_empty(), "the newer file was set aside");
    assert!(aside.exists(), "the newer file is kept for inspection");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (_, restored) = Checkpoint::open(&file);
    let error = restored.expect_err("a file is no folder");
    assert!(error.to_string().contains("checkpoint.redb"), "{error}");
}

/// A checkpoint with a running thread, and the thread's reports.
struct Recording {
    recorder: Recorder,
    reports: Receiver<Option<String>>,
    writer: JoinHandle<()>,
}

impl Recording {
    fn start(checkpoint: Checkpoint) -> Self {
        let (recorder, notes) = Recorder::new();
        let (report, reports) = mpsc::channel();
        let report = move |trouble| report.send(trouble).expect("the test listens");
        let writer = checkpoint.record(notes, report).expect("a thread");
        Self {
            recorder,
            reports,
            writer,
        }
    }

    fn apply(&self, name: &str, scheduler: &str) {
        let mut tee = Tee::new(Kind::VirtualService, self.recorder.clone());
        let mut store = Store::<crds::check::CheckedService>::default();
        tee.change(&mut store, Change::Apply(service(name, scheduler, 1)));
    }

    fn reported(&self, what: &str) -> Option<String> {
        let report = self.reports.recv_timeout(PATIENCE);
        report.unwrap_or_else(|error| panic!("waited for the report of {what}: {error}"))
    }

    #[track_caller]
    fn reported_trouble(&self) {
        let trouble = self.reported("a disk that refuses");
        let trouble = trouble.expect("it is trouble");
        for part in ["checkpoint.redb", "older state", "--state-dir"] {
            assert!(trouble.contains(part), "{part} in: {trouble}");
        }
    }

    fn end(self) {
        self.recorder.note(Note::End);
        self.writer.join().expect("the writer does not panic");
    }
}

fn stored(folder: &Path) -> Vec<(String, String)> {
    let (_, restored) = Checkpoint::open(folder);
    services(restored.expect("the disk works"))
}

#[test]
fn a_disk_that_was_full_loses_no_change_and_both_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let (checkpoint, restored) = Checkpoint::open_with(folder.path(), filling_disk::opens(&full));
    restored.expect("the disk has room");
    let recording = Recording::start(checkpoint);
    recording.apply("before", "rr");
    full.store(true, Ordering::Relaxed);
    recording.apply("during", "rr");
    recording.reported_trouble();
    recording.apply("later", "rr");
    recording.apply("during", "wlc");
    full.store(false, Ordering::Relaxed);
    assert_eq!(recording.reported("the disk that has room again"), None);
    recording.apply("after", "rr");
    recording.end();
    let all = [
        named("after", "rr"),
        named("before", "rr"),
        named("during", "wlc"),
        named("later", "rr"),
    ];
    assert_eq!(stored(folder.path()), all);
}

#[test]
fn what_the_disk_refused_is_written_when_the_agent_ends_if_it_has_room_then() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let (checkpoint, _) = Checkpoint::open_with(folder.path(), filling_disk::opens(&full));
    full.store(true, Ordering::Relaxed);
    let recording = Recording::start(checkpoint);
    recording.apply("web", "rr");
    recording.reported_trouble();
    full.store(false, Ordering::Relaxed);
    recording.end();
    assert_eq!(stored(folder.path()), [named("web", "rr")]);
}

#[test]
fn a_folder_that_cannot_be_used_at_the_start_is_used_as_soon_as_it_can() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("state");
    run(&folder, |recorder| {
        recorder.note(Note::Directors(["a".to_owned()].into()));
    });
    let elsewhere = above.path().join("elsewhere");
    fs::rename(&folder, &elsewhere).unwrap();
    fs::write(&folder, "").unwrap();

    let (checkpoint, restored) = Checkpoint::open(&folder);
    restored.expect_err("a file is no folder");
    let recording = Recording::start(checkpoint);
    recording.reported_trouble();
    recording.apply("web", "rr");
    fs::remove_file(&folder).unwrap();
    fs::rename(&elsewhere, &folder).unwrap();
    assert_eq!(recording.reported("the folder that is back"), None);
    recording.end();
    let (_, restored) = Checkpoint::open(&folder);
    let restored = restored.expect("the folder can be used");
    assert_eq!(restored.events.len(), 2, "nothing was lost: {restored:?}");
}

#[test]
fn only_the_owner_can_read_the_checkpoint_even_if_an_earlier_build_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    run(folder.path(), |_| ());
    assert_eq!(mode(&path), 0o600);
    open(&path);
    open(folder.path());
    run(folder.path(), |_| ());
    assert_eq!((mode(folder.path()), mode(&path)), (0o700, 0o600));
}

#[test]
fn what_is_known_about_listings_is_restored_after_the_objects() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = Folder {
        device: 1,
        inode: 2,
        is_empty: false,
    };
    let known = Known {
        sources: [
            (Kind::RealServer, Source::Version(7)),
            (Kind::VirtualService, Source::Folder(manifests)),
        ]
        .into(),
        doubted: vec![(
            Kind::VirtualService,
            ObjectKey::new("shop", "web"),
            Doubt::EmptyFolder,
        )],
        went_back: vec![(
            Kind::RealServer,
            ObjectKey::new("shop", "a"),
            Doubt::Older { known: 7, found: 6 },
        )],
    };
    run(folder.path(), |recorder| {
        recorder.note(Note::Listings(known.clone()));
        let mut tee = Tee::new(Kind::VirtualService, recorder.clone());
        let mut store = Store::<crds::check::CheckedService>::default();
        tee.change(&mut store, Change::Apply(service("web", "rr", 1)));
    });
    let restored = run(folder.path(), |_| ());
    assert_eq!(restored.folder, Some(manifests));
    let [Event::VirtualService(_), Event::Known(found)] = restored.events.as_slice() else {
        panic!("the object and what is known: {:?}", restored.events);
    };
    assert_eq!(*found, known);
}

#[test]
fn the_row_of_an_object_that_a_listing_left_out_is_kept_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let key = |name| ObjectKey::new("shop", name);
    let listed = |recorder: &Recorder, is_forgotten: bool| {
        let mut tee = Tee::new(Kind::VirtualService, recorder.clone());
        let mut store = Store::<crds::check::CheckedService>::default();
        tee.change(&mut store, Change::Listing);
        tee.keep([key("web"), key("there")]);
        tee.change(&mut store, Change::Item(service("there", "rr", 1)));
        tee.change(&mut store, Change::Listed);
        if is_forgotten {
            tee.forget(key("web"));
            // The listing contains `there`, so its row is not deleted.
            tee.forget(key("there"));
        }
    };
    run(folder.path(), |recorder| {
        let mut tee = Tee::new(Kind::VirtualService, recorder.clone());
        let mut store = Store::<crds::check::CheckedService>::default();
        for name in ["web", "there", "gone"] {
            tee.change(&mut store, Change::Apply(service(name, "rr", 1)));
        }
    });
    run(folder.path(), |recorder| listed(recorder, false));
    let kept = run(folder.path(), |recorder| listed(recorder, true));
    assert_eq!(services(kept), [named("there", "rr"), named("web", "rr")]);
    let forgotten = run(folder.path(), |_| ());
    assert_eq!(services(forgotten), [named("there", "rr")]);
}
