//! All objects that the controller has seen, and the statuses that follow from
//! these objects.

mod take;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::{
    Digest, Kind, ObjectKey, Objects, Resolved,
    api::DirectorStatus,
    check::{CheckedGroup, CheckedServer, CheckedService},
    condition,
};
use kube::{ResourceExt, runtime::watcher};

use crate::{
    aggregate::{self, DirectorView, Wanted},
    difference::Difference,
    event::{Event, ObservedDirector},
    history::{History, Places},
    kubernetes_event::AgentFlip,
    liveness::{Life, Liveness, Time},
    need::{self, Fingerprint, Need},
    outbox::Letter,
    renewals::{Place, Renewals},
    status::{Id, Status, Subject},
};

/// Everything that the controller knows. Callers pass in events and times, and
/// get the wanted statuses.
#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    resolved: Resolved,
    history: History,
    needs: BTreeMap<ObjectKey, Need>,
    directors: BTreeMap<String, KnownDirector>,
    renewals: Renewals,
    liveness: Liveness,
    /// The published statuses, as the watches show them.
    published: BTreeMap<Id, Status>,
    /// Objects that changed since the last [`World::resolve`].
    touched: BTreeSet<(Kind, ObjectKey)>,
    /// Kinds that were listed again since the last [`World::resolve`]. Any
    /// object of these kinds may have changed.
    relisted: BTreeSet<Kind>,
    unresolved: bool,
    listing: Listing,
    /// The changed conditions that the next [`World::agent_flips`] returns.
    agent_flips: Vec<AgentFlip>,
}

#[derive(Debug)]
struct KnownDirector {
    uid: String,
    generation: i64,
    status: DirectorStatus,
    unreadable: Vec<String>,
    places: Places,
    /// Whether the director was alive at the last call of
    /// [`World::lives_changed`].
    life: Life,
    /// Why the API server refused the director's report at that call, if it
    /// did.
    refused: Option<String>,
}

/// The progress of the listing of Directors. [`Renewals`] follows the listings
/// of Leases, and a [`crds::Store`] those of each other kind.
#[derive(Debug, Default)]
struct Listing {
    directors: BTreeSet<String>,
    directors_listed: bool,
}

impl World {
    /// Whether every watch has completed a listing. While this is false, no
    /// status may be published.
    pub fn is_listed(&self) -> bool {
        self.objects.is_listed() && self.listing.directors_listed && self.renewals.is_listed()
    }

    /// All objects, as the watches have shown them.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The result of the last [`World::resolve`].
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// Records a status that was just written, before the watch shows it.
    pub fn wrote(&mut self, id: &Id, status: Status) {
        if let Some(published) = self.published.get_mut(id) {
            *published = status;
        }
    }

    /// Returns the changes of the condition ProbesWorking since the last call.
    pub fn agent_flips(&mut self) -> Vec<AgentFlip> {
        std::mem::take(&mut self.agent_flips)
    }

    /// Returns all wanted statuses that differ from the published ones. The
    /// caller must call [`World::resolve`] first. Returns nothing until every
    /// watch has completed a listing.
    pub fn letters(&mut self, now: Time) -> Vec<Letter> {
        if !self.is_listed() {
            return Vec::new();
        }
        let wanted = self.wanted(now);
        wanted
            .into_statuses()
            .filter_map(|(id, status)| {
                let (uid, status) = self.addressed(&id, status)?;
                let published = self.published.get(&id);
                let difference = status.difference(published);
                (difference != Difference::None).then(|| Letter {
                    published: published.cloned(),
                    uid,
                    id,
                    status,
                    difference,
                })
            })
            .collect()
    }

    fn addressed(&self, id: &Id, mut status: Status) -> Option<(String, Status)> {
        let uid = match id.subject {
            Subject::VirtualService => &self.objects.virtual_services.get(&id.key)?.uid,
            Subject::RealServer => &self.objects.real_servers.get(&id.key)?.uid,
            Subject::DirectorGroup => &self.objects.director_groups.get(&id.key)?.uid,
            Subject::Director => {
                let director = self.directors.get(&*id.key.name)?;
                if let Status::Director(conditions) = &mut status {
                    for condition in conditions {
                        condition.observed_generation = Some(director.generation);
                    }
                }
                &director.uid
            }
        };
        Some((uid.clone(), status))
    }

