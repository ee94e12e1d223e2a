use std::{collections::BTreeSet, path::Path, time::Duration};

use ipvs::{DestinationKey, ServiceKey};
use redb::{ReadableDatabase, TableHandle};

use super::{
    super::{FILE, FileJournal, GROWTH, Journal},
    *,
};
use crate::decide::{departures::Departure, ours::Entry};

const BOOT: &str = "a-boot";

fn service(port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: ipvs::Protocol::TCP,
        address: "192.0.2.1".parse().unwrap(),
        port,
    }
}

fn server(last: u8) -> DestinationKey {
    DestinationKey {
        address: [198, 51, 100, last].into(),
        port: 80,
    }
}

fn open(folder: &Path, boot: &str) -> (FileJournal, Remembered) {
    FileJournal::open(folder, boot).expect("the folder is a fresh temporary one")
}

/// Writes a journal file with schema 1, as left by an agent that stopped in the
/// middle of a round.
fn write_schema_1(folder: &Path) {
    let database = Database::create(folder.join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("schema", "1").unwrap();
        meta.insert("boot", BOOT).unwrap();
        let mut owned = transaction.open_table(schema_1::OWNED).unwrap();
        for row in [
            r#"{"Service":{"Address":{"protocol":6,"address":"192.0.2.1","port":80}}}"#,
            r#"{"Service":{"FirewallMark":{"family":"V6","mark":7}}}"#,
            r#"{"Destination":[{"Address":{"protocol":6,"address":"192.0.2.1","port":80}},{"address":"198.51.100.1","port":80}]}"#,
            r#"{"Address":["192.0.2.1","eth0"]}"#,
            r#"{"Timeouts":{"tcp":900,"tcp_fin":0,"udp":0}}"#,
        ] {
            owned.insert(row, ()).unwrap();
        }
        let mut intent = transaction.open_table(schema_1::INTENT).unwrap();
        let round = r#"{"services":[[{"Address":{"protocol":6,"address":"192.0.2.1","port":443}},{"scheduler":"wrr","flags":0,"timeout":0,"prefix_length":32,"persistence_engine":null}]],"destinations":[],"addresses":[]}"#;
        intent.insert("round", round).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn what_an_older_build_left_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    write_schema_1(folder.path());
    let (journal, found) = open(folder.path(), BOOT);
    assert!(found.table.destination(&service(80), &server(1)));
    let mark = ServiceKey::FirewallMark {
        family: ipvs::Family::V6,
        mark: 7,
    };
    assert!(found.table.service(&mark));
    assert_eq!(found.addresses.len(), 1, "the VIP is remembered");
    assert_eq!(found.timeouts.tcp, 900, "the timeout before ours");
    let intended: Vec<_> = found.intent.services.iter().map(|(key, _)| *key).collect();
    assert_eq!(intended, [service(443)], "the round was not settled");

    drop(journal);
    let (mut journal, again) = open(folder.path(), BOOT);
    assert_eq!(
        again, found,
        "the entries were rewritten in the current schema"
    );
    journal
        .settle(&[Change::Disown(Entry::Service(mark))])
        .unwrap();
    drop(journal);
    let (_, later) = open(folder.path(), BOOT);
    assert!(!later.table.service(&mark), "the service was disowned");
    assert!(later.table.service(&service(80)));
}

#[test]
fn what_an_older_build_left_before_a_reboot_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    write_schema_1(folder.path());
    let (_, found) = open(folder.path(), "another-boot");
    let before = found.before_boot.clone().expect("a boot came after it");
    assert!(before.contains(&service(80)), "it was in force before");
    let empty = Remembered {
        before_boot: Some(before),
        ..Remembered::default()
    };
    assert_eq!(found, empty);
}

/// Converts a journal file of the current schema to schema 2.
fn make_schema_2(folder: &Path) {
    let database = Database::open(folder.join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(REFUSED).unwrap();
    transaction.delete_table(BEFORE_BOOT).unwrap();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", SCHEMA_2).unwrap();
    drop(meta);
    transaction.commit().unwrap();
}

#[test]
fn a_file_of_schema_2_keeps_its_entries_and_has_refused_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    let entry = Entry::Destination(service(80), server(1));
    journal.settle(&[Change::Own(entry)]).unwrap();
    drop(journal);
    make_schema_2(folder.path());
    let (mut journal, found) = open(folder.path(), BOOT);
    assert!(found.table.destination(&service(80), &server(1)));
    assert!(found.refused.is_empty());
    assert_eq!(found.before_boot, None, "it is from this boot");
    let refused = Refused::from([((service(22), None), "sshd".to_owned())]);
    journal.remember_refused(&refused).unwrap();
    drop(journal);

    make_schema_2(folder.path());
    let (_, found) = open(folder.path(), "another-boot");
    assert_eq!(found.before_boot, Some([service(80)].into()));
}

