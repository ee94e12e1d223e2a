//! Finds and refuses services and servers that would take this director's own
//! traffic. The code is pure: it does no I/O.
//!
//! IPVS handles packets before the host's own sockets do. A service takes the
//! host's own traffic in two cases. Either other machines reach the host at the
//! service's address and port. Or the host reaches another machine, such as its
//! API server, at this address and port. A server can also be a director
//! itself. Such a server would send the service's packets back. If an entry
//! that takes the host's traffic is already in the kernel, the agent only
//! reports the danger and does not remove the entry.

mod dangers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crds::{ObjectKey, api::DirectorException, condition};
use ipvs::{DestinationKey, ServiceKey};

pub use self::dangers::{
    Danger, DangerKind, Facts, MOST_ADDRESSES, Suspect, add_remembered, asks_for_listeners,
    own_addresses, reachable_addresses, reason, suspects, with_clients_here,
};
use crate::{
    decide::desired::{CheckPolicy, Desired},
    ration::Line,
};

/// The wanted state after the refusals, and the report about the refusals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The wanted state without the refused entries.
    pub desired: Arc<Desired>,
    /// The refused services and servers. An entry without a server stands for
    /// the whole service. The servers of a refused service are not listed.
    pub refused: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// The entries that are left out because they have no grant. An entry
    /// without a server stands for the whole service. The conditions of the
    /// objects report that their entries are left out.
    pub ungranted: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// The report about the refused entries, and about dangerous entries that
    /// are not refused.
    pub report: Report,
}

/// The report of a director about the services and servers that endanger its
/// own traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The addresses by which other hosts reach this host, without the
    /// addresses that the agent added.
    pub addresses: Vec<IpAddr>,
    /// The refused services and servers.
    pub exceptions: Vec<DirectorException>,
    /// One sentence about each dangerous service or server that is not refused,
    /// with the reason.
    pub notices: Vec<String>,
}

/// The administrator's permissions beyond the grants of the group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Permissions {
    /// Services that would take the director's own traffic may be programmed
    /// (`--allow-hijack`).
    pub may_hijack: bool,
    /// Removals are allowed, so entries without a grant may leave the kernel.
    pub is_released: bool,
}

/// Removes two kinds of entries from `wanted`: the refused entries among the
/// `suspects`, and the entries without a grant. `stands` returns whether an
/// entry is ours and in the kernel. An entry that is ours and in the kernel
/// stays.
pub fn judge(
    wanted: &Arc<Desired>,
    suspects: &BTreeMap<ServiceKey, Suspect>,
    stands: impl Fn(&ServiceKey, Option<&DestinationKey>) -> bool,
    permissions: Permissions,
) -> Verdict {
    let mut verdict = Verdict::default();
    for ((key, server), why) in &wanted.ungranted {
        let is_whole_ungranted = wanted.ungranted.contains_key(&(*key, None));
        if server.is_some() && is_whole_ungranted && !stands(key, None) {
            continue;
        }
        if permissions.is_released || !stands(key, server.as_ref()) {
            verdict.ungranted.insert((*key, *server));
        } else if let Some(object) = wanted.services.get(key) {
            let server = server.and_then(|server| wanted.servers.get(&(*key, server)));
            verdict.report.exceptions.push(DirectorException {
                virtual_service: object.clone(),
                real_server: server.cloned(),
                reason: why.reason.to_owned(),
                message: format!(
                    "still served, until its object is deleted or spec.removals.allowUntil of \
                     the DirectorGroup allows removals. {}",
                    why.message
                ),
            });
        }
    }
    for (key, suspect) in suspects {
        let Some(object) = wanted.services.get(key) else {
            continue;
        };
        if verdict.ungranted.contains(&(*key, None)) {
            continue;
        }
        if let Some(danger) = &suspect.service {
            let is_meant = wanted.meant.contains(key) && danger.kind != DangerKind::ClusterIp;
            let ruling = Ruling::of(permissions.may_hijack, stands(key, None), is_meant);
            if ruling == Ruling::Refused {
                verdict.refused.insert((*key, None));
            }
            verdict.report.say(ruling, object, None, &danger.why);
            if ruling == Ruling::Refused {
                continue;
            }
        }
        for (server, why) in &suspect.servers {
            if verdict.ungranted.contains(&(*key, Some(*server))) {
                continue;
            }
            let stands = stands(key, Some(server));
            let ruling = Ruling::of(permissions.may_hijack, stands, false);
            if ruling == Ruling::Refused {
                verdict.refused.insert((*key, Some(*server)));
            }
            let real_server = wanted.servers.get(&(*key, *server));
            verdict.report.say(ruling, object, real_server, why);
        }
    }
    let removed: BTreeSet<_> = verdict.refused.union(&verdict.ungranted).copied().collect();
    verdict.desired = match removed.is_empty() {
        true => wanted.clone(),
        false => Arc::new(without(wanted, &removed)),
    };
    verdict
}

