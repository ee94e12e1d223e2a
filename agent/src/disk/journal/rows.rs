//! Reads and writes the rows of the journal's file.
//!
//! Changes are appended in the order in which they happened. Appended changes
//! are merged into one list when the file is opened, and when the changes take
//! too many bytes. Because changes are appended, a round writes only its own
//! changes and does not read the file. Recording 10,000 services takes only a
//! few writes with a few hundred kilobytes in total.

use std::{collections::BTreeSet, iter, net::IpAddr};

use ipvs::ServiceKey;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::decide::{
    departures::Record,
    ours::{Change, Intent, Remembered},
    refusals::Refused,
};

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
/// The table of [`Change`]s: their postcard encodings, concatenated and split
/// into rows at arbitrary bytes.
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
/// The table of the current [`Intent`], in postcard encoding and split into
/// rows at arbitrary bytes.
const INTENT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("intents");
/// The version of the schema of the journal's file. The schema's version is
/// raised when an older build could misread the file of a newer build.
const SCHEMA: &str = "4";
/// Schema 3 did not distinguish adopted services from services that the agent
/// created.
const SCHEMA_3: &str = "3";
/// Schema 2 recorded neither the refused entries nor the services from before a
/// boot.
const SCHEMA_2: &str = "2";
/// The table of the refused entries ([`Refused`]), in postcard encoding and
/// split into rows at arbitrary bytes.
const REFUSED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("refused");
/// The table of the services that were ours before the last boot. The table
/// holds an optional set of services, in postcard encoding and split into rows
/// at arbitrary bytes.
const BEFORE_BOOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("before-boot");
/// The table of the drains' beginnings: the id of the boot in which they began,
/// and [`Record`], in postcard encoding and split into rows at arbitrary bytes.
/// Older builds ignore this table, so it may be from an earlier boot.
const DRAINS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("drains");
/// The size of a row in bytes. The database redb stores a value in a page whose
/// size is a power of two. A row of this size fits with its key into a page of
/// redb.
const ROW: usize = (256 << 10) - 64;

/// Schema 1 stored the entries and the intent as JSON, with one row per entry.
mod schema_1 {
    use redb::TableDefinition;

    pub(super) const SCHEMA: &str = "1";
    pub(super) const OWNED: TableDefinition<'_, &str, ()> = TableDefinition::new("owned");
    pub(super) const INTENT: TableDefinition<'_, &str, &str> = TableDefinition::new("intent");
}

/// Reads the whole file of the journal, and rewrites it as one list in the
/// current schema. The entries from another boot of the machine are dropped.
pub(super) fn open(database: &Database, boot_id: &str) -> Result<Remembered, redb::Error> {
    let transaction = database.begin_write()?;
    let (schema, boot, cluster, taken_over) = {
        let meta = transaction.open_table(META)?;
        let value = |name| -> Result<_, redb::Error> {
            Ok(meta.get(name)?.map(|found| found.value().to_owned()))
        };
        (
            value("schema")?,
            value("boot")?,
            value("cluster")?,
            value("taken-over")?,
        )
    };
    let mut remembered = match schema.as_deref() {
        None => Remembered::default(),
        Some(schema_1::SCHEMA) => take_schema_1(&transaction)?,
        Some(SCHEMA | SCHEMA_3 | SCHEMA_2) => read(&transaction)?,
        Some(other) => {
            return Err(redb::Error::Corrupted(format!(
                "the file has schema {other}, and this build knows only schema {SCHEMA}"
            )));
        }
    };
    if schema.as_deref() != Some(SCHEMA) {
        // Older schemas did not record adoptions. All services of an older
        // schema count as adopted, so the agent deletes no destination of
        // another program in these services.
        remembered.table.adopted = remembered.table.services.keys().copied().collect();
    }
    // An address that cannot be parsed is ignored, because no build of the
    // agent wrote the address.
    let taken_over = taken_over.iter().flat_map(|list| list.split_whitespace());
    remembered.taken_over = taken_over.filter_map(|one| one.parse().ok()).collect();
    let refused = read_rows(&transaction, REFUSED)?.unwrap_or_default();
    let before_boot: Option<Option<BTreeSet<_>>> = read_rows(&transaction, BEFORE_BOOT)?;
    let mut before_boot = before_boot.flatten();
    if boot.as_deref() != Some(boot_id) {
        let services: BTreeSet<_> = remembered.table.services.into_keys().collect();
        // If the agent had no services when the host was rebooted, the journal
        // keeps the list of services from an earlier boot.
        if schema.is_some() && !(services.is_empty() && before_boot.is_some()) {
            before_boot = Some(services);
        }
        remembered = Remembered::default();
    }
    // A table that this build cannot read is of a newer build. The drains then
    // begin again.
    let drains = read_rows(&transaction, DRAINS).ok().flatten();
    let drains = drains.filter(|(boot, _): &(String, Record)| boot == boot_id);
    remembered.drains = drains.map(|(_, record)| record).unwrap_or_default();
    remembered.refused = refused;
    remembered.before_boot = before_boot;
    remembered.cluster = cluster;
    replace_changes(&transaction, &remembered)?;
    replace_intent(&transaction, &remembered.intent)?;
    put_taken_over(&transaction, &remembered.taken_over)?;
    Lasting::of(&remembered).put(&transaction)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("schema", SCHEMA)?;
        meta.insert("boot", boot_id)?;
    }
    transaction.commit()?;
    Ok(remembered)
}

