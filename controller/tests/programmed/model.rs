use std::{collections::BTreeMap, time::Duration};

use controller::{
    event::{Event, ObservedDirector},
    world::World,
};
use crds::{
    Change, Kind, ObjectKey, Objects, Resolved, Service,
    api::{DirectorGroup, RealServer, VirtualService, VirtualServiceStatus},
    condition::{self, kind},
    resolve,
};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";
const GROUP: &str = "default";
const NOW: Duration = Duration::from_secs(1);

/// Kinds, as indices: each has a history and a stream of its own.
const SERVICES: usize = 0;
const SERVERS: usize = 1;
const GROUPS: usize = 2;

/// One thing that happens. Director n is observer n, the controller the one
/// after the last.
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
        who: usize,
        kind: usize,
        events: usize,
    },
    DeliverAll {
        who: usize,
    },
    Relist {
        who: usize,
        kind: usize,
    },
    Round(usize),
    RestartAgent(usize),
    DeliverReports {
        director: usize,
        reports: usize,
    },
    RestartController,
    Settle,
    /// Events arrive at a director, which has a round and reports.
    Follow {
        director: usize,
        kind: usize,
        events: usize,
    },
    /// As that, with everything that there is.
    FollowAll {
        director: usize,
    },
    /// Events arrive at the controller, which settles.
    Notice {
        kind: usize,
        events: usize,
    },
}

/// The objects of one kind at one time.
type State = BTreeMap<String, Value>;

/// What a director said, and what the model knows of it.
#[derive(Clone)]
struct Report {
    director: Value,
    /// Which state of each kind the round used.
    used: [usize; 3],
    /// What it made of them.
    services: BTreeMap<ObjectKey, Service>,
}

#[derive(Default)]
struct Agent {
    objects: Objects,
    at: [usize; 3],
    reports: Vec<Report>,
    /// How many of them the controller has seen.
    seen: usize,
}

pub(crate) struct Model {
    /// The true states of each kind, in order.
    history: [Vec<State>; 3],
    uids: u64,
    agents: Vec<Agent>,
    controller: World,
    at: [usize; 3],
    conditions: BTreeMap<ObjectKey, VirtualServiceStatus>,
}

