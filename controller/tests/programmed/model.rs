mod edits;
mod passes;
mod truth;
mod watch;

use std::{collections::BTreeMap, time::Duration};

use controller::{
    event::{Event, ObservedDirector},
    status::{Id, Status},
    world::World,
};
use crds::{
    Kind, ObjectKey, Objects, Rejection, Resolved, Service, api::VirtualServiceStatus,
    condition::reason, resolve,
};
use kube::runtime::watcher;
use serde_json::{Value, json};

use watch::{change, event, item, list, listed, listing, parsed};

/// The namespaces of a model, or the first few of them.
const NAMESPACES: [&str; 2] = ["shop", "mart"];
const GROUP: &str = "default";
const NOW: Duration = Duration::from_secs(1);

/// The kinds of objects, as indices. Each kind has its own history and stream
/// of events.
const SERVICES: usize = 0;
const SERVERS: usize = 1;
const GROUPS: usize = 2;

/// One step of a test case. `observer` is the index of a director. The index
/// after the last director stands for the controller.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    MakeService {
        name: u8,
        vip: u8,
        app: u8,
    },
    RescheduleService(u8),
    ReselectService(u8),
    RelabelService(u8),
    BreakService(u8),
    DeleteService(u8),
    MakeServer {
        name: u8,
        address: u8,
        app: u8,
    },
    ReweighServer(u8),
    RelabelServer {
        name: u8,
        app: u8,
    },
    BreakServer(u8),
    DeleteServer(u8),
    EditGroup,
    DeleteGroup,
    MakeGroup,
    Deliver {
        observer: usize,
        kind: usize,
        events: usize,
    },
    DeliverAll {
        observer: usize,
    },
    Relist {
        observer: usize,
        kind: usize,
    },
    Round(usize),
    RestartAgent(usize),
    DeliverReports {
        director: usize,
        reports: usize,
    },
    RestartController,
    Resolve,
    /// Delivers events of one kind to a director, which runs a round and
    /// reports.
    Follow {
        director: usize,
        kind: usize,
        events: usize,
    },
    /// Delivers all events to a director, which runs a round and reports.
    FollowAll {
        director: usize,
    },
    /// Delivers events of one kind to the controller, which resolves its
    /// objects.
    Notice {
        kind: usize,
        events: usize,
    },
}

/// The objects of one kind at one time.
type State = BTreeMap<String, Value>;

/// A director's report, and the true states that its round used.
#[derive(Clone)]
struct Report {
    director: Value,
    /// The index of the state that the director's round used, for each kind of
    /// object.
    used: [usize; 3],
    /// The services that the director's round resolved.
    services: BTreeMap<ObjectKey, Service>,
}

#[derive(Default)]
struct Agent {
    objects: Objects,
    at: [usize; 3],
    reports: Vec<Report>,
    /// The number of this director's reports that the controller has seen.
    seen: usize,
}

pub(crate) struct Model {
    /// The true states of each kind, in order.
    history: [Vec<State>; 3],
    uids: u64,
    /// The number of namespaces. The objects are in them by turns, by the
    /// number in their names.
    namespaces: usize,
    /// The budgets of the group.
    budgets: Value,
    agents: Vec<Agent>,
    controller: World,
    at: [usize; 3],
    conditions: BTreeMap<ObjectKey, VirtualServiceStatus>,
    /// The statuses that differ from the published ones, as the passes so far
    /// have found them.
    found: BTreeMap<Id, Status>,
}

impl Model {
    pub(crate) fn new(directors: usize) -> Self {
        Self::build(directors, 1, Value::Null)
    }

    pub(crate) fn with_two_namespaces(directors: usize) -> Self {
        Self::build(directors, 2, Value::Null)
    }

    pub(crate) fn with_budgets(directors: usize, budgets: Value) -> Self {
        Self::build(directors, 1, budgets)
    }

