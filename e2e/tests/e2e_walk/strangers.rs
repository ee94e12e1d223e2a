//! The entries that strangers put into the kernel's table, and whether each
//! entry must still be there. The walk checks the table now and then; "the last
//! check" is the last one that passed.
//!
//! An entry that is not wanted and never was ours must be as the stranger left
//! it. A wanted entry is adopted. An entry that was wanted for a while since
//! the last check, and is no longer wanted, may have been adopted or not: it
//! may be there as the stranger made it, or be gone. An entry that was ours at
//! the last check must be gone if it is no longer wanted and no stranger has
//! made it again.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{Entry, Table};

#[derive(Debug, Default)]
pub(crate) struct Strangers {
    theirs: BTreeMap<Entry, Theirs>,
    /// Entries that were wanted at the last check.
    ours: BTreeSet<Entry>,
    /// Entries that were wanted at some time since the last check.
    claimed: BTreeSet<Entry>,
    /// Claimed entries that stopped being wanted at some time since the last
    /// check.
    dropped: BTreeSet<Entry>,
}

#[derive(Clone, Debug)]
struct Theirs {
    line: String,
    must_be_there: bool,
}

impl Strangers {
    /// Records a check of the table that passed: entries that are in the kernel
    /// but not wanted belong to strangers.
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

    /// Records which entries are wanted after a change of objects.
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

    /// Returns the entries that a stranger may edit or remove: our entries at
    /// the last check, and strangers' entries that were not wanted since then.
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

    /// Records that a stranger edited one of the entries of
    /// [`Self::within_reach`].
    pub(crate) fn edited(&mut self, entry: &Entry, line: String) {
        if let Some(theirs) = self.theirs.get_mut(entry) {
            theirs.line = line;
        }
    }

    /// Records that a stranger removed an entry. If the entry is a service, its
    /// servers are gone too.
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

    /// Returns the differences between a table and the wanted and strangers'
    /// entries.
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
                None => objections.push(format!("neither wanted nor a stranger's: {line}")),
            }
        }
        for (entry, theirs) in &self.theirs {
            let is_gone = !desired.contains_key(entry) && !found.contains_key(entry);
            if theirs.must_be_there && is_gone {
                objections.push(format!("a stranger's entry is gone: {}", theirs.line));
            }
        }
        objections
    }

    /// Returns the strangers' entries as readable text.
    pub(crate) fn lines(&self) -> String {
        let line = |theirs: &Theirs| match theirs.must_be_there {
            true => format!("  {}\n", theirs.line),
            false => format!("  {} (or not)\n", theirs.line),
        };
        self.theirs.values().map(line).collect()
    }
}