impl Model {
    pub(crate) fn new(directors: usize) -> Self {
        let mut model = Self {
            history: [vec![State::new()], vec![State::new()], vec![State::new()]],
            uids: 0,
            agents: Vec::new(),
            controller: World::default(),
            at: [0; 3],
            conditions: BTreeMap::new(),
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
                json!({"addresses": {"holder": "a"}}),
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
            Step::Deliver { who, kind, events } => self.deliver(*who, *kind, *events),
            Step::DeliverAll { who } => {
                for kind in [SERVICES, SERVERS, GROUPS] {
                    self.deliver(*who, kind, usize::MAX);
                }
            }
            Step::Relist { who, kind } => self.relist(*who, *kind),
            Step::Round(director) => self.round(*director),
            Step::RestartAgent(director) => self.restart_agent(*director),
            Step::DeliverReports { director, reports } => self.deliver_reports(*director, *reports),
            Step::RestartController => self.restart_controller(),
            Step::Settle => self.settle(),
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
                self.take(&Step::DeliverAll { who: *director });
                self.round(*director);
                self.deliver_reports(*director, usize::MAX);
            }
            Step::Notice { kind, events } => {
                self.deliver(self.agents.len(), *kind, *events);
                self.settle();
            }
        }
    }

    /// Everything arrives everywhere.
    pub(crate) fn come_to_rest(&mut self) {
        let controller = self.agents.len();
        for who in 0..=controller {
            self.take(&Step::DeliverAll { who });
        }
        for director in 0..controller {
            self.round(director);
            self.deliver_reports(director, usize::MAX);
        }
        self.settle();
    }

    /// A service that is said to be programmed and is not, and why.
    pub(crate) fn lie(&self) -> Option<String> {
        let programmed = self
            .conditions
            .iter()
            .filter(|(_, status)| condition::is_true(&status.conditions, kind::PROGRAMMED))
            .map(|(key, _)| key);
        for key in programmed {
            let wanted = self.controller.resolved().services.get(key);
            for (director, agent) in self.agents.iter().enumerate() {
                let Some(report) = agent.seen.checked_sub(1).map(|last| &agent.reports[last])
                else {
                    continue;
                };
                let has = self.as_far_as_the_controller_is(report).get(key).cloned();
                if has.as_ref() != wanted {
                    return Some(format!(
                        "{key} is not programmed on director {director}, which stands at {:?}; the \
                         controller stands at {:?}.\nwanted {wanted:?}\nhas {has:?}",
                        report.used, self.at
                    ));
                }
            }
        }
        None
    }

    /// Services that ought to be programmed by now and are not.
    pub(crate) fn not_programmed(&self) -> Vec<String> {
        let resolved = self.controller.resolved();
        // What is in force where an object is not acceptable as it is now
        // depends on the past, and digests do not tell it.
        let is_sound = |key: &ObjectKey, service: &Service| {
            !resolved.gone_groups.contains(&service.group)
                && service
                    .servers
                    .iter()
                    .map(|server| &server.object)
                    .chain(resolved.refused_by(key).map(|(server, _)| server))
                    .all(|server| resolved.rejection(Kind::RealServer, server).is_none())
        };
        resolved
            .services
            .iter()
            .filter(|(key, service)| {
                resolved.rejection(Kind::VirtualService, key).is_none()
                    && is_sound(key, service)
                    && !self.has_an_unreadable_rival(key)
            })
            .filter_map(|(key, _)| {
                let conditions = &self.conditions.get(key)?.conditions;
                let programmed = condition::find(conditions, kind::PROGRAMMED)?;
                (programmed.status != "True").then(|| format!("{key}: {}", programmed.message))
            })
            .collect()
    }

    /// Every status as of the last settlement.
    pub(crate) fn conditions(&self) -> BTreeMap<ObjectKey, VirtualServiceStatus> {
        // A restarted controller has not seen the group that is gone, nor what
        // was in force before an edit that is refused.
        let resolved = self.controller.resolved();
        if !resolved.gone_groups.is_empty()
            || !resolved.rejected.is_empty()
            || !self.history[GROUPS]
                .last()
                .is_some_and(|now| now.contains_key(GROUP))
        {
            return BTreeMap::new();
        }
        self.conditions.clone()
    }

    /// What a report's director has for each service. Where it is further on
    /// than the controller, what it would have at the controller's place: it
    /// has been there.
    fn as_far_as_the_controller_is(&self, report: &Report) -> BTreeMap<ObjectKey, Service> {
        if (0..3).all(|kind| report.used[kind] <= self.at[kind]) {
            return report.services.clone();
        }
        let mut objects = Objects::default();
        for kind in [SERVICES, SERVERS, GROUPS] {
            let at = report.used[kind].min(self.at[kind]);
            list(&mut objects, kind, &self.history[kind][at]);
        }
        resolve(&objects).services
    }

    /// A service that is not acceptable any more keeps its VIP with whoever
    /// knew its last good version, and a controller that started since cannot
    /// know which VIP that is.
    fn has_an_unreadable_rival(&self, key: &ObjectKey) -> bool {
        let services = &self.history[SERVICES][self.at[SERVICES]];
        let vip = |name: &str| {
            services
                .get(name)
                .and_then(|object| object.pointer("/spec/vip"))
        };
        services.iter().any(|(name, object)| {
            **name != *key.name
                && vip(name) == vip(&key.name)
                && object.pointer("/spec/scheduler") == Some(&json!("quantum"))
        })
    }

    fn make(&mut self, kind: usize, name: &str, labels: &Value, spec: Value) {
        let mut state = self.latest(kind).clone();
        if state.contains_key(name) {
            return;
        }
        self.uids += 1;
        let mut metadata = json!({
            "name": name,
            "uid": format!("uid-{}", self.uids),
            "generation": 1,
            "labels": labels,
            "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", self.uids / 60 % 60, self.uids % 60),
        });
        if kind != GROUPS {
            metadata["namespace"] = json!(NAMESPACE);
        }
        let mut spec = spec;
        if kind == SERVICES {
            spec["directorGroupName"] = json!(GROUP);
        }
        state.insert(name.to_owned(), json!({"metadata": metadata, "spec": spec}));
        self.history[kind].push(state);
    }

    /// Gives a field its other value.
    fn edit(&mut self, kind: usize, name: &str, field: &str, one: Value, other: Value) {
        let mut state = self.latest(kind).clone();
        let Some(object) = state.get_mut(name) else {
            return;
        };
        let value = object.pointer_mut(field).expect("the field is there");
        *value = if *value == one { other } else { one };
        let generation = &mut object["metadata"]["generation"];
        *generation = json!(generation.as_i64().unwrap_or_default() + 1);
        self.history[kind].push(state);
    }

    /// Labels change no generation, so that an object can come back to the
    /// state that it was in.
    fn relabel(&mut self, kind: usize, name: &str, app: Option<u8>) {
        let mut state = self.latest(kind).clone();
        let Some(object) = state.get_mut(name) else {
            return;
        };
        let labels = &mut object["metadata"]["labels"];
        match app {
            Some(app) => *labels = json!({"app": app.to_string()}),
            None if labels.get("note").is_some() => *labels = json!({}),
            None => *labels = json!({"note": "x"}),
        }
        if state != *self.latest(kind) {
            self.history[kind].push(state);
        }
    }

    fn delete(&mut self, kind: usize, name: &str) {
        let mut state = self.latest(kind).clone();
        if state.remove(name).is_some() {
            self.history[kind].push(state);
        }
    }

    fn latest(&self, kind: usize) -> &State {
        self.history[kind]
            .last()
            .expect("a history has a beginning")
    }

    fn deliver(&mut self, who: usize, kind: usize, events: usize) {
        let at = if who < self.agents.len() {
            self.agents[who].at[kind]
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
            if who < self.agents.len() {
                change(&mut self.agents[who].objects, kind, object, is_there);
            } else {
                self.controller.apply(event(kind, object, is_there), NOW);
            }
        }
        if who < self.agents.len() {
            self.agents[who].at[kind] = until.max(at);
        } else {
            self.at[kind] = until.max(at);
        }
    }

    fn relist(&mut self, who: usize, kind: usize) {
        let latest = self.history[kind].len() - 1;
        let state = &self.history[kind][latest];
        if who < self.agents.len() {
            list(&mut self.agents[who].objects, kind, state);
            self.agents[who].at[kind] = latest;
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
        let group = ObjectKey::cluster(GROUP);
        let resolved = resolve(&agent.objects);
        let exceptions = exceptions(&agent.objects, &resolved);
        let services = resolved.services;
        let used = json!({
            "virtualServices": agent.objects.virtual_services.digest(Some(GROUP)),
            "realServers": agent.objects.real_servers.digest(None),
            "directorGroups": agent.objects.director_groups.digest_of(&group),
        });
        let vips: Vec<_> = ["10.0.0.1", "10.0.0.2"]
            .iter()
            .map(|address| json!({"address": address, "interface": "eth0"}))
            .collect();
        let director = json!({
            "metadata": {"name": format!("director{director}"), "uid": format!("d{director}"), "generation": 1},
            "spec": {},
            "status": {"directorGroupName": GROUP, "used": used, "vips": vips, "exceptions": exceptions},
        });
        // What says the same as before is not written.
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
        for event in [
            Event::Leases(watcher::Event::Init),
            Event::Leases(watcher::Event::InitDone),
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

    fn settle(&mut self) {
        self.controller.settle();
        self.conditions = self.controller.wanted(NOW).virtual_services;
    }
}

/// What an agent says that only it can know: services that lose their VIP to
/// the last good version of one that is not acceptable any more.
fn exceptions(objects: &Objects, resolved: &Resolved) -> Vec<Value> {
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
    losers
        .map(|(key, _)| {
            json!({"virtualService": key.to_string(), "reason": "Conflict", "message": "it is taken"})
        })
        .collect()
}

fn parsed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("the model makes objects that parse")
}

fn event(kind: usize, object: &Value, is_there: bool) -> Event {
    macro_rules! event {
        ($event:ident) => {
            if is_there {
                Event::$event(watcher::Event::Apply(parsed(object)))
            } else {
                Event::$event(watcher::Event::Delete(parsed(object)))
            }
        };
    }
    match kind {
        SERVICES => event!(VirtualServices),
        SERVERS => event!(RealServers),
        _ => event!(DirectorGroups),
    }
}

fn listing(kind: usize) -> Event {
    match kind {
        SERVICES => Event::VirtualServices(watcher::Event::Init),
        SERVERS => Event::RealServers(watcher::Event::Init),
        _ => Event::DirectorGroups(watcher::Event::Init),
    }
}

fn item(kind: usize, object: &Value) -> Event {
    match kind {
        SERVICES => Event::VirtualServices(watcher::Event::InitApply(parsed(object))),
        SERVERS => Event::RealServers(watcher::Event::InitApply(parsed(object))),
        _ => Event::DirectorGroups(watcher::Event::InitApply(parsed(object))),
    }
}

fn listed(kind: usize) -> Event {
    match kind {
        SERVICES => Event::VirtualServices(watcher::Event::InitDone),
        SERVERS => Event::RealServers(watcher::Event::InitDone),
        _ => Event::DirectorGroups(watcher::Event::InitDone),
    }
}

/// One event of a director's watch.
fn change(objects: &mut Objects, kind: usize, object: &Value, is_there: bool) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let key = match kind {
        GROUPS => ObjectKey::cluster(name),
        _ => ObjectKey::new(NAMESPACE, name),
    };
    match (kind, is_there) {
        (SERVICES, true) => objects
            .virtual_services
            .change(Change::Apply(parsed(object))),
        (SERVERS, true) => objects.real_servers.change(Change::Apply(parsed(object))),
        (_, true) => objects
            .director_groups
            .change(Change::Apply(parsed(object))),
        (SERVICES, false) => objects.virtual_services.change(Change::Delete(key)),
        (SERVERS, false) => objects.real_servers.change(Change::Delete(key)),
        (_, false) => objects.director_groups.change(Change::Delete(key)),
    };
}

/// A listing of a director's watch.
fn list(objects: &mut Objects, kind: usize, state: &State) {
    match kind {
        SERVICES => {
            relist::<VirtualService, _>(state, |change| objects.virtual_services.change(change));
        }
        SERVERS => relist::<RealServer, _>(state, |change| objects.real_servers.change(change)),
        _ => relist::<DirectorGroup, _>(state, |change| objects.director_groups.change(change)),
    }
}

fn relist<K, F>(state: &State, mut change: F)
where
    K: kube::core::object::HasSpec<Spec: std::fmt::Debug + DeserializeOwned>,
    F: FnMut(Change<K>) -> bool,
{
    change(Change::Listing);
    for object in state.values() {
        change(Change::Item(parsed(object)));
    }
    change(Change::Listed);
}