    fn build(directors: usize, namespaces: usize, budgets: Value) -> Self {
        let mut model = Self {
            history: [vec![State::new()], vec![State::new()], vec![State::new()]],
            uids: 0,
            namespaces,
            budgets,
            agents: Vec::new(),
            controller: World::default(),
            at: [0; 3],
            conditions: BTreeMap::new(),
            found: BTreeMap::new(),
        };
        model.take(&Step::MakeGroup);
        for director in 0..directors {
            model.agents.push(Agent::default());
            model.restart_agent(director);
        }
        model.restart_controller();
        model
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::MakeService { name, vip, app } => self.make(
                SERVICES,
                &format!("vs{name}"),
                &json!({}),
                json!({
                    "vip": {"address": format!("10.0.0.{}", vip + 1), "port": 80},
                    "forwarding": {"method": "NAT"},
                    "scheduler": "rr",
                    "realServerSelector": {"matchLabels": {"app": app.to_string()}},
                }),
            ),
            Step::RescheduleService(name) => {
                self.edit(
                    SERVICES,
                    &format!("vs{name}"),
                    "/spec/scheduler",
                    json!("rr"),
                    json!("wlc"),
                );
            }
            Step::ReselectService(name) => self.edit(
                SERVICES,
                &format!("vs{name}"),
                "/spec/realServerSelector/matchLabels/app",
                json!("0"),
                json!("1"),
            ),
            Step::RelabelService(name) => {
                self.relabel(SERVICES, &format!("vs{name}"), None);
            }
            Step::BreakService(name) => {
                self.edit(
                    SERVICES,
                    &format!("vs{name}"),
                    "/spec/scheduler",
                    json!("rr"),
                    json!("quantum"),
                );
            }
            Step::DeleteService(name) => self.delete(SERVICES, &format!("vs{name}")),
            Step::MakeServer { name, address, app } => self.make(
                SERVERS,
                &format!("rs{name}"),
                &json!({"app": app.to_string()}),
                json!({"address": format!("10.1.0.{}", address + 1), "weight": 1}),
            ),
            Step::ReweighServer(name) => {
                self.edit(
                    SERVERS,
                    &format!("rs{name}"),
                    "/spec/weight",
                    json!(1),
                    json!(2),
                );
            }
            Step::RelabelServer { name, app } => {
                self.relabel(SERVERS, &format!("rs{name}"), Some(*app));
            }
            Step::BreakServer(name) => {
                self.edit(
                    SERVERS,
                    &format!("rs{name}"),
                    "/spec/weight",
                    json!(1),
                    json!(70_000),
                );
            }
            Step::DeleteServer(name) => self.delete(SERVERS, &format!("rs{name}")),
            Step::MakeGroup => self.make(
                GROUPS,
                GROUP,
                &json!({}),
                json!({
                    "addresses": {"holder": "a"},
                    "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}],
                    "budgets": self.budgets,
                }),
            ),
            Step::EditGroup => {
                self.edit(
                    GROUPS,
                    GROUP,
                    "/spec/addresses/holder",
                    json!("a"),
                    json!("b"),
                );
            }
            Step::DeleteGroup => self.delete(GROUPS, GROUP),
            Step::Deliver {
                observer,
                kind,
                events,
            } => self.deliver(*observer, *kind, *events),
            Step::DeliverAll { observer } => {
                for kind in [SERVICES, SERVERS, GROUPS] {
                    self.deliver(*observer, kind, usize::MAX);
                }
            }
            Step::Relist { observer, kind } => self.relist(*observer, *kind),
            Step::Round(director) => self.round(*director),
            Step::RestartAgent(director) => self.restart_agent(*director),
            Step::DeliverReports { director, reports } => self.deliver_reports(*director, *reports),
            Step::RestartController => self.restart_controller(),
            Step::Resolve => {
                self.resolve();
                self.compare();
            }
            Step::Follow {
                director,
                kind,
                events,
            } => {
                self.deliver(*director, *kind, *events);
                self.round(*director);
                self.deliver_reports(*director, usize::MAX);
            }
            Step::FollowAll { director } => {
                self.take(&Step::DeliverAll {
                    observer: *director,
                });
                self.round(*director);
                self.deliver_reports(*director, usize::MAX);
            }
            Step::Notice { kind, events } => {
                self.deliver(self.agents.len(), *kind, *events);
                self.resolve();
            }
        }
    }

    /// Delivers all events and reports.
    pub(crate) fn come_to_rest(&mut self) {
        let controller = self.agents.len();
        for observer in 0..=controller {
            self.take(&Step::DeliverAll { observer });
        }
        for director in 0..controller {
            self.round(director);
            self.deliver_reports(director, usize::MAX);
        }
        self.resolve();
    }

    fn deliver(&mut self, observer: usize, kind: usize, events: usize) {
        let at = if observer < self.agents.len() {
            self.agents[observer].at[kind]
        } else {
            self.at[kind]
        };
        let until = at.saturating_add(events).min(self.history[kind].len() - 1);
        for next in at..until {
            let (before, after) = (&self.history[kind][next], &self.history[kind][next + 1]);
            let changed = after
                .iter()
                .find(|(name, object)| before.get(*name) != Some(object));
            let (object, is_there) = match changed {
                Some((_, object)) => (object, true),
                None => {
                    let gone = before.iter().find(|(name, _)| !after.contains_key(*name));
                    (gone.expect("states differ").1, false)
                }
            };
            if observer < self.agents.len() {
                change(&mut self.agents[observer].objects, kind, object, is_there);
            } else {
                self.controller.apply(event(kind, object, is_there), NOW);
            }
        }
        if observer < self.agents.len() {
            self.agents[observer].at[kind] = until.max(at);
        } else {
            self.at[kind] = until.max(at);
        }
    }

    fn relist(&mut self, observer: usize, kind: usize) {
        let latest = self.history[kind].len() - 1;
        let state = &self.history[kind][latest];
        if observer < self.agents.len() {
            list(&mut self.agents[observer].objects, kind, state);
            self.agents[observer].at[kind] = latest;
        } else {
            self.controller.apply(listing(kind), NOW);
            for object in state.values() {
                self.controller.apply(item(kind, object), NOW);
            }
            self.controller.apply(listed(kind), NOW);
            self.at[kind] = latest;
        }
    }

    fn round(&mut self, director: usize) {
        let agent = &mut self.agents[director];
        let resolved = resolve(&agent.objects);
        let exceptions = exceptions(&agent.objects, &resolved);
        let services = resolved.services;
        let used = agent.objects.digests(GROUP);
        let vips: Vec<_> = ["10.0.0.1", "10.0.0.2"]
            .iter()
            .map(|address| json!({"address": address, "interface": "eth0"}))
            .collect();
        let director = json!({
            "metadata": {"name": format!("director{director}"), "uid": format!("d{director}"), "generation": 1},
            "spec": {},
            "status": {"directorGroupName": GROUP, "used": used, "vips": vips, "exceptions": exceptions},
        });
        // An agent does not write a report that equals its last one.
        if agent
            .reports
            .last()
            .is_some_and(|last| last.director == director)
        {
            return;
        }
        agent.reports.push(Report {
            director,
            used: agent.at,
            services,
        });
    }

    fn restart_agent(&mut self, director: usize) {
        self.agents[director].objects = Objects::default();
        for kind in [SERVICES, SERVERS, GROUPS] {
            self.relist(director, kind);
        }
    }

    fn deliver_reports(&mut self, director: usize, reports: usize) {
        let agent = &mut self.agents[director];
        let until = agent.seen.saturating_add(reports).min(agent.reports.len());
        while agent.seen < until {
            let director = parsed::<ObservedDirector>(&agent.reports[agent.seen].director);
            self.controller
                .apply(Event::Directors(watcher::Event::Apply(director)), NOW);
            agent.seen += 1;
        }
    }

    fn restart_controller(&mut self) {
        self.controller = World::default();
        self.conditions.clear();
        self.found.clear();
        for event in [
            Event::Leases(watcher::Event::Init),
            Event::Leases(watcher::Event::InitDone),
            Event::DirectorLeases(watcher::Event::Init),
            Event::DirectorLeases(watcher::Event::InitDone),
            Event::Directors(watcher::Event::Init),
        ] {
            self.controller.apply(event, NOW);
        }
        for agent in &mut self.agents {
            agent.seen = agent.reports.len();
            if let Some(last) = agent.reports.last() {
                let director = parsed::<ObservedDirector>(&last.director);
                self.controller
                    .apply(Event::Directors(watcher::Event::InitApply(director)), NOW);
            }
        }
        self.controller
            .apply(Event::Directors(watcher::Event::InitDone), NOW);
        for kind in [SERVICES, SERVERS, GROUPS] {
            self.relist(self.agents.len(), kind);
        }
    }
}

