use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ipvs::{DestinationKey, ServiceConfig, ServiceKey};

use super::*;
use crate::decide::ours::Entry;

const BOOT: &str = "a-boot";

fn service(port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: ipvs::Protocol::TCP,
        address: "192.0.2.1".parse().unwrap(),
        port,
    }
}

fn server() -> DestinationKey {
    DestinationKey {
        address: "198.51.100.1".parse().unwrap(),
        port: 80,
    }
}

fn config(scheduler: &str) -> ServiceConfig {
    ServiceConfig {
        scheduler: scheduler.into(),
        flags: ipvs::ServiceFlags::default(),
        timeout: 0,
        prefix_length: 32,
        persistence_engine: None,
    }
}

fn open(folder: &Path, boot: &str) -> (FileJournal, Remembered) {
    FileJournal::open(folder, boot).expect("the folder is a fresh temporary one")
}

#[test]
fn what_was_settled_is_remembered_and_what_was_disowned_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, empty) = open(folder.path(), BOOT);
    assert_eq!(empty, Remembered::default(), "a new journal is empty");
    let vip = Entry::Address("192.0.2.1".parse().unwrap(), "eth0".into());
    journal
        .settle(&[
            Change::Own(Entry::Service(service(80))),
            Change::Own(Entry::Destination(service(80), server())),
            Change::Own(Entry::Service(service(443))),
            Change::Own(vip),
        ])
        .unwrap();
    journal
        .settle(&[Change::Disown(Entry::Service(service(443)))])
        .unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    assert!(found.table.destination(&service(80), &server()));
    assert!(
        !found.table.service(&service(443)),
        "the service was disowned"
    );
    assert_eq!(found.addresses.len(), 1, "the VIP is remembered");
}

#[test]
fn after_a_reboot_nothing_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    journal
        .settle(&[Change::Own(Entry::Service(service(80)))])
        .unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), "another-boot");
    assert_eq!(found, Remembered::default());
}

#[test]
fn the_cluster_is_remembered_across_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    for cluster in ["first", "second"] {
        journal.remember_cluster(cluster).unwrap();
    }
    drop(journal);
    let (_, found) = open(folder.path(), "another-boot");
    assert_eq!(found.cluster.as_deref(), Some("second"));
}

#[test]
fn what_was_taken_over_is_known_to_the_next_run_and_not_after_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    let vips = ["192.0.2.10", "2001:db8::10"].map(|vip| vip.parse().unwrap());
    journal.remember_taken_over(&vips.into()).unwrap();
    drop(journal);
    let (journal, found) = open(folder.path(), BOOT);
    assert_eq!(found.taken_over, vips.into());
    drop(journal);
    let (journal, found) = open(folder.path(), "another-boot");
    assert!(found.taken_over.is_empty());
    drop(journal);
    let (_, found) = open(folder.path(), "another-boot");
    assert!(found.taken_over.is_empty());
}

#[test]
fn an_unsettled_intent_claims_exactly_what_has_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    journal
        .intend(&Intent {
            services: vec![
                (service(80), config("wrr")),
                (service(443), config("wrr")),
                (service(8080), config("wrr")),
            ],
            ..Intent::default()
        })
        .unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    let as_found = |scheduler| ipvs::ActualService {
        config: config(scheduler),
        destinations: ipvs::Destinations::default(),
    };
    let table = [
        (service(80), as_found("wrr")),
        (service(443), as_found("rr")),
    ];
    assert_eq!(
        found.intent.claims(&table.into_iter().collect()),
        [Entry::Service(service(80))],
        "443 is a stranger's, with another scheduler, and 8080 was never made"
    );
}

#[test]
fn settling_drops_the_intent() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    journal
        .intend(&Intent {
            services: vec![(service(80), config("wrr"))],
            ..Intent::default()
        })
        .unwrap();
    journal.settle(&[]).unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    assert!(found.intent.is_empty(), "the round was settled");
}

#[test]
fn a_damaged_or_newer_journal_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let aside = path.with_extension("redb.unusable");
    fs::write(&path, [0x5a; 8192]).unwrap();
    let (mut journal, found) = open(folder.path(), BOOT);
    assert_eq!(
        found,
        Remembered::default(),
        "the damaged file was set aside"
    );
    assert_eq!(
        fs::read(&aside).unwrap(),
        [0x5a; 8192],
        "the damaged file keeps its content"
    );
    fs::remove_file(&aside).unwrap();

    journal
        .settle(&[Change::Own(Entry::Service(service(80)))])
        .unwrap();
    journal
        .write(|transaction| {
            transaction
                .open_table(rows::META)?
                .insert("schema", "999")?;
            Ok(())
        })
        .unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    assert_eq!(found, Remembered::default(), "the newer file was set aside");
    assert!(aside.exists(), "the newer file is kept for inspection");
}

/// A database file on a disk that a test can fill up.
#[derive(Debug)]
struct Disk {
    file: redb::backends::FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn has_room(&self) -> io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.has_room().and_then(|()| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.has_room().and_then(|()| self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.has_room().and_then(|()| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[test]
fn a_disk_that_was_full_is_written_to_again_once_it_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let full = Arc::new(AtomicBool::new(false));
    let open_file = {
        let full = Arc::clone(&full);
        move |path: &Path| {
            let mut options = fs::File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = redb::backends::FileBackend::new(options.open(path)?)?;
            let full = Arc::clone(&full);
            Ok(Database::builder().create_with_backend(Disk { file, full })?)
        }
    };
    let (mut journal, _) = FileJournal::open_with(&path, BOOT, Box::new(open_file)).unwrap();
    let own = |port| [Change::Own(Entry::Service(service(port)))];
    journal.settle(&own(80)).unwrap();
    full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = journal.settle(&own(81)).expect_err("the disk is full");
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
    full.store(false, Ordering::Relaxed);
    journal.settle(&own(82)).expect("the disk has room again");
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    let services: Vec<_> = found.table.services.into_keys().collect();
    assert_eq!(services, [service(80), service(82)]);
}

#[test]
fn a_second_agent_cannot_use_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path(), BOOT);
    let Err(error) = FileJournal::open(folder.path(), BOOT) else {
        panic!("two agents opened one journal");
    };
    assert!(
        error.to_string().contains("--state-dir"),
        "the message says what to do: {error}"
    );
}
