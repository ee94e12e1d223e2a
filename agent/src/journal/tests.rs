use super::*;

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
    assert_eq!(empty, Remembered::default(), "a new journal knows nothing");
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
    assert!(!found.table.service(&service(443)), "it was disowned");
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
        destinations: BTreeMap::new(),
    };
    let table = [
        (service(80), as_found("wrr")),
        (service(443), as_found("rr")),
    ];
    assert_eq!(
        found.intent.claims(&table.into_iter().collect()),
        [Entry::Service(service(80))],
        "443 is somebody else's with another scheduler, and 8080 was never made"
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
    fs::write(&path, [0x5a; 8192]).unwrap();
    let (journal, found) = open(folder.path(), BOOT);
    assert_eq!(found, Remembered::default());
    journal
        .write(|transaction| {
            transaction.open_table(META)?.insert("schema", "999")?;
            Ok(())
        })
        .unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    assert_eq!(found, Remembered::default(), "the newer file was set aside");
    assert!(
        path.with_extension("redb.unusable").exists(),
        "and is still there to be looked at"
    );
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
