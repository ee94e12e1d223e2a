//! Tracks the entries that strangers put into the kernel's table. Also tracks
//! which of these entries must still be there. The walk checks the table now
//! and then. In this module, "the last check" means the latest check that
//! passed.
//!
//! A stranger's entry that was never wanted must be unchanged. The agent adopts
//! a stranger's entry that is wanted. An entry may have been wanted only for a
//! moment since the last check. The agent may have adopted this entry. Such an
//! entry may be unchanged or removed. An entry that was wanted at the last
//! check, but is no longer wanted, must be removed. If a stranger has created
//! such an entry again, the entry may also stay.
//!
//! An adopted service may contain strangers' servers. When the service is no
//! longer wanted, the service and those servers stay. If the agent and a
//! stranger both created a service, the agent may treat the service as its own
//! or as adopted.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{Entry, Table};

#[derive(Debug, Default)]
pub(crate) struct Strangers {
    theirs: BTreeMap<Entry, Theirs>,
    /// The entries that were wanted at the last check of the table.
    ours: BTreeSet<Entry>,
    /// The entries that were wanted at some time since the last check of the
    /// table.
    claimed: BTreeSet<Entry>,
    /// The entries that became unwanted at some time since the last check.
    dropped: BTreeSet<Entry>,
    /// The services that only strangers, and never the agent, created. The
    /// agent may have adopted some of these services.
    strange: BTreeSet<String>,
    /// The services that a stranger made or edited at some time.
    perhaps_strange: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Theirs {
    line: String,
    must_be_there: bool,
}

impl Strangers {
    /// Records that a check of the table passed. From now on, each entry that
    /// is in the kernel but not wanted counts as a stranger's entry.
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
        let is_there = |service: &String| found.contains_key(&Entry::service(service));
        self.strange.retain(is_there);
        self.perhaps_strange.retain(is_there);
    }

    /// Records which entries are wanted after a change of Kubernetes objects.
    pub(crate) fn wish(&mut self, desired: &Table) {
        for entry in self.claimed.clone() {
            if !desired.contains_key(&entry) {
                self.drop_entry(&entry);
            }
        }
        self.claimed.extend(desired.keys().cloned());
    }

    fn drop_entry(&mut self, dropped: &Entry) {
        let stays = self.strange.contains(&dropped.service);
        for (entry, theirs) in &mut self.theirs {
            let is_in = dropped.server.is_none() && entry.service == dropped.service && !stays;
            if is_in || entry == dropped {
                theirs.must_be_there = false;
            }
        }
        self.dropped.insert(dropped.clone());
    }

    /// Returns the entries that the walk may edit or remove as a stranger. The
    /// result contains the entries that were wanted at the last check. The
    /// result also contains the strangers' entries that were never wanted since
    /// the last check.
    pub(crate) fn within_reach(&self) -> Vec<Entry> {
        let theirs = self.theirs.keys();
        let theirs = theirs.filter(|entry| !self.claimed.contains(entry));
        self.ours.iter().chain(theirs).cloned().collect()
    }

    /// Records that a stranger made an entry of the kernel's table.
    pub(crate) fn made(&mut self, entry: &Entry, line: String) {
        let is_dropped = self.dropped.contains(&entry.of_service());
        let must_be_there =
            !self.claimed.contains(entry) && (!is_dropped || self.strange.contains(&entry.service));
        if entry.server.is_none() {
            self.perhaps_strange.insert(entry.service.clone());
            if must_be_there {
                self.strange.insert(entry.service.clone());
            }
        }
        let theirs = Theirs {
            line,
            must_be_there,
        };
        self.theirs.insert(entry.clone(), theirs);
    }

    /// Records that a stranger edited an entry that [`Self::within_reach`]
    /// returned.
    pub(crate) fn edited(&mut self, entry: &Entry, line: String) {
        if let Some(theirs) = self.theirs.get_mut(entry) {
            theirs.line = line;
        }
        if entry.server.is_none() {
            self.perhaps_strange.insert(entry.service.clone());
        }
    }

    /// Records that a stranger removed an entry. If the entry is a service, its
    /// servers are removed too.
    pub(crate) fn removed(&mut self, gone: &Entry) {
        self.theirs.retain(|entry, _| match gone.server {
            None => entry.service != gone.service,
            Some(_) => entry != gone,
        });
        if gone.server.is_none() {
            self.strange.remove(&gone.service);
        }
    }

    /// Records that a stranger cleared the kernel's table.
    pub(crate) fn cleared(&mut self) {
        self.theirs.clear();
        self.strange.clear();
    }

    /// Returns whether an unwanted service may stay. The service may stay under
    /// two conditions. Strangers made or edited the service, and the service
    /// contains strangers' servers.
    fn is_left_to_them(&self, entry: &Entry, found: &Table) -> bool {
        let theirs = |server: &&Entry| {
            server.service == entry.service
                && server.server.is_some()
                && found.contains_key(*server)
        };
        entry.server.is_none()
            && self.dropped.contains(entry)
            && self.perhaps_strange.contains(&entry.service)
            && self.theirs.keys().any(|server| theirs(&server))
    }

    /// Returns a line of text for each difference between the kernel's table
    /// and the expected table. The expected table has the wanted entries and
    /// the strangers' entries.
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
                _ if self.is_left_to_them(entry, found) => {}
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