/// Whether the journal's file was already opened in this boot. Returns false
/// for a new file.
pub(super) fn is_from(database: &Database, boot_id: &str) -> Result<bool, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(false),
        opened => opened?,
    };
    let boot = meta.get("boot")?;
    Ok(boot.is_some_and(|found| found.value() == boot_id))
}

/// The records that outlive a boot: the cluster's id, the refused entries, and
/// the services from before the boot.
#[derive(Clone, Debug)]
pub(super) struct Lasting {
    pub(super) cluster: Option<String>,
    pub(super) refused: Refused,
    before_boot: Option<BTreeSet<ServiceKey>>,
}

impl Lasting {
    pub(super) fn of(remembered: &Remembered) -> Self {
        Self {
            cluster: remembered.cluster.clone(),
            refused: remembered.refused.clone(),
            before_boot: remembered.before_boot.clone(),
        }
    }

    /// Writes the records that outlive a boot to the file, in place of the
    /// file's previous records.
    pub(super) fn put(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        if let Some(cluster) = &self.cluster {
            put_cluster(transaction, cluster)?;
        }
        put_refused(transaction, &self.refused)?;
        replace_rows(transaction, BEFORE_BOOT, &self.before_boot)
    }
}

/// Replaces the refused entries in the file.
pub(super) fn put_refused(
    transaction: &WriteTransaction,
    refused: &Refused,
) -> Result<(), redb::Error> {
    replace_rows(transaction, REFUSED, refused)
}

/// Replaces the drains' beginnings in the file.
pub(super) fn put_drains(
    transaction: &WriteTransaction,
    boot_id: &str,
    record: &Record,
) -> Result<(), redb::Error> {
    replace_rows(transaction, DRAINS, &(boot_id, record))
}

/// Writes the id of the cluster that all entries belong to.
pub(super) fn put_cluster(
    transaction: &WriteTransaction,
    cluster: &str,
) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert("cluster", cluster)?;
    Ok(())
}

/// Writes the addresses that this director took over because the other
/// directors no longer renew their Leases. Older builds ignore the row with
/// these addresses.
pub(super) fn put_taken_over(
    transaction: &WriteTransaction,
    addresses: &BTreeSet<IpAddr>,
) -> Result<(), redb::Error> {
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let mut meta = transaction.open_table(META)?;
    match list.is_empty() {
        true => meta.remove("taken-over")?,
        false => meta.insert("taken-over", list.join(" ").as_str())?,
    };
    Ok(())
}

/// Encodes changes of ownership for [`append`].
pub(super) fn encoded(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in changes {
        encode(change, &mut bytes);
    }
    bytes
}

/// Appends changes of ownership to the file, in the form that [`encoded`]
/// returns.
pub(super) fn append(transaction: &WriteTransaction, bytes: &[u8]) -> Result<(), redb::Error> {
    let next = {
        let table = transaction.open_table(CHANGES)?;
        let last = table.last()?;
        last.map_or(0, |(number, _)| number.value() + 1)
    };
    put(transaction, CHANGES, next, bytes)
}

