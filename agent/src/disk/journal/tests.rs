use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ipvs::{DestinationKey, ServiceConfig, ServiceKey};

use super::*;
use crate::{decide::ours::Entry, fixtures::filling_disk};

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
fn after_a_reboot_nothing_is_ours_and_what_was_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    journal
        .settle(&[Change::Own(Entry::Service(service(80)))])
        .unwrap();
    drop(journal);
    let rebooted = Remembered {
        before_boot: Some([service(80)].into()),
        ..Remembered::default()
    };
    // The agent starts twice in the second boot and once in a third boot. It
    // creates no entry in between.
    for boot in ["another-boot", "another-boot", "a-third-boot"] {
        let (_, found) = open(folder.path(), boot);
        assert_eq!(found, rebooted, "{boot}");
    }
    let (mut journal, _) = open(folder.path(), "a-third-boot");
    journal
        .settle(&[Change::Own(Entry::Service(service(443)))])
        .unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), "a-fourth-boot");
    assert_eq!(found.before_boot, Some([service(443)].into()));
}

#[test]
fn what_was_refused_is_remembered_across_a_reboot_and_in_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    let refused = |port| ((service(port), None), format!("{port} is taken"));
    let server = ((service(80), Some(server())), "it is a director".to_owned());
    let first = Refused::from([refused(22), refused(80), server]);
    let second = Refused::from([refused(22)]);
    journal.remember_refused(&first).unwrap();
    drop(journal);
    let (mut journal, found) = open(folder.path(), "another-boot");
    assert_eq!(found.refused, first);
    journal.remember_refused(&second).unwrap();

    // Another program replaces the file while the agent runs.
    fs::remove_file(folder.path().join(FILE)).unwrap();
    journal.database = None;
    let replaced = journal.settle(&[]);
    assert!(
        matches!(replaced, Err(JournalError::Replaced { .. })),
        "{replaced:?}"
    );
    drop(journal);
    let (_, found) = open(folder.path(), "another-boot");
    assert_eq!(found.refused, second);
    assert!(found.before_boot.is_some());
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

#[test]
fn a_disk_that_was_full_is_written_to_again_once_it_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let full = Arc::new(AtomicBool::new(false));
    let (mut journal, _) = FileJournal::open_with(&path, BOOT, filling_disk::opens(&full)).unwrap();
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

#[test]
fn a_journal_that_was_replaced_while_it_could_not_be_written_asks_for_everything() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("state");
    fs::create_dir(&folder).unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let opened = FileJournal::open_with(&folder.join(FILE), BOOT, filling_disk::opens(&full));
    let (mut journal, _) = opened.unwrap();
    let own = |port| [Change::Own(Entry::Service(service(port)))];
    journal.remember_cluster("ours").unwrap();
    journal.settle(&own(80)).unwrap();
    full.store(true, Ordering::Relaxed);
    journal.settle(&own(81)).expect_err("the disk is full");
    full.store(false, Ordering::Relaxed);
    fs::remove_dir_all(&folder).unwrap();
    let error = journal
        .settle(&own(81))
        .expect_err("the folder is another one");
    assert!(matches!(error, JournalError::Replaced { .. }), "{error}");
    journal.settle(&[own(80), own(81)].concat()).unwrap();
    drop(journal);
    let (_, found) = open(&folder, BOOT);
    let services: Vec<_> = found.table.services.into_keys().collect();
    assert_eq!(services, [service(80), service(81)]);
    assert_eq!(found.cluster.as_deref(), Some("ours"));
}

#[test]
fn only_the_owner_can_read_the_journal_and_one_that_was_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| {
        let path = folder.path().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    let path = folder.path().join(FILE);
    fs::write(&path, [0x5a; 8192]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    open(folder.path(), BOOT);
    let modes = [".", FILE, "journal.redb.unusable"].map(mode);
    assert_eq!(modes, [0o700, 0o600, 0o600]);
}