/// Returns the exceptions that only an agent can know, because they depend on
/// earlier versions of objects. A service that is now invalid keeps the VIP of
/// its last valid version, so another service may lose this VIP. The last valid
/// version of an invalid object may also decide which servers a budget leaves
/// out.
fn exceptions(objects: &Objects, resolved: &Resolved) -> Vec<Value> {
    let is_outdated = has_outdated(objects);
    let losers = objects.virtual_services.iter().filter(|(key, stored)| {
        let loses_to = |owner: &ObjectKey| {
            let owner = objects.virtual_services.get(owner);
            owner.is_some_and(|owner| owner.current.is_err())
        };
        resolved.rejection(Kind::VirtualService, key).is_some()
            && stored.in_force().is_some_and(|loser| {
                let mut services = resolved.services.iter();
                services.any(|(owner, service)| {
                    owner != *key && service.id == loser.id && loses_to(owner)
                })
            })
    });
    let losers = losers.map(
        |(key, _)| json!({"virtualService": key, "reason": "Conflict", "message": "it is taken"}),
    );
    let is_left_out = |why: &Rejection| is_outdated && why.reason == reason::BUDGET_EXCEEDED;
    let rejected = resolved.rejected.iter();
    let rejected = rejected.filter(|(_, why)| is_left_out(why));
    let refused = resolved.refused.iter();
    let refused = refused.filter(|(_, why)| is_left_out(why));
    let left_out = rejected.map(|((_, key), _)| key);
    let left_out = left_out.chain(refused.map(|((service, _), _)| service));
    let left_out = left_out.map(|key| {
        json!({"virtualService": key, "reason": "BudgetExceeded", "message": "it is left out"})
    });
    losers.chain(left_out).collect()
}

/// Whether the current version of any object is invalid. The object's last
/// valid version is known only to programs that have seen it.
fn has_outdated(objects: &Objects) -> bool {
    let mut services = objects.virtual_services.iter();
    let mut servers = objects.real_servers.iter();
    services.any(|(_, stored)| stored.current.is_err())
        || servers.any(|(_, stored)| stored.current.is_err())
}
