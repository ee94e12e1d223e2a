//! Protects the host, in the loop: what is wanted goes in, and what may be put
//! in force comes out ([`crate::decide::protect`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipvs::{ActualService, DestinationKey, ServiceKey};

use super::Loop;
use crate::decide::{
    desired::Desired,
    protect::{self, Facts, Report, Suspect},
};

/// What may take the host's own traffic, by service.
pub(super) type Suspects = BTreeMap<ServiceKey, Suspect>;

/// How often the loop checks whether refused entries may be in force by now.
pub(super) const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// How often this host is checked while nothing is refused.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How long the first round waits until the group's directors are known: a
/// server that is one of them would already be in the kernel when they are.
pub(super) const DIRECTORS_GRACE: Duration = Duration::from_secs(5);

/// What protects the director, between rounds.
pub(super) struct Protection {
    may_hijack: bool,
    /// Everything that is wanted, including what is refused.
    wanted: Arc<Desired>,
    /// The addresses of the group's directors, as they report them.
    directors: BTreeMap<String, BTreeSet<IpAddr>>,
    facts: Facts,
    refused: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// What was last judged, and what was left of it.
    judged: (Arc<Desired>, Arc<Desired>),
    report: Arc<Report>,
    /// Whether the facts have changed since the last judgement.
    is_stale: bool,
    /// Whether this host's addresses could not be read.
    is_unsure: bool,
    /// When this host must be checked again; none before the first check.
    due: Option<Duration>,
    /// Since when the first round waits for the group's directors.
    waits_since: Option<Duration>,
}

impl Protection {
    /// Returns a new protection; with `may_hijack` it refuses nothing.
    pub(super) fn new(may_hijack: bool) -> Self {
        Self {
            may_hijack,
            wanted: Arc::default(),
            directors: BTreeMap::new(),
            facts: Facts {
                own: None,
                listeners: Ok(Vec::new()),
                api_servers: BTreeSet::new(),
                directors: BTreeMap::new(),
            },
            refused: BTreeSet::new(),
            judged: Default::default(),
            report: Arc::default(),
            is_stale: true,
            is_unsure: false,
            due: None,
            waits_since: None,
        }
    }

    /// Sets what is wanted from now on.
    pub(super) fn want(&mut self, wanted: Desired) {
        self.wanted = Arc::new(wanted);
    }

    /// Returns everything that is wanted, including what is refused.
    pub(super) fn wanted(&self) -> &Desired {
        &self.wanted
    }

    /// Returns what is wanted, without what the last judgement refused.
    pub(super) fn desired(&self) -> &Arc<Desired> {
        &self.judged.1
    }

    /// Records where the agent reaches its API server. Returns whether that is
    /// new.
    pub(super) fn hear_api_servers(&mut self, servers: BTreeSet<SocketAddr>) -> bool {
        let is_new = self.facts.api_servers != servers;
        self.facts.api_servers = servers;
        self.is_stale |= is_new;
        is_new
    }

    /// Records the addresses of the group's directors. Returns whether they are
    /// new.
    pub(super) fn hear_directors(&mut self, directors: BTreeMap<String, BTreeSet<IpAddr>>) -> bool {
        let is_new = self.directors != directors;
        self.directors = directors;
        self.is_stale |= is_new;
        is_new
    }

    /// Notes that this host may have changed since the last check.
    pub(super) fn look_again(&mut self) {
        self.is_stale = true;
    }

    /// Whether the round must wait, although everything that it needs is
    /// listed.
    pub(super) fn waits(&mut self, are_directors_known: bool, now: Duration) -> bool {
        let since = *self.waits_since.get_or_insert(now);
        !are_directors_known && self.due.is_none() && now < since + DIRECTORS_GRACE
    }

    /// Whether there is a reason to judge.
    fn must_judge(&self, now: Duration) -> bool {
        !Arc::ptr_eq(&self.wanted, &self.judged.0) || self.is_due(now)
    }

    /// Whether there is a reason to judge even if the same is wanted.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.is_stale || self.due.is_some_and(|due| due <= now)
    }

    /// Returns when the next judgement is due; none before the first wait.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let grace = self.waits_since.map(|since| since + DIRECTORS_GRACE);
        self.due.or(grace)
    }

    /// Returns what to report about the protection.
    pub(super) fn report(&self) -> Arc<Report> {
        self.report.clone()
    }

    /// Takes what would take this host's own traffic out of what is wanted.
    /// `found` returns what the kernel has of a suspect. Returns the services
    /// for which the refusals have changed, theirs or their servers'.
    pub(super) fn judge<'a>(
        &mut self,
        suspects: &Suspects,
        found: impl Fn(&ServiceKey) -> Option<&'a ActualService>,
        now: Duration,
    ) -> BTreeSet<ServiceKey> {
        let verdict = protect::judge(&self.wanted, suspects, found, self.may_hijack);
        let (mut report, reachable) = (verdict.report, &self.report.addresses);
        report.addresses.clone_from(reachable);
        if report != *self.report {
            self.report = Arc::new(report);
        }
        let differing = self.refused.symmetric_difference(&verdict.refused);
        let differing = differing.map(|(service, _)| *service).collect();
        let is_same_wish = Arc::ptr_eq(&self.wanted, &self.judged.0);
        if !is_same_wish || self.refused != verdict.refused {
            self.judged = (self.wanted.clone(), verdict.desired);
            self.refused = verdict.refused;
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
}

impl Loop {
    /// Returns the services and servers that would take this host's own traffic
    /// and must be judged; none if nothing changed since the last time. The
    /// host is checked when that is due or when a service is new, and its
    /// listening sockets only if a service asks for them. The next reading
    /// includes the suspects, and what was refused before.
    pub(super) fn suspects(&mut self, now: Duration) -> Option<Suspects> {
        if !self.protection.must_judge(now) {
            return None;
        }
        self.look(now);
        let protection = &self.protection;
        let suspects = protect::suspects(&protection.wanted, &protection.facts);
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
                }
                // What was known before is the best guess. An error of the
                // socket ends its connection, so a new one is opened for the
                // next time.
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
        let mut asking = concerned.iter();
        if asking.any(|key| protect::asks_for_listeners(key, facts.own.as_ref())) {
            let listeners = self.world.listeners.listeners();
            facts.listeners = listeners.map_err(|error| error.to_string());
        }
        let others = protection.directors.iter();
        let others = others.filter(|(name, _)| **name != self.name);
        facts.directors = others
            .flat_map(|(name, addresses)| addresses.iter().map(move |found| (*found, name.clone())))
            .collect();
        let own = protection.report.addresses.iter();
        let own = own.map(|address| (*address, self.name.clone()));
        facts.directors.extend(own);
    }
}
