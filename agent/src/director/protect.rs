//! Protects the host's own traffic. Removes from the wanted state the services
//! and servers that must not be put in force ([`crate::decide::protect`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipvs::{DestinationKey, ServiceKey};

use super::Loop;
use crate::{
    decide::{
        desired::Desired,
        protect::{self, DangerKind, Facts, Permissions, Report, Suspect, Verdict},
        refusals::{Entry, Reason, Refusals, Refused},
    },
    host::interface::Interface,
};

/// The services that may receive traffic of the host itself, with their entries.
pub(super) type Suspects = BTreeMap<ServiceKey, Suspect>;

/// The interval at which the loop checks the host again while entries are
/// refused.
pub(super) const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// The interval at which the loop checks the host while no entry is refused.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The time for which the first round waits to learn the group's directors.
/// Without the wait, the first round could program a server that is itself a
/// director.
pub(super) const DIRECTORS_GRACE: Duration = Duration::from_secs(5);

/// The state of the director's protection that is kept between rounds.
pub(super) struct Protection {
    may_hijack: bool,
    /// The wanted state of this host, including refused entries.
    wanted: Arc<Desired>,
    /// The addresses of the group's directors, from the status of each
    /// Director.
    directors: BTreeMap<String, BTreeSet<IpAddr>>,
    facts: Facts,
    /// The entries that this run and earlier runs refused.
    refusals: Refusals,
    refused: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// The entries that the last judgement removed from the wanted state
    /// because they have no grant.
    ungranted: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// Whether removals were allowed at the last judgement.
    was_released: bool,
    /// The wanted state at the last judgement, before and after the judgement
    /// removed entries.
    judged: (Arc<Desired>, Arc<Desired>),
    report: Arc<Report>,
    /// Whether the facts about the host or its group have changed since the
    /// last judgement.
    is_stale: bool,
    /// Whether this host's addresses could not be read.
    is_unsure: bool,
    /// The interfaces of this host, or none before they were first read.
    interfaces: Option<Arc<Vec<Interface>>>,
    /// When this host must be checked again, or none before the first check.
    due: Option<Duration>,
    /// When the first round began to wait for the group's directors.
    waits_since: Option<Duration>,
}

impl Protection {
    /// Returns a new protection, which refuses no entries if `may_hijack` is
    /// true.
    pub(super) fn new(may_hijack: bool) -> Self {
        Self {
            may_hijack,
            wanted: Arc::default(),
            directors: BTreeMap::new(),
            facts: Facts {
                own: None,
                listeners: Ok(Vec::new()),
                peers: Ok(BTreeSet::new()),
                served: BTreeSet::new(),
                api_servers: BTreeSet::new(),
                directors: BTreeMap::new(),
                before_boot: None,
            },
            refusals: Refusals::default(),
            refused: BTreeSet::new(),
            ungranted: BTreeSet::new(),
            was_released: false,
            judged: Default::default(),
            report: Arc::default(),
            is_stale: true,
            is_unsure: false,
            interfaces: None,
            due: None,
            waits_since: None,
        }
    }

    /// Replaces the wanted state that the next judgement judges.
    pub(super) fn want(&mut self, wanted: Desired) {
        self.wanted = Arc::new(wanted);
    }

    /// Returns the wanted state of this host, including refused entries.
    pub(super) fn wanted(&self) -> &Desired {
        &self.wanted
    }

    /// Returns the wanted state without the entries that the last judgement
    /// refused.
    pub(super) fn desired(&self) -> &Arc<Desired> {
        &self.judged.1
    }

    /// Returns the interfaces of this host as last read, or none if they were
    /// never read.
    pub(super) fn interfaces(&self) -> Option<Arc<Vec<Interface>>> {
        self.interfaces.clone()
    }

    /// Records the addresses at which the agent reaches its API server, and
    /// returns whether the addresses changed.
    pub(super) fn hear_api_servers(&mut self, servers: BTreeSet<SocketAddr>) -> bool {
        let is_new = self.facts.api_servers != servers;
        self.facts.api_servers = servers;
        self.is_stale |= is_new;
        is_new
    }

    /// Records the addresses of the group's directors, and returns whether the
    /// addresses changed.
    pub(super) fn hear_directors(&mut self, directors: BTreeMap<String, BTreeSet<IpAddr>>) -> bool {
        let is_new = self.directors != directors;
        self.directors = directors;
        self.is_stale |= is_new;
        is_new
    }

    /// Adds the refusals that the journal records. `before_boot` are the
    /// services that were ours before the host's last start.
    pub(super) fn remember(&mut self, refused: Refused, before_boot: Option<BTreeSet<ServiceKey>>) {
        self.refusals.remember(refused, before_boot);
        self.is_stale = true;
    }

    /// Returns the refusals that the journal must record, if they changed.
    pub(super) fn unsaved(&self) -> Option<Refused> {
        self.refusals.unsaved()
    }