/// The decision whether to refuse a service that would take the director's own
/// traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ruling {
    /// The option `--allow-hijack` allows the service or server.
    Allowed,
    /// The group grants the service's address as a single address, not as part
    /// of a network.
    Meant,
    /// The suspect is ours and already in the kernel, so it stays.
    Stands,
    Refused,
}

impl Ruling {
    fn of(is_allowed: bool, stands: bool, is_meant: bool) -> Self {
        match (is_allowed, stands, is_meant) {
            (true, _, _) => Self::Allowed,
            (false, true, _) => Self::Stands,
            (false, false, true) => Self::Meant,
            (false, false, false) => Self::Refused,
        }
    }
}

impl Report {
    /// Returns one log line for each refusal and each notice.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let refused = self.exceptions.iter().map(|exception| {
            let server = exception.real_server.as_ref();
            let server = server.map(|server| format!(", RealServer {server}"));
            Line {
                namespace: exception.virtual_service.namespace.clone(),
                text: format!(
                    "VirtualService {}{} is {}",
                    exception.virtual_service,
                    server.unwrap_or_default(),
                    exception.message
                ),
            }
        });
        let notices = self.notices.iter().cloned();
        refused.chain(notices.map(Line::of_host))
    }

    fn say(&mut self, ruling: Ruling, object: &ObjectKey, server: Option<&ObjectKey>, why: &str) {
        match ruling {
            Ruling::Allowed => self.notices.push(format!(
                "VirtualService {object} is programmed anyway, as --allow-hijack says: {why}"
            )),
            Ruling::Meant => self.notices.push(format!(
                "VirtualService {object} is programmed, because the DirectorGroup grants exactly \
                 its address: {why}"
            )),
            Ruling::Stands => self.notices.push(format!(
                "VirtualService {object} is programmed already and stays so, but a new one would \
                 be refused: {why}"
            )),
            Ruling::Refused => self.exceptions.push(DirectorException {
                virtual_service: object.clone(),
                real_server: server.cloned(),
                reason: condition::reason::WOULD_HIJACK_DIRECTOR.to_owned(),
                message: format!("refused, to protect the director: {why}"),
            }),
        }
    }
}

/// Returns the wanted state without the entries in `refused`.
pub(super) fn without(
    wanted: &Desired,
    refused: &BTreeSet<(ServiceKey, Option<DestinationKey>)>,
) -> Desired {
    let mut rest = wanted.clone();
    for (key, server) in refused {
        match server {
            Some(server) => remove_server(&mut rest, key, server),
            None => remove_service(&mut rest, key),
        }
    }
    rest
}

fn remove_server(rest: &mut Desired, key: &ServiceKey, server: &DestinationKey) {
    if let Some(service) = rest.table.get_mut(key) {
        service.destinations.shift_remove(server);
    }
    rest.servers.remove(&(*key, *server));
    if let Some(policy) = rest.checks.get_mut(key)
        && matches!(policy.sorry, Some((sorry, _)) if sorry == *server)
    {
        *policy = Arc::new(CheckPolicy {
            sorry: None,
            ..CheckPolicy::clone(policy)
        });
    }
}

fn remove_service(rest: &mut Desired, key: &ServiceKey) {
    let service = rest.table.remove(key);
    for server in service
        .iter()
        .flat_map(|service| service.destinations.keys())
    {
        rest.servers.remove(&(*key, *server));
    }
    rest.checks.remove(key);
    if let Some(object) = rest.services.remove(key)
        && let Some(address) = key.vip()
        && let Some(users) = rest.vips.get_mut(&address)
    {
        users.remove(&object);
        if users.is_empty() {
            rest.vips.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests;
