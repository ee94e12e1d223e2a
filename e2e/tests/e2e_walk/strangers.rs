//! What strangers put into the kernel's table, and how much of it is certain.
//!
//! An entry that is not wanted and never was ours is as the stranger left it. A
//! wanted entry is adopted. An entry that was wanted at some time since things
//! last settled, and no longer is, may or may not have been adopted: it may be
//! there as the stranger made it, or be gone. An entry that was ours when things
//! last settled, is not wanted, and was not made by a stranger since, must be
//! gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{Entry, Table};

#[derive(Debug, Default)]
pub(crate) struct Strangers {
    theirs: BTreeMap<Entry, Theirs>,
    /// Entries wanted when things last settled.
    ours: BTreeSet<Entry>,
    /// Entries wanted at some time since then.
    claimed: BTreeSet<Entry>,
    /// Claimed entries that were not wanted at some time since then.
    dropped: BTreeSet<Entry>,
}

#[derive(Clone, Debug)]
struct Theirs {
    line: String,
    must_be_there: bool,
}

impl Strangers {
    /// Records that things have settled: entries that are there and not wanted
    /// are the strangers'.
    pub(crate) fn settled(&mut self, found: &Table, desired: &Table) {
        let theirs = found
            .iter()
            .filter(|(entry, _)| !desired.contains_key(entry));
        self.theirs = theirs
            .map(|(entry, line)| {
                let theirs = Theirs {
                    line: line.clone(),
                    must_be_there: true,
                };
                (entry.clone(), theirs)
            })
            .collect();
        self.ours = desired.keys().cloned().collect();
        self.claimed = self.ours.clone();
        self.dropped.clear();
    }

    /// Records what is wanted after a change of objects.
    pub(crate) fn wish(&mut self, desired: &Table) {
        for entry in self.claimed.clone() {
            if !desired.contains_key(&entry) {
                self.drop_entry(&entry);
            }
        }
        self.claimed.extend(desired.keys().cloned());
    }

    fn drop_entry(&mut self, dropped: &Entry) {
        for (entry, theirs) in &mut self.theirs {
            let is_in = dropped.server.is_none() && entry.service == dropped.service;
            if is_in || entry == dropped {
                theirs.must_be_there = false;
            }
        }
        self.dropped.insert(dropped.clone());
    }

    /// The entries that a stranger may edit or remove: ours when things last
    /// settled, and strangers' entries that were never wanted since.
    pub(crate) fn within_reach(&self) -> Vec<Entry> {
        let theirs = self.theirs.keys();
        let theirs = theirs.filter(|entry| !self.claimed.contains(entry));
        self.ours.iter().chain(theirs).cloned().collect()
    }

    /// Records an entry that a stranger made.
    pub(crate) fn made(&mut self, entry: &Entry, line: String) {
        let must_be_there =
            !self.claimed.contains(entry) && !self.dropped.contains(&entry.of_service());
        let theirs = Theirs {
            line,
            must_be_there,
        };
        self.theirs.insert(entry.clone(), theirs);
    }

    /// Records that a stranger edited an entry within reach.
    pub(crate) fn edited(&mut self, entry: &Entry, line: String) {
        if let Some(theirs) = self.theirs.get_mut(entry) {
            theirs.line = line;
        }
    }

    /// Records that a stranger removed an entry, and with a service its servers.
    pub(crate) fn removed(&mut self, gone: &Entry) {
        self.theirs.retain(|entry, _| match gone.server {
            None => entry.service != gone.service,
            Some(_) => entry != gone,
        });
    }

    /// Records that a stranger cleared the table.
    pub(crate) fn cleared(&mut self) {
        self.theirs.clear();
    }

    /// How a table differs from what is wanted and what strangers made.
    pub(crate) fn objections(&self, found: &Table, desired: &Table) -> Vec<String> {
        let mut objections = Vec::new();
        for (entry, line) in desired {
            match found.get(entry) {
                Some(there) if there == line => {}
                Some(there) => objections.push(format!("wanted: {line}\n   there: {there}")),
                None => objections.push(format!("wanted: {line}\n   there: nothing")),
            }
        }
        for (entry, line) in found {
            match self.theirs.get(entry) {
                _ if desired.contains_key(entry) => {}
                Some(theirs) if theirs.line == *line => {}
                Some(theirs) => objections.push(format!(
                    "a stranger made: {}\n   there: {line}",
                    theirs.line
                )),
                None => objections.push(format!("not wanted, nor a stranger's: {line}")),
            }
        }
        for (entry, theirs) in &self.theirs {
            let is_gone = !desired.contains_key(entry) && !found.contains_key(entry);
            if theirs.must_be_there && is_gone {
                objections.push(format!("a stranger's is gone: {}", theirs.line));
            }
        }
        objections
    }

    /// The strangers' entries as readable text.
    pub(crate) fn lines(&self) -> String {
        let line = |theirs: &Theirs| match theirs.must_be_there {
            true => format!("  {}\n", theirs.line),
            false => format!("  {} (or not)\n", theirs.line),
        };
        self.theirs.values().map(line).collect()
    }
}