    /// The time at which the next Lease expires and [`World::lives_changed`]
    /// may return true.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        self.liveness.next_deadline(now)
    }

    /// Whether since the last call a director died or came back, or the API
    /// server began or ceased to refuse its report. If so, the
    /// caller must compute [`World::wanted`] again.
    pub fn lives_changed(&mut self, now: Time) -> bool {
        let mut changed = false;
        for name in self.liveness.suspects(now) {
            let Some(director) = self.directors.get_mut(&name) else {
                continue;
            };
            let life = self.liveness.life(&name, now);
            let refused = self.liveness.refused(&name);
            if director.life != life || director.refused.as_deref() != refused {
                director.life = life;
                director.refused = refused.map(str::to_owned);
                changed = true;
            }
        }
        changed
    }

    /// Applies an event, and returns whether the result of [`World::wanted`]
    /// may have changed. Returns false for changes of single Leases, because
    /// most renewals change no status. [`World::lives_changed`] finds the
    /// directors that died or came back.
    pub fn apply(&mut self, event: Event, now: Time) -> bool {
        let matters = !matches!(
            event,
            Event::Leases(watcher::Event::Apply(_) | watcher::Event::Delete(_))
                | Event::DirectorLeases(watcher::Event::Apply(_) | watcher::Event::Delete(_))
        );
        let (renewals, liveness) = (&mut self.renewals, &mut self.liveness);
        match event {
            Event::VirtualServices(event) => self.take::<CheckedService>(event),
            Event::RealServers(event) => self.take::<CheckedServer>(event),
            Event::DirectorGroups(event) => self.take::<CheckedGroup>(event),
            Event::Directors(event) => self.directors(event, now),
            Event::Leases(event) => renewals.take(Place::Controller, event, liveness, now),
            Event::LeasesUnseen => renewals.blind(Place::Controller, liveness, now),
            Event::DirectorLeases(event) => renewals.take(Place::Directors, event, liveness, now),
            Event::DirectorLeasesUnseen => renewals.blind(Place::Directors, liveness, now),
        }
        matters
    }

    /// Resolves the current objects, and updates the [`Need`] of every
    /// VirtualService.
    pub fn resolve(&mut self) {
        self.touched.clear();
        self.relisted.clear();
        if !self.unresolved || !self.objects.is_listed() {
            return;
        }
        self.unresolved = false;
        let resolved = crds::resolve(&self.objects);
        let gone: BTreeSet<&str> = resolved.gone_groups.iter().map(String::as_str).collect();
        let unsure = self.objects.namespaces_with_outdated();
        let mut rivals: HashMap<(&str, &str), Digest> = HashMap::new();
        for (key, stored) in self.objects.virtual_services.iter() {
            let service = resolved.services.get(key);
            let group = service
                .map(|service| service.group.as_str())
                .or(stored.group.as_deref())
                .unwrap_or_default();
            let servers: Vec<&ObjectKey> = service
                .into_iter()
                .flat_map(|service| service.servers.iter().map(|server| &server.object))
                .chain(resolved.refused_by(key).map(|(server, _)| server))
                .collect();
            let is_cut = resolved.is_cut(key);
            let fingerprint = Fingerprint {
                own: stored.digest,
                servers: servers.iter().fold(Digest::default(), |digest, server| {
                    digest ^ self.objects.real_servers.digest_of(server)
                }),
                rivals: is_cut.then(|| {
                    let all = || self.objects.digest_of_namespace(group, &key.namespace);
                    *rivals.entry((group, &key.namespace)).or_insert_with(all)
                }),
                accepted: resolved.rejection(Kind::VirtualService, key).is_none(),
                group_gone: gone.contains(group),
            };
            let provable = !fingerprint.group_gone
                && stored.current.is_ok()
                && !(is_cut && unsure.contains(&*key.namespace))
                && servers
                    .iter()
                    .all(|server| resolved.rejection(Kind::RealServer, server).is_none());
            let before = self.resolved.services.get(key);
            if let Some(need) = self.needs.get_mut(key)
                && need.fingerprint == fingerprint
                && before == service
            {
                need.provable = provable;
                continue;
            }
            self.history.know_group(group);
            let since = self.history.now(group);
            let need = Need {
                fingerprint,
                since,
                provable,
                servers: need::servers(service, before.zip(self.needs.get(key)), since),
            };
            self.needs.insert(key.clone(), need);
        }
        self.needs
            .retain(|key, _| self.objects.virtual_services.get(key).is_some());
        self.resolved = resolved;
    }

    /// Computes the status that every object should have now. The caller must
    /// call [`World::resolve`] first.
    pub fn wanted(&mut self, now: Time) -> Wanted {
        for director in self.directors.values_mut() {
            self.history.follow(
                &mut director.places,
                &director.status.director_group_name,
                director.status.used.as_ref(),
            );
        }
        let directors: Vec<DirectorView<'_>> = self
            .directors
            .iter()
            .map(|(name, director)| DirectorView {
                name,
                life: self.liveness.life(name, now),
                refused: self.liveness.refused(name),
                places: &director.places,
                status: &director.status,
                unreadable: &director.unreadable,
            })
            .collect();
        aggregate::wanted(&self.objects, &self.resolved, &self.needs, &directors)
    }

    fn directors(&mut self, event: watcher::Event<ObservedDirector>, now: Time) {
        match event {
            watcher::Event::Init => self.listing.directors.clear(),
            watcher::Event::InitApply(director) => {
                self.listing.directors.insert(director.name_any());
                self.director_seen(director, now);
            }
            watcher::Event::InitDone => {
                self.listing.directors_listed = true;
                let there = std::mem::take(&mut self.listing.directors);
                let gone: Vec<String> = self
                    .directors
                    .keys()
                    .filter(|name| !there.contains(*name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.director_gone(&name);
                }
            }
            watcher::Event::Apply(director) => self.director_seen(director, now),
            watcher::Event::Delete(director) => self.director_gone(&director.name_any()),
        }
    }

    fn director_seen(&mut self, director: ObservedDirector, now: Time) {
        let name = director.name_any();
        let uid = director.uid().unwrap_or_default();
        let generation = director.metadata.generation.unwrap_or_default();
        let status = director.status;
        let id = director_id(&name);
        if self
            .directors
            .get(&name)
            .is_some_and(|before| before.uid != uid)
        {
            self.director_gone(&name);
        }
        let reported_dead = status.conditions.iter().any(|condition| {
            condition.type_ == condition::kind::ALIVE && condition.status == "False"
        });
        if let Some(before) = self.directors.get(&name) {
            let before = &before.status.conditions;
            let flips = AgentFlip::between(&id.key, &uid, before, &status.conditions);
            self.agent_flips.extend(flips);
        }
        self.liveness.director(&name, reported_dead, now);
        let seen = self.directors.entry(name).or_insert_with(|| KnownDirector {
            uid,
            generation,
            status: DirectorStatus::default(),
            unreadable: Vec::new(),
            places: Places::default(),
            life: Life::NoLease,
            refused: None,
        });
        self.history.follow(
            &mut seen.places,
            &status.director_group_name,
            status.used.as_ref(),
        );
        self.published
            .insert(id, Status::Director(status.conditions.clone()));
        seen.generation = generation;
        seen.status = status;
        seen.unreadable = director.unreadable;
    }

    fn director_gone(&mut self, name: &str) {
        self.directors.remove(name);
        self.published.remove(&director_id(name));
        self.liveness.director_gone(name);
    }
}

fn director_id(name: &str) -> Id {
    Id {
        subject: Subject::Director,
        key: ObjectKey::cluster(name),
    }
}