#[test]
fn the_services_of_a_file_of_schema_3_count_as_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    journal
        .settle(&[Change::Own(Entry::Service(service(80)))])
        .unwrap();
    let transaction = journal.database.as_ref().unwrap().begin_write().unwrap();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", SCHEMA_3).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(journal);

    let (mut journal, found) = open(folder.path(), BOOT);
    assert_eq!(found.table.adopted, [service(80)].into());
    journal
        .settle(&[Change::Own(Entry::Service(service(443)))])
        .unwrap();
    drop(journal);
    let (_, again) = open(folder.path(), BOOT);
    assert_eq!(again.table.services.len(), 2);
    assert_eq!(
        again.table.adopted,
        [service(80)].into(),
        "a service of the current build is known to be made by it"
    );
}

#[test]
fn nothing_of_the_old_form_stays_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    write_schema_1(folder.path());
    drop(open(folder.path(), BOOT));
    let database = Database::open(folder.path().join(FILE)).unwrap();
    let transaction = database.begin_read().unwrap();
    let tables = transaction.list_tables().unwrap();
    let tables: BTreeSet<_> = tables.map(|table| table.name().to_owned()).collect();
    let expected = [
        "meta",
        "changes",
        "intents",
        "refused",
        "drains",
        "before-boot",
    ];
    let expected = expected.map(str::to_owned);
    assert_eq!(tables, expected.into());
}

#[test]
fn drains_are_remembered_until_the_next_boot() {
    let folder = tempfile::tempdir().unwrap();
    let since = Duration::from_secs(7);
    let departure = Departure {
        since,
        period: since,
    };
    let record = Record {
        drains: [((service(80), server(1)), since)].into(),
        departures: [((service(443), None), departure)].into(),
    };
    let (mut journal, _) = open(folder.path(), BOOT);
    journal.remember_drains(&record).unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    assert_eq!(found.drains, record);
    let (_, found) = open(folder.path(), "another boot");
    assert_eq!(found.drains, Record::default());
}

#[test]
fn drains_that_cannot_be_read_are_forgotten_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    let ours = Change::Own(Entry::Service(service(80)));
    journal.settle(&[ours]).unwrap();
    drop(journal);
    let database = Database::open(folder.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    put(&transaction, DRAINS, 0, b"of a newer build").unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (_, found) = open(folder.path(), BOOT);
    assert_eq!(found.drains, Record::default());
    assert!(found.table.service(&service(80)));
}

#[test]
fn a_journal_that_changes_for_years_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    let stays = Change::Own(Entry::Destination(service(80), server(1)));
    journal.settle(&[stays]).unwrap();
    let comes_and_goes: Vec<Change> = (0..20_000)
        .map(|round| {
            let entry = Entry::Destination(service(80), server(2));
            match round % 2 {
                0 => Change::Own(entry),
                _ => Change::Disown(entry),
            }
        })
        .collect();
    let written = encoded(&comes_and_goes).len();
    for _ in 0..3 * GROWTH / written {
        journal.settle(&comes_and_goes).unwrap();
    }
    let transaction = journal.database.as_ref().unwrap().begin_write().unwrap();
    let kept = bytes_of(&transaction, CHANGES).unwrap().len();
    drop(transaction);
    assert!(
        kept <= GROWTH,
        "{kept} bytes of changes are kept, of {}",
        3 * GROWTH
    );
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    let ours: Vec<_> = found.table.services.into_iter().collect();
    assert_eq!(ours, [(service(80), [server(1)].into())]);
}

#[test]
fn a_table_and_an_intent_of_many_rows_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), BOOT);
    let config = ipvs::ServiceConfig {
        scheduler: "wrr".into(),
        flags: ipvs::ServiceFlags::default(),
        timeout: 0,
        prefix_length: 32,
        persistence_engine: None,
    };
    let services: Vec<_> = (1..=u16::MAX).map(service).collect();
    let intent = Intent {
        services: services.iter().map(|key| (*key, config.clone())).collect(),
        ..Intent::default()
    };
    let own = |key: &ServiceKey| Change::Own(Entry::Service(*key));
    let changes: Vec<_> = services.iter().map(own).collect();
    assert!(
        encoded(&changes).len() > 2 * ROW,
        "the changes take several rows"
    );
    journal.settle(&changes).unwrap();
    journal.intend(&intent).unwrap();
    drop(journal);
    let (_, found) = open(folder.path(), BOOT);
    assert!(found.table.services.keys().eq(&services));
    assert_eq!(found.intent, intent);
}