    /// Notes that the journal has recorded the refusals.
    pub(super) fn saved(&mut self) {
        self.refusals.saved();
    }

    /// Notes that this host may have changed since the last check.
    pub(super) fn look_again(&mut self) {
        self.is_stale = true;
    }

    /// Whether the first round must still wait to learn the group's directors.
    /// The wait ends after [`DIRECTORS_GRACE`] at the latest.
    pub(super) fn waits(&mut self, are_directors_known: bool, now: Duration) -> bool {
        let since = *self.waits_since.get_or_insert(now);
        !are_directors_known && self.due.is_none() && now < since + DIRECTORS_GRACE
    }

    /// Whether the wanted state must be judged again.
    fn must_judge(&self, is_released: bool, now: Duration) -> bool {
        !Arc::ptr_eq(&self.wanted, &self.judged.0)
            || (is_released != self.was_released && !self.wanted.ungranted.is_empty())
            || self.is_due(now)
    }

    /// Whether the wanted state must be judged again even if it has not
    /// changed.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.is_stale || self.due.is_some_and(|due| due <= now)
    }

    /// Returns when the wanted state must be judged again. Before the first
    /// judgement, returns when the first round stops waiting for the group's
    /// directors. Returns none if the first round has not begun to wait.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let grace = self.waits_since.map(|since| since + DIRECTORS_GRACE);
        self.due.or(grace)
    }

    /// Returns the report about the protection of the director.
    pub(super) fn report(&self) -> Arc<Report> {
        self.report.clone()
    }

    /// Removes from the wanted state the entries that would take this host's
    /// own traffic, and the entries without a grant. `stands` returns whether
    /// an entry is ours and in the kernel. Returns the services whose entries
    /// are judged differently than in the last judgement.
    pub(super) fn judge(
        &mut self,
        suspects: &Suspects,
        stands: impl Fn(&ServiceKey, Option<&DestinationKey>) -> bool,
        is_released: bool,
        now: Duration,
    ) -> BTreeSet<ServiceKey> {
        let permissions = Permissions {
            may_hijack: self.may_hijack,
            is_released,
        };
        let verdict = protect::judge(&self.wanted, suspects, stands, permissions);
        self.record_refusals(suspects, &verdict);
        self.was_released = is_released;
        let (mut report, reachable) = (verdict.report, &self.report.addresses);
        report.addresses.clone_from(reachable);
        if report != *self.report {
            self.report = Arc::new(report);
        }
        let differing = self.refused.symmetric_difference(&verdict.refused);
        let differing = differing.chain(self.ungranted.symmetric_difference(&verdict.ungranted));
        let differing: BTreeSet<_> = differing.map(|(service, _)| *service).collect();
        let is_same_wish = Arc::ptr_eq(&self.wanted, &self.judged.0);
        if !is_same_wish || !differing.is_empty() {
            self.judged = (self.wanted.clone(), verdict.desired);
            self.refused = verdict.refused;
            self.ungranted = verdict.ungranted;
        }
        let interval = match self.refused.is_empty() && !self.is_unsure {
            true => LOOK_INTERVAL,
            false => REFUSED_INTERVAL,
        };
        if self.is_due(now) || self.due.is_none_or(|due| due > now + interval) {
            self.due = Some(now + interval);
        }
        self.is_stale = false;
        differing
    }

    /// Remembers the refused entries, and forgets the entries that were
    /// admitted. Does not remember a service that was refused only because
    /// facts could not be read.
    fn record_refusals(&mut self, suspects: &Suspects, verdict: &Verdict) {
        let why = |(key, server): &Entry| {
            let suspect = suspects.get(key)?;
            match server {
                Some(server) => suspect.servers.get(server).cloned(),
                None => {
                    let danger = suspect.service.as_ref()?;
                    let is_known = danger.kind != DangerKind::Guess;
                    is_known.then(|| danger.why.clone())
                }
            }
        };
        let refused = verdict.refused.iter();
        let refused = refused.filter_map(|entry| Some((*entry, why(entry)?)));
        let wanted = &self.wanted;
        let is_admitted = |entry: &Entry| {
            let is_wanted = match entry {
                (key, None) => wanted.table.contains_key(key),
                (key, Some(server)) => wanted.has_destination(key, server),
            };
            let whole = (entry.0, None);
            let left_out = [*entry, whole];
            let is_out =
                |entry| verdict.refused.contains(entry) || verdict.ungranted.contains(entry);
            is_wanted && !left_out.iter().any(is_out)
        };
        self.refusals.record(refused.collect(), is_admitted);
    }
}