/// Rewrites the appended changes in the file as one list of the entries that
/// are ours.
pub(super) fn rewrite(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let remembered = read(transaction)?;
    replace_changes(transaction, &remembered)
}

/// Writes an intent to the file in place of the previous intent.
pub(super) fn replace_intent(
    transaction: &WriteTransaction,
    intent: &Intent,
) -> Result<(), redb::Error> {
    drop_intent(transaction)?;
    if intent.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    encode(intent, &mut bytes);
    put(transaction, INTENT, 0, &bytes)
}

/// Removes the intent from the file, if there is one.
pub(super) fn drop_intent(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    clear(transaction, INTENT)
}

fn replace_changes(
    transaction: &WriteTransaction,
    remembered: &Remembered,
) -> Result<(), redb::Error> {
    let changes: Vec<Change> = remembered.entries().collect();
    let bytes = encoded(&changes);
    if bytes == bytes_of(transaction, CHANGES)? {
        return Ok(());
    }
    clear(transaction, CHANGES)?;
    put(transaction, CHANGES, 0, &bytes)
}

fn read(transaction: &WriteTransaction) -> Result<Remembered, redb::Error> {
    let mut remembered = Remembered::default();
    let bytes = bytes_of(transaction, CHANGES)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        remembered.apply(&decode(&mut rest)?);
    }
    let bytes = bytes_of(transaction, INTENT)?;
    if !bytes.is_empty() {
        remembered.intent = decode(&mut bytes.as_slice())?;
    }
    Ok(remembered)
}

/// Reads the tables of schema 1, and removes them from the file.
fn take_schema_1(transaction: &WriteTransaction) -> Result<Remembered, redb::Error> {
    let mut remembered = Remembered::default();
    for row in transaction.open_table(schema_1::OWNED)?.iter()? {
        let (entry, _) = row?;
        remembered.apply(&Change::Own(from_json(entry.value())?));
    }
    if let Some(intent) = transaction.open_table(schema_1::INTENT)?.get("round")? {
        remembered.intent = from_json(intent.value())?;
    }
    transaction.delete_table(schema_1::OWNED)?;
    transaction.delete_table(schema_1::INTENT)?;
    Ok(remembered)
}

type Rows<'a> = TableDefinition<'a, u64, &'static [u8]>;

fn put(
    transaction: &WriteTransaction,
    rows: Rows<'_>,
    first: u64,
    bytes: &[u8],
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(rows)?;
    for (number, row) in iter::zip(first.., bytes.chunks(ROW)) {
        table.insert(number, row)?;
    }
    Ok(())
}

fn bytes_of(transaction: &WriteTransaction, rows: Rows<'_>) -> Result<Vec<u8>, redb::Error> {
    let mut bytes = Vec::new();
    for row in transaction.open_table(rows)?.iter()? {
        bytes.extend_from_slice(row?.1.value());
    }
    Ok(bytes)
}

/// Replaces the content of a table in the file with a value.
fn replace_rows<T: Serialize>(
    transaction: &WriteTransaction,
    rows: Rows<'_>,
    value: &T,
) -> Result<(), redb::Error> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    if bytes == bytes_of(transaction, rows)? {
        return Ok(());
    }
    clear(transaction, rows)?;
    put(transaction, rows, 0, &bytes)
}

/// Returns the value in a table, or `None` if the table is empty.
fn read_rows<T: DeserializeOwned>(
    transaction: &WriteTransaction,
    rows: Rows<'_>,
) -> Result<Option<T>, redb::Error> {
    let bytes = bytes_of(transaction, rows)?;
    match bytes.is_empty() {
        true => Ok(None),
        false => decode(&mut bytes.as_slice()).map(Some),
    }
}

fn clear(transaction: &WriteTransaction, rows: Rows<'_>) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(rows)?;
    if !table.is_empty()? {
        table.retain(|_, _| false)?;
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    *bytes =
        postcard::to_extend(value, std::mem::take(bytes)).expect("writing to a vector cannot fail");
}

fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, redb::Error> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| {
        redb::Error::Corrupted(format!("cannot read the journal's entries: {error}"))
    })?;
    *bytes = rest;
    Ok(value)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, redb::Error> {
    serde_json::from_str(text).map_err(|error| {
        redb::Error::Corrupted(format!("cannot read the journal's entry {text:?}: {error}"))
    })
}

#[cfg(test)]
mod tests;
