//! Not shooting the host, in the loop: what is wanted goes into it, and what
//! may be put in force comes out ([`crate::decide::protect`]).

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

type Suspects = BTreeMap<ServiceKey, Suspect>;

/// How often it is looked whether what was refused may be in force by now.
pub(super) const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// How often this host is looked at while nothing is refused.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The first round waits for so long until the group's directors are known: a
/// server that is one of them would stand already when they are.
pub(super) const DIRECTORS_GRACE: Duration = Duration::from_secs(5);

/// What protects the director, between rounds.
pub(super) struct Protection {
    may_hijack: bool,
    /// All that is wanted, what is refused included.
    wanted: Arc<Desired>,
    /// The addresses of the group's directors, as they say.
    directors: BTreeMap<String, BTreeSet<IpAddr>>,
    facts: Facts,
    refused: BTreeSet<(ServiceKey, Option<DestinationKey>)>,
    /// What was last judged, and what was left of it.
    judged: (Arc<Desired>, Arc<Desired>),
    report: Arc<Report>,
    /// Something else is known than what was judged by.
    is_stale: bool,
    /// This host's addresses could not be read.
    is_unsure: bool,
    /// When this host is to be looked at again; none before the first time.
    due: Option<Duration>,
    /// Since when the first round waits for the group's directors.
    waits_since: Option<Duration>,
}

impl Protection {
    /// With `may_hijack` nothing is refused.
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

    /// This is wanted from now on.
    pub(super) fn want(&mut self, wanted: Desired) {
        self.wanted = Arc::new(wanted);
    }

    /// All that is wanted, what is refused included.
    pub(super) fn wanted(&self) -> &Desired {
        &self.wanted
    }

    /// What is wanted without what was refused when it was last judged.
    pub(super) fn desired(&self) -> &Arc<Desired> {
        &self.judged.1
    }

    /// Where the agent reaches its API server. Whether that is new.
    pub(super) fn hear_api_servers(&mut self, servers: BTreeSet<SocketAddr>) -> bool {
        let is_new = self.facts.api_servers != servers;
        self.facts.api_servers = servers;
        self.is_stale |= is_new;
        is_new
    }

    /// The addresses of the group's directors. Whether they are new.
    pub(super) fn hear_directors(&mut self, directors: BTreeMap<String, BTreeSet<IpAddr>>) -> bool {
        let is_new = self.directors != directors;
        self.directors = directors;
        self.is_stale |= is_new;
        is_new
    }

    /// This host may be otherwise than it was when it was looked at.
    pub(super) fn look_again(&mut self) {
        self.is_stale = true;
    }

    /// Whether the round is not to be run yet, though all is listed that it
    /// needs.
    pub(super) fn waits(&mut self, are_directors_known: bool, now: Duration) -> bool {
        let since = *self.waits_since.get_or_insert(now);
        !are_directors_known && self.due.is_none() && now < since + DIRECTORS_GRACE
    }

    /// Whether there is a reason to judge.
    fn must_judge(&self, now: Duration) -> bool {
        !Arc::ptr_eq(&self.wanted, &self.judged.0) || self.is_due(now)
    }

    /// Whether there is a reason to judge, though nothing else is wanted.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.is_stale || self.due.is_some_and(|due| due <= now)
    }

    /// When there is.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let grace = self.waits_since.map(|since| since + DIRECTORS_GRACE);
        self.due.or(grace)
    }

    /// What there is to say.
    pub(super) fn report(&self) -> Arc<Report> {
        self.report.clone()
    }

    /// Takes what would take this host's own traffic out of what is wanted.
    /// `found` is what the kernel has of a suspect. Gives the services that are
    /// refused, or of which servers are, and were not, or the other way round.
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
    /// What would take this host's own traffic and must be judged: none when
    /// nothing changed since the last time. This host is looked at when that is
    /// due, or when a service is new; what it listens on, only where a service
    /// asks for that. The next reading includes the suspects, and what was
    /// refused before.
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
                // What was known before is the best guess. Its connection ends
                // with an error of the socket's, so there is another next time.
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