impl Loop {
    /// Returns the services and servers that would take this host's own
    /// traffic, or none if no judgement is due. Checks the host when a check is
    /// due or a service is new. Reads the host's listening sockets only if a
    /// service may be at one of the host's own addresses. Unless services may
    /// take the host's own traffic, also makes the round read services from the
    /// kernel: the returned services, and the services that the last judgement
    /// refused.
    pub(super) fn suspects(&mut self, now: Duration) -> Option<Suspects> {
        let is_released = self.is_released();
        if !self.protection.must_judge(is_released, now) {
            return None;
        }
        self.look(now);
        let protection = &self.protection;
        let mut suspects = protect::suspects(&protection.wanted, &protection.facts);
        let refused = protection.refusals.entries();
        protect::add_remembered(&mut suspects, refused, &protection.wanted);
        // An entry without a grant may stay only if it is ours and in the
        // kernel, so the kernel must be read.
        let ungranted = protection.wanted.ungranted.keys().map(|(key, _)| *key);
        let ours: Vec<_> = ungranted
            .filter(|key| self.state.found(key).is_ours)
            .collect();
        self.state.look_at(ours);
        if !protection.may_hijack {
            self.state.look_at(suspects.keys().copied());
            let refused = protection.refused.iter();
            self.state.look_at(refused.map(|(service, _)| *service));
        }
        Some(suspects)
    }

    fn look(&mut self, now: Duration) {
        let (protection, state) = (&mut self.protection, &self.state);
        let is_due = protection.is_due(now);
        let is_refused = |key: &ServiceKey| protection.refused.contains(&(*key, None));
        let services = protection.wanted.table.keys();
        let is_new = |key: &&ServiceKey| state.found(key).service.is_none() && !is_refused(key);
        let concerned: Vec<_> = match is_due {
            true => services.collect(),
            false => services.filter(is_new).collect(),
        };
        if concerned.is_empty() && !is_due {
            return;
        }
        if let Some(links) = &mut self.links {
            let ours = state.our_addresses();
            protection.is_unsure = false;
            match links.interfaces() {
                Ok(interfaces) => {
                    protection.facts.own = Some(protect::own_addresses(&interfaces, &ours));
                    let reachable = protect::reachable_addresses(&interfaces, &ours);
                    if reachable != protection.report.addresses {
                        Arc::make_mut(&mut protection.report).addresses = reachable;
                    }
                    let before = protection.interfaces.as_deref();
                    if before != Some(&interfaces) {
                        protection.interfaces = Some(Arc::new(interfaces));
                    }
                }
                // If the interfaces cannot be read, the agent keeps the facts
                // of the last check. The netlink socket can no longer be used,
                // so the agent opens a new socket.
                Err(error) => {
                    tracing::debug!("{error}");
                    if let Ok(again) = (self.world.links)() {
                        self.links = Some(again);
                    }
                    protection.is_unsure = true;
                }
            }
        }
        let facts = &mut protection.facts;
        let before_boot = protection.refusals.before_boot((self.world.uptime)());
        facts.before_boot = before_boot.cloned();
        let asks = |key: &ServiceKey| protect::asks_for_listeners(key, facts.own.as_ref());
        let mut remembered = protection.refusals.entries();
        let asks_for_listeners = concerned.iter().copied().any(asks)
            || is_due && remembered.any(|(entry, _)| entry.1.is_none() && asks(&entry.0));
        drop(remembered);
        if asks_for_listeners {
            let listeners = self.world.sockets.listeners();
            facts.listeners = listeners.map_err(|error| error.to_string());
        }
        let is_strange = |key: &&ServiceKey| key.vip().is_some() && !state.found(key).is_ours;
        let asks_for_peers = concerned.iter().any(is_strange)
            || is_due && protection.refusals.entries().next().is_some();
        if asks_for_peers {
            let peers = self.world.sockets.peers();
            facts.peers = peers.map_err(|error| error.to_string());
            let before_boot = facts.before_boot.as_ref();
            let is_served = |key: &ServiceKey| {
                state.is_served_lately(key, now)
                    || before_boot.is_some_and(|before| before.contains(key))
            };
            if let Ok(peers) = &facts.peers {
                // Every wanted service is judged, not only the new ones.
                let wanted = &protection.wanted;
                facts.served = protect::with_clients_here(wanted, peers, is_served);
            }
        }
        let others = protection.directors.iter();
        let others = others.filter(|(name, _)| **name != self.name);
        facts.directors = others
            .flat_map(|(name, addresses)| addresses.iter().map(move |found| (*found, name.clone())))
            .collect();
        let own = protection.report.addresses.iter();
        let own = own.map(|address| (*address, self.name.clone()));
        facts.directors.extend(own);
        if is_due {
            let (facts, is_unsure) = (&protection.facts, protection.is_unsure);
            let reason = |entry: &_| match is_unsure {
                true => Reason::Unknown,
                false => protect::reason(entry, facts),
            };
            protection.refusals.look(reason, now);
        }
    }
}
