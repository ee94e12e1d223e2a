//! The kernel's IPVS table, as entries that the walk compares with the wanted
//! entries.

use std::collections::BTreeMap;

use e2e::Host;
use ipvs::{Kernel, Op, Socket};

/// The key of an entry in the kernel's table: a service, or a server in a
/// service.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Entry {
    pub(crate) service: String,
    pub(crate) server: Option<String>,
}

impl Entry {
    pub(crate) fn service(key: &str) -> Self {
        Self {
            service: key.to_owned(),
            server: None,
        }
    }

    pub(crate) fn server(key: &str, server: &str) -> Self {
        Self {
            service: key.to_owned(),
            server: Some(server.to_owned()),
        }
    }

    /// If the entry is a server, returns the entry of its service. If the entry
    /// is a service, returns the entry itself.
    pub(crate) fn of_service(&self) -> Self {
        Self::service(&self.service)
    }
}

/// The entries of an IPVS table, each with the ipvsadm command that creates the
/// entry.
pub(crate) type Table = BTreeMap<Entry, String>;

/// Returns the IPVS table of a director's kernel.
pub(crate) fn of_kernel(director: &Host) -> Table {
    let found = director.enter(|| {
        let mut socket = Socket::open().expect("the lab's kernel has ip_vs");
        socket.table().expect("the kernel answers")
    });
    let mut table = Table::new();
    for (key, service) in found {
        let name = key.to_string();
        let line = Op::NewService(key, service.config).to_string();
        table.insert(Entry::service(&name), line);
        for (server, config) in service.destinations {
            let entry = Entry::server(&name, &server.to_string());
            let line = Op::NewDestination(key, server, config).to_string();
            table.insert(entry, line);
        }
    }
    table
}

/// Returns an IPVS table as readable text.
pub(crate) fn lines(table: &Table) -> String {
    let lines: Vec<_> = table.values().map(|line| format!("  {line}\n")).collect();
    lines.concat()
}
