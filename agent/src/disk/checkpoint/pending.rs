//! The notes that are not on the disk yet. Notes about the same row of the
//! checkpoint are merged. While the disk refuses writes, the number of pending
//! rows therefore grows with the number of objects, not with the number of
//! changes.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde_json::json;

use super::{FILES, META, Note, OBJECTS, STANDINGS, row_key};

/// The merged notes for the checkpoint. Writing the merged notes has the same
/// result as writing the notes one by one.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The kinds whose objects have been listed, each with the keys of the rows
    /// to keep. A kind is given as the prefix of its row keys, such as
    /// `RealServer/`. Rows of a listed kind that are not kept are deleted
    /// before `objects` are written.
    listed: BTreeMap<String, BTreeSet<String>>,
    objects: Rows,
    files: Rows,
    standings: Rows,
    meta: Rows,
}

/// Rows to store, by key. The value `None` means that the row is deleted.
type Rows = BTreeMap<String, Option<String>>;

impl Pending {
    /// Adds a note, which replaces earlier notes about the same rows.
    pub(super) fn add(&mut self, note: Note) {
        match note {
            Note::Object(kind, key, row) => {
                self.objects.insert(row_key(kind, &key), row);
            }
            Note::Listed(kind, names) => {
                let kind_prefix = format!("{kind}/");
                let kept: BTreeSet<_> = names.iter().map(|key| row_key(kind, key)).collect();
                self.objects
                    .retain(|key, _| !key.starts_with(&kind_prefix) || kept.contains(key));
                match self.listed.entry(kind_prefix) {
                    // Keep a row only if every listing so far keeps it: a
                    // deleted row stays deleted.
                    Entry::Occupied(mut earlier) => {
                        earlier.get_mut().retain(|key| kept.contains(key));
                    }
                    Entry::Vacant(place) => drop(place.insert(kept)),
                }
            }
            Note::Directors(names) => self.put_meta("directors", &names),
            Note::DirectorAddresses(addresses) => {
                self.put_meta("director-addresses", &addresses);
            }
            Note::ApiServers(servers) => self.put_meta("api-servers", &servers),
            Note::Listings(known) => self.put_meta("listings", &known),
            Note::File(path, text) => {
                self.files.insert(path.to_string_lossy().into_owned(), text);
            }
            Note::Standings(rows) => self.standings.extend(rows),
            Note::End => {}
        }
    }

    /// Writes all pending rows to the checkpoint in one transaction.
    ///
    /// # Errors
    /// Returns an error if it is unknown whether the rows are on the disk.
    /// After an error, the caller may write the rows again.
    pub(super) fn write(&self, database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        if !self.listed.is_empty() {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (kind, kept) in &self.listed {
                objects.retain(|key, _| !key.starts_with(kind) || kept.contains(key))?;
            }
        }
        write_rows(&transaction, OBJECTS, &self.objects)?;
        write_rows(&transaction, FILES, &self.files)?;
        write_rows(&transaction, STANDINGS, &self.standings)?;
        write_rows(&transaction, META, &self.meta)?;
        transaction.commit()?;
        Ok(())
    }

    fn put_meta(&mut self, name: &str, row: &impl Serialize) {
        self.meta
            .insert(name.to_owned(), Some(json!(row).to_string()));
    }
}

fn write_rows(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, &'static str, &'static str>,
    rows: &Rows,
) -> Result<(), redb::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(table)?;
    for (key, row) in rows {
        let Some(row) = row else {
            table.remove(&**key)?;
            continue;
        };
        // A listing mostly repeats rows that are already stored.
        let is_there = table.get(&**key)?.is_some_and(|found| found.value() == row);
        if !is_there {
            table.insert(&**key, &**row)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crds::{Kind, ObjectKey};
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use redb::{ReadableDatabase, backends::InMemoryBackend};

    use super::*;

    fn database() -> Database {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .expect("memory");
        super::super::prepare(&database).expect("memory");
        database
    }

    fn rows(database: &Database) -> BTreeMap<String, String> {
        let transaction = database.begin_read().expect("memory");
        let mut all = BTreeMap::new();
        for table in [OBJECTS, FILES, STANDINGS, META] {
            let table = transaction.open_table(table).expect("it was made");
            for row in table.iter().expect("memory") {
                let (key, row) = row.expect("memory");
                all.insert(key.value().to_owned(), row.value().to_owned());
            }
        }
        all
    }

    fn key() -> impl Strategy<Value = ObjectKey> {
        select(vec!["a", "b", "c"]).prop_map(|name| ObjectKey::new("shop", name))
    }

    fn kind() -> impl Strategy<Value = Kind> {
        select(vec![Kind::VirtualService, Kind::RealServer])
    }

    fn row() -> impl Strategy<Value = Option<String>> {
        option::of(select(vec!["1", "2", "3"]).prop_map(str::to_owned))
    }

    fn note() -> impl Strategy<Value = Note> {
        let names = vec(key(), 0..3).prop_map(BTreeSet::from_iter);
        let path = select(vec!["/etc/a.yaml", "/etc/b.yaml"]);
        let directors = select(vec!["x", "y"]).prop_map(|name| [name.to_owned()].into());
        prop_oneof![
            6 => (kind(), key(), row()).prop_map(|(kind, key, row)| Note::Object(kind, key, row)),
            3 => (kind(), names).prop_map(|(kind, names)| Note::Listed(kind, names)),
            1 => (path, row()).prop_map(|(path, row)| Note::File(path.into(), row)),
            1 => (select(vec!["s", "t"]), row())
                .prop_map(|(key, row)| Note::Standings([(key.to_owned(), row)].into())),
            1 => directors.prop_map(Note::Directors),
        ]
    }

    fn write(database: &Database, notes: &[Note]) {
        let mut pending = Pending::default();
        notes.iter().cloned().for_each(|note| pending.add(note));
        pending.write(database).expect("memory");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn notes_that_are_written_together_leave_what_each_by_itself_would_leave(
            before in vec(note(), 0..8),
            notes in vec(note(), 0..12),
        ) {
            let (together, one_by_one) = (database(), database());
            write(&together, &before);
            write(&together, &notes);
            for note in before.iter().chain(&notes) {
                write(&one_by_one, std::slice::from_ref(note));
            }
            prop_assert_eq!(rows(&together), rows(&one_by_one));
        }
    }

    #[test]
    fn a_row_that_changes_all_the_time_is_kept_once() {
        let mut pending = Pending::default();
        let key = ObjectKey::new("shop", "web");
        for number in 0..1000 {
            pending.add(Note::Object(
                Kind::RealServer,
                key.clone(),
                Some(number.to_string()),
            ));
            pending.add(Note::Standings(
                [("s".to_owned(), Some(number.to_string()))].into(),
            ));
            pending.add(Note::Directors([number.to_string()].into()));
            pending.add(Note::Listed(Kind::RealServer, [key.clone()].into()));
        }
        let sizes = [
            pending.listed.len(),
            pending.objects.len(),
            pending.standings.len(),
            pending.meta.len(),
        ];
        assert_eq!(sizes, [1; 4]);
    }
}
